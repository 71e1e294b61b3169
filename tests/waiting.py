"""Waits for what tells no event: it is looked at until it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LOOK_EVERY_S = 0.02


async def until(holds: Callable[[], object], limit_s: float) -> None:
    """Return when `holds` says so; raise `TimeoutError` after `limit_s`."""
    async with asyncio.timeout(limit_s):
        while not holds():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(LOOK_EVERY_S)
