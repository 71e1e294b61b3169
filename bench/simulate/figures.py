"""What a run came to, and what several runs come to together; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: Share of the requests at either end of a run that are not counted: the pool fills and empties.
_EDGE: Final = 0.1
#: Student's t, 97.5 %, by degrees of freedom.
_T: Final[Mapping[int, float]] = {
    1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answered:
    """How one request fared: seconds from its arrival.

    Args:
        tenant: whose it was.
        answer_s: until the answer.
        first_s: until the first token of the answer's first node.
        alone_s: what a direct answer takes on idle engines.
    """

    tenant: str
    answer_s: float
    first_s: float
    alone_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run.

    Args:
        mean_s, p50_s, p99_s: answer times.
        first_s: mean time to the first token.
        slowdown: mean of answer time by that of a direct answer on idle engines.
        tenants_s: mean answer time of each tenant.
        of_alone: mean answer time of the others beside the first tenant, by that without it.
    """

    mean_s: float
    p50_s: float
    p99_s: float
    first_s: float
    slowdown: float
    tenants_s: Mapping[str, float]
    of_alone: float = math.nan


def figures(answered: Sequence[Answered]) -> Figures:
    """Return the figures of requests in the order of their arrival."""
    edge = int(_EDGE * len(answered))
    counted = answered[edge : len(answered) - edge]
    times_s = sorted(one.answer_s for one in counted)
    of_tenant: dict[str, list[float]] = {}
    for one in counted:
        of_tenant.setdefault(one.tenant, []).append(one.answer_s)
    return Figures(
        mean_s=statistics.fmean(times_s),
        p50_s=statistics.median(times_s),
        p99_s=quantile(times_s, 0.99),
        first_s=statistics.fmean(one.first_s for one in counted),
        slowdown=statistics.fmean(one.answer_s / one.alone_s for one in counted),
        tenants_s={tenant: statistics.fmean(times) for tenant, times in of_tenant.items()},
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest of `ordered` values that `share` of them do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half of its 95 % confidence interval (Student's t)."""
    mean = statistics.fmean(values)
    if len(values) < 2:  # one value has no spread
        return mean, math.nan
    t = _T.get(len(values) - 1, 1.96)
    return mean, t * statistics.stdev(values) / math.sqrt(len(values))


def told(values: Sequence[float], digits: int = 2) -> str:
    """Return mean and confidence as a table's cell."""
    mean, half = spread(values)
    return f"{mean:.{digits}f}" if math.isnan(half) else f"{mean:.{digits}f} ± {half:.{digits}f}"
