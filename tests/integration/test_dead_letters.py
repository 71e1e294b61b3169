"""Dead letters are stored whatever ends their request meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import nats.errors
import pytest

from proto.codec import decode, encode
from proto.messages import CancelOutcome, CancelRequest, DeadLetter, Fact, RequestFailed
from proto.names import Stream, Subjects
from services.runtime.clock import ServerClock
from services.runtime.streams import StreamLimits, provision
from tests.conftest import ACK_WAIT_S, PARTITIONS, Runtime
from tests.facts import accepted, failed, planned
from tests.processes import Services, end_of


@pytest.fixture
async def services(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        yield Services(stack, runtime, tmp_path / "logs")


async def die(runtime: Runtime, **asked: object) -> None:
    """A request whose node 1 fails for good, while its direct answer is waited for."""
    clock = ServerClock()
    await clock.sync(runtime.connection)
    told: list[Fact] = [
        accepted(at=clock.now(), **asked),
        planned(1),
        failed(1, retryable=False),
    ]
    for fact in told:
        await runtime.events.append(fact)


async def close_letters(runtime: Runtime) -> None:
    """No dead letter can be stored from now on."""
    await runtime.connection.api(f"STREAM.DELETE.{Stream.DEAD}")


async def open_letters(runtime: Runtime) -> None:
    await provision(runtime.connection, StreamLimits(partitions=PARTITIONS, ack_wait_s=ACK_WAIT_S))


async def queued_direct_answer(runtime: Runtime) -> None:
    """Return when the assembler has acted upon the death."""
    async with asyncio.timeout(10):
        while not await _queued(runtime):  # noqa: ASYNC110  # a remote state
            await asyncio.sleep(0.02)


async def _queued(runtime: Runtime) -> bool:
    info = await runtime.connection.api(
        f"STREAM.INFO.{Stream.NODES}", {"subjects_filter": Subjects.nodes_of("r1")}
    )
    state = info["state"]
    assert isinstance(state, dict)
    return any(subject.endswith(".0.1") for subject in state.get("subjects") or ())


async def letter(runtime: Runtime, node: int = 1, limit_s: float = 15) -> DeadLetter:
    """Return the letter of a node of `r1` when it is there."""
    subject = f"$JS.API.DIRECT.GET.{Stream.DEAD}.{Subjects.dead('r1', node)}"
    async with asyncio.timeout(limit_s):
        while True:
            try:
                got = await runtime.connection.nc.request(subject, timeout=1)
            except nats.errors.NoRespondersError:
                got = None
            if got and got.data:
                return decode(DeadLetter, got.data)
            await asyncio.sleep(0.05)


async def cancel(runtime: Runtime) -> CancelOutcome:
    reply = await runtime.connection.nc.request(
        Subjects.cancel("r1"), encode(CancelRequest()), timeout=5
    )
    return decode(CancelOutcome, reply.data)


async def test_a_letter_is_stored_although_a_cancel_came_while_it_was_being_stored(
    runtime: Runtime, services: Services
) -> None:
    await services.start("assembler")
    await close_letters(runtime)
    await die(runtime)
    await queued_direct_answer(runtime)
    assert (await cancel(runtime)).outcome == "cancelled"
    await asyncio.sleep(0.5)  # the end's own event reaches the assembler
    await open_letters(runtime)
    assert (await letter(runtime)).attempts == 1


async def test_a_deadline_holds_and_no_letter_is_lost_although_none_can_be_stored(
    runtime: Runtime, services: Services
) -> None:
    await services.start("assembler")
    await close_letters(runtime)
    await die(runtime, deadline_s=1.0)
    end = await end_of(runtime, "r1", limit_s=6)
    assert isinstance(end, RequestFailed)
    assert end.error.code == "deadline_exceeded"
    await open_letters(runtime)
    assert (await letter(runtime)).attempts == 1


async def test_a_successor_stores_the_letter_of_a_request_that_was_cancelled_meanwhile(
    runtime: Runtime, services: Services
) -> None:
    first = await services.start("assembler")
    await close_letters(runtime)
    await die(runtime)
    await queued_direct_answer(runtime)
    assert (await cancel(runtime)).outcome == "cancelled"
    first.kill()
    await services.start("assembler")
    await open_letters(runtime)
    assert (await letter(runtime)).attempts == 1
