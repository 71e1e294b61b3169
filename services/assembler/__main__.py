"""`python -m services.assembler`: the service that owns the graphs."""

from __future__ import annotations

import asyncio
import sys

from pydantic import Field

from proto import channels
from services.assembler.asking import Asking
from services.assembler.folded import RetryPolicy
from services.assembler.ledger import Ledger
from services.assembler.partition import DRAIN_S, Partition
from services.assembler.releases import Releases
from services.assembler.schedule import Schedule
from services.assembler.service import Commands, LetterCommands
from services.assembler.shares import Shares
from services.assembler.sharing import Sharing
from services.runtime.announce import Announcer
from services.runtime.client import Client
from services.runtime.clock import ServerClock
from services.runtime.ends import Ends
from services.runtime.ground import prepare
from services.runtime.lifecycle import Process, run
from services.runtime.marks import Marks
from services.runtime.pool_load import LoadAnnouncer, LoadBoard, listen
from services.runtime.responder import Responder
from services.runtime.settings import ServiceSettings


class AssemblerSettings(ServiceSettings):
    """Folds each request's facts, releases its nodes to the pools and writes its end."""

    max_attempts: int = Field(4, ge=1, le=10, description="attempts at a node before it is dead")
    escalate_after: int = Field(
        2, ge=1, description="failures in the small pool after which a node goes to the large one"
    )
    backoff_s: float = Field(
        0.5, ge=0, description="seconds before the second retry, doubled each time"
    )
    max_waiting: int = Field(
        1000,
        ge=1,
        description="callers that may wait for an answer at once (`skelgraph.v1.answer`)",
    )
    nodes_a_slot: float = Field(
        1.25,
        ge=0,
        le=1000,
        description="nodes that are handed to a pool for each slot of its workers; further ones"
        " are held back until there is room. 0: all are handed over at once",
    )
    rebalance_after_s: float = Field(
        5,
        ge=0,
        le=3600,
        description="seconds for which the same assemblers must have been there before one with"
        " too many partitions gives some up; those of a dead one are taken over at once",
    )


async def serve(process: Process) -> None:
    """Own partitions until the process is to stop."""
    settings = process.settings
    if not isinstance(settings, AssemblerSettings):
        raise TypeError("the assembler needs its own settings")
    connection = process.connection
    ground = await prepare(process, settings)
    ledger = Ledger(connection, ground.publisher, ground.events)
    ends = Ends(connection, ground.events)
    client = Client(connection, ground.publisher)
    responder = await _answering(process, ledger, client, ends, settings)
    releases = await _releases(process, settings)
    partitions = _partitions(process, settings, ledger, releases, ground.clock)
    shares = Shares(process.replica, settings.partitions, settings.rebalance_after_s)
    sharing = Sharing(connection, partitions, shares, process.replica)
    await sharing.open()
    for partition in partitions:
        process.watch(partition.pull.task)
    process.spawn(sharing.run(), "share the partitions out")
    process.serving()
    await process.stopping.wait()
    ends.close()
    await asyncio.gather(responder.close(DRAIN_S), sharing.close())


async def _releases(process: Process, settings: AssemblerSettings) -> Releases:
    """Return what hands nodes to the pools as these have room."""
    connection, board = process.connection, LoadBoard()
    releases = Releases(Schedule(settings.nodes_a_slot), board, process.replica, process.fail)
    announcer = LoadAnnouncer(connection, releases.words)
    releases.changed = announcer.changed
    await listen(connection, board, releases.hand_over)
    process.spawn(announcer.run(), "announce the load")
    return releases


def _partitions(
    process: Process,
    settings: AssemblerSettings,
    ledger: Ledger,
    releases: Releases,
    clock: ServerClock,
) -> list[Partition]:
    """Return all partitions, none of them owned yet."""
    policy = RetryPolicy(settings.max_attempts, settings.escalate_after, settings.backoff_s)
    marks = Marks(settings.ack_wait_s)
    process.spawn(marks.run(), "event marks")
    return [
        Partition(number, ledger, policy, releases, marks, clock, process.fail)
        for number in range(settings.partitions)
    ]


async def _answering(
    process: Process, ledger: Ledger, client: Client, ends: Ends, settings: AssemblerSettings
) -> Responder:
    """Return what answers commands, whatever partition they concern."""
    responder = Responder(process.connection)
    asking = Asking(client, ends, settings.max_waiting)
    letters = LetterCommands(ledger)
    # Who waits for an answer is counted, and refused, by `Asking`: never kept from being heard.
    await responder.answer(channels.SUBMIT_COMMAND, asking.submit, tenants=True)
    await responder.answer(channels.ANSWER_COMMAND, asking.answer, most=sys.maxsize, tenants=True)
    await responder.answer(
        channels.AWAIT_COMMAND, asking.await_answer, most=sys.maxsize, tenants=True
    )
    await responder.answer(channels.CANCEL_COMMAND, Commands(ledger, client).cancel, tenants=True)
    await responder.answer(channels.LIST_LETTERS_COMMAND, letters.list)
    await responder.answer(channels.SHOW_LETTER_COMMAND, letters.show)
    await responder.answer(channels.REQUEUE_LETTER_COMMAND, letters.requeue)
    await responder.answer(channels.DROP_LETTER_COMMAND, letters.drop)
    await Announcer(process.connection, responder, process.replica).open()
    return responder


def main() -> int:
    """Run the assembler; return its exit code."""
    return run("assembler", AssemblerSettings.load(), serve)


if __name__ == "__main__":
    sys.exit(main())
