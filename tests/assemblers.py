"""Assemblers in this process, each with a connection of its own: many start in no time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.assembler.folded import RetryPolicy
from services.assembler.ledger import Ledger
from services.assembler.partition import Partition
from services.assembler.releases import Releases
from services.assembler.schedule import Schedule
from services.assembler.shares import Shares
from services.assembler.sharing import Sharing
from services.runtime.clock import ServerClock
from services.runtime.connection import Connection
from services.runtime.facts import EventLog
from services.runtime.marks import Marks
from services.runtime.pool_load import LoadBoard
from services.runtime.publisher import DurablePublisher
from tests.conftest import ACK_WAIT_S, PARTITIONS


@dataclass
class Assembler:
    """An assembler, and its partitions."""

    ledger: Ledger
    partitions: list[Partition]
    sharing: Sharing
    running: list[asyncio.Task[None]]
    left: bool = False

    @property
    def owned(self) -> int:
        """How many partitions are pinned to it."""
        return sum(one.is_owned for one in self.partitions)

    async def leave(self) -> None:
        """End as at SIGTERM."""
        self.left = True
        await self.sharing.close()

    async def die(self) -> None:
        """End as if it were killed: nothing is told, nothing is given back."""
        for task in self.running:
            task.cancel()
        await asyncio.wait(self.running)
        if self.left:
            return
        self.left = True
        for partition in self.partitions:
            await partition.pull.stop()
            partition._forget_all()


@asynccontextmanager
async def assembler(
    url: str, name: str = "assembler", *, partitions: int = PARTITIONS, settle_s: float = 0.3
) -> AsyncIterator[Assembler]:
    """Run an assembler within the block; at the end it dies, if it has not left."""
    connection = Connection([url], name=name)
    await connection.open(timeout_s=5)
    publisher = DurablePublisher(connection)
    await publisher.open()
    ledger = Ledger(connection, publisher, EventLog(connection, publisher, partitions))
    clock, marks = ServerClock(), Marks(ACK_WAIT_S)
    await clock.sync(connection)
    errors: list[BaseException] = []
    policy = RetryPolicy(2, 2, 0.05)
    releases = Releases(Schedule(1.25), LoadBoard(), name, errors.append)
    all_ = [
        Partition(number, ledger, policy, releases, marks, clock, errors.append)
        for number in range(partitions)
    ]
    sharing = Sharing(connection, all_, Shares(name, partitions, settle_s), name)
    await sharing.open()
    running = [asyncio.create_task(marks.run()), asyncio.create_task(sharing.run())]
    one = Assembler(ledger, all_, sharing, running)
    try:
        yield one
    finally:
        await one.die()
        await connection.close()
    assert not errors
