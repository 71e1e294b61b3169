"""What each pool has and what waits for it, as workers and assemblers tell one another.

A word is said once a second, and sooner when it changes; it counts for `EXPIRES_S` after it was
heard. Words may be lost: whoever reads them must be right, if slower, without.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
#: Processes whose word on a pool is kept; more than any deployment has.
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


@dataclass(slots=True)
class _Words:
    """The last words that count of all processes on one pool, and their sums."""

    by_source: OrderedDict[str, tuple[float, LoadAnnounced]] = field(default_factory=OrderedDict)
    slots: int = 0
    released: int = 0
    held: int = 0
    blind_until_s: float = 0.0

    def put(self, word: LoadAnnounced, now_s: float) -> None:
        """Take a word in, as the latest."""
        self._drop(word.source)
        self.by_source[word.source] = (now_s, word)
        self._add(word, 1)

    def expire(self, now_s: float) -> None:
        """Drop the words that no longer count; the oldest is the first."""
        while self.by_source:
            source, (at_s, _) = next(iter(self.by_source.items()))
            if now_s - at_s < EXPIRES_S:
                return
            self._drop(source)

    def _drop(self, source: str) -> None:
        if known := self.by_source.pop(source, None):
            self._add(known[1], -1)

    def _add(self, word: LoadAnnounced, times: int) -> None:
        self.slots += times * word.slots
        self.released += times * word.released
        self.held += times * word.held


class LoadBoard:
    """The last words of all processes. Pure: the time is told to it, in seconds of one clock.

    Sums are kept with each word, so that to ask for the load costs the same, however many speak.
    """

    def __init__(self) -> None:
        self._words = {pool: _Words() for pool in Pool}

    def heard(self, word: LoadAnnounced, now_s: float) -> None:
        """Take a word in."""
        words = self._words[word.pool]
        if word.source in words.by_source or len(words.by_source) < MAX_SOURCES:
            words.put(word, now_s)

    def worked(self, pool: Pool, worker: str, now_s: float) -> None:
        """Note a worker's result: if it tells of no slots, there are more than one hears of.

        So it is with workers of an older version, and where words are lost.
        """
        words = self._words[pool]
        known = words.by_source.get(worker)
        if known is None or now_s - known[0] >= EXPIRES_S:
            words.blind_until_s = now_s + BLIND_S

    def load(self, pool: Pool, now_s: float, *, without: str = "") -> PoolLoad:
        """Return the pool's load, leaving out what the process `without` says."""
        words = self._words[pool]
        words.expire(now_s)
        seen = words.slots and now_s >= words.blind_until_s
        _, own = words.by_source.get(without, (0.0, None))
        return PoolLoad(
            slots=words.slots if seen else None,
            released=words.released - (own.released if own else 0),
            held=words.held - (own.held if own else 0),
        )


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
            await self._tell(word)

    async def _tell(self, word: LoadAnnounced) -> None:
        await self._connection.publish(Subjects.load(word.pool), encode(word))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
