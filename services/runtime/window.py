"""How many streams an endpoint is given at once: additive increase, multiplicative decrease. Pure.

The same law by which TCP shares a link: each process that uses an endpoint finds its share of what
the engine takes without asking the others. For a while the window stays below the size at which an
engine has refused: its limit, unlike a link's, hardly moves. So refusals stay rare.
"""

from __future__ import annotations

from typing import Final

#: Streams at first; while nothing was refused, each answered stream makes room for one more.
START: Final = 16.0
#: What is left of the window after a refusal.
DECREASE: Final = 0.7
#: How long the window stays below where the engine has refused.
HOLD_S: Final = 30.0


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
        self._ceiling = self._most
        self._held_until = float("-inf")

    @property
    def limit(self) -> int:
        """Streams that may be open at once, at least 1."""
        return max(1, int(self._size))

    def answered(self, in_flight: int, now: float) -> None:
        """Note that a stream was taken; a window that is not used does not grow."""
        if in_flight * 2 > self._size:
            step = 1 / self._size if self._was_cut else 1.0
            most = self._ceiling if now < self._held_until else self._most
            self._size = max(self._size, min(most, self._size + step))

    def refused(self, in_flight: int, started_at: float, now: float) -> bool:
        """Note that a stream was refused for overload; return whether the window was cut.

        Args:
            in_flight: streams that were open, the refused one included.
            started_at: when it was sent, seconds.
            now: seconds of the same clock.
        """
        # It was sent before the window was cut: one overload, told many times. The last of
        # them to be told, with the fewest others open, tells best what the engine takes.
        is_news = started_at > self._cut_at
        taken = min(self._most, max(1.0, in_flight - 1.0))
        self._ceiling = taken if is_news else min(self._ceiling, taken)
        self._size = min(self._size, self._ceiling)
        if is_news:
            self._was_cut, self._cut_at, self._held_until = True, now, now + HOLD_S
            self._size = max(1.0, self._size * DECREASE)
        return is_news
