"""In-progress marks: what a process holds is not given to another as long as it lives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from services.runtime.pull import Delivery

#: Marks are sent at this share of the ack wait.
MARK_SHARE: Final = 1 / 3


class Marks:
    """Keeps held messages from being redelivered.

    Args:
        ack_wait_s: the consumer's ack wait.
        on_lapse: called when this process has stood still for longer than that: what it holds
            has gone to others.
    """

    def __init__(self, ack_wait_s: float, on_lapse: Callable[[], None] | None = None) -> None:
        self._ack_wait_s = ack_wait_s
        self._on_lapse = on_lapse
        self._held: dict[int, Delivery] = {}
        self._beat_at = time.monotonic()

    def hold(self, delivery: Delivery) -> None:
        """Mark `delivery` as in progress until it is released."""
        delivery.marked_at = time.monotonic()
        self._held[id(delivery)] = delivery

    def release(self, delivery: Delivery) -> None:
        """Mark `delivery` no longer."""
        self._held.pop(id(delivery), None)

    def __len__(self) -> int:
        return len(self._held)

    @property
    def is_late(self) -> bool:
        """Whether this process stands still, or has until now, for longer than the ack wait."""
        return time.monotonic() - self._beat_at > self._ack_wait_s

    async def run(self) -> None:
        """Send the marks, for ever."""
        self._beat_at = time.monotonic()
        while True:
            await asyncio.sleep(self._ack_wait_s * MARK_SHARE)
            if self.is_late and self._on_lapse:
                self._on_lapse()
            self._beat_at = time.monotonic()
            for delivery in list(self._held.values()):
                await delivery.in_progress()
