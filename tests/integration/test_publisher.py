"""What the publisher reports as stored is stored; what it reports as refused is not."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from structlog.testing import capture_logs

from proto.errors import Busy, MessageTooLarge, QueueUnavailable
from proto.names import Band, Header, Pool, Stream, Subjects
from services.runtime.pause import PROBES
from services.runtime.publisher import DurablePublisher, Outcome
from services.runtime.streams import StreamLimits, provision
from skelgraph.local.nats import NatsServer
from tests.conftest import PARTITIONS, Runtime, open_runtime


async def count(runtime: Runtime, stream: Stream) -> int:
    info = await runtime.connection.api(f"STREAM.INFO.{stream}")
    state = info["state"]
    assert isinstance(state, dict)
    return int(state["messages"])


async def test_queued_work_is_unique_per_subject(runtime: Runtime) -> None:
    subject = Subjects.request("r1")
    outcomes = [await runtime.publisher.publish(subject, b"{}") for _ in range(3)]
    assert outcomes == [Outcome.STORED, Outcome.REFUSED, Outcome.REFUSED]
    assert await count(runtime, Stream.REQUESTS) == 1


async def test_queued_work_stays_unique_after_a_crash_of_the_server(runtime: Runtime) -> None:
    subject = Subjects.request("r1")
    await runtime.publisher.publish(subject, b"{}")
    await asyncio.to_thread(runtime.server.restart)
    assert await runtime.publisher.publish(subject, b"{}") is Outcome.REFUSED


async def test_the_first_fact_wins_also_among_many_at_once(
    runtime: Runtime, another: Runtime
) -> None:
    subject = runtime.events.subjects.end("r1")
    publishers = [runtime.publisher, another.publisher] * 10
    outcomes = await asyncio.gather(
        *(publisher.publish(subject, b"{}", first=True) for publisher in publishers)
    )
    assert outcomes.count(Outcome.STORED) == 1
    assert outcomes.count(Outcome.REFUSED) == 19


async def test_no_id_of_a_message_can_be_guessed_from_another(runtime: Runtime) -> None:
    ids = []
    for number in range(3):
        subject = runtime.events.subjects.decoded("r1", number)
        await runtime.publisher.publish(subject, b"{}", first=True)
        reply = await runtime.connection.request(
            f"$JS.API.DIRECT.GET.{Stream.EVENTS}.{subject}", timeout_s=5
        )
        ids.append((reply.headers or {})[Header.MSG_ID])
    assert len({one[:12] for one in ids} | {one[-12:] for one in ids}) == 6, ids


async def test_what_nats_takes_for_another_message_is_stored_all_the_same(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = iter(["known", "fresh", "further"])
    monkeypatch.setattr("services.runtime.publisher._fresh_id", lambda: next(ids))
    taken, ours = Subjects.request("theirs"), Subjects.request("ours")
    await runtime.connection.nc.request(taken, b"{}", headers={Header.MSG_ID: "known"})
    assert await runtime.publisher.publish(ours, b"{}") is Outcome.STORED
    assert await runtime.publisher.publish(ours, b"{}") is Outcome.REFUSED
    assert await count(runtime, Stream.REQUESTS) == 2


async def test_a_full_queue_says_busy_and_when_to_come_back(nats_server: NatsServer) -> None:
    def tiny(limits: StreamLimits) -> StreamLimits:
        return limits.model_copy(update={"max_queued_requests": 2})

    async with AsyncExitStack() as stack:
        runtime = await open_runtime(stack, nats_server, tiny)
        for number in range(2):
            await runtime.publisher.publish(Subjects.request(f"r{number}"), b"{}")
        with pytest.raises(Busy) as caught:
            await runtime.publisher.publish(Subjects.request("r9"), b"{}")
        assert caught.value.retry_after_s


async def test_what_waits_for_room_in_a_full_stream_keeps_nothing_else_waiting(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack:
        runtime = await open_runtime(
            stack, nats_server, lambda one: one.model_copy(update={"max_queued_nodes": 1})
        )
        publisher = DurablePublisher(runtime.connection, window=4)
        await publisher.open()
        with capture_logs() as logs:
            work = [
                publisher.send(
                    Subjects.node(Pool.LARGE, Band.NORMAL, f"r{number}", 1, 1), b"{}", keep_on=True
                )
                for number in range(40)
            ]
            end = runtime.events.subjects.end("r0")
            assert await publisher.publish(end, b"{}", first=True, timeout_s=1) is Outcome.STORED
            tried = published(monkeypatch, runtime)
            await asyncio.sleep(1.0)  # of refusals
        # Each was tried once; then five rounds at most in a second, as waits double, of a few each.
        assert len(tried) <= len(work) + 5 * PROBES
        assert [one["event"] for one in logs] == ["publishes_pause"]
        work.pop().cancel()
        limits = StreamLimits(partitions=PARTITIONS, max_queued_nodes=100)
        await provision(runtime.connection, limits)
        async with asyncio.timeout(3):
            assert set(await asyncio.gather(*work)) == {Outcome.STORED}
        assert await count(runtime, Stream.NODES) == len(work)


def published(monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> list[str]:
    """Return a list that grows by the subject of each publish."""
    subjects: list[str] = []
    put = runtime.connection.put

    def counted(subject: str, data: bytes = b"", **further: object) -> None:
        subjects.append(subject)
        put(subject, data, **further)  # type: ignore[arg-type]

    monkeypatch.setattr(runtime.connection, "put", counted)
    return subjects


async def test_a_message_that_nats_would_drop_is_refused_before_it_is_sent(
    runtime: Runtime,
) -> None:
    body = b"x" * (runtime.connection.max_payload_bytes + 1)
    with pytest.raises(MessageTooLarge, match="bytes"):
        await runtime.publisher.publish(Subjects.request("r1"), body)
    assert await runtime.publisher.publish(Subjects.request("r1"), b"{}") is Outcome.STORED


async def test_what_makes_no_message_fails_and_takes_no_room(runtime: Runtime) -> None:
    publisher = DurablePublisher(runtime.connection, window=1)
    await publisher.open()
    stored = publisher.send(Subjects.request("r1"), b"{}")
    broken = [publisher.send("a b", b"{}") for _ in range(2)]  # these wait for room
    assert await stored is Outcome.STORED
    for one in (*broken, publisher.send("a b", b"{}")):
        with pytest.raises(ValueError, match="a b"):
            await one
    again = publisher.publish(Subjects.request("r2"), b"{}", timeout_s=1)
    assert await again is Outcome.STORED


async def test_an_error_of_one_after_a_reconnect_keeps_no_other_from_being_told(
    runtime: Runtime,
) -> None:
    told = asyncio.Event()

    def fails() -> None:
        raise ValueError("not mine")

    runtime.connection.on_reconnect(fails)
    runtime.connection.on_reconnect(told.set)
    await runtime.connection.nc.force_reconnect()
    async with asyncio.timeout(3):
        await told.wait()


async def test_without_a_server_publishing_ends_in_time(runtime: Runtime) -> None:
    await asyncio.to_thread(runtime.server.kill)
    with pytest.raises(QueueUnavailable):
        await runtime.publisher.publish(Subjects.request("r1"), b"{}", timeout_s=0.5)


async def test_everything_acked_is_stored_once_through_crashes_of_the_server(
    runtime: Runtime,
) -> None:
    total, done = 600, 0
    third, two_thirds = asyncio.Event(), asyncio.Event()

    async def publish(number: int) -> None:
        nonlocal done
        subject = runtime.events.subjects.decoded(f"r{number}", 1)
        assert await runtime.publisher.publish(subject, b"{}", first=True)
        done += 1
        if done == total // 3:
            third.set()
        if done == 2 * total // 3:
            two_thirds.set()

    async def one_after_another(start: int) -> None:
        for number in range(start, total, 6):
            await publish(number)

    lanes = asyncio.gather(*(one_after_another(start) for start in range(6)))
    for moment in (third, two_thirds):
        await moment.wait()
        await asyncio.to_thread(runtime.server.restart)
    await lanes
    assert await count(runtime, Stream.EVENTS) == total
