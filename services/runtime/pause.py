"""What a stream does not take for now: a few are tried in turn, until it takes one. Pure timing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)

#: First wait before some are tried again, doubled each time up to the longest.
FIRST_S: Final = 0.05
LONGEST_S: Final = 1.0
#: How many are tried after each wait.
PROBES: Final = 4
#: How many follow each that was taken: as many more at each round trip as the stream has room for.
FOLLOW: Final = 2


class Pause(Generic[T]):
    """Those that wait for room in one stream, who was not taken last at the end.

    Args:
        go_on: tries one again; if it is not taken, it is added again.
    """

    def __init__(self, go_on: Callable[[T], None]) -> None:
        self._go_on = go_on
        self._waiting: dict[T, None] = {}
        self._wait_s = FIRST_S
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, one: T) -> None:
        """Try it again later."""
        self._waiting[one] = None
        self._start()

    def discard(self, one: T) -> None:
        """Try it no longer."""
        self._waiting.pop(one, None)

    def shorten(self) -> None:
        """Note that there is room: some go on at once."""
        self._wait_s = FIRST_S
        self._let_go(FOLLOW)

    def _start(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._wait_s, self._probe)

    def _probe(self) -> None:
        self._timer = None
        self._wait_s = min(LONGEST_S, 2 * self._wait_s)
        self._let_go(PROBES)
        if self._waiting:
            self._start()

    def _let_go(self, count: int) -> None:
        for one in list(islice(self._waiting, count)):
            del self._waiting[one]
            self._go_on(one)
