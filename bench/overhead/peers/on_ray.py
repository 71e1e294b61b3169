"""Ray: tasks that take one another's references; its scheduler knows what needs what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import ray

from bench.overhead.peers.peer import TEXT, Where
from bench.overhead.shapes import Shape

#: Workers that may run at once.
CPUS: Final = 2
_STORE_BYTES: Final = 100 * 1024**2


class Ray:
    """Runs graphs on worker processes of this machine."""

    def __init__(self) -> None:
        self._step: Any = ray.remote(step)

    async def run(self, shape: Shape) -> list[float]:
        """Run one graph."""
        references: dict[int, Any] = {}
        for node in shape.nodes:
            needs = [references[need] for need in shape.needs_of(node)]
            references[node] = self._step.remote(*needs)
        return list(await asyncio.gather(*(_known_at(one) for one in references.values())))


async def _known_at(reference: Any) -> float:  # noqa: ANN401
    await reference
    return time.perf_counter()


def step(*texts: str) -> str:
    """Do nothing."""
    del texts
    return TEXT


@asynccontextmanager
async def on_this_machine(where: Where) -> AsyncIterator[Ray]:
    """Give a Ray of its own."""
    del where
    quiet = {"include_dashboard": False, "log_to_driver": False}
    ray.init(num_cpus=CPUS, object_store_memory=_STORE_BYTES, **quiet)
    try:
        yield Ray()
    finally:
        ray.shutdown()
