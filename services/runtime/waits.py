"""Waits that end by themselves: for an event up to a time, and for when something is to be told."""

from __future__ import annotations

import asyncio
import contextlib


async def until_set(event: asyncio.Event, limit_s: float | None) -> None:
    """Return when `event` is set, or after so long.

    Not by `asyncio.wait_for`, which can swallow a cancel on Python 3.11 (ADR 0005).
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await event.wait()


class Beat:
    """When a process tells the others what it has: every so often, and soon after a change.

    Args:
        every_s: the longest silence.
        coalesce_s: changes within this time are told together.
    """

    def __init__(self, every_s: float, coalesce_s: float) -> None:
        self._every_s = every_s
        self._coalesce_s = coalesce_s
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Have it told soon."""
        self._changed.set()

    async def next(self) -> None:
        """Return when it is to be told again; what changes from then on is told next time."""
        await asyncio.sleep(self._coalesce_s)
        await until_set(self._changed, self._every_s - self._coalesce_s)
        self._changed.clear()
