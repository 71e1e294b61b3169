"""What is handed over to the pools is not lost when one of it cannot be."""

from __future__ import annotations

import asyncio

import pytest

from proto.messages import Fact, LoadAnnounced
from proto.names import Pool, Stream
from services.assembler.graph import Graph, Release
from services.assembler.releases import Releases
from services.assembler.schedule import Schedule
from services.runtime.connection import Connection
from services.runtime.pool_load import LoadBoard
from services.runtime.pull import ConsumerPull
from tests.facts import accepted, plan, planned


async def test_an_error_at_one_node_leaves_the_others_to_be_handed_over() -> None:
    board = LoadBoard()
    releases = Releases(Schedule(1.0), board, "me")
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
    with pytest.raises(ValueError, match="defect"):
        releases.ready(graph, graph.due(), start)
    assert started == [1]
    word = LoadAnnounced(source="w", pool=Pool.LARGE, slots=9)
    board.heard(word, asyncio.get_running_loop().time())
    releases.hand_over()
    assert started == [1, 3, 4]


async def test_no_message_is_asked_for_where_there_is_no_room() -> None:
    nowhere = Connection(["nats://127.0.0.1:1"], name="test")
    pull = ConsumerPull(nowhere, Stream.NODES, "worker", lambda _: None)
    assert await pull.take_now(0) == 0
