"""What each pool has and what waits for it, as workers and assemblers tell one another.

A word is said once a second, and sooner when it changes; it counts for `EXPIRES_S` after it was
heard. Words may be lost: whoever reads them must be right, if slower, without.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from nats.aio.msg import Msg

from proto.codec import decode, encode
from proto.errors import MalformedMessage
from proto.messages import LoadAnnounced
from proto.names import ANY_LOAD, Pool, Subjects
from services.runtime.connection import Connection
from services.runtime.waits import Beat

log = structlog.get_logger()

ANNOUNCE_EVERY_S: Final = 1.0
#: Two words may be lost.
EXPIRES_S: Final = 3.5
#: Changes within this time are told together.
COALESCE_S: Final = 0.1
#: For so long a pool's slots are not known after a worker's result that has told of none.
BLIND_S: Final = 10.0
#: Processes whose word is kept; more than any deployment has.
MAX_SOURCES: Final = 10_000


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """A pool at one moment.

    Args:
        slots: nodes that its workers decode at once; None if that is not known.
        released: nodes that are queued or running.
        held: nodes that could be decoded and are held back.
    """

    slots: int | None = None
    released: int = 0
    held: int = 0

    @property
    def nodes_a_slot(self) -> float | None:
        """How many nodes there are for each slot; above 1 some wait. None if not known."""
        return (self.released + self.held) / self.slots if self.slots else None


class LoadBoard:
    """The last words of all processes. Pure: the time is told to it, in seconds of one clock."""

    def __init__(self) -> None:
        self._words: dict[tuple[Pool, str], tuple[float, LoadAnnounced]] = {}
        self._blind_until: dict[Pool, float] = {}
        #: By pool and who is left out: until when it holds if nothing is heard, and the load.
        self._known: dict[tuple[Pool, str], tuple[float, PoolLoad]] = {}

    def heard(self, word: LoadAnnounced, now_s: float) -> None:
        """Take a word in."""
        key = (word.pool, word.source)
        if key in self._words or len(self._words) < MAX_SOURCES:
            self._words[key] = (now_s, word)
            self._known.clear()

    def worked(self, pool: Pool, worker: str, now_s: float) -> None:
        """Note a worker's result: if it tells of no slots, there are more than one hears of.

        So it is with workers of an older version, and where words are lost.
        """
        known = self._words.get((pool, worker))
        if known is None or now_s - known[0] >= EXPIRES_S:
            self._blind_until[pool] = now_s + BLIND_S
            self._known.clear()

    def load(self, pool: Pool, now_s: float, *, without: str = "") -> PoolLoad:
        """Return the pool's load, leaving out what the process `without` says."""
        until_s, load = self._known.get((pool, without), (-math.inf, None))
        if load is None or now_s >= until_s:
            load = self._sum(pool, now_s, without)
            self._known[pool, without] = (self._changes_at(pool, now_s), load)
        return load

    def _sum(self, pool: Pool, now_s: float, without: str) -> PoolLoad:
        self._expire(now_s)
        words = [word for (of, source), (_, word) in self._words.items() if of == pool]
        slots = sum(word.slots for word in words)
        seen = slots and now_s >= self._blind_until.get(pool, 0.0)
        others = [word for word in words if word.source != without]
        return PoolLoad(
            slots=slots if seen else None,
            released=sum(word.released for word in others),
            held=sum(word.held for word in others),
        )

    def _changes_at(self, pool: Pool, now_s: float) -> float:
        """Return when the load of a pool changes if nothing is heard."""
        times = [at_s + EXPIRES_S for at_s, _ in self._words.values()]
        if (blind_until := self._blind_until.get(pool, 0.0)) > now_s:
            times.append(blind_until)
        return min(times, default=math.inf)

    def _expire(self, now_s: float) -> None:
        old = [key for key, (at_s, _) in self._words.items() if now_s - at_s >= EXPIRES_S]
        for key in old:
            del self._words[key]


async def listen(
    connection: Connection, board: LoadBoard, changed: Callable[[], None] = lambda: None
) -> None:
    """Take in what is said from now on, and call `changed` after each word."""

    async def heard(message: Msg) -> None:
        try:
            board.heard(decode(LoadAnnounced, message.data), _now_s())
        except MalformedMessage as error:
            log.warning("load_unreadable", subject=message.subject, error=error.message)
            return
        changed()

    await connection.subscribe(ANY_LOAD, heard)


def loads(board: LoadBoard) -> Mapping[Pool, PoolLoad]:
    """Return the loads of all pools as they are now."""
    return {pool: board.load(pool, _now_s()) for pool in Pool}


class LoadAnnouncer:
    """Says what this process has.

    Args:
        connection: an open connection.
        words: what there is to say now.
    """

    def __init__(
        self, connection: Connection, words: Callable[[], Sequence[LoadAnnounced]]
    ) -> None:
        self._connection = connection
        self._words = words
        self._beat = Beat(ANNOUNCE_EVERY_S, COALESCE_S)

    def changed(self) -> None:
        """Say it soon."""
        self._beat.changed()

    async def run(self) -> None:
        """Say it, for ever."""
        while True:
            await self.say()
            await self._beat.next()

    async def say(self) -> None:
        """Say it now."""
        for word in self._words():
            await self._connection.publish(Subjects.load(word.pool), encode(word))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
