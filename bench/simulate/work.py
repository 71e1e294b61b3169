"""What is asked in a simulation: plans and lengths, and when they come; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

Shape = Literal["direct", "list", "graph"]
Arrivals = Literal["poisson", "bursty"]

#: Tokens of the gate's word, and of the plan's end line.
WORD_TOKENS: Final = 1
END_TOKENS: Final = 2

#: The drawn population, after the runs in docs/benchmarks.md (25 questions, 0.5B): 11 of 25
#: direct, 9 of 14 plans without dependencies, 4 to 10 nodes, mostly 5.
_DIRECT_SHARE: Final = 0.44
_LIST_SHARE: Final = 0.64
_NODES: Final = (4, 5, 5, 5, 5, 6, 6, 8, 10)
_EASY_SHARE: Final = 0.6
_NEEDY_SHARE: Final = 0.5
_LINE_TOKENS: Final = (8, 16)
_NODE_TOKENS: Final = (90.0, 0.35, 200)  # median, spread, most
_DIRECT_TOKENS: Final = (260.0, 0.45, 1024)
#: A decomposed answer is this much longer than the same answered directly (the reference's figure).
_LONGER: Final = 1.15

#: Bursts: the rate is so many times the mean for a share of the time, in spells of this length.
_BURST_FACTOR: Final = 2.0
_BURST_SHARE: Final = 0.25
_BURST_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """A node as it was planned and written.

    Args:
        id: its number, from 1.
        needs: earlier nodes.
        easy: whether it goes to the small pool.
        line_tokens: of its line in the plan.
        tokens: of its text.
    """

    id: int
    needs: tuple[int, ...]
    easy: bool
    line_tokens: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Question:
    """One question with all that would be written for it.

    Args:
        name: where it comes from.
        shape: the gate's word.
        nodes: of its plan; none if the gate says direct.
        direct_tokens: of the direct answer.
    """

    name: str
    shape: Shape
    nodes: tuple[PlannedNode, ...]
    direct_tokens: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """A question that comes at `at_s` from `tenant`."""

    at_s: float
    tenant: str
    question: Question


def drawn(random: Random, count: int) -> list[Question]:
    """Return `count` questions of the documented population."""
    return [_drawn(random, number) for number in range(count)]


def arrivals(
    random: Random,
    questions: Sequence[Question],
    *,
    rate: float,
    count: int,
    kind: Arrivals = "poisson",
    tenants: Sequence[tuple[str, float]] = (("", 1.0),),
) -> list[Arrival]:
    """Return when `count` of `questions` come, and from whom.

    Args:
        random: source of all draws.
        questions: drawn from with equal chances.
        rate: requests a second, in the mean.
        count: how many come.
        kind: `poisson`, or `bursty`: twice the rate for a quarter of the time.
        tenants: each with its weight.
    """
    names, weights = [name for name, _ in tenants], [weight for _, weight in tenants]
    at_s, found = 0.0, []
    spells = _Spells(random, rate, bursty=kind == "bursty")
    for _ in range(count):
        at_s = spells.next_after(at_s)
        found.append(Arrival(at_s, random.choices(names, weights)[0], random.choice(questions)))
    return found


class _Spells:
    """A Poisson process whose rate is high and low in turns."""

    def __init__(self, random: Random, rate: float, *, bursty: bool) -> None:
        self._random = random
        quiet = rate * (1 - _BURST_FACTOR * _BURST_SHARE) / (1 - _BURST_SHARE)
        self._rates = (rate * _BURST_FACTOR, quiet) if bursty else (rate, rate)
        self._lengths_s = (_BURST_S, _BURST_S * (1 - _BURST_SHARE) / _BURST_SHARE)
        self._spell, self._until_s = 1, 0.0

    def next_after(self, at_s: float) -> float:
        while True:
            next_s = at_s + self._random.expovariate(self._rates[self._spell])
            if next_s <= self._until_s:
                return next_s
            at_s = self._until_s
            self._spell = 1 - self._spell
            self._until_s = at_s + self._random.expovariate(1 / self._lengths_s[self._spell])


def _drawn(random: Random, number: int) -> Question:
    if random.random() < _DIRECT_SHARE:
        return Question(f"drawn {number}", "direct", (), _length(random, *_DIRECT_TOKENS))
    shape: Shape = "list" if random.random() < _LIST_SHARE else "graph"
    nodes: list[PlannedNode] = []
    for _ in range(random.choice(_NODES)):
        nodes.append(_node(random, shape, nodes))
    direct = round(sum(node.tokens for node in nodes) / _LONGER)
    return Question(f"drawn {number}", shape, tuple(nodes), direct)


def _node(random: Random, shape: Shape, before: Sequence[PlannedNode]) -> PlannedNode:
    needs: tuple[int, ...] = ()
    # The first two stand alone, and needs are on points only: graphs have two levels, as nearly all
    # that models write for the planner.
    if shape == "graph" and len(before) >= 2 and random.random() < _NEEDY_SHARE:
        points = [node.id for node in before if not node.needs]
        needs = tuple(sorted(random.sample(points, random.randint(1, min(3, len(points))))))
    return PlannedNode(
        id=len(before) + 1,
        needs=needs,
        easy=random.random() < _EASY_SHARE,
        line_tokens=random.randint(*_LINE_TOKENS),
        tokens=_length(random, *_NODE_TOKENS),
    )


def _length(random: Random, median: float, spread: float, most: int) -> int:
    return max(8, min(most, round(median * math.exp(spread * random.gauss(0.0, 1.0)))))
