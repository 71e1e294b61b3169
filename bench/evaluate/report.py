"""The report on recorded answers, in the form of the paper's tables; pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.evaluate.figures import EXACT, geometric_mean, groups, spread, table
from bench.evaluate.judging import Outcome, tally
from bench.evaluate.methods import BASELINE
from bench.evaluate.records import Record, Records
from proto.messages import AnswerAssembled, PlanCompleted, SkeletonDrafted
from services.planner.gate import depth, width

#: How the first method fared against the second, by judge.
ByJudge = Mapping[str, Sequence[Outcome]]
#: The same, by the two methods.
Judged = Mapping[tuple[str, str], ByJudge]
#: The judge who fills sheets.
BY_HAND = "hand"
NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class Compared:
    """A question answered by a method and by direct.

    Args:
        record: of the method.
        baseline: of direct.
    """

    record: Record
    baseline: Record

    @property
    def category(self) -> str:
        """Of the question."""
        return self.record.category

    @property
    def latency(self) -> float:
        """Time of direct by that of the method: more is faster."""
        return wall_ms(self.baseline) / wall_ms(self.record)

    @property
    def speed(self) -> float | None:
        """Tokens of the answer a second, by those of direct; None where an engine counts none."""
        method, direct = tokens_a_s(self.record), tokens_a_s(self.baseline)
        return method / direct if method and direct else None


def compared(records: Records, method: str) -> list[Compared]:
    """Return the questions that both `method` and direct have answered."""
    pairs = [
        (record, records.find(record.question, BASELINE))
        for record in records.all()
        if record.method == method and record.answer
    ]
    return [Compared(record, base) for record, base in pairs if base and base.answer]


def wall_ms(record: Record) -> float:
    """Return how long the answer took."""
    return record.answer.timings.wall_ms if record.answer else float("nan")


def answer_tokens(record: Record) -> int:
    """Return the tokens of the answer, without those of its plan."""
    end = record.answer
    return sum(node.usage.generated_tokens for node in end.nodes) if end else 0


def tokens_a_s(record: Record) -> float:
    """Return the tokens of the answer a second; 0 where the engine counts none."""
    return 1000 * answer_tokens(record) / wall_ms(record)


def plan_share(record: Record) -> float | None:
    """Return the share of the wall time that the planning call lasted; None without a plan."""
    end = record.answer
    return end.timings.plan_ms / end.timings.wall_ms if end and record.plan else None


def plan_of(record: Record) -> PlanCompleted | None:
    """Return how the plan ended; None if there was none to end."""
    end = record.end
    return end.plan if isinstance(end, AnswerAssembled | SkeletonDrafted) else None


def is_whole(record: Record) -> bool:
    """Say whether the model wrote a valid plan to its end."""
    plan = plan_of(record)
    return plan is not None and plan.reason not in ("unparsable", "cut_off", "no_planner")


def methods_table(records: Records) -> str:
    """Return one row a method: how much, how long, how fast."""
    header = ["method", "answers", "decomposed", "s, median", "answer tokens", "tokens/s"]
    header += ["plan share", "nodes", "depth", "width", "first text s, median"]
    rows = []
    for method in records.methods():
        some = [r for r in records.all() if r.method == method and r.answer]
        if some:
            rows.append([method, *_method_row(some)])
    return table(header, rows)


def paper_table(records: Records, method: str, judged: Judged) -> str:
    """Return the table of the paper for `method` against direct: by category and overall."""
    by_judge = judged.get((method, BASELINE), {})
    header = ["category", "n", "latency ratio", "tokens/s ratio", "answer tokens", "direct's"]
    header += _net_win_header(by_judge)
    rows = [
        [
            name,
            str(len(some)),
            spread([one.latency for one in some]),
            spread([speed for one in some if (speed := one.speed) is not None]),
            _mean_tokens([one.record for one in some]),
            _mean_tokens([one.baseline for one in some]),
            *_net_win(by_judge, [one.record for one in some]),
        ]
        for name, some in groups(compared(records, method), lambda one: one.category)
    ]
    return table(header, rows)


def judged_table(pair: tuple[str, str], by_judge: ByJudge) -> str:
    """Return net win rates by category, a column a judge."""
    header = [f"{pair[0]} against {pair[1]}", *_net_win_header(by_judge)]
    # Two judges may have looked at the same question: one line of the table all the same.
    asked = {one.question: one for found in by_judge.values() for one in found}
    rows = [
        [name, *_net_win(by_judge, some)]
        for name, some in groups(list(asked.values()), lambda one: one.category)
    ]
    return table(header, rows)


def plans_table(records: Records, method: str) -> str:
    """Return what the plans of `method` are like, by category."""
    header = ["category", "n", "valid and whole", "direct", "nodes", "depth", "width"]
    header += ["with needs", "easy", "plan tokens", "reasons"]
    some = [record for record in records.all() if record.method == method and plan_of(record)]
    return table(
        header, [[name, *_plans_row(of)] for name, of in groups(some, lambda r: r.category)]
    )


def report(records: Records, judged: Judged) -> str:
    """Return everything, as Markdown."""
    parts = ["## Methods", methods_table(records)]
    others = [method for method in records.methods() if method != BASELINE]
    for method in others:
        if compared(records, method):
            parts += [f"## `{method}` against `{BASELINE}`", paper_table(records, method, judged)]
    for pair, found in judged.items():
        if pair[1] != BASELINE:
            parts += [f"## `{pair[0]}` against `{pair[1]}`", judged_table(pair, found)]
    for method in others:
        parts += [f"## Plans of `{method}`", plans_table(records, method)]
    failed = [
        f"- {r.question} by {r.method}: {r.end.model_dump()['error']}" for r in records.failed()
    ]
    parts += ["## Failures", "\n".join(failed) or "None."]
    return "\n\n".join(parts) + "\n"


def _net_win_header(by_judge: ByJudge) -> list[str]:
    counts = "(wins / ties / losses)"
    return [f"net win rate by {judge} {counts}" for judge in by_judge] or [f"net win rate {counts}"]


def _net_win(by_judge: ByJudge, some: Sequence[Record | Outcome]) -> list[str]:
    """Return the net win rates on the questions of `some`, a judge each."""
    asked = {one.question: one.category for one in some}
    needs_reference = bool(asked) and set(asked.values()) <= set(EXACT)
    found = [[one for one in all_ if one.question in asked] for all_ in by_judge.values()]
    missing = f"{NOT_JUDGED}: a model needs references" if needs_reference else NOT_JUDGED
    return [str(tally(one)) if one else missing for one in found] or [NOT_JUDGED]


def _method_row(some: Sequence[Record]) -> list[str]:
    shares = [share for record in some if (share := plan_share(record)) is not None]
    planned = [record for record in some if record.answer and record.answer.mode != "direct"]
    speeds = [speed for record in some if (speed := tokens_a_s(record))]
    firsts = [r.first_text_ms / 1000 for r in some if r.first_text_ms is not None]
    return [
        str(len(some)),
        str(len(planned)),
        f"{statistics.median(wall_ms(record) for record in some) / 1000:.1f}",
        _mean_tokens(some),
        f"{geometric_mean(speeds):.2f}" if speeds else "–",
        f"{statistics.median(shares):.0%}" if shares else "–",
        *_shape(planned),
        f"{statistics.median(firsts):.1f}" if firsts else "–",
    ]


def _plans_row(some: Sequence[Record]) -> list[str]:
    planned = [r for r in some if (plan := plan_of(r)) and plan.mode != "direct"]
    specs = [spec for record in planned for spec in record.specs]
    reasons = sorted({plan.reason for r in some if (plan := plan_of(r))})
    tokens = [plan.usage.generated_tokens for r in some if (plan := plan_of(r))]
    return [
        str(len(some)),
        str(sum(map(is_whole, some))),
        str(len(some) - len(planned)),
        *_shape(planned),
        _share(sum(bool(spec.needs) for spec in specs), len(specs)),
        _share(sum(spec.difficulty == "easy" for spec in specs), len(specs)),
        f"{statistics.fmean(tokens):.0f}",
        ", ".join(f"{reason} {_count(some, reason)}" for reason in reasons),
    ]


def _count(some: Sequence[Record], reason: str) -> int:
    return sum(plan.reason == reason for r in some if (plan := plan_of(r)))


def _mean_tokens(some: Sequence[Record]) -> str:
    """Return the mean of the answers whose tokens were counted."""
    counted = [tokens for record in some if (tokens := answer_tokens(record))]
    return f"{statistics.fmean(counted):.0f}" if counted else "–"


def _shape(planned: Sequence[Record]) -> list[str]:
    def mean(figure: Callable[[Record], float]) -> str:
        return f"{statistics.fmean(map(figure, planned)):.1f}" if planned else "–"

    return [
        mean(lambda record: len(record.specs)),
        mean(lambda record: depth(record.specs)),
        mean(lambda record: width(record.specs)),
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "–"
