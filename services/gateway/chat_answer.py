"""From a request's events to a chat completion: its text, its end, its chunks. Pure."""

from __future__ import annotations

from typing import Final, Literal

import orjson

from proto.messages import (
    JOINT,
    AnswerAssembled,
    Fact,
    NodeDecoded,
    PlanCompleted,
    Preview,
    TokensDecoded,
    Usage,
)
from proto.names import DIRECT_NODE
from services.gateway.chat_bodies import (
    AnswerMessage,
    AnswerNode,
    AnswerReport,
    ChatCompletion,
    ChatUsage,
    Choice,
)
from services.gateway.cutting import Cutter
from services.gateway.errors import Json
from services.gateway.sse import escaped
from services.gateway.sse import event as sse_event
from services.runtime.client import END_TYPES, Ending
from services.runtime.order import Grain, Mark, OrderedText

FinishReason = Literal["stop", "length"]

PREFIX: Final = "chatcmpl-"


class AnswerText:
    """A fold of a request's events into the answer's text, cut off where the caller wishes.

    Args:
        request: its id.
        grain: in what portions text comes. With `nodes` what is void is taken back, elsewhere it
            has gone out already and stays.
        cutter: cuts.
    """

    def __init__(self, request: str, grain: Grain, cutter: Cutter) -> None:
        self.request = request
        self.end: Ending | None = None
        self._grain = grain
        self._order = OrderedText(grain)
        self._cutter = cutter
        self._plan: PlanCompleted | None = None
        self._usage: dict[int, Usage] = {}  # of nodes that are done
        self._running: dict[int, int] = {}  # of others, tokens so far
        self._made_anew: list[int | None] = []
        self.text = ""

    @property
    def is_done(self) -> bool:
        """Whether no more text comes."""
        return self.end is not None or self._cutter.reason is not None

    def fold(self, event: Fact | Preview) -> str:
        """Take in an event and return the text that it brings."""
        if self.is_done:
            return ""
        self._count(event)
        new = "".join(self._passed(output) for output in self._order.fold(event))
        if isinstance(event, END_TYPES):
            self.end = event
            new += self._cutter.finish()
        self.text += new
        return new

    def _passed(self, output: str | Mark) -> str:
        if isinstance(output, str):
            return self._cutter.feed(output)
        self._made_anew.append(output.node)
        if self._grain == "nodes" and output.node is None:
            self.text = ""
            self._cutter.begin_anew()
            return ""
        return self._cutter.feed(JOINT)

    def _count(self, event: Fact | Preview) -> None:
        self._cutter.count(event)
        if isinstance(event, TokensDecoded):
            self._running[event.node] = event.tokens
        elif isinstance(event, NodeDecoded):
            self._usage[event.node] = event.usage
        elif isinstance(event, PlanCompleted):
            self._plan = event

    @property
    def finish_reason(self) -> FinishReason:
        """Why the text ends: `length` at the caller's limit, or at the engine's if it is direct."""
        if self._cutter.reason:
            return self._cutter.reason
        nodes = self.end.nodes if isinstance(self.end, AnswerAssembled) else ()
        direct = nodes and nodes[0].node.id == DIRECT_NODE
        return nodes[0].finish_reason if direct else "stop"

    @property
    def usage(self) -> ChatUsage:
        """Tokens of plan and nodes; where the answer was cut off, as far as is known."""
        if isinstance(self.end, AnswerAssembled):
            return ChatUsage.of(self.end.usage)
        spent = self._plan.usage if self._plan else Usage()
        running = sum(n for node, n in self._running.items() if node not in self._usage)
        known = [*self._usage.values(), Usage(generated_tokens=running)]
        return ChatUsage.of(sum(known, spent))

    @property
    def report(self) -> AnswerReport:
        """What only Skelgraph tells."""
        anew = tuple(self._made_anew) if self._grain != "nodes" else ()
        if isinstance(self.end, AnswerAssembled):
            return _report(self.end, anew, cut_off=self._cutter.reason is not None)
        mode = self._plan.mode if self._plan else None
        return AnswerReport(request=self.request, mode=mode, cut_off=True, made_anew=anew)


def _report(
    end: AnswerAssembled, made_anew: tuple[int | None, ...], *, cut_off: bool
) -> AnswerReport:
    return AnswerReport(
        request=end.request,
        mode=end.mode,
        fallback=end.fallback,
        cut_off=cut_off,
        made_anew=made_anew,
        nodes=tuple(
            AnswerNode(
                id=report.node.id,
                summary=report.node.summary,
                needs=report.node.needs,
                pool=report.pool,
                model=report.model,
                attempt=report.attempt,
                finish_reason=report.finish_reason,
                queued_ms=report.queued_ms,
                first_token_ms=report.first_token_ms,
                decode_ms=report.decode_ms,
                usage=report.usage,
            )
            for report in end.nodes
        ),
        timings=end.timings,
    )


def completion(answer: AnswerText, model: str, created: int) -> ChatCompletion:
    """Return the whole answer."""
    choice = Choice(message=AnswerMessage(content=answer.text), finish_reason=answer.finish_reason)
    return ChatCompletion(
        id=PREFIX + answer.request,
        created=created,
        model=model,
        choices=(choice,),
        usage=answer.usage,
        skelgraph=answer.report,
    )


def headers(answer: AnswerText) -> dict[str, str]:
    """Return what the headers tell of an answer; times are in milliseconds."""
    report = answer.report
    said = {"X-Request-Id": answer.request, "X-Skelgraph-Mode": report.mode or ""}
    if report.nodes is not None:
        said["X-Skelgraph-Nodes"] = str(len(report.nodes))
    if timings := report.timings:
        said |= {
            "X-Skelgraph-Wall-Ms": f"{timings.wall_ms:.0f}",
            "X-Skelgraph-Plan-Ms": f"{timings.plan_ms:.0f}",
            "X-Skelgraph-Critical-Path-Ms": f"{timings.critical_engine_ms:.0f}",
            "X-Skelgraph-Overhead-Ms": f"{timings.overhead_ms:.1f}",
            "OpenAI-Processing-Ms": f"{timings.wall_ms:.0f}",
        }
    return said


class Chunks:
    """The chunks of a streamed answer, as events.

    Args:
        request: the request's id.
        model: the model's name, as it was asked for.
        created: seconds since the epoch.
        with_usage: whether a chunk with the usage comes last.
    """

    def __init__(self, request: str, model: str, created: int, *, with_usage: bool) -> None:
        self._common: Json = {
            "id": PREFIX + request,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "system_fingerprint": None,
        }
        self._with_usage = with_usage
        # What stands around the text of each chunk; text is most of what is sent.
        whole = self._chunk([_choice({"content": "\0"})])
        self._before, self._after = whole.split(b'"\\u0000"')

    def first(self) -> bytes:
        """The chunk that names the role."""
        return self._chunk([_choice({"role": "assistant", "content": "", "refusal": None})])

    def text(self, text: str) -> bytes:
        """A chunk of text."""
        return self._before + escaped(orjson.dumps(text)) + self._after

    def last(self, answer: AnswerText) -> bytes:
        """The chunk that ends the text, and the usage if it was asked for."""
        report = {"skelgraph": answer.report.model_dump(mode="json")}
        end = self._chunk([_choice({}, answer.finish_reason)], **report)
        if not self._with_usage:
            return end
        return end + self._chunk([], usage=answer.usage.model_dump(mode="json"))

    def _chunk(self, choices: list[Json], **more: object) -> bytes:
        usage = {"usage": None} if self._with_usage else {}
        return sse_event(orjson.dumps({**self._common, "choices": choices, **usage, **more}))


def _choice(delta: Json, finish_reason: str | None = None) -> Json:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
