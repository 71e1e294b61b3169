"""What scheduling costs: the folds, accounts and choices that follow from each fact. Pure.

The assembler's own graphs, releases, schedule and load board, without NATS: facts are made
beforehand and folded one after the other, as they would come, with more ready nodes than slots.
Nothing is encoded. CPU time of this process, so that a busy machine hardly shows.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.overhead.plans import plan_of
from bench.overhead.shapes import Shape, chain, fan_out
from bench.overhead.tables import spread, table
from proto.messages import (
    Fact,
    LoadAnnounced,
    NodeDecoded,
    RequestAccepted,
    SubmitRequest,
    Usage,
)
from proto.names import Pool
from services.assembler.graph import Graph, Release
from services.assembler.releases import Releases
from services.assembler.schedule import Schedule
from services.runtime.pool_load import LoadBoard

SHAPES: Final = (*map(fan_out, (2, 16, 64)), *map(chain, (8, 32)))
SLOTS: Final = 4
NODES: Final = 4096
#: Facts between two words of others: with fewer the words are the cost, with more the facts.
FACTS_A_WORD: Final = 4


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who else is there.

    Args:
        name: in tables.
        requests: open at once, each of an owner of its own.
        workers: with one slot each, but for the first, which has what is left of all.
        assemblers: beside this one.
    """

    name: str
    requests: int
    workers: int = 1
    assemblers: int = 0


CROWDS: Final = (
    Crowd("1 request", 1),
    Crowd("100 requests", 100),
    Crowd("100 requests, 200 workers, 16 assemblers", 100, 200, 16),
)


async def measured(rounds: int) -> str:
    """Return the table: CPU µs a node, by shape and by who is there."""
    rows = []
    for shape in SHAPES:
        found = [[Scheduling(shape, crowd).cpu_us() for _ in range(rounds)] for crowd in CROWDS]
        rows.append([shape.name, *(spread(values, 1) for values in found)])
    return table(("graph", *(crowd.name for crowd in CROWDS)), rows)


class Scheduling:
    """An assembler that schedules, without anything around it; within a running event loop.

    Args:
        shape: of all requests.
        crowd: who else is there.
    """

    def __init__(self, shape: Shape, crowd: Crowd) -> None:
        self._shape = shape
        self._crowd = crowd
        self._board = LoadBoard()
        self._releases = Releases(Schedule(1.25), self._board, "assembler-0", _raise)
        self._graphs: dict[str, Graph] = {}
        self._running: deque[NodeDecoded] = deque()
        self._results: dict[tuple[str, int], NodeDecoded] = {}
        self._words = itertools.cycle(_words(crowd))
        self._taken = itertools.count()

    def cpu_us(self) -> float:
        """Return the microseconds of CPU that a node takes: of waves of requests, the least."""
        for _ in range(len(list(_words(self._crowd)))):
            self._hear()
        waves = max(1, NODES // (self._crowd.requests * len(self._shape.nodes)))
        return min(self._wave_us(number) for number in range(waves))

    def plans(self, wave: int) -> list[Fact]:
        """Return the plans of a wave of requests, one fact of each at a time."""
        names = [f"{wave}-{n}" for n in range(self._crowd.requests)]
        self._graphs = {name: Graph(name) for name in names}
        self._results = {
            (name, node): _decoded(name, node) for name in names for node in self._shape.nodes
        }
        plans = [_plan(name, at, self._shape) for at, name in enumerate(names)]
        return [fact for facts in zip(*plans, strict=True) for fact in facts]

    def run(self, plans: Sequence[Fact]) -> None:
        """Work requests off; raises `RuntimeError` if that does not come to an end."""
        for fact in plans:
            self._take(fact)
        while self._running:
            self._take(self._running.popleft())
        if not all(graph.is_complete for graph in self._graphs.values()):
            raise RuntimeError("a node was never handed over")

    def _wave_us(self, number: int) -> float:
        plans = self.plans(number)
        # The clock is read once a wave: a reading may cost more than a fact.
        began_ns = time.thread_time_ns()
        self.run(plans)
        used_ns = time.thread_time_ns() - began_ns
        for name in self._graphs:
            self._releases.forget(name)
        return used_ns / 1000 / len(self._results)

    def _take(self, fact: Fact) -> None:
        """What a partition does of it, until something is to be stored."""
        graph = self._graphs[fact.request]
        if next(self._taken) % FACTS_A_WORD == 0:
            self._hear()
        graph.fold(fact, 0.0)
        self._releases.saw(fact)
        graph.superfluous()
        self._releases.ready(graph, graph.due(), self._started)

    def _started(self, release: Release) -> None:
        self._running.append(self._results[release.work.request, release.work.node.id])

    def _hear(self) -> None:
        self._board.heard(next(self._words), asyncio.get_running_loop().time())


def _words(crowd: Crowd) -> Iterator[LoadAnnounced]:
    for number in range(crowd.workers):
        slots = SLOTS if number == 0 else 0
        yield LoadAnnounced(source=f"worker-{number}", pool=Pool.LARGE, slots=slots)
    for number in range(1, crowd.assemblers + 1):
        for pool in Pool:
            yield LoadAnnounced(source=f"assembler-{number}", pool=pool, held=1)


def _plan(request: str, at_s: float, shape: Shape) -> list[Fact]:
    submitted = SubmitRequest(question="?", mode="sgd", adaptive=False, owner=request)
    accepted = RequestAccepted(
        request=request, submitted=submitted, submitted_at=at_s, deadline_at=at_s + 600
    )
    return [accepted, *plan_of(request, shape)]


def _decoded(request: str, node: int) -> NodeDecoded:
    return NodeDecoded(
        request=request,
        node=node,
        attempt=1,
        text="t",
        finish_reason="stop",
        pool=Pool.LARGE,
        model="m",
        endpoint="e",
        worker="worker-0",
        queued_ms=0,
        slot_wait_ms=0,
        first_token_ms=0,
        decode_ms=0,
        usage=Usage(),
    )


def _raise(error: BaseException) -> None:
    raise error
