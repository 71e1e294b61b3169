"""At each bound new requests are refused in words, and what was accepted is not lost."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from proto.codec import encode
from proto.errors import Busy
from proto.messages import (
    AnswerAssembled,
    DeadLetter,
    DecodeNode,
    ErrorInfo,
    Fact,
    NodeSpec,
    RequestAccepted,
    RequestFailed,
    SubmitRequest,
)
from proto.names import Pool, Stream, Subjects, requeued_id
from services.runtime.client import Client
from services.runtime.publisher import WINDOW, Outcome
from services.runtime.streams import StreamLimits, provision
from skelgraph.local.nats import NatsServer
from tests.conftest import ACK_WAIT_S, PARTITIONS, Runtime, open_runtime
from tests.facts import accepted, plan, planned
from tests.processes import Services, end_of, facts, submit, until_fact
from tests.scripted_engine import Finish, Say, Script, ScriptedEngine, Step, Wait, writer

Change = Callable[[StreamLimits], StreamLimits]
LONG = "Why? " * 8000


@dataclass
class Deployment:
    """A provisioned server with other bounds, and its services."""

    runtime: Runtime
    services: Services


@contextlib.asynccontextmanager
async def deployment(server: NatsServer, logs: Path, **limits: object) -> AsyncIterator[Deployment]:
    async with AsyncExitStack() as stack:
        runtime = await open_runtime(stack, server, lambda one: one.model_copy(update=limits))
        yield Deployment(runtime, Services(stack, runtime, logs))


async def everything(at: Deployment, engine: ScriptedEngine, **settings: str) -> None:
    urls = {"large_urls": engine.url, "small_urls": engine.url}
    await asyncio.gather(
        at.services.start("planner", **urls, **settings),
        at.services.start("assembler"),
        at.services.start("worker", "--pool", "large", **urls),
        at.services.start("worker", "--pool", "small", **urls),
    )


def waiting_for(event: asyncio.Event) -> Script:
    def script(_: object) -> list[Step]:
        return [Wait(event), Say("It is written."), Finish()]

    return script


def busy_of(end: Fact) -> ErrorInfo:
    assert isinstance(end, RequestFailed)
    assert end.error.code == "busy"
    assert end.error.retryable
    assert end.error.retry_after_s
    return end.error


async def messages(runtime: Runtime, stream: Stream) -> int:
    state = (await runtime.connection.api(f"STREAM.INFO.{stream}"))["state"]
    assert isinstance(state, dict)
    return int(state["messages"])


async def test_over_the_limit_of_open_requests_the_next_is_busy_before_it_is_planned(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    go_on = asyncio.Event()
    async with (
        deployment(nats_server, tmp_path) as at,
        ScriptedEngine(waiting_for(go_on)) as engine,
    ):
        await everything(at, engine, max_open_requests="2")
        for request in ("r1", "r2"):
            await submit(at.runtime, request, mode="direct")
            await until_fact(at.runtime, request, RequestAccepted)
        await submit(at.runtime, "r3", mode="direct")
        assert "the limit is 2" in busy_of(await end_of(at.runtime, "r3")).message
        assert len(await facts(at.runtime, "r3")) == 1
        go_on.set()
        for request in ("r1", "r2"):
            assert isinstance(await end_of(at.runtime, request), AnswerAssembled)
        async with asyncio.timeout(10):
            for number in range(4, 100):  # there is room again as soon as the load is read anew
                await submit(at.runtime, f"r{number}", mode="direct")
                if isinstance(await end_of(at.runtime, f"r{number}"), AnswerAssembled):
                    break


async def test_a_duplicate_of_an_open_request_is_not_its_end_when_the_service_is_busy(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    go_on = asyncio.Event()
    async with (
        deployment(nats_server, tmp_path) as at,
        ScriptedEngine(waiting_for(go_on)) as engine,
    ):
        await everything(at, engine, max_open_requests="1")
        await submit(at.runtime, "r1", mode="direct")
        await until_fact(at.runtime, "r1", RequestAccepted)
        await submit(at.runtime, "r1", mode="direct")  # it is not queued any more: stored
        await at.runtime.publisher.publish(Subjects.request("r1"), b'{"question": 7}')
        async with asyncio.timeout(10):
            while await messages(at.runtime, Stream.REQUESTS):  # noqa: ASYNC110  # remote state
                await asyncio.sleep(0.02)
        go_on.set()
        assert isinstance(await end_of(at.runtime, "r1"), AnswerAssembled)


async def test_a_log_near_its_limit_refuses_new_requests_and_ends_the_open_ones(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    go_on = asyncio.Event()
    async with (
        deployment(nats_server, tmp_path, events_max_bytes=2_000_000) as at,
        ScriptedEngine(waiting_for(go_on)) as engine,
    ):
        await everything(at, engine, full_share="0.06")
        for number in (1, 2, 3):  # 40 kB each in the log
            await submit(at.runtime, f"r{number}", mode="direct", question=LONG)
            await until_fact(at.runtime, f"r{number}", RequestAccepted)
        busy = busy_of(await first_refusal(at.runtime))
        assert "the event log is" in busy.message
        go_on.set()
        for number in (1, 2, 3):
            assert isinstance(await end_of(at.runtime, f"r{number}"), AnswerAssembled)


async def test_a_full_log_keeps_its_writers_waiting_until_there_is_room(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    go_on = asyncio.Event()
    async with (
        deployment(nats_server, tmp_path, events_max_bytes=100_000) as at,
        ScriptedEngine(waiting_for(go_on)) as engine,
    ):
        await everything(at, engine, full_share="1")
        for number in (1, 2):  # 40 kB each in the log
            await submit(at.runtime, f"r{number}", mode="direct", question=LONG)
            await until_fact(at.runtime, f"r{number}", RequestAccepted)
        for number in (3, 4):  # taken by the planner, but there is no room for the fact
            await submit(at.runtime, f"r{number}", mode="direct", question=LONG)
        await until_logged(tmp_path / "planner-1.log", "event_log_full")
        go_on.set()
        limits = StreamLimits(partitions=PARTITIONS, ack_wait_s=ACK_WAIT_S)
        await provision(at.runtime.connection, limits)  # as an operator does
        for number in (1, 2, 3, 4):
            assert isinstance(await end_of(at.runtime, f"r{number}"), AnswerAssembled)


async def test_refusals_leave_the_last_room_of_the_log_to_open_requests(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    go_on = asyncio.Event()
    async with (
        deployment(nats_server, tmp_path, events_max_bytes=400_000) as at,
        ScriptedEngine(waiting_for(go_on)) as engine,
    ):
        await submit(at.runtime, "r1", mode="direct")
        await everything(at, engine)
        await until_fact(at.runtime, "r1", RequestAccepted)
        for number in range(4):  # somebody else's facts: 96 % of the log
            await at.runtime.events.append(accepted(f"old{number}", question="x" * 95_000))
        await until_logged(tmp_path / "planner-1.log", "held_back")
        for number in range(200):
            await submit(at.runtime, f"b{number}", mode="direct")
        go_on.set()
        assert isinstance(await end_of(at.runtime, "r1"), AnswerAssembled)
        assert await messages(at.runtime, Stream.REQUESTS) > 150


async def test_a_client_does_not_get_past_the_limit_by_calling_its_request_requeued(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    go_on = asyncio.Event()
    async with (
        deployment(nats_server, tmp_path) as at,
        ScriptedEngine(waiting_for(go_on)) as engine,
    ):
        await everything(at, engine, max_open_requests="1")
        await submit(at.runtime, "r1", mode="direct")
        await until_fact(at.runtime, "r1", RequestAccepted)
        await submit(at.runtime, "r2", mode="direct", requeued_from="nonsense")
        busy_of(await end_of(at.runtime, "r2"))
        # Nor by the id that a requeue would have: that request is open, a tenant's never was.
        for old in ("r1", "@acme.never"):
            again = requeued_id(old)
            await submit(at.runtime, again, mode="direct", requeued_from=old)
            busy_of(await end_of(at.runtime, again))


async def until_logged(log: Path, what: str) -> None:
    async with asyncio.timeout(10):
        while what not in log.read_text():  # noqa: ASYNC110, ASYNC240  # another process writes it
            await asyncio.sleep(0.05)


async def first_refusal(runtime: Runtime) -> Fact:
    """Submit until one is refused, which is soon: the load is read every second."""
    async with asyncio.timeout(10):
        for number in range(4, 10_000):
            await submit(runtime, f"r{number}", mode="direct")
            told: list[Fact] = []
            while not told:
                told = await facts(runtime, f"r{number}")
            if isinstance(told[0], RequestFailed):
                return told[0]
    raise AssertionError("none was refused")


async def test_a_full_queue_of_requests_refuses_at_once(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with deployment(nats_server, tmp_path, max_queued_requests=2) as at:
        for request in ("r1", "r2"):
            await submit(at.runtime, request)
        with pytest.raises(Busy) as refused:
            await submit(at.runtime, "r3")
        assert refused.value.retry_after_s


async def test_a_full_queue_of_nodes_delays_nodes_and_loses_none(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with (
        deployment(nats_server, tmp_path, max_queued_nodes=1) as at,
        ScriptedEngine(writer(token_s=0.001)) as engine,
    ):
        await everything(at, engine, full_share="1")
        for number in range(2):
            await submit(at.runtime, f"r{number}", mode="sgd")
        for number in range(2):
            end = await end_of(at.runtime, f"r{number}", limit_s=40)
            assert isinstance(end, AnswerAssembled | RequestFailed)
            if isinstance(end, RequestFailed):  # the look at the load fell into a full queue
                busy_of(end)


async def test_requests_whose_nodes_wait_for_room_end_at_their_deadline(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    requests = [f"r{number}" for number in range(WINDOW // 6 + 10)]
    async with deployment(nats_server, tmp_path, max_queued_nodes=1) as at:
        await at.services.start("assembler")  # and no worker
        for request in requests:
            await asyncio.gather(*map(at.runtime.events.append, planned_request(request)))
        now = time.time()
        for request in requests:
            await at.runtime.events.append(accepted(request, at=now, mode="sgd", deadline_s=2))
        for request in requests:
            end = await end_of(at.runtime, request, limit_s=8)
            assert isinstance(end, RequestFailed)
            assert end.error.code == "deadline_exceeded"


def planned_request(request: str) -> list[Fact]:
    ids = range(1, 7)
    return [*(planned(one, request=request) for one in ids), plan(list(ids), request=request)]


async def test_the_oldest_dead_letter_makes_room_for_a_new_one(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with deployment(nats_server, tmp_path, queue_max_bytes=50_000) as at:
        for number in range(5):
            letter = dead_letter(f"r{number}")
            stored = await at.runtime.publisher.publish(
                Subjects.dead(letter.request, 1), encode(letter), first=True, timeout_s=5
            )
            assert stored is Outcome.STORED
        assert 0 < await messages(at.runtime, Stream.DEAD) < 5


def dead_letter(request: str) -> DeadLetter:
    work = DecodeNode(
        request=request,
        node=NodeSpec(id=1, summary="A point", difficulty="hard"),
        attempt=4,
        pool=Pool.LARGE,
        mode="sgd",
        question="x" * 15_000,
        deadline_at=1,
    )
    error = ErrorInfo(code="engine_failed", message="The engine failed.", retryable=True)
    return DeadLetter(request=request, node=1, attempts=4, error=error, work=work)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB; needs a user who may mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a small file system here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_full_disk_keeps_what_was_accepted_and_says_busy(
    small_disk: Path, tmp_path: Path
) -> None:
    go_on = asyncio.Event()
    async with (
        NatsServer(small_disk / "nats", log_path=tmp_path / "nats.log") as server,
        deployment(server, tmp_path) as at,
        ScriptedEngine(waiting_for(go_on)) as engine,
    ):
        await everything(at, engine)
        await submit(at.runtime, "r1", mode="direct")
        await until_fact(at.runtime, "r1", RequestAccepted)
        fill(small_disk / "ballast")
        stored = await submitted_until_busy(at.runtime)
        go_on.set()
        (small_disk / "ballast").unlink()
        await asyncio.to_thread(server.restart)  # what a person does once there is room again
        for request in ("r1", *stored):
            assert isinstance(await end_of(at.runtime, request, limit_s=30), AnswerAssembled)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


async def submitted_until_busy(runtime: Runtime) -> list[str]:
    """Submit until the disk takes no more; return what was confirmed as stored."""
    stored: list[str] = []
    client = Client(runtime.connection, runtime.publisher)
    for number in range(20):
        asked = SubmitRequest(question=LONG, mode="direct", deadline_s=3600)
        try:
            await client.submit(asked, f"d{number}", timeout_s=2)
        except Busy:
            return stored
        stored.append(f"d{number}")
    raise AssertionError("the disk was never full")
