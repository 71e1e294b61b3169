"""Which ready nodes are handed to their pools, and in which order. Pure.

A node that is ready is held with its graph until its pool has a slot for it, so that it is
decided late who goes next, and a request fans out only as far as there is slack. Among what is
held the tenant with the fewest nodes under way goes first; of its nodes, the one whose request
came first, moved by expected work (ADR 0025). Whatever other processes say, each may always hand
over its share, and one node: so every request goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from proto.messages import LoadAnnounced
from proto.names import Pool
from services.assembler.graph import Graph, Release
from services.assembler.ranking import Ranking
from services.runtime.pool_load import PoolLoad

#: How much of waiting a token of expected work is worth, in seconds: about what it takes.
TOKEN_S: Final = 0.025
#: Nodes that are handed to a pool of which no slots are known: more than most can decode at once,
#: and no more, as there may be no worker at all, and the stream of nodes is everybody's.
EAGER_NODES: Final = 1024


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


def rank(submitted_at: float, left_tokens: float, path_tokens: float) -> float:
    """Return where a node stands: the smallest goes first, among those of one owner.

    By arrival: back for what its request has left, forward for its longest path.
    """
    return submitted_at + (left_tokens / 4 - path_tokens) * TOKEN_S


@dataclass(slots=True)
class _Request:
    """What of one request is held and under way."""

    graph: Graph
    held: dict[int, Held] = field(default_factory=dict)
    #: The held nodes by pool, the longest path first; -path, node.
    order: dict[Pool, Ranking[int, int]] = field(default_factory=dict)
    #: Node → where it is under way, and whose it was then.
    released: dict[int, tuple[Pool, str]] = field(default_factory=dict)


@dataclass(slots=True)
class _Lane:
    """What is held for one pool, and what is under way in it."""

    released: int = 0
    held: int = 0
    of_owner: dict[str, int] = field(default_factory=dict)
    #: Who has held nodes: by nodes under way, then by the rank of the first request.
    owners: Ranking[str, tuple[int, float]] = field(default_factory=Ranking)
    #: Owner → requests with held nodes, each by the rank of its first node.
    requests: dict[str, Ranking[str, float]] = field(default_factory=dict)

    def count(self, owner: str, more: int) -> None:
        """Note that so many more nodes of `owner` are under way."""
        self.released += more
        self.of_owner[owner] = self.of_owner.get(owner, 0) + more
        if not self.of_owner[owner]:
            del self.of_owner[owner]
        self.turn(owner)

    def turn(self, owner: str) -> None:
        """Have `owner` take its place among the others."""
        requests = self.requests.get(owner)
        if requests:
            self.owners.put(owner, (self.of_owner.get(owner, 0), requests.first()[0]))
        elif requests is not None:
            del self.requests[owner]
            self.owners.drop(owner)


class Schedule:
    """What one assembler holds and has handed over, of all its requests.

    Args:
        nodes_a_slot: nodes that are handed to a pool for each of its slots; a few more than
            slots, so that a freed slot finds one there. 0: all at once, nothing is held.
    """

    def __init__(self, nodes_a_slot: float) -> None:
        self._nodes_a_slot = nodes_a_slot
        self._lanes = {pool: _Lane() for pool in Pool}
        self._requests: dict[str, _Request] = {}

    # --- what is told to it -----------------------------------------------------------

    def hold(self, held: Held) -> None:
        """Take in a node that has become ready."""
        request = self._of(held.graph)
        self._drop(request, held.node)
        request.held[held.node] = held
        order = request.order.setdefault(held.pool, Ranking())
        order.put(held.node, -held.graph.path_tokens(held.node))
        self._lanes[held.pool].held += 1
        self._rank(request, held.pool)

    def released(self, graph: Graph, node: int, pool: Pool) -> None:
        """Note a node that is queued or running, however it got there."""
        request = self._of(graph)
        self._drop(request, node)
        request.released[node] = (pool, graph.owner)
        self._lanes[pool].count(graph.owner, 1)

    def done(self, request: str, node: int) -> None:
        """Note that a node is no longer queued, running or held."""
        if known := self._requests.get(request):
            self._drop(known, node)

    def moved(self, request: str) -> None:
        """Rank the held nodes of a request anew: its work has changed."""
        known = self._requests.get(request)
        if known is None or not known.held:
            return
        longer = known.graph.lengthened()
        for pool, order in known.order.items():
            for node in longer:
                if node in order:
                    order.put(node, -known.graph.path_tokens(node))
            self._rank(known, pool)

    def forget(self, request: str) -> None:
        """Note that a request has ended, or has gone to another assembler."""
        if known := self._requests.pop(request, None):
            for node in [*known.held, *known.released]:
                self._drop(known, node)

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
        if not self._nodes_a_slot:
            return math.inf
        slots = others.slots
        most = EAGER_NODES if slots is None else math.ceil(slots * self._nodes_a_slot)
        ours = lane.released + lane.held
        share = most * ours // max(1, ours + others.released + others.held)
        slack = most - lane.released - others.released
        return max(slack, share - lane.released, 1 - lane.released)

    def _next(self, pool: Pool) -> Held | None:
        lane = self._lanes[pool]
        if not lane.held:
            return None
        _, owner = lane.owners.first()
        _, name = lane.requests[owner].first()
        request = self._requests[name]
        _, node = request.order[pool].first()
        return request.held[node]

    # --- accounts ---------------------------------------------------------------------

    def _of(self, graph: Graph) -> _Request:
        known = self._requests.get(graph.request)
        if known is None:
            known = self._requests[graph.request] = _Request(graph)
        return known

    def _rank(self, request: _Request, pool: Pool) -> None:
        """Have a request take its place among those of its owner."""
        graph, lane, order = request.graph, self._lanes[pool], request.order[pool]
        requests = lane.requests.setdefault(graph.owner, Ranking())
        if order:
            path_tokens = -order.first()[0]
            requests.put(graph.request, rank(graph.submitted_at, graph.left_tokens, path_tokens))
        else:
            requests.drop(graph.request)
        lane.turn(graph.owner)

    def _drop(self, request: _Request, node: int) -> None:
        if held := request.held.pop(node, None):
            request.order[held.pool].drop(node)
            self._lanes[held.pool].held -= 1
            self._rank(request, held.pool)
        if gone := request.released.pop(node, None):
            pool, owner = gone
            self._lanes[pool].count(owner, -1)
