"""Plans and lengths of real runs, and the replies by which simulated engines repeat them; pure.

What is committed holds the ids and categories of the questions, the plans and the numbers of
tokens, no question and no answer. A replayed question is a mark of its own and filler of the
same length.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Final

from bench.evaluate.records import Frozen, Record, Records
from bench.simulated_engine.tokens import pieces
from proto.messages import FinishReason, RequestFailed, SkeletonDrafted
from proto.names import DIRECT_NODE
from services.planner.parser import END_LINE, Planned, PlanParser
from services.planner.prompts import plan_call

#: How long a node is of which no length was recorded, if there is none to go by.
NODE_TOKENS: Final = 120

Count = Callable[[str], int]


class Part(Frozen):
    """A piece of the plan, with the tokens that the model's own tokeniser makes of it."""

    text: str
    tokens: int


class Length(Frozen):
    """The tokens of a node's text, without the one that ends it."""

    node: int
    tokens: int
    finish: FinishReason


class Replay(Frozen):
    """A question as it was answered by a method.

    Args:
        question: its id in the file.
        category: of the question.
        question_tokens: its length.
        method: name of the method.
        plan: as the model wrote it; empty if it was not asked for one.
        nodes: of the answer, in plan order.
    """

    question: str
    category: str
    question_tokens: int
    method: str
    plan: tuple[Part, ...] = ()
    nodes: tuple[Length, ...] = ()

    @property
    def mark(self) -> str:
        """What tells its calls from those of all others."""
        return f"[{self.question} {self.method}]"

    @property
    def is_direct(self) -> bool:
        """Whether the answer was direct."""
        return tuple(one.node for one in self.nodes) == (DIRECT_NODE,)

    @property
    def lines(self) -> tuple[str, ...]:
        """The plan's node lines."""
        return tuple(part.text.rstrip("\n") for part in self.plan if "|" in part.text)

    def planned(self) -> list[Planned]:
        """Return the plan's nodes."""
        items = PlanParser().feed("".join(part.text for part in self.plan) + "\n")
        return [item for item in items if isinstance(item, Planned)]


# --- from records ---------------------------------------------------------------------


def replays(records: Records, questions: Mapping[str, str], count: Count) -> list[Replay]:
    """Return what `records` hold, for those of `questions` (texts by id) that they have.

    Method `auto` may have been recorded without texts: its gate decides; where it decomposes, the
    plan and the lengths are those of `sgd`, where it does not, those of `direct`.
    """
    found = []
    for record in records.all():
        text = questions.get(record.question)
        nodes = _nodes(record, records)
        if text is None or not nodes:
            continue
        found.append(
            Replay(
                question=record.question,
                category=record.category,
                question_tokens=count(text),
                method=record.method,
                plan=_plan(_planned_like(record, records), count),
                nodes=nodes,
            )
        )
    return found


def _nodes(record: Record, records: Records) -> tuple[Length, ...]:
    if record.end.type == "SkeletonDrafted":
        other = records.find(record.question, "sgd" if _decomposes(record) else "direct")
        return _nodes(other, records) if other and other.answer else ()
    if record.answer is None:
        return ()
    return tuple(
        Length(
            node=report.node.id,
            # The token that ends a text is one of those that engines count.
            tokens=max(1, report.usage.generated_tokens - (report.finish_reason == "stop")),
            finish=report.finish_reason,
        )
        for report in record.answer.nodes
    )


def _planned_like(record: Record, records: Records) -> Record:
    """Return whose plan is repeated: its own, unless it would go with texts of another's."""
    return (records.find(record.question, "sgd") or record) if _decomposes(record) else record


def _decomposes(record: Record) -> bool:
    return isinstance(record.end, SkeletonDrafted) and record.end.mode != "direct"


def _plan(record: Record, count: Count) -> tuple[Part, ...]:
    if isinstance(record.end, RequestFailed):
        return ()
    if not record.plan:
        if record.end.plan.reason == "forced":
            return ()
        return (Part(text="direct", tokens=count("direct")),)
    has_needs = any("needs" in one.line.rpartition("|")[2] for one in record.plan)
    texts = ["graph\n" if has_needs else "list\n", *(f"{one.line}\n" for one in record.plan)]
    return tuple(Part(text=text, tokens=count(text)) for text in [*texts, END_LINE])


# --- as replies -----------------------------------------------------------------------


def question_of(replay: Replay, nonce: str) -> str:
    """Return the question to ask: `nonce` first, so that no cache knows it from another time."""
    head = f"{nonce} {replay.mark}"
    return head + " light" * max(0, replay.question_tokens - len(pieces(head)))


def replies(replay: Replay, direct_tokens: int | None = None) -> list[dict[str, object]]:
    """Return the lines of `--replies` that answer all calls which `replay` leads to.

    Args:
        replay: what is repeated.
        direct_tokens: length of the direct answer, where it is not `replay`'s own.
    """
    mark, lengths = replay.mark, {one.node: one.tokens for one in replay.nodes}
    usual = round(median(lengths.values())) if lengths else NODE_TOKENS
    known = {**dict.fromkeys((one.node.id for one in replay.planned()), usual), **lengths}
    known.setdefault(DIRECT_NODE, direct_tokens or usual)
    lines: list[dict[str, object]] = [
        {"within": mark, "match": node_mark(node), "reply": prose(tokens), "tokens": tokens}
        for node, tokens in known.items()
        if node != DIRECT_NODE
    ]
    if replay.plan:
        # Where the large model looks over the small one's draft it finds nothing to amend.
        lines.append({"within": mark, "match": "\n\nOutline:\n", "reply": "ok", "tokens": 1})
        lines.append(
            {
                "within": plan_mark(),
                "match": mark,
                "reply": [part.text for part in replay.plan],
                "tokens": [part.tokens for part in replay.plan],
            }
        )
    direct = known[DIRECT_NODE]
    return [*lines, {"match": mark, "reply": prose(direct), "tokens": direct}]


def node_mark(node: int) -> str:
    """Return what stands in the last message of the call for `node`, and of no other node's."""
    return f"[Write part {node}:"


def plan_mark() -> str:
    """Return what stands in planning calls only."""
    return plan_call("?", mode="auto", max_nodes=1).messages[0].content[:40]


def prose(tokens: int) -> str:
    """Return a text of so many tokens."""
    return "Light" + " light" * (tokens - 2) + ("." if tokens > 1 else "")


def as_lines(lines: Iterable[Mapping[str, object]]) -> str:
    """Return a file of replies."""
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def direct_lengths(all_: Sequence[Replay]) -> dict[str, int]:
    """Return the length of each question's direct answer."""
    return {one.question: one.nodes[0].tokens for one in all_ if one.is_direct and one.nodes}
