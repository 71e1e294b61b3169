"""How much work a request is expected to be: what is left, and what lies below each node. Pure.

In tokens: the plan's budgets, and a usual length for a direct answer. Kept up to date by each
fact, so that to ask costs nothing; the paths only once somebody has asked for one.
"""

from __future__ import annotations

import heapq
from typing import Final

from proto.messages import NodeSpec

#: How long a direct answer is expected to be; of nodes their budgets say it.
DIRECT_EXPECTED_TOKENS: Final = 400


class Expected:
    """The expected tokens of a request's nodes."""

    __slots__ = ("_below", "_done", "_left", "_longer", "_most", "_paths", "_specs", "_tokens")

    def __init__(self) -> None:
        self._specs: dict[int, NodeSpec] = {}
        self._tokens: dict[int, int] = {}
        self._done: set[int] = set()
        self._left = 0
        self._most: int | None = None
        #: Of each node the longest path, and the nodes that need it; kept once asked for.
        self._paths: dict[int, int] | None = None
        self._below: dict[int, list[int]] = {}
        self._longer: set[int] = set()

    def limited(self, most: int | None) -> None:
        """Take in the client's limit of a text, in tokens."""
        self._most, self._paths = most, None
        self._tokens = {node: self.of(spec) for node, spec in self._specs.items()}
        self._left = sum(self._tokens[node] for node in self._tokens.keys() - self._done)

    def planned(self, spec: NodeSpec) -> None:
        """Take in a node of the plan."""
        self._specs[spec.id], self._tokens[spec.id] = spec, self.of(spec)
        if spec.id not in self._done:
            self._left += self._tokens[spec.id]
        if self._paths is not None:
            self._lengthen(self._paths, spec)

    def decoded(self, node: int) -> None:
        """Note that a node is done."""
        if node not in self._done:
            self._left -= self._tokens.get(node, 0)
        self._done.add(node)

    def of(self, spec: NodeSpec) -> int:
        """Return the expected tokens of one node."""
        return self._limit(spec.budget_tokens)

    @property
    def direct(self) -> int:
        """The expected tokens of a direct answer."""
        return self._limit(DIRECT_EXPECTED_TOKENS)

    @property
    def left(self) -> int:
        """The expected tokens of the planned nodes that are not done."""
        return self._left

    def path(self, node: int) -> int | None:
        """Return the tokens from a planned node down the longest path of those that need it."""
        if self._paths is None:
            self._paths, self._below = {}, {}
            for id_ in sorted(self._specs, reverse=True):
                self._lengthen(self._paths, self._specs[id_])
            self._longer.clear()
        return self._paths.get(node)

    def lengthened(self) -> set[int]:
        """Return the nodes whose path has grown since the last call."""
        longer, self._longer = self._longer, set()
        return longer

    def _limit(self, usual: int) -> int:
        return min(usual, self._most or usual)

    def _lengthen(self, paths: dict[int, int], spec: NodeSpec) -> None:
        """Take a node's path in, and those of the nodes above it, each after all below it."""
        for need in set(spec.needs):
            self._below.setdefault(need, []).append(spec.id)
        below = (paths.get(one, 0) for one in self._below.get(spec.id, ()))
        paths[spec.id] = self._tokens[spec.id] + max(below, default=0)
        above = [-spec.id]
        while above:
            node = -heapq.heappop(above)
            for need in self._specs[node].needs:
                # What is done is held no more; what is not told yet, or of no plan of ours, waits.
                if need in self._done or need not in paths or need >= node:
                    continue
                longer = self._tokens[need] + paths[node]
                if longer > paths[need]:
                    paths[need] = longer
                    self._longer.add(need)
                    heapq.heappush(above, -need)
