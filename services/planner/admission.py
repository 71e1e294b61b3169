"""Whether one more request may be planned: over capacity it is refused before planning.

A refusal is an end like any other, `busy`, with the time after which to try again. What
was accepted before is never refused: it has the rest of the streams for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from proto.errors import Busy, NotProvisioned, QueueUnavailable
from services.runtime.load import Load

log = structlog.get_logger()

#: How old the figures are at most by which it is decided.
LOOK_EVERY_S: Final = 1.0
#: A full stream is emptied by time, or by a person: soon is too soon.
FULL_RETRY_S: Final = 30.0
CROWDED_RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """The load above which requests are refused.

    Args:
        max_open_requests: requests that may be open at once, in the whole deployment.
        full_share: how full a stream may be; what is above is for requests accepted before.
    """

    max_open_requests: int
    full_share: float

    @property
    def last_share(self) -> float:
        """How full the log may be with refusals: half of what `full_share` leaves."""
        return (1 + self.full_share) / 2


def refusal(load: Load, limits: AdmissionLimits) -> Busy | None:
    """Return why no request is taken at `load`, or None."""
    if load.events_share >= limits.full_share:
        return Busy(f"the event log is {load.events_share:.0%} full", retry_after_s=FULL_RETRY_S)
    if load.nodes_share >= limits.full_share:
        said = f"the queue of nodes is {load.nodes_share:.0%} full"
        return Busy(said, retry_after_s=CROWDED_RETRY_S)
    if load.open_requests >= limits.max_open_requests:
        said = f"{load.open_requests} requests are open, the limit is {limits.max_open_requests}"
        return Busy(said, retry_after_s=CROWDED_RETRY_S)
    return None


class Admission:
    """Knows the load, and what was let in since it was read.

    Args:
        read_load: asks NATS.
        limits: above which requests are refused.
    """

    def __init__(self, read_load: Callable[[], Awaitable[Load]], limits: AdmissionLimits) -> None:
        self._read_load = read_load
        self._limits = limits
        self._load = Load()
        self._let_in = 0

    async def run(self, hold_back: Callable[[bool], None]) -> None:
        """Keep the figures fresh, for ever.

        Args:
            hold_back: told whether no more requests are to be taken out of their queue, not even
                to be refused: a refusal is a fact too, and the log's last room is not for those.
        """
        while True:
            await self.look()
            hold_back(self._load.events_share >= self._limits.last_share)
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Read the load now; without an answer the last figures stand."""
        try:
            self._load, self._let_in = await self._read_load(), 0
        except (QueueUnavailable, NotProvisioned) as error:
            log.warning("load_unknown", code=error.code, error=error.message)

    def refusal(self) -> Busy | None:
        """Return why no request is taken now, or None."""
        open_requests = self._load.open_requests + self._let_in
        now = Load(open_requests, self._load.events_share, self._load.nodes_share)
        return refusal(now, self._limits)

    def let_in(self) -> None:
        """Count a request that was accepted since the load was read."""
        self._let_in += 1
