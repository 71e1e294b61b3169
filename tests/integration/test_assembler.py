"""The assembler as a process: what it releases, how it ends requests, who takes over."""

from __future__ import annotations

import asyncio
import re
import signal
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proto.codec import decode, encode
from proto.errors import Cancelled
from proto.messages import (
    AnswerAssembled,
    CancelOutcome,
    CancelRequest,
    DeadLetter,
    DecodeNode,
    ErrorInfo,
    RequestAccepted,
    RequestFailed,
    StopWork,
)
from proto.names import ANY_STOP, Band, Pool, Stream, Subjects, node_consumer
from services.runtime.clock import ServerClock
from services.runtime.pull import Delivery
from skelgraph.local.process import Child
from tests.conftest import ACK_WAIT_S, Runtime
from tests.facts import accepted, decoded, failed, plan, planned
from tests.processes import Inbox, Services, end_of, submit

#: Long enough for a successor to start.
DEADLINE_S = 6.0


@pytest.fixture
async def services(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        yield Services(stack, runtime, tmp_path / "logs")


@pytest.fixture
async def work(runtime: Runtime) -> AsyncIterator[Inbox]:
    consumers = [node_consumer(pool, band) for pool in Pool for band in Band]
    async with Inbox(runtime, Stream.NODES, *consumers) as inbox:
        yield inbox


def nodes(deliveries: list[Delivery]) -> list[DecodeNode]:
    return [decode(DecodeNode, delivery.data) for delivery in deliveries]


async def now(runtime: Runtime) -> float:
    """NATS's clock."""
    clock = ServerClock()
    await clock.sync(runtime.connection)
    return clock.now()


async def seconds_taken(runtime: Runtime) -> float:
    """From the submission to the stored end."""
    stored = await runtime.events.read("r1")
    accepted = next(one.fact for one in stored if isinstance(one.fact, RequestAccepted))
    return stored[-1].stored_at - accepted.submitted_at


def open_requests(child: Child) -> float:
    """How many requests an assembler says that it holds."""
    url = f"http://127.0.0.1:{child.spec.port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as reply:
        held = re.findall(rb'in_flight\{kind="open_request_\d"\} (\S+)', reply.read())
    return sum(map(float, held))


async def tell(runtime: Runtime, *told: object) -> None:
    for fact in told:
        await runtime.events.append(fact)  # type: ignore[arg-type]


async def test_ready_nodes_reach_their_pools_and_dependants_follow(
    runtime: Runtime, services: Services, work: Inbox
) -> None:
    await services.start("assembler")
    at = await now(runtime)
    await tell(runtime, accepted(at=at), planned(1, (), "easy"), planned(2), planned(3, [1, 2]))
    await tell(runtime, plan([1, 2, 3]))
    ready = nodes(await work.wait_for(2))
    assert {node.node.id: node.pool for node in ready} == {1: Pool.SMALL, 2: Pool.LARGE}
    await tell(runtime, decoded(1), decoded(2))
    assert nodes(await work.wait_for(3))[-1].node.id == 3
    await tell(runtime, decoded(3))
    end = await end_of(runtime, "r1")
    assert isinstance(end, AnswerAssembled)
    assert end.text == "Text 1.\n\nText 2.\n\nText 3."
    assert end.timings.wall_ms > 0


async def test_a_request_without_workers_ends_at_its_deadline(
    runtime: Runtime, services: Services
) -> None:
    await services.start("assembler")
    await tell(runtime, accepted(at=await now(runtime), deadline_s=0.5), planned(1))
    end = await end_of(runtime, "r1", limit_s=5)
    assert isinstance(end, RequestFailed)
    assert end.error.code == "deadline_exceeded"


async def ended_when_it_was_due(runtime: Runtime, ready_s: float, within_s: float) -> None:
    """An assembler that is ready later than the deadline ends the request as soon as it is."""
    taken_s = await seconds_taken(runtime)
    assert DEADLINE_S - 0.1 < taken_s < max(DEADLINE_S, ready_s) + within_s


async def test_the_deadline_holds_although_the_assembler_is_killed(
    runtime: Runtime, services: Services
) -> None:
    first = await services.start("assembler")
    asked_at = await now(runtime)
    await tell(runtime, accepted(at=asked_at, deadline_s=DEADLINE_S), planned(1))
    await asyncio.sleep(DEADLINE_S - 1)
    first.kill()
    await services.start("assembler")
    ready_s = await now(runtime) - asked_at
    end = await end_of(runtime, "r1", limit_s=15)
    assert isinstance(end, RequestFailed)
    assert end.error.code == "deadline_exceeded"
    await ended_when_it_was_due(runtime, ready_s, ACK_WAIT_S + 1)


async def test_the_deadline_holds_although_the_assembler_came_late(
    runtime: Runtime, services: Services
) -> None:
    asked_at = await now(runtime)
    await tell(runtime, accepted(at=asked_at, deadline_s=DEADLINE_S), planned(1))
    await asyncio.sleep(3)
    await services.start("assembler")
    ready_s = await now(runtime) - asked_at
    await end_of(runtime, "r1", limit_s=15)
    await ended_when_it_was_due(runtime, ready_s, 1.5)


async def test_a_request_that_ended_before_it_was_accepted_stays_closed(
    runtime: Runtime, services: Services
) -> None:
    """Cancelled while it was queued; then the assembler was restarted."""
    first = await services.start("assembler")
    await submit(runtime, "r1")
    assert (await cancel(runtime, "r1")).outcome == "cancelled"
    await asyncio.sleep(0.3)
    first.kill()
    second = await services.start("assembler")
    await tell(runtime, accepted(at=await now(runtime)), planned(1))
    await tell(runtime, accepted("r2", at=await now(runtime)), planned(1, request="r2"))
    async with asyncio.timeout(10):
        while await queued_nodes(runtime) != 1 or open_requests(second) != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
async def test_a_standby_takes_over_and_releases_what_follows(
    runtime: Runtime,
    services: Services,
    work: Inbox,
    how: signal.Signals,
) -> None:
    first = await services.start("assembler")
    await tell(runtime, accepted(at=await now(runtime)), planned(1), planned(2, [1]), plan([1, 2]))
    (one,) = await work.wait_for(1)
    await services.start("assembler")
    first.signal(how)
    await tell(runtime, decoded(1))
    await one.ack()
    _, two = await work.wait_for(2)
    await tell(runtime, decoded(2))
    await two.ack()
    assert isinstance(await end_of(runtime, "r1"), AnswerAssembled)
    assert [one.node.id for one in nodes(work.got)] == [1, 2]


async def test_a_successor_finds_a_request_of_which_nothing_more_is_heard(
    runtime: Runtime, services: Services, work: Inbox
) -> None:
    """All its events were acked, but for the accepted one, when its owner died."""
    first = await services.start("assembler")
    await tell(runtime, accepted(at=await now(runtime)), planned(1), plan([1]))
    await work.wait_for(1)
    await asyncio.sleep(0.3)
    first.kill()
    await runtime.connection.api(
        f"STREAM.PURGE.{Stream.NODES}", {"filter": Subjects.nodes_of("r1")}
    )
    await services.start("assembler")
    again = await work.wait_for(2, limit_s=ACK_WAIT_S + 8)
    assert [one.node.id for one in nodes(again)] == [1, 1]


async def test_failures_are_retried_then_buried_and_the_answer_is_direct(
    runtime: Runtime, services: Services, work: Inbox
) -> None:
    await services.start("assembler")
    at = await now(runtime)
    await tell(runtime, accepted(at=at), planned(1), planned(2), planned(3), plan([1, 2, 3]))
    for attempt in (1, 2, 3):
        await tell(runtime, failed(1, attempt))
        got = nodes(await work.wait_for(3 + attempt))
        assert (1, attempt + 1) in [(one.node.id, one.attempt) for one in got]
    await tell(runtime, failed(1, 4))
    got = nodes(await work.wait_for(7))
    assert 0 in [one.node.id for one in got]
    await tell(runtime, decoded(0, text="Direct."))
    end = await end_of(runtime, "r1")
    assert isinstance(end, AnswerAssembled)
    assert (end.text, end.fallback) == ("Direct.", True)
    letter = await runtime.connection.nc.request(
        f"$JS.API.DIRECT.GET.{Stream.DEAD}.{Subjects.dead('r1', 1)}"
    )
    assert decode(DeadLetter, letter.data).attempts == 4


async def cancel(runtime: Runtime, request: str) -> CancelOutcome:
    reply = await runtime.connection.nc.request(
        Subjects.cancel(request), encode(CancelRequest(reason="test")), timeout=5
    )
    return decode(CancelOutcome, reply.data)


async def test_cancel_ends_the_request_unqueues_its_work_and_stops_workers(
    runtime: Runtime, services: Services
) -> None:
    heard: asyncio.Queue[StopWork] = asyncio.Queue()

    async def hear(message: object) -> None:
        heard.put_nowait(decode(StopWork, message.data))  # type: ignore[attr-defined]

    await services.start("assembler")
    await runtime.connection.subscribe(ANY_STOP, hear)
    await tell(runtime, accepted(at=await now(runtime)), planned(1), planned(2))
    assert (await cancel(runtime, "r1")).outcome == "cancelled"
    end = await end_of(runtime, "r1")
    assert isinstance(end, RequestFailed)
    assert end.error.code == "cancelled"
    assert (await asyncio.wait_for(heard.get(), 5)).request == "r1"
    assert (await cancel(runtime, "r1")).outcome == "cancelled"  # to ask twice is as good as once
    async with asyncio.timeout(5):
        while await queued_nodes(runtime):  # noqa: ASYNC110  # a remote state
            await asyncio.sleep(0.02)


async def queued_nodes(runtime: Runtime) -> int:
    info = await runtime.connection.api(f"STREAM.INFO.{Stream.NODES}")
    state = info["state"]
    assert isinstance(state, dict)
    return int(state["messages"])


async def test_work_of_an_ended_request_that_a_crash_left_in_the_queue_is_unqueued(
    runtime: Runtime, services: Services
) -> None:
    await tell(runtime, accepted(at=await now(runtime)), planned(1), plan([1]))
    ended = RequestFailed(request="r1", error=ErrorInfo.of(Cancelled()))
    await tell(runtime, ended)
    left = Subjects.node(Pool.LARGE, Band.URGENT, "r1", 1, 1)
    await runtime.publisher.publish(left, b"{}")
    await services.start("assembler")
    async with asyncio.timeout(20):
        while await queued_nodes(runtime):  # noqa: ASYNC110  # a remote state
            await asyncio.sleep(0.02)


async def test_cancelling_an_unknown_request_says_so_and_stores_nothing(
    runtime: Runtime, services: Services
) -> None:
    await services.start("assembler")
    assert (await cancel(runtime, "nobody")).outcome == "unknown"
    assert not await runtime.events.has_ended("nobody")


async def test_a_request_is_cancelled_while_it_waits_for_a_planner(
    runtime: Runtime, services: Services
) -> None:
    await services.start("assembler")
    await submit(runtime, "r1")
    assert (await cancel(runtime, "r1")).outcome == "cancelled"


async def test_the_assembler_survives_a_crash_of_the_server(
    runtime: Runtime, services: Services, work: Inbox
) -> None:
    child = await services.start("assembler")
    await tell(runtime, accepted(at=await now(runtime)), planned(1), planned(2, [1]), plan([1, 2]))
    await work.wait_for(1)
    await asyncio.to_thread(runtime.server.restart)
    await tell(runtime, decoded(1), decoded(2))
    assert isinstance(await end_of(runtime, "r1"), AnswerAssembled)
    assert child.alive
