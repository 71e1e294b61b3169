"""Dask distributed: the whole graph goes to the scheduler, which knows what needs what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from distributed import Client, LocalCluster

from bench.overhead.peers.peer import TEXT, Where
from bench.overhead.shapes import Shape


class Dask:
    """Runs graphs on one worker process; the scheduler lives in this one, as it does by default."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401  # its package is not ours
        self._client = client

    async def run(self, shape: Shape) -> list[float]:
        """Run one graph."""
        futures: dict[int, Any] = {}
        for node in shape.nodes:
            needs = [futures[need] for need in shape.needs_of(node)]
            futures[node] = self._client.submit(step, *needs, pure=False)
        return list(await asyncio.gather(*(_known_at(one) for one in futures.values())))


async def _known_at(future: Any) -> float:  # noqa: ANN401
    await future
    return time.perf_counter()


def step(*texts: str) -> str:
    """Do nothing."""
    del texts
    return TEXT


@asynccontextmanager
async def on_a_local_cluster(where: Where) -> AsyncIterator[Dask]:
    """Give a Dask with one worker process of two threads."""
    size = {"n_workers": 1, "threads_per_worker": 2, "processes": True}
    places = {"dashboard_address": None, "local_directory": str(where.folder)}
    async with (
        LocalCluster(asynchronous=True, **size, **places) as cluster,
        Client(cluster, asynchronous=True) as client,
    ):
        yield Dask(client)
