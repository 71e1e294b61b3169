"""A queue of those who wait for room, first come, first served."""

from __future__ import annotations

import asyncio
from itertools import count


class Turns:
    """Who waits, in the order of arrival."""

    def __init__(self) -> None:
        self._tickets = count()
        self._waiting: dict[int, asyncio.Future[None] | None] = {}

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def arrive(self) -> int:
        """Return a ticket, to be given back by `leave`."""
        ticket = next(self._tickets)
        self._waiting[ticket] = None
        return ticket

    def leave(self, ticket: int) -> None:
        """Leave the queue; the next in it has a look."""
        self._waiting.pop(ticket, None)
        self.call()

    async def wait(self, ticket: int, timeout_s: float) -> None:
        """Return when it is this ticket's turn to look whether there is room, or in time."""
        future = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        await asyncio.wait([future], timeout=timeout_s)

    def call(self) -> None:
        """Let the first in the queue look whether there is room."""
        future = next(iter(self._waiting.values()), None)
        if future and not future.done():
            future.set_result(None)
