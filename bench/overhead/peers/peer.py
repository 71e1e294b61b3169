"""What a peer has to be able to do, and what is told of it; needs no peer's packages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bench.overhead.shapes import Shape

#: What each node returns: as much as the raw loop's payload.
TEXT: Final = "x" * 512
#: Where a peer whose own command starts its workers finds the address of NATS.
NATS_URL_VARIABLE: Final = "PEERS_NATS_URL"


class Peer(Protocol):
    """Something that runs graphs of nodes that do nothing."""

    async def run(self, shape: Shape) -> list[float]:
        """Run one graph; return when the orchestrator knew of each node, by `time.perf_counter`."""
        ...


@dataclass(frozen=True, slots=True)
class Where:
    """What a peer may use: a NATS server with JetStream, a folder of its own."""

    nats_url: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Kind:
    """What a system is, for the table: figures of unlike things look alike.

    Args:
        durable: what of a running graph is on disk before it goes on.
        processes: whether a node leaves the orchestrator's process.
        result: how the orchestrator learns of a node's result.
    """

    durable: str
    processes: str
    result: str


async def by_tasks(shape: Shape, call: Callable[[int], Awaitable[object]]) -> list[float]:
    """Run a graph for a peer that knows calls only: a node is called when its needs are done."""
    done_at: dict[int, float] = {}
    tasks: dict[int, asyncio.Task[None]] = {}

    async def node(number: int) -> None:
        if needs := shape.needs_of(number):
            await asyncio.gather(*(tasks[need] for need in needs))
        await call(number)
        done_at[number] = time.perf_counter()

    async with asyncio.TaskGroup() as group:
        for number in shape.nodes:
            tasks[number] = group.create_task(node(number), name=f"node {number}")
    return [done_at[number] for number in shape.nodes]
