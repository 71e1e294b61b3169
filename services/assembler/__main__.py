"""`python -m services.assembler`: the service that owns the graphs."""

from __future__ import annotations

import asyncio
import sys

from pydantic import Field

from proto.names import ANY_CANCEL, ANY_LETTER, COMMAND_QUEUE
from services.assembler.graph import RetryPolicy
from services.assembler.ledger import Ledger
from services.assembler.partition import DRAIN_S, Partition
from services.assembler.service import Commands, LetterCommands
from services.runtime import tracing
from services.runtime.clock import ServerClock
from services.runtime.facts import EventLog
from services.runtime.lifecycle import Process, run
from services.runtime.publisher import DurablePublisher
from services.runtime.responder import Responder
from services.runtime.settings import ServiceSettings
from services.runtime.work import Marks


class AssemblerSettings(ServiceSettings):
    """Folds each request's facts, releases its nodes to the pools and writes its end."""

    max_attempts: int = Field(4, ge=1, le=10, description="attempts at a node before it is dead")
    escalate_after: int = Field(
        2, ge=1, description="failures in the small pool after which a node goes to the large one"
    )
    backoff_s: float = Field(
        0.5, ge=0, description="seconds before the second retry, doubled each time"
    )


async def serve(process: Process) -> None:
    """Own partitions until the process is to stop."""
    settings = process.settings
    if not isinstance(settings, AssemblerSettings):
        raise TypeError("the assembler needs its own settings")
    connection = process.connection
    publisher = DurablePublisher(connection)
    await publisher.open()
    ledger = Ledger(connection, publisher, EventLog(connection, publisher, settings.partitions))
    marks = Marks(settings.ack_wait_s)
    process.spawn(marks.run(), "event marks")
    responder = Responder(connection, COMMAND_QUEUE)
    await responder.answer(ANY_CANCEL, Commands(ledger).cancel)
    await responder.answer(ANY_LETTER, LetterCommands(ledger).handle)
    clock = ServerClock()
    await clock.sync(connection)
    tracing.use_clock(clock.now)
    policy = RetryPolicy(settings.max_attempts, settings.escalate_after, settings.backoff_s)
    partitions = [
        Partition(number, ledger, policy, marks, clock, process.fail)
        for number in range(settings.partitions)
    ]
    for partition in partitions:
        await partition.start()
        process.watch(partition.pull.task)
    process.serving()
    await process.stopping.wait()
    await asyncio.gather(responder.settle(DRAIN_S), *(partition.stop() for partition in partitions))


def main() -> int:
    """Run the assembler; return its exit code."""
    return run("assembler", AssemblerSettings.load(), serve)


if __name__ == "__main__":
    sys.exit(main())
