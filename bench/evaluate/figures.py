"""The arithmetic of reports; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from bench.plan_figures import MAJORITY, SUITS

#: Categories most of whose questions suit decomposition by SoT's labels.
SUITED: Final = tuple(name for name, share in SUITS.items() if share >= MAJORITY)
#: Those whose answers can be right or wrong: judged by a reference.
EXACT: Final = ("coding", "math")

Item = TypeVar("Item")


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean; NaN of nothing.

    Raises:
        ValueError: a value is not positive.
    """
    logs = [math.log(value) for value in values]
    return math.exp(statistics.fmean(logs)) if logs else math.nan


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the lower and the upper quartile."""
    if len(values) < 2:
        return (values[0], values[0]) if values else (math.nan, math.nan)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def spread(values: Sequence[float]) -> str:
    """Return geometric mean and quartiles as text."""
    if not values:
        return "–"
    low, high = quartiles(values)
    return f"{geometric_mean(values):.3g} ({low:.3g}–{high:.3g})"


def groups(
    items: Sequence[Item], category: Callable[[Item], str]
) -> list[tuple[str, Sequence[Item]]]:
    """Return the items by category, those that suit first; then of both kinds, then all."""
    names = list(dict.fromkeys(category(item) for item in items))
    found = [(name, [i for i in items if category(i) == name]) for name in sorted(names, key=_key)]
    suit = [item for item in items if category(item) in SUITED]
    rest = [item for item in items if category(item) not in SUITED]
    if suit and rest:
        found += [("**those that suit**", suit), ("**the others**", rest)]
    return [*found, ("**all**", list(items))]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _key(name: str) -> tuple[int, str]:
    return (SUITED.index(name), "") if name in SUITED else (len(SUITED), name)
