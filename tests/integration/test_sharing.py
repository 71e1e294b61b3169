"""Assemblers share the partitions: while requests come, some come, go and die."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import pytest

from proto.codec import decode
from proto.messages import AnswerAssembled, DecodeNode, Fact
from proto.names import (
    PIN_GROUP,
    Band,
    Pool,
    Stream,
    node_consumer,
    partition_consumer,
    partition_of,
)
from services.assembler.shares import EXPIRES_S
from services.assembler.sharing import TELL_EVERY_S
from services.runtime import metrics
from services.runtime.clock import ServerClock
from services.runtime.pull import ConsumerPull, Delivery
from services.runtime.streams import PIN_TIMEOUT_S
from tests import waiting
from tests.assemblers import Assembler, assembler
from tests.conftest import Runtime, open_runtime
from tests.facts import accepted, decoded, plan, planned
from tests.processes import end_of

PARTITIONS: Final = 4
#: Of each request: the last needs the others.
NEEDS: Final = ((), (), (1, 2))
PACE_S: Final = 0.01
#: So that every assembler that lets a partition go has open requests in it.
DECODE_S: Final = 0.1

until = partial(waiting.until, limit_s=20)


class Load:
    """Requests that come one after another, and a worker that decodes their nodes at once."""

    def __init__(self, runtime: Runtime) -> None:
        self.requests: list[str] = []
        self.handed_over: Counter[tuple[str, int]] = Counter()
        self._runtime = runtime
        self._enough = False
        self._working: set[asyncio.Task[None]] = set()
        self._pulls = [
            ConsumerPull(runtime.connection, Stream.NODES, node_consumer(pool, band), self._got)
            for pool in Pool
            for band in Band
        ]

    async def __aenter__(self) -> Load:
        for pull in self._pulls:
            await pull.start()
            pull.want(1000)
        self._coming = asyncio.create_task(self._come())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        for pull in self._pulls:
            await pull.stop()

    async def stop(self) -> None:
        """Let no more come."""
        self._enough = True
        await self._coming

    async def _come(self) -> None:
        clock = ServerClock()
        await clock.sync(self._runtime.connection)
        for number in itertools.count():
            if self._enough:
                return
            request = f"r{number}"
            told: list[Fact] = [accepted(request, at=clock.now())]
            told += [planned(id_, of, request=request) for id_, of in enumerate(NEEDS, 1)]
            self.requests.append(request)
            for fact in (*told, plan(range(1, len(NEEDS) + 1), request=request)):
                await self._runtime.events.append(fact)
            await asyncio.sleep(PACE_S)

    def _got(self, delivery: Delivery) -> None:
        self._working.add(task := asyncio.create_task(self._decode(delivery)))
        task.add_done_callback(self._working.discard)

    async def _decode(self, delivery: Delivery) -> None:
        work = decode(DecodeNode, delivery.data)
        self.handed_over[work.request, work.node.id] += delivery.times == 1
        await asyncio.sleep(DECODE_S)
        await self._runtime.events.append(decoded(work.node.id, request=work.request))
        await delivery.ack()


@pytest.fixture
async def many(nats_server: object) -> AsyncIterator[Runtime]:
    """A server whose log has more partitions than that of other tests."""
    async with AsyncExitStack() as stack:
        yield await open_runtime(
            stack,
            nats_server,  # type: ignore[arg-type]
            lambda limits: limits.model_copy(update={"partitions": PARTITIONS}),
        )


async def until_owned(there: Sequence[Assembler], *counts: int) -> None:
    """Return when so many partitions are pinned to each of the assemblers, in any order."""
    await until(lambda: sorted(one.owned for one in there) == sorted(counts))


def given() -> float:
    """Return how many partitions have been given up in this process so far."""
    (metric,) = metrics.PARTITIONS_GIVEN.collect()
    return metric.samples[0].value


@pytest.mark.timeout(60)
async def test_every_request_is_done_once_while_assemblers_come_and_go(many: Runtime) -> None:
    url = many.server.url
    async with AsyncExitStack() as stack:

        async def start(name: str) -> Assembler:
            return await stack.enter_async_context(assembler(url, name, partitions=PARTITIONS))

        load = await stack.enter_async_context(Load(many))
        first = await start("a")
        await until_owned([first], 4)
        before = given()
        there = [first, await start("b"), await start("c")]
        await until_owned(there, 1, 1, 2)
        await there[1].leave()
        await until_owned([first, there[2]], 2, 2)
        await there[2].die()
        await until_owned([first], 4)
        await load.stop()
        for request in load.requests:
            assert isinstance(await end_of(many, request), AnswerAssembled)
    assert given() - before == 2
    assert set(load.handed_over.values()) == {1}
    assert len(load.handed_over) == len(NEEDS) * len(load.requests)


async def test_what_comes_after_a_partition_was_let_go_is_given_back(many: Runtime) -> None:
    url, request = many.server.url, "r1"
    number = partition_of(request, PARTITIONS)
    clock = ServerClock()
    await clock.sync(many.connection)
    await many.events.append(accepted(request, at=clock.now()))
    async with assembler(url, "a", partitions=PARTITIONS) as first:
        partition = first.partitions[number]
        await until(lambda: partition.open_requests == 1)
        await first.leave()
        await partition.pull.start()
        # As what lay in the socket of a process that stood still: asked for before.
        await partition.pull._pull(1)
        await until(lambda: not partition.pull.due)
        assert partition.open_requests == 0
        async with assembler(url, "b", partitions=PARTITIONS) as second:
            await until(lambda: second.partitions[number].open_requests == 1)


async def test_a_partition_asked_for_and_left_while_it_is_let_go_is_let_go(
    many: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = partition_of("r1", PARTITIONS)
    clock = ServerClock()
    await clock.sync(many.connection)
    await many.events.append(accepted("r1", at=clock.now()))
    async with assembler(many.server.url, "a", partitions=PARTITIONS) as first:
        partition = first.partitions[number]
        await until(lambda: partition.open_requests == 1)
        first.running[1].cancel()  # nobody but this test says what it asks for
        slow, answered = asyncio.Event(), asyncio.Event()

        async def unpin(_: str) -> None:
            slow.set()
            await answered.wait()

        monkeypatch.setattr(first.ledger, "unpin", unpin)
        partition.leave()
        await slow.wait()
        partition.take()
        await until(lambda: partition.open_requests == 1)
        partition.leave()
        answered.set()
        await until(lambda: partition.open_requests == 0)
        await until(lambda: not partition.is_going)


async def test_while_nats_is_away_nobody_asks_for_what_another_has(many: Runtime) -> None:
    url = many.server.url
    async with (
        assembler(url, "a", partitions=PARTITIONS) as first,
        assembler(url, "b", partitions=PARTITIONS) as second,
    ):

        def asked() -> list[set[int]]:
            there = (first, second)
            return [{one.number for one in each.partitions if one.is_asked} for each in there]

        await until(lambda: [len(one) for one in asked()] == [2, 2])
        shared = asked()
        many.server.kill()
        await asyncio.sleep(EXPIRES_S + 1)  # for longer than a word counts
        assert asked() == shared
        many.server.launch()
        await until(lambda: first.ledger.connection.is_connected)
        await until(lambda: second.ledger.connection.is_connected)
        await asyncio.sleep(2 * TELL_EVERY_S)
        assert asked() == shared


async def test_who_has_no_room_for_more_keeps_its_partition(many: Runtime) -> None:
    consumer, got = partition_consumer(partition_of("r1", PARTITIONS)), list[Delivery]()

    async def start(count: int) -> ConsumerPull:
        pull = ConsumerPull(
            many.connection, Stream.EVENTS, consumer, got.append, group=PIN_GROUP, expires_s=1.0
        )
        await pull.start()
        pull.want(count)
        return pull

    first = await start(1)
    await many.events.append(accepted("r1"))
    await until(lambda: len(got) == 1)
    await got[0].ack()
    first.want(0)
    other = await start(1)
    await asyncio.sleep(PIN_TIMEOUT_S + 0.5)
    await many.events.append(planned(1, request="r1"))
    await until(lambda: len(got) == 2)
    assert (first.pin is not None, other.pin) == (True, None)
    await asyncio.gather(first.stop(), other.stop())
