"""The work loop takes no more than it has slots, loses nothing and does nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from proto.errors import Cancelled, QueueUnavailable
from proto.names import Band, Pool, Stream, Subjects, node_consumer
from services.runtime.clock import ServerClock
from services.runtime.stops import LOOKS_AT_ONCE, Stops
from services.runtime.work import Job, WorkLoop
from tests.conftest import ACK_WAIT_S, Runtime
from tests.facts import answered

Handler = Callable[[Job], Awaitable[None]]


def node_of(job: Job) -> int:
    return int(job.delivery.subject.split(".")[-2])


async def queue(runtime: Runtime, node: int, band: Band = Band.NORMAL) -> None:
    await runtime.publisher.publish(Subjects.node(Pool.SMALL, band, "r1", node, 1), b"{}")


async def queued(runtime: Runtime) -> int:
    info = await runtime.connection.api(f"STREAM.INFO.{Stream.NODES}")
    state = info["state"]
    assert isinstance(state, dict)
    return int(state["messages"])


@asynccontextmanager
async def working(
    runtime: Runtime, handler: Handler, slots: int = 2, drain_s: float = 5
) -> AsyncIterator[asyncio.Event]:
    stopping = asyncio.Event()
    clock = ServerClock()
    await clock.sync(runtime.connection)
    loop = WorkLoop(
        runtime.connection,
        Stream.NODES,
        [node_consumer(Pool.SMALL, band) for band in Band],
        slots,
        handler,
        ack_wait_s=ACK_WAIT_S,
        clock=clock,
        kind="node",
    )
    running = asyncio.create_task(loop.run(stopping, drain_s=drain_s))
    try:
        yield stopping
    finally:
        stopping.set()
        await running


class Recorder:
    """A handler that notes what it gets and waits until it may go on."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.running = 0
        self.most_running = 0
        self.go_on = asyncio.Event()
        self._changed = asyncio.Condition()

    async def __call__(self, job: Job) -> None:
        self.begun.append(node_of(job))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await self._notify()
        try:
            await self.go_on.wait()
        finally:
            self.running -= 1
            await self._notify()

    async def until(self, reached: Callable[[], bool]) -> None:
        async with self._changed, asyncio.timeout(10):
            await self._changed.wait_for(reached)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def drained(runtime: Runtime, to: int = 0) -> None:
    async with asyncio.timeout(10):
        while await queued(runtime) != to:  # noqa: ASYNC110  # the server's state; it tells no event
            await asyncio.sleep(0.02)


async def test_no_more_is_taken_than_there_are_slots(runtime: Runtime) -> None:
    recorder = Recorder()
    for node in range(6):
        await queue(runtime, node)
    async with working(runtime, recorder, slots=2):
        await recorder.until(lambda: recorder.running == 2)
        # Another worker gets the rest while the first one is full.
        other = Recorder()
        async with working(runtime, other, slots=4):
            await other.until(lambda: other.running == 4)
            other.go_on.set()
            recorder.go_on.set()
            await drained(runtime)
    assert recorder.most_running == 2
    assert sorted(recorder.begun + other.begun) == list(range(6))


async def test_urgent_work_is_taken_first(runtime: Runtime) -> None:
    recorder = Recorder()
    recorder.go_on.set()
    for node in range(3):
        await queue(runtime, node)
    for node in range(10, 13):
        await queue(runtime, node, Band.URGENT)
    async with working(runtime, recorder, slots=1):
        await drained(runtime)
    assert recorder.begun == [10, 11, 12, 0, 1, 2]


async def test_work_longer_than_the_ack_wait_is_done_once(runtime: Runtime) -> None:
    async def long(job: Job) -> None:
        begun.append(node_of(job))
        await asyncio.sleep(ACK_WAIT_S * 2.5)

    begun: list[int] = []
    await queue(runtime, 1)
    async with working(runtime, long, slots=2):
        await drained(runtime)
    assert begun == [1]


async def test_work_that_outlasts_an_absence_of_the_server_is_begun_once(runtime: Runtime) -> None:
    recorder = Recorder()
    await queue(runtime, 1)
    async with working(runtime, recorder, slots=2):
        await recorder.until(lambda: recorder.running == 1)
        await asyncio.to_thread(runtime.server.kill)
        await asyncio.sleep(ACK_WAIT_S * 1.5)
        runtime.server.launch()
        await runtime.server.ready()
        await queue(runtime, 2)
        await recorder.until(lambda: 2 in recorder.begun)
        await asyncio.sleep(ACK_WAIT_S)
        recorder.go_on.set()
        await drained(runtime)
    assert sorted(recorder.begun) == [1, 2]


async def test_a_full_worker_gives_work_back_calmly(runtime: Runtime) -> None:
    """Its pull of the other band is still open; each delivery counts as one."""
    recorder, noted = Recorder(), asyncio.Event()
    times: list[int] = []

    async def note(job: Job) -> None:
        times.append(job.delivery.times)
        noted.set()

    slots = 16
    async with working(runtime, recorder, slots=slots):
        for node in range(slots):
            await queue(runtime, node)
        await recorder.until(lambda: recorder.running == slots)
        await queue(runtime, 99, Band.URGENT)
        await asyncio.sleep(0.3)
        async with working(runtime, note, slots=1):
            async with asyncio.timeout(10):
                await noted.wait()
            recorder.go_on.set()
    assert times[0] < slots / 2


async def test_work_is_acked_only_after_its_handler_has_returned(runtime: Runtime) -> None:
    recorder = Recorder()
    await queue(runtime, 1)
    async with working(runtime, recorder):
        await recorder.until(lambda: recorder.running == 1)
        assert await queued(runtime) == 1
        recorder.go_on.set()
        await drained(runtime)


async def test_work_whose_handler_fails_comes_back(runtime: Runtime) -> None:
    async def fails_once(job: Job) -> None:
        tries.append(job.delivery.times)
        if len(tries) == 1:
            raise QueueUnavailable("for a moment")

    tries: list[int] = []
    await queue(runtime, 1)
    async with working(runtime, fails_once):
        await drained(runtime)
    assert tries == [1, 2]


async def test_a_stopping_worker_finishes_what_it_runs_and_takes_nothing_new(
    runtime: Runtime,
) -> None:
    recorder = Recorder()
    await queue(runtime, 1)
    async with working(runtime, recorder, slots=1) as stopping:
        await recorder.until(lambda: recorder.running == 1)
        stopping.set()
        await queue(runtime, 2)
        recorder.go_on.set()
    await drained(runtime, to=1)
    assert recorder.begun == [1]


async def test_what_is_not_drained_in_time_is_given_back_at_once(runtime: Runtime) -> None:
    stuck, other = Recorder(), Recorder()
    await queue(runtime, 1)
    async with working(runtime, stuck, drain_s=0.1):
        await stuck.until(lambda: stuck.running == 1)
    other.go_on.set()
    async with asyncio.timeout(ACK_WAIT_S * 0.8), working(runtime, other):
        await other.until(lambda: other.begun == [1])


async def test_work_goes_on_after_a_crash_of_the_server(runtime: Runtime) -> None:
    recorder = Recorder()
    recorder.go_on.set()
    async with working(runtime, recorder):
        await queue(runtime, 1)
        await recorder.until(lambda: recorder.begun == [1])
        await asyncio.to_thread(runtime.server.restart)
        await queue(runtime, 2)
        await recorder.until(lambda: 2 in recorder.begun)


@pytest.mark.parametrize("slots", [1, 3])
async def test_work_that_comes_one_by_one_is_taken_without_delay(
    runtime: Runtime, slots: int
) -> None:
    recorder = Recorder()
    recorder.go_on.set()
    async with working(runtime, recorder, slots=slots), asyncio.timeout(5):
        for node in range(40):
            await queue(runtime, node, Band.URGENT if node % 2 else Band.NORMAL)
            await recorder.until(lambda wanted=node: wanted in recorder.begun)  # type: ignore[misc]


async def test_ends_that_nobody_has_told_of_are_found_of_more_requests_than_are_looked_at_at_once(
    runtime: Runtime,
) -> None:
    clock = ServerClock()
    await clock.sync(runtime.connection)
    stops = Stops(runtime.events, look_every_s=60, clock=clock)
    requests = [f"r{number}" for number in range(2 * LOOKS_AT_ONCE + 1)]
    deadline_at = clock.now() + 60
    running = {
        request: asyncio.create_task(
            stops.run(asyncio.sleep(60), request=request, node=1, deadline_at=deadline_at)
        )
        for request in requests
    }
    for request in requests[1:]:
        await runtime.events.append(answered(request))
    await stops._look_once()
    done, _ = await asyncio.wait([running[request] for request in requests[1:]], timeout=5)
    assert {type(task.exception()) for task in done} == {Cancelled}
    assert len(done) == len(requests) - 1
    assert not running[requests[0]].done()
    running[requests[0]].cancel()
