"""NATS's clock, carried on by this process's own between what NATS says of the time."""

from __future__ import annotations

import time
from datetime import datetime

from proto.names import Stream
from services.runtime.connection import Connection


class ServerClock:
    """Tells the time by NATS's clock. It never goes back: old messages tell old times."""

    def __init__(self) -> None:
        self._offset_s = float("-inf")

    async def sync(self, connection: Connection) -> None:
        """Ask NATS what time it is.

        Raises:
            QueueUnavailable: NATS does not answer.
        """
        info = await connection.api(f"STREAM.INFO.{Stream.EVENTS}")
        self.saw(epoch(str(info["ts"])))

    def saw(self, at: float) -> None:
        """Take note that it is `at` (seconds since the epoch) or later."""
        self._offset_s = max(self._offset_s, at - time.monotonic())

    def now(self) -> float:
        """Seconds since the epoch by NATS's clock."""
        return time.monotonic() + self._offset_s


def epoch(stamp: str) -> float:
    """Return an RFC 3339 time in UTC as seconds since the epoch, to the microsecond."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return in_seconds(seconds * 1_000_000_000 + int(f"{fraction:0<9.9}"))


def in_seconds(nanoseconds: int) -> float:
    """Return a time as NATS has it in seconds, to the microsecond.

    All that is read goes through here: a message's time is the same however it was read.
    """
    return (nanoseconds + 500) // 1000 / 1_000_000
