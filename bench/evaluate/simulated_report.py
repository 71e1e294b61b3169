"""The tables of a simulation: latency against direct, beside what could be had at best; pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.evaluate.bound import bound_s
from bench.evaluate.figures import groups, spread, table
from bench.evaluate.methods import BASELINE, Way
from bench.evaluate.replay import Replay
from bench.evaluate.simulation import Timed
from bench.simulated_engine.profiles import Profile
from proto.names import Pool


@dataclass(frozen=True, slots=True)
class Ratio:
    """How a method compares with direct on one question.

    Args:
        category: of the question.
        latency: time of direct by the time of the method: more is faster.
        at_equal_length: `latency`, divided by how many times as long direct's answer is, in tokens:
            the ratio of their tokens a second. What a method gains by writing less is not in it.
        bound: what `latency` could be at best, see `bound`.
    """

    category: str
    latency: float
    at_equal_length: float
    bound: float


def ratios(
    timed: Sequence[Timed],
    method: str,
    concurrency: int,
    bounds: Mapping[str, float],
) -> list[Ratio]:
    """Return the ratios of each question that both methods answered at that concurrency."""
    direct, other = (_by_question(timed, name, concurrency) for name in (BASELINE, method))
    return [
        Ratio(
            category=many[0].category,
            latency=_wall_ms(direct[question]) / _wall_ms(many),
            at_equal_length=_tokens_a_s(many) / _tokens_a_s(direct[question]),
            bound=bounds.get(question, float("nan")),
        )
        for question, many in other.items()
        if question in direct
    ]


def bounds(
    replays: Sequence[Replay], method: str, pair: Mapping[Pool, Profile], way: Way
) -> dict[str, float]:
    """Return the best ratio that `method` can have on each question."""
    direct = {one.question: one for one in replays if one.method == BASELINE}
    return {
        one.question: bound_s(direct[one.question], pair, Way()) / bound_s(one, pair, way)
        for one in replays
        if one.method == method and one.question in direct
    }


def bound_table(best: Mapping[str, Mapping[str, float]], replays: Sequence[Replay]) -> str:
    """Return the best ratios of several methods, by category."""
    asked = [one for one in replays if one.method == BASELINE]
    rows = []
    for name, some in groups(asked, lambda one: one.category):
        ids = [one.question for one in some]
        of = [[found[id_] for id_ in ids if id_ in found] for found in best.values()]
        rows.append([name, str(len(some)), *(f"{spread(one)}, n {len(one)}" for one in of)])
    return table(["bound, by category", "n", *best], rows)


def method_table(
    timed: Sequence[Timed], method: str, levels: Sequence[int], best: Mapping[str, float]
) -> str:
    """Return the table of one method: a row a category, two columns a concurrency.

    Beside each latency ratio stands what it is at equal length.
    """
    by_level = {level: ratios(timed, method, level, best) for level in levels}
    header = ["category", "n", "bound"]
    for level in levels:
        header += [f"{level} at once", f"{level}, at equal length"]
    rows = []
    for name, _ in groups(by_level[levels[0]], lambda ratio: ratio.category):
        of = [dict(groups(by_level[level], lambda ratio: ratio.category))[name] for level in levels]
        row = [name, str(len(of[0])), spread([one.bound for one in of[0]])]
        for some in of:
            row += [spread([one.latency for one in some])]
            row += [spread([one.at_equal_length for one in some])]
        rows.append(row)
    return table(header, rows)


def seconds_table(timed: Sequence[Timed], methods: Sequence[str], levels: Sequence[int]) -> str:
    """Return what a request takes, in seconds of the profile, and what of it no engine explains."""
    header = ["method", "at once", "n", "s, median", "overhead ms, median", "answer tokens"]
    header += ["prompt tokens", "of them cached", "decomposed", "not as recorded"]
    rows = []
    for method in methods:
        for level in levels:
            some = [one for one in timed if (one.method, one.concurrency) == (method, level)]
            if some:
                rows.append(_seconds_row(method, level, some))
    return table(header, rows)


def _seconds_row(method: str, level: int, some: Sequence[Timed]) -> list[str]:
    prompt = sum(one.prompt_tokens for one in some)
    return [
        method,
        str(level),
        str(len(some)),
        f"{statistics.median(one.wall_ms for one in some) / 1000:.2f}",
        f"{statistics.median(one.overhead_ms for one in some):.1f}",
        f"{statistics.fmean(one.answer_tokens for one in some):.0f}",
        f"{prompt / len(some):.0f}",
        f"{sum(one.cached_tokens for one in some) / prompt:.0%}" if prompt else "–",
        f"{sum(one.mode != 'direct' for one in some)}",
        str(sum(not one.as_recorded for one in some)),
    ]


def _by_question(timed: Sequence[Timed], method: str, concurrency: int) -> dict[str, list[Timed]]:
    found: dict[str, list[Timed]] = {}
    for one in timed:
        if (one.method, one.concurrency) == (method, concurrency):
            found.setdefault(one.question, []).append(one)
    return found


def _wall_ms(many: Sequence[Timed]) -> float:
    return statistics.fmean(one.wall_ms for one in many)


def _tokens_a_s(many: Sequence[Timed]) -> float:
    return sum(one.answer_tokens for one in many) / sum(one.wall_ms for one in many)
