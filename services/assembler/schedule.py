"""Which ready nodes are handed to their pools, and in which order. Pure.

A node that is ready is held with its graph until its pool has a slot for it, so that it is
decided late who goes next, and a request fans out only as far as there is slack. Among what is
held the tenant with the fewest nodes under way goes first; of its nodes, the one whose request
came first, moved by expected work (ADR 0025). Whatever other processes say, each may always hand
over its share, and one node: so every request goes on.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from proto.messages import LoadAnnounced
from proto.names import Pool
from services.assembler.graph import Graph, Release
from services.runtime.pool_load import PoolLoad

#: How much of waiting a token of expected work is worth, in seconds: about what it takes.
TOKEN_S: Final = 0.025

#: Void entries of a pool that are let be, beside as many as there are nodes held.
VOID_ENTRIES: Final = 16

Key = tuple[str, int]  # request, node


@dataclass(slots=True, eq=False)
class Held:
    """A ready node that is not handed over yet.

    Args:
        graph: of its request.
        node: its id.
        pool: where it goes.
        since_s: since when it is held.
        start: hands the release over to its pool.
    """

    graph: Graph
    node: int
    pool: Pool
    since_s: float
    start: Callable[[Release], None]

    @property
    def owner(self) -> str:
        """Whose it is."""
        return self.graph.owner

    @property
    def rank(self) -> float:
        """By arrival: back for what its request has left, forward for its longest path."""
        work = self.graph.left_tokens / 4 - self.graph.path_tokens(self.node)
        return self.graph.submitted_at + work * TOKEN_S


@dataclass(slots=True)
class _Lane:
    """What is held for one pool, and what is under way in it."""

    released: int = 0
    held: int = 0
    of_owner: Counter[str] = field(default_factory=Counter)
    #: Owner → a heap by rank. An entry whose node has gone, or has got another rank, is void.
    queues: dict[str, list[tuple[float, int, Held]]] = field(default_factory=dict)
    entries: int = 0

    def order(self, owner: str) -> tuple[int, float]:
        """Return by what the owners take turns, the smallest first."""
        queue = self.queues[owner]
        return self.of_owner[owner], queue[0][0] if queue else math.inf


class Schedule:
    """What one assembler holds and has handed over, of all its requests.

    Args:
        nodes_a_slot: nodes that are handed to a pool for each of its slots; a few more than
            slots, so that a freed slot finds one there. 0: all at once, nothing is held.
    """

    def __init__(self, nodes_a_slot: float) -> None:
        self._nodes_a_slot = nodes_a_slot
        self._lanes = {pool: _Lane() for pool in Pool}
        self._held: dict[Key, tuple[float, Held]] = {}
        self._released: dict[Key, tuple[Pool, str]] = {}
        self._of_request: dict[str, set[int]] = {}
        self._count = itertools.count()

    # --- what is told to it -----------------------------------------------------------

    def hold(self, held: Held) -> None:
        """Take in a node that has become ready."""
        key = (held.graph.request, held.node)
        self._drop(key)
        self._of_request.setdefault(key[0], set()).add(key[1])
        self._lanes[held.pool].held += 1
        self._enqueue(key, held)

    def released(self, graph: Graph, node: int, pool: Pool) -> None:
        """Note a node that is queued or running, however it got there."""
        key = (graph.request, node)
        self._drop(key)
        self._of_request.setdefault(key[0], set()).add(node)
        self._released[key] = (pool, graph.owner)
        lane = self._lanes[pool]
        lane.released += 1
        lane.of_owner[graph.owner] += 1

    def done(self, request: str, node: int) -> None:
        """Note that a node is no longer queued, running or held."""
        self._drop((request, node))

    def moved(self, request: str) -> None:
        """Rank the held nodes of a request anew: its work has changed."""
        if not self._held:
            return
        for node in self._of_request.get(request, ()):
            if known := self._held.get((request, node)):
                self._enqueue((request, node), known[1])

    def forget(self, request: str) -> None:
        """Note that a request has ended, or has gone to another assembler."""
        for node in list(self._of_request.get(request, ())):
            self._drop((request, node))
        self._of_request.pop(request, None)

    # --- what follows -----------------------------------------------------------------

    def take(self, pool: Pool, others: PoolLoad) -> list[Held]:
        """Return the held nodes that go to `pool` now, in their order; they count as released.

        Args:
            pool: where there may be room.
            others: its slots, and what other assemblers have handed over and hold.
        """
        taken = []
        room = self._room(pool, others)
        while room > 0 and (held := self._next(pool)):
            room -= 1
            self.released(held.graph, held.node, pool)
            taken.append(held)
        return taken

    def passes(self, ready: Sequence[Held], pool: Pool, others: PoolLoad) -> bool:
        """Whether nodes that have become ready all go to `pool` at once; they are released then.

        As `hold` and `take`, where nobody waits before them: then there is nothing to rank.
        """
        lane = self._lanes[pool]
        if lane.held:
            return False
        lane.held = len(ready)  # they have their share of the room
        room = self._room(pool, others)
        lane.held = 0
        if room < len(ready):
            return False
        for held in ready:
            self.released(held.graph, held.node, pool)
        return True

    def holds(self, pool: Pool) -> bool:
        """Whether any node is held for `pool`."""
        return self._lanes[pool].held > 0

    def counts(self) -> list[tuple[int, int]]:
        """Return for each pool how many nodes are under way, and held."""
        return [(lane.released, lane.held) for lane in self._lanes.values()]

    def load(self, pool: Pool, source: str) -> LoadAnnounced:
        """Return what this process has to say of `pool`."""
        lane = self._lanes[pool]
        return LoadAnnounced(source=source, pool=pool, released=lane.released, held=lane.held)

    def _room(self, pool: Pool, others: PoolLoad) -> float:
        lane = self._lanes[pool]
        if others.slots is None or not self._nodes_a_slot:
            return math.inf
        most = math.ceil(others.slots * self._nodes_a_slot)
        ours = lane.released + lane.held
        share = most * ours // max(1, ours + others.released + others.held)
        slack = most - lane.released - others.released
        return max(slack, share - lane.released, 1 - lane.released)

    def _next(self, pool: Pool) -> Held | None:
        lane = self._lanes[pool]
        while lane.queues:
            owner = min(lane.queues, key=lane.order)
            queue = lane.queues[owner]
            while queue:
                rank, _, held = heapq.heappop(queue)
                lane.entries -= 1
                if self._held.get((held.graph.request, held.node)) == (rank, held):
                    return held
            del lane.queues[owner]
        return None

    # --- accounts ---------------------------------------------------------------------

    def _enqueue(self, key: Key, held: Held) -> None:
        rank = held.rank
        known = self._held.get(key)
        if known == (rank, held):
            return
        self._held[key] = (rank, held)
        lane = self._lanes[held.pool]
        queue = lane.queues.setdefault(held.owner, [])
        heapq.heappush(queue, (rank, next(self._count), held))
        lane.entries += 1
        self._tidy(held.pool)

    def _drop(self, key: Key) -> None:
        if known := self._held.pop(key, None):
            self._lanes[known[1].pool].held -= 1
            self._tidy(known[1].pool)
        if gone := self._released.pop(key, None):
            lane = self._lanes[gone[0]]
            lane.released -= 1
            lane.of_owner[gone[1]] -= 1
            if not lane.of_owner[gone[1]]:
                del lane.of_owner[gone[1]]

    def _tidy(self, pool: Pool) -> None:
        """Drop the void entries once they are more than half: each keeps a whole graph."""
        lane = self._lanes[pool]
        if lane.entries <= 2 * lane.held + (VOID_ENTRIES if lane.held else 0):
            return
        lane.queues.clear()
        lane.entries = lane.held
        for rank, held in self._held.values():
            if held.pool == pool:
                entry = (rank, next(self._count), held)
                lane.queues.setdefault(held.owner, []).append(entry)
        for queue in lane.queues.values():
            heapq.heapify(queue)
