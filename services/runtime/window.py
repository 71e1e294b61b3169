"""How many streams an endpoint is given at once: additive increase, multiplicative decrease. Pure.

The same law by which TCP shares a link: each process that uses an endpoint finds its share of what
the engine takes without asking the others.
"""

from __future__ import annotations

from typing import Final

#: Streams at first; while nothing was refused, each answered stream makes room for one more.
START: Final = 16.0
#: What is left of the window after a refusal.
DECREASE: Final = 0.7


class Window:
    """A limit that adapts.

    Args:
        most: is never exceeded.
    """

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._size = min(START, self._most)
        self._cut_at = float("-inf")
        self._was_cut = False

    @property
    def limit(self) -> int:
        """Streams that may be open at once, at least 1."""
        return max(1, int(self._size))

    def answered(self, in_flight: int) -> None:
        """Note that a stream was taken; a window that is not used does not grow."""
        if in_flight * 2 > self._size:
            step = 1 / self._size if self._was_cut else 1.0
            self._size = min(self._most, self._size + step)

    def refused(self, in_flight: int, started_at: float, now: float) -> bool:
        """Note that a stream was refused for overload; return whether the window shrank.

        Args:
            in_flight: streams that were open, the refused one included.
            started_at: when it was sent, seconds.
            now: seconds of the same clock.
        """
        if started_at <= self._cut_at:
            # It was sent before the window was cut: one overload, told many times.
            return False
        self._was_cut, self._cut_at = True, now
        self._size = max(1.0, min(self._size, in_flight) * DECREASE)
        return True
