"""The assembler as a process, while its pool has fewer slots than there are ready nodes."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from proto.codec import decode
from proto.messages import AnswerAssembled, DecodeNode, Fact, LoadAnnounced, NodeDecoded
from proto.names import Band, Pool, Stream, node_consumer
from services.runtime.clock import ServerClock
from services.runtime.pool_load import LoadAnnouncer
from skelgraph.local.process import Child
from tests.conftest import Runtime
from tests.facts import accepted, decoded, plan, planned
from tests.processes import Inbox, Services, end_of, facts

SLOTS = 2
#: The worker that `tests.facts` says has decoded all nodes.
WORKER = "w"


@pytest.fixture
async def services(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        yield Services(stack, runtime, tmp_path / "logs", nodes_a_slot="1")


@pytest.fixture
async def work(runtime: Runtime) -> AsyncIterator[Inbox]:
    consumers = [node_consumer(Pool.LARGE, band) for band in Band]
    async with Inbox(runtime, Stream.NODES, *consumers) as inbox:
        yield inbox


@asynccontextmanager
async def a_worker(runtime: Runtime) -> AsyncIterator[None]:
    """Tell of slots as a worker does, within the block."""
    word = LoadAnnounced(source=WORKER, pool=Pool.LARGE, slots=SLOTS)
    announcing = asyncio.create_task(LoadAnnouncer(runtime.connection, lambda: [word]).run())
    try:
        yield
    finally:
        announcing.cancel()


def gauge(child: Child, name: str) -> float:
    url = f"http://127.0.0.1:{child.spec.port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as reply:
        lines = reply.read().decode().splitlines()
    said = f'skelgraph_{name}{{pool="large"}} '
    return next((float(one.removeprefix(said)) for one in lines if one.startswith(said)), 0.0)


async def until(child: Child, name: str, value: float) -> None:
    async with asyncio.timeout(20):
        while await asyncio.to_thread(gauge, child, name) != value:  # noqa: ASYNC110  # remote
            await asyncio.sleep(0.05)


async def tell(runtime: Runtime, request: str, owner: str = "", count: int = 4) -> None:
    """Accept a request of so many nodes that need nothing."""
    clock = ServerClock()
    await clock.sync(runtime.connection)
    ids = range(1, count + 1)
    told: list[Fact] = [accepted(request, at=clock.now(), owner=owner)]
    told += [planned(id_, request=request) for id_ in ids]
    for fact in (*told, plan(ids, request=request)):
        await runtime.events.append(fact)


async def decode_one(runtime: Runtime, work: Inbox, place: int) -> DecodeNode:
    """Decode the node that was delivered in this place, and return it."""
    delivery = (await work.wait_for(place + 1))[place]
    node = decode(DecodeNode, delivery.data)
    await runtime.events.append(decoded(node.node.id, request=node.request))
    await delivery.ack()
    return node


async def test_no_more_nodes_are_queued_than_there_are_slots(
    runtime: Runtime, services: Services, work: Inbox
) -> None:
    async with a_worker(runtime):
        child = await services.start("assembler")
        await until(child, "pool_slack", SLOTS)
        await tell(runtime, "r1")
        await until(child, "nodes_held", 2)
        assert len(work.got) == SLOTS
        done = [await decode_one(runtime, work, place) for place in range(4)]
        end = await end_of(runtime, "r1")
    assert isinstance(end, AnswerAssembled)
    assert max(node.held_ms for node in done[:SLOTS]) < min(node.held_ms for node in done[SLOTS:])


async def test_a_flood_of_one_owner_does_not_hold_up_another(
    runtime: Runtime, services: Services, work: Inbox
) -> None:
    async with a_worker(runtime):
        child = await services.start("assembler")
        await until(child, "pool_slack", SLOTS)
        for number in range(6):
            await tell(runtime, f"flood{number}", "flood")
        await until(child, "nodes_held", 6 * 4 - SLOTS)
        await tell(runtime, "other", "other")
        await until(child, "nodes_held", 7 * 4 - SLOTS)
        order = [(await decode_one(runtime, work, place)).request for place in range(10)]
        assert isinstance(await end_of(runtime, "other"), AnswerAssembled)
    assert order.count("other") == 4


async def test_a_successor_hands_over_what_was_held(
    runtime: Runtime, services: Services, work: Inbox
) -> None:
    async with a_worker(runtime):
        first = await services.start("assembler")
        await until(first, "pool_slack", SLOTS)
        await tell(runtime, "r1")
        await until(first, "nodes_held", 2)
        first.kill()
        second = await services.start("assembler")
        await until(second, "nodes_held", 2)
        assert len(work.got) == SLOTS
        for place in range(4):
            await decode_one(runtime, work, place)
        end = await end_of(runtime, "r1")
    assert isinstance(end, AnswerAssembled)
    assert len([fact for fact in await facts(runtime, "r1") if isinstance(fact, NodeDecoded)]) == 4


async def test_without_words_of_workers_nothing_is_held(
    runtime: Runtime, services: Services, work: Inbox
) -> None:
    await services.start("assembler")
    await tell(runtime, "r1")
    assert len(await work.wait_for(4)) == 4
