"""Replays of recorded runs and of plans that were asked for alone; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Final

from bench.evaluate.methods import BASELINE
from bench.evaluate.records import Record, Records
from bench.evaluate.replay import Length, Part, Replay
from bench.plan_figures import PlanText, read_plan
from proto.messages import NodeSpec, PlanCompleted, RequestFailed, SkeletonDrafted
from services.planner.parser import DIRECT_WORDS, END_LINE

#: As `SubmitRequest` has it where the client says nothing.
MAX_NODES: Final = 12
#: One of the words by which a plan says that the answer is direct.
_DIRECT: Final = DIRECT_WORDS[0]

#: Says how many tokens a text has.
Count = Callable[[str], int]


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
        nodes = _as_planned(read.nodes)
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


def _as_planned(specs: Iterable[NodeSpec]) -> tuple[Length, ...]:
    return tuple(Length(node=spec.id, tokens=spec.budget_tokens, finish="stop") for spec in specs)


def _nodes(record: Record, records: Records) -> tuple[Length, ...]:
    if _decomposes(record):
        return _as_planned(record.specs)
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
