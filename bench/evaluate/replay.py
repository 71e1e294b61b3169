"""Plans and lengths of real runs, and the replies by which simulated engines repeat them; pure.

What is committed holds the ids and categories of the questions, the plans and the numbers of
tokens, no question and no answer. A replayed question is a mark of its own and filler of the
same length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from statistics import median
from typing import Final, Literal

from bench.evaluate.methods import BASELINE
from bench.evaluate.records import Frozen, Record, Records
from bench.plan_figures import PlanText, read_plan
from bench.simulated_engine.tokens import pieces
from proto.errors import PlanRejected
from proto.messages import FinishReason, PlanCompleted, RequestFailed, SkeletonDrafted
from proto.names import DIRECT_NODE
from services.planner.parser import DIRECT_WORDS, END_LINE, Planned
from services.planner.prompts import plan_call
from services.planner.reading import PlanReader

#: As `SubmitRequest` has it where the client says nothing.
MAX_NODES: Final = 12
#: How long a node is of which no length was recorded, if there is none to go by.
NODE_TOKENS: Final = 120

#: One of the words by which a plan says that the answer is direct.
_DIRECT: Final = DIRECT_WORDS[0]
_FORCED: Final = {"sgd": "graph\n", "sot": "list\n"}
_IDS: Final = re.compile(r"\d|,")

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
        plan: as the model wrote it, or the lines that were published with the tokens of all that it
            wrote; empty if it was not asked for one.
        nodes: of the answer, in plan order.
        lengths: whether the nodes' lengths are those that were written, or what the plan asked for.
    """

    question: str
    category: str
    question_tokens: int
    method: str
    plan: tuple[Part, ...] = ()
    nodes: tuple[Length, ...] = ()
    lengths: Literal["recorded", "planned"] = "recorded"

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
        """Return the plan's nodes, as the planner publishes them."""
        return [planned for _, planned in self.placed()]

    def placed(self) -> list[tuple[int, Planned]]:
        """Return them, each with the place in `plan` of the part that completes its line.

        A point that repeats an earlier one is no node, but its line was written.
        """
        reader, found = PlanReader(), []
        with suppress(PlanRejected):  # what stands before a line that is none was published
            for place, part in enumerate(self.plan):
                items = reader.feed(part.text)
                found += [(place, item) for item in items if isinstance(item, Planned)]
        return found


# --- from records ---------------------------------------------------------------------


def replays(records: Records, questions: Mapping[str, str], count: Count) -> list[Replay]:
    """Return what `records` hold, for those of `questions` (texts by id) that they have.

    A method recorded without texts has the lengths that its plan asked for, or those of `direct`
    where its gate said so.
    """
    found = []
    for record in records.all():
        text, nodes = questions.get(record.question), _nodes(record, records)
        if text is not None and nodes:
            found.append(
                Replay(
                    question=record.question,
                    category=record.category,
                    question_tokens=count(text),
                    method=record.method,
                    plan=_plan(record, count),
                    nodes=nodes,
                    lengths="planned" if _decomposes(record) else "recorded",
                )
            )
    return found


def replays_of_plans(
    plans: Iterable[PlanText], records: Records, questions: Mapping[str, str], count: Count
) -> list[Replay]:
    """Return plans of `bench.plans` as replays, with the lengths that they asked for.

    Where the answer would be direct its length is that in `records`; without one there is none.
    """
    found = []
    for plan in plans:
        read, text = (
            read_plan(plan, checked=True, max_nodes=MAX_NODES),
            questions.get(plan.question),
        )
        direct = records.find(plan.question, BASELINE)
        nodes = tuple(
            Length(node=spec.id, tokens=spec.budget_tokens, finish="stop") for spec in read.nodes
        )
        if not read.decomposed:
            nodes = _nodes(direct, records) if direct else ()
        if text is not None and nodes:
            parts = plan.text.splitlines(keepends=True)
            found.append(
                Replay(
                    question=plan.question,
                    category=plan.category,
                    question_tokens=count(text),
                    method=plan.mode,
                    plan=tuple(Part(text=part, tokens=count(part)) for part in parts),
                    nodes=nodes,
                    lengths="planned" if read.decomposed else "recorded",
                )
            )
    return found


def _nodes(record: Record, records: Records) -> tuple[Length, ...]:
    if _decomposes(record):
        return tuple(
            Length(node=spec.id, tokens=spec.budget_tokens, finish="stop") for spec in record.specs
        )
    if isinstance(record.end, SkeletonDrafted):
        direct = records.find(record.question, BASELINE)
        return _nodes(direct, records) if direct else ()
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


def _decomposes(record: Record) -> bool:
    """Whether it is a skeleton without texts, of more than a direct answer."""
    return isinstance(record.end, SkeletonDrafted) and record.end.mode != "direct"


def _plan(record: Record, count: Count) -> tuple[Part, ...]:
    if isinstance(record.end, RequestFailed):
        return ()
    if not record.plan:
        asked = record.end.plan.reason != "forced"
        return (Part(text=_DIRECT, tokens=count(_DIRECT)),) if asked else ()
    has_needs = any("needs" in one.line.rpartition("|")[2] for one in record.plan)
    texts = ["graph\n" if has_needs else "list\n", *(f"{one.line}\n" for one in record.plan)]
    parts = [Part(text=text, tokens=count(text)) for text in [*texts, END_LINE]]
    return _stretched(parts, _written_tokens(record.end.plan))


def _written_tokens(plan: PlanCompleted) -> int:
    """Return the tokens of the whole plan as the engine counted them; 0 where it is not known."""
    calls = len(plan.calls) or 1
    # Two calls are a draft and its amendment, or one that failed.
    return plan.usage.generated_tokens - 1 if calls == 1 else 0  # without the one that ends it


def _stretched(parts: Sequence[Part], tokens: int) -> tuple[Part, ...]:
    """Return `parts` with `tokens` in all, if they have fewer.

    The lines of points that were left out are not published, but have been waited for. Where they
    stood is not known, so each part takes its share; no part has more tokens than characters.
    """
    ends = list(accumulate(part.tokens for part in parts))
    factor = max(1.0, tokens / ends[-1])
    longer = [round(end * factor) for end in ends]
    counts = [end - before for end, before in zip(longer, [0, *longer], strict=False)]
    return tuple(
        Part(text=part.text, tokens=min(count, max(part.tokens, len(part.text))))
        for part, count in zip(parts, counts, strict=True)
    )


def as_method(replay: Replay, name: str, mode: str) -> Replay:
    """Return `replay` as a method asks for it of which nothing was recorded.

    The same plan, under the word that the mode forces; for `sot` without needs.
    """
    plan = replay.plan
    if plan and not replay.is_direct and mode in _FORCED:
        lines = [_without_needs(part) if mode == "sot" else part for part in plan[1:]]
        plan = (Part(text=_FORCED[mode], tokens=plan[0].tokens), *lines)
    return replay.model_copy(update={"method": name, "plan": plan})


def _without_needs(part: Part) -> Part:
    """Return a line without its needs, and without their tokens: a word, a space, `1,2,3`."""
    kept, needs, ids = part.text.rstrip("\n").partition(" needs ")
    if not needs:
        return part
    return Part(text=f"{kept}\n", tokens=max(1, part.tokens - 2 - len(_IDS.findall(ids))))


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
