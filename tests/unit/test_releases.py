"""What is handed over to the pools is not lost when one of it cannot be."""

from __future__ import annotations

import asyncio

from proto.messages import Fact, LoadAnnounced
from proto.names import Pool, Stream
from services.assembler.folded import RetryPolicy
from services.assembler.graph import Graph, Release
from services.assembler.releases import Releases
from services.assembler.schedule import Schedule
from services.runtime.connection import Connection
from services.runtime.pool_load import LoadBoard
from services.runtime.pull import ConsumerPull
from tests.facts import accepted, decoded, failed, plan, planned


async def test_an_error_at_one_node_leaves_the_others_to_be_handed_over() -> None:
    board = LoadBoard()
    errors = list[BaseException]()
    releases = Releases(Schedule(1.0), board, "me", errors.append)
    graph, started = Graph("r1"), list[int]()

    def start(release: Release) -> None:
        if release.work.node.id == 2:
            raise ValueError("a defect")
        started.append(release.work.node.id)

    nodes = range(1, 5)
    told: list[Fact] = [
        accepted("r1"),
        *(planned(n, request="r1") for n in nodes),
        plan(nodes, request="r1"),
    ]
    for fact in told:
        graph.fold(fact, 0.0)
    releases.ready(graph, graph.due(), start)
    word = LoadAnnounced(source="w", pool=Pool.LARGE, slots=9)
    board.heard(word, asyncio.get_running_loop().time())
    releases.hand_over()
    assert started == [1, 3, 4]
    assert [str(one) for one in errors] == ["a defect"]


async def test_a_node_that_was_of_no_use_is_handed_over_when_it_is_again() -> None:
    board, loop = LoadBoard(), asyncio.get_running_loop()
    releases = Releases(Schedule(1.0), board, "me", lambda _: None)
    graph, started = Graph("r1", RetryPolicy(max_attempts=1)), list[int]()

    def tell(fact: Fact) -> None:
        graph.fold(fact, 0.0)
        releases.saw(fact)
        releases.ready(graph, graph.due(), lambda release: started.append(release.work.node.id))

    board.heard(LoadAnnounced(source="w", pool=Pool.LARGE, slots=1), loop.time())
    for fact in (accepted("r1", on_failure="direct"), planned(1), planned(2), plan([1, 2])):
        tell(fact)
    tell(failed(1))  # so it is answered directly, and the second node is of no use
    board.heard(LoadAnnounced(source="w", pool=Pool.LARGE, slots=9), loop.time())
    releases.hand_over()
    assert started == [1, 0]
    tell(decoded(1))  # by another who had the same attempt
    assert started == [1, 0, 2]


async def test_no_message_is_asked_for_where_there_is_no_room() -> None:
    nowhere = Connection(["nats://127.0.0.1:1"], name="test")
    pull = ConsumerPull(nowhere, Stream.NODES, "worker", lambda _: None)
    assert await pull.take_now(0) == 0
