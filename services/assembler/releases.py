"""Hands ready nodes over to their pools as there is room, and tells the others what is held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from proto.messages import Fact, LoadAnnounced, NodeDecoded, NodeFailed
from proto.names import Pool
from services.assembler.graph import Graph, Release
from services.assembler.schedule import Held, Schedule
from services.runtime import metrics
from services.runtime.pool_load import LoadBoard, PoolLoad

log = structlog.get_logger()

#: What is held for less is not worth telling.
_LEAST_HELD_MS: Final = 1.0
#: A process that takes requests over at its start listens for so long before it takes the slots
#: for unknown: what was held would all be handed over at every restart.
LISTEN_FIRST_S: Final = 1.5
_POOLS: Final = tuple(Pool)


class Releases:
    """The schedule of a process, for all of its partitions.

    Args:
        schedule: decides.
        board: what the others say.
        source: this process, as the others know it.
        fail: called with an error that this process cannot go on with.
    """

    def __init__(
        self,
        schedule: Schedule,
        board: LoadBoard,
        source: str,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._schedule = schedule
        self._board = board
        self._source = source
        self._fail = fail
        #: Called when there is something new to say.
        self.changed: Callable[[], None] = lambda: None
        self._said: list[tuple[int, int]] = []
        self._started_s = _now_s()
        self._listening: asyncio.TimerHandle | None = None

    def saw(self, fact: Fact) -> None:
        """Note what a fact says of nodes and of workers, once it is folded."""
        match fact:
            case NodeDecoded() | NodeFailed():
                self._board.worked(fact.pool, fact.worker, _now_s())
                self._schedule.done(fact.request, fact.node)
        self._schedule.moved(fact.request)

    def ready(self, graph: Graph, nodes: Sequence[int], start: Callable[[Release], None]) -> None:
        """Take in the nodes of a request that have become ready."""
        for pool in {graph.pool(node) for node in nodes}:
            of_pool = [node for node in nodes if graph.pool(node) is pool]
            self._retry(graph, [node for node in of_pool if graph.attempt(node) > 1], pool, start)
            first = [node for node in of_pool if graph.attempt(node) == 1]
            self._ready([Held(graph, node, pool, _now_s(), start) for node in first], pool)
        self.hand_over()

    def _retry(
        self, graph: Graph, nodes: Sequence[int], pool: Pool, start: Callable[[Release], None]
    ) -> None:
        """Hand nodes over that are tried again: they have waited already."""
        for node in nodes:
            if release := graph.release(node):
                self._schedule.released(graph, node, pool)
                start(release)

    def _ready(self, ready: Sequence[Held], pool: Pool) -> None:
        """Start nodes that have become ready if all of them find room, else hold them."""
        if not ready:
            return
        if self._schedule.passes(ready, pool, self._others(pool)):
            for held in ready:
                self._start(held)
        else:
            for held in ready:
                self._schedule.hold(held)

    def found(self, graph: Graph) -> None:
        """Note the nodes of a request that an earlier owner has released."""
        heard_at_s = self._started_s + LISTEN_FIRST_S
        if self._listening is None and _now_s() < heard_at_s:
            loop = asyncio.get_running_loop()
            self._listening = loop.call_at(heard_at_s, self.hand_over)
        for node in graph.under_way():
            self._schedule.released(graph, node, graph.pool(node))

    def stopped(self, request: str, nodes: Sequence[int]) -> None:
        """Note nodes that are of no more use."""
        for node in nodes:
            self._schedule.done(request, node)

    def forget(self, request: str) -> None:
        """Note that a request has ended here."""
        self._schedule.forget(request)

    def hand_over(self) -> None:
        """Start whatever there is room for."""
        for pool in _POOLS:
            while self._schedule.holds(pool):
                taken = self._schedule.take(pool, self._others(pool))
                void = [held for held in taken if not self._start(held)]
                if not void:
                    break
        # Not at every word of the others, or all would answer one another for ever.
        if self._said != self._schedule.counts():
            self.changed()

    def words(self) -> list[LoadAnnounced]:
        """Return what there is to say now."""
        self._said = self._schedule.counts()
        words = [self._schedule.load(pool, self._source) for pool in Pool]
        for word in words:
            others = self._others(word.pool)
            metrics.NODES_HELD.labels(word.pool).set(word.held)
            slack = (others.slots or 0) - others.released - word.released
            metrics.POOL_SLACK.labels(word.pool).set(slack if others.slots else float("nan"))
        return words

    def _others(self, pool: Pool) -> PoolLoad:
        load = self._board.load(pool, _now_s(), without=self._source)
        listening = self._listening and _now_s() < self._listening.when()
        return replace(load, slots=0) if load.slots is None and listening else load

    def _start(self, held: Held) -> bool:
        """Hand a node over; return False if it is of no more use, and its room is free again."""
        try:
            return self._begin(held)
        except Exception as error:
            # A defect. Raised to a timer, or to who hears a word of the load, it would end there.
            log.exception("release_failed", request=held.graph.request, node=held.node)
            self._fail(error)
            return True

    def _begin(self, held: Held) -> bool:
        held_ms = (_now_s() - held.since_s) * 1000
        release = held.graph.release(held.node, held_ms if held_ms >= _LEAST_HELD_MS else 0.0)
        if release is None:  # its plan has collapsed meanwhile, or its request fallen back
            self._schedule.done(held.graph.request, held.node)
            return False
        held.start(release)
        return True


def _now_s() -> float:
    return asyncio.get_running_loop().time()
