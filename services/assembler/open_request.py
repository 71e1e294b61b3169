"""A request that has not ended: what is being done about it, and the events it follows from."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from proto.messages import Fact
from services.assembler.graph import Graph
from services.runtime.pull import Delivery

#: Something that is being stored.
Effect = asyncio.Future[Any]


class Event:
    """A fact that was delivered, in hand until what follows from it is stored.

    Args:
        delivery: its message.
        fact: what it says.
    """

    __slots__ = ("_waits", "delivery", "fact", "failed")

    def __init__(self, delivery: Delivery, fact: Fact) -> None:
        self.delivery = delivery
        self.fact = fact
        #: Whether something that follows from it was not stored: it must not be acked.
        self.failed = False
        self._waits = 0

    def wait_for(self, effects: Collection[Effect], done: Callable[[Event], None]) -> None:
        """Have `done` called when all `effects` have ended, at once if there are none."""
        if not effects:
            done(self)
            return
        self._waits = len(effects)
        for effect in effects:
            effect.add_done_callback(partial(self._ended, done))

    def _ended(self, done: Callable[[Event], None], effect: Effect) -> None:
        self.failed |= effect.cancelled() or effect.exception() is not None
        self._waits -= 1
        if not self._waits:
            done(self)


class OpenRequest:
    """A request that has not ended: its graph, and what is being done about it."""

    __slots__ = (
        "accepted",
        "backlog",
        "deadline",
        "effects",
        "graph",
        "headers",
        "polishing",
        "recovered",
        "recovering",
    )

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        #: Whether its earlier facts are folded; until then its events wait in the backlog.
        self.recovered = False
        self.backlog: deque[Event] = deque()
        self.recovering = False
        self.accepted: Delivery | None = None
        self.headers: dict[str, str] = {}
        self.deadline: asyncio.TimerHandle | None = None
        self.polishing = False
        #: What is being stored, each with what it is: `release`, `stop`, `bury`, `end`.
        self.effects: dict[Effect, str] = {}

    def under_way(self, what: str) -> list[Effect]:
        """Return the effects of one kind that are being stored."""
        return [task for task, kind in self.effects.items() if kind == what and not task.done()]
