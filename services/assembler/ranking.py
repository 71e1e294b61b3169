"""Things in the order of their ranks, where ranks change one at a time. Pure."""

from __future__ import annotations

import heapq
from typing import Any, Final, Generic, TypeVar

#: Void entries that are let be, beside as many as there are things.
VOID_ENTRIES: Final = 16

Item = TypeVar("Item", int, str)
Rank = TypeVar("Rank", bound=Any)


class Ranking(Generic[Item, Rank]):
    """Things, that of the smallest rank first; of the same rank, the smallest.

    A change costs O(log n): an earlier rank stays in the heap, void, until it comes up or more
    than half of the entries are void.
    """

    __slots__ = ("_heap", "_ranks")

    def __init__(self) -> None:
        self._ranks: dict[Item, Rank] = {}
        self._heap: list[tuple[Rank, Item]] = []

    def __len__(self) -> int:
        """How many there are."""
        return len(self._ranks)

    def __contains__(self, item: Item) -> bool:
        """Whether it is there."""
        return item in self._ranks

    def put(self, item: Item, rank: Rank) -> None:
        """Take a thing in, or give it another rank."""
        if self._ranks.get(item) != rank:
            self._ranks[item] = rank
            heapq.heappush(self._heap, (rank, item))
            self._tidy()

    def drop(self, item: Item) -> None:
        """Let go of a thing, if it is there."""
        if self._ranks.pop(item, None) is not None:
            self._tidy()

    def first(self) -> tuple[Rank, Item]:
        """Return the first, with its rank; raises `IndexError` if there is none."""
        heap, ranks = self._heap, self._ranks
        while ranks.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0]

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._ranks) + VOID_ENTRIES:
            self._heap = [(rank, item) for item, rank in self._ranks.items()]
            heapq.heapify(self._heap)
