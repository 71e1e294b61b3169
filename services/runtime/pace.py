"""How fast an endpoint is, next to the others of its pool. Pure."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from typing import Final

#: An endpoint so many times as slow as the median of the others is an outlier ...
OUTLIER_FACTOR: Final = 4.0
#: ... if it also is slower by so many seconds: at the first token, between two tokens.
FIRST_MARGIN_S: Final = 1.0
GAP_MARGIN_S: Final = 0.02

_ENOUGH_FIRSTS: Final = 5
_ENOUGH_GAPS: Final = 50
_FEW_GAPS: Final = 5


class Mean:
    """An exponentially weighted mean.

    Args:
        share: of the newest value.
    """

    def __init__(self, share: float) -> None:
        self.value = 0.0
        self.count = 0
        self._share = share

    def add(self, value: float) -> None:
        """Take a value in; at first, this is the plain mean."""
        self.count += 1
        self.value += max(self._share, 1 / self.count) * (value - self.value)


class Pace:
    """Times of one endpoint: to a stream's first token, and between two tokens."""

    def __init__(self) -> None:
        self.first = Mean(0.1)
        self.gap = Mean(0.01)

    @property
    def is_known(self) -> bool:
        """Whether there are enough figures to judge by."""
        return self.first.count >= _ENOUGH_FIRSTS and self.gap.count >= _ENOUGH_GAPS

    def is_outlier(self, others: Sequence[Pace], *, suspected: bool = False) -> bool:
        """Whether this endpoint is far slower than the median of those `others` that are known.

        Args:
            others: of the pool.
            suspected: whether the figures of a single stream are enough to judge it.
        """
        known = [pace for pace in others if pace.is_known]
        enough = self.is_known or (suspected and self._has_a_stream)
        if not enough or not known:
            return False
        firsts = [pace.first.value for pace in known]
        gaps = [pace.gap.value for pace in known]
        return _is_far(self.first.value, firsts, FIRST_MARGIN_S) or _is_far(
            self.gap.value, gaps, GAP_MARGIN_S
        )

    @property
    def _has_a_stream(self) -> bool:
        return self.first.count > 0 and self.gap.count >= _FEW_GAPS


def _is_far(value: float, others: Sequence[float], margin: float) -> bool:
    median = statistics.median(others)
    return value > OUTLIER_FACTOR * median and value > median + margin


class FirstTokens:
    """The latest first-token times of a pool, and when a call is so late that it is hedged.

    Args:
        percentile: of those times, after which a call is late; 0 if none ever is.
        share: most hedges, as a share of the calls.
    """

    ENOUGH: Final = 20
    LEAST_S: Final = 0.02
    MOST_SAVED: Final = 10.0

    def __init__(self, percentile: float, share: float) -> None:
        self._percentile = percentile
        self._share = share
        self._times_s: deque[float] = deque(maxlen=256)
        self._saved = 1.0

    def add(self, first_token_s: float) -> None:
        """Take in the time of a call that was answered."""
        if self._percentile:
            self._times_s.append(first_token_s)
            self._saved = min(self.MOST_SAVED, self._saved + self._share)

    def late_after_s(self) -> float | None:
        """Return after how many seconds a call is late; None if that cannot be said."""
        if not self._percentile or len(self._times_s) < self.ENOUGH:
            return None
        times_s = sorted(self._times_s)
        at = min(len(times_s) - 1, int(len(times_s) * self._percentile / 100))
        return max(self.LEAST_S, times_s[at])

    def may_hedge(self) -> bool:
        """Take one hedge off what was saved up; False if there is none."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True
