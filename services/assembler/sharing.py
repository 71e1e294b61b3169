"""Takes partitions and lets them go as the shares say, and tells the others (ADR 0030)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from nats.aio.msg import Msg

from proto.codec import decode, encode
from proto.errors import MalformedMessage
from proto.messages import PartitionsClaimed
from proto.names import CLAIMS
from services.assembler.partition import Partition
from services.assembler.shares import Moves, Shares
from services.runtime import metrics
from services.runtime.connection import Connection
from services.runtime.waits import Beat

log = structlog.get_logger()

TELL_EVERY_S: Final = 0.5
#: Changes within this time are told together.
COALESCE_S: Final = 0.05


class Sharing:
    """The partitions of one process.

    Args:
        connection: an open connection.
        partitions: all of them.
        shares: decides.
        source: this process, as the others know it.
    """

    def __init__(
        self, connection: Connection, partitions: Sequence[Partition], shares: Shares, source: str
    ) -> None:
        self._connection = connection
        self._partitions = partitions
        self._shares = shares
        self._source = source
        self._beat = Beat(TELL_EVERY_S, COALESCE_S)
        self._leaving = False

    async def open(self) -> None:
        """Listen, and be able to ask for events."""
        await self._connection.subscribe(CLAIMS, self._heard)
        self._connection.on_reconnect(lambda: self._shares.nobody_was_silent(_now_s()))
        for partition in self._partitions:
            await partition.start()

    async def run(self) -> None:
        """Take, let go and tell, for ever."""
        while not self._leaving:
            # Without NATS nobody's words are heard: nobody is to be taken for dead.
            if self._connection.is_connected:
                self._move(self._shares.moves(self._owned(), self._asked(), _now_s()))
            await self._tell()
            await self._beat.next()

    async def close(self) -> None:
        """Tell that we leave, and let everything go."""
        self._leaving = True
        await self._tell()
        await asyncio.gather(*(partition.stop() for partition in self._partitions))

    def _move(self, moves: Moves) -> None:
        for number in moves.take:
            self._partitions[number].take()
        for number in moves.leave:
            self._partitions[number].leave()
        # One at a time: whoever takes it reads its open requests again.
        if moves.gives and not any(one.is_going for one in self._partitions):
            self._give()

    def _give(self) -> None:
        """Give up the owned partition with the fewest open requests."""
        owned = [one for one in self._partitions if one.is_owned]
        given = min(owned, key=lambda one: one.open_requests)
        log.info("partition_given", partition=given.number, open=given.open_requests)
        metrics.PARTITIONS_GIVEN.inc()
        given.leave()

    async def _heard(self, message: Msg) -> None:
        try:
            word = decode(PartitionsClaimed, message.data)
        except MalformedMessage as error:
            log.warning("claims_unreadable", error=error.message)
            return
        if self._shares.heard(word, _now_s()):
            self._beat.changed()

    async def _tell(self) -> None:
        owned, asked = (set(), set()) if self._leaving else (self._owned(), self._asked())
        metrics.PARTITIONS.labels("owned").set(len(owned))
        metrics.PARTITIONS.labels("asked").set(len(asked))
        word = PartitionsClaimed(
            source=self._source,
            owned=tuple(sorted(owned)),
            asked=tuple(sorted(asked)),
            leaving=self._leaving,
        )
        await self._connection.publish(CLAIMS, encode(word))

    def _owned(self) -> set[int]:
        return {one.number for one in self._partitions if one.is_owned}

    def _asked(self) -> set[int]:
        return {one.number for one in self._partitions if one.is_asked and not one.is_owned}


def _now_s() -> float:
    return asyncio.get_running_loop().time()
