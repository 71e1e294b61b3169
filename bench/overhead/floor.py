"""The raw floor: the same graphs by two processes over nats-py, without anything that is ours.

Durable dispatch, durable result, both acked; no validation, no engine, no facts of a plan, no
answer. `python -m bench.overhead.floor worker|dispatcher URL`; the dispatcher runs what it is asked
for on `overhead.run` and replies with the times.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine
from typing import Final

import orjson
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg

from bench.overhead.raw import RawConsumer, RawPublisher

WORK: Final = "OVERHEAD_WORK"
RESULTS: Final = "OVERHEAD_RESULTS"
RUN: Final = "overhead.run"
PAYLOAD: Final = b"x" * 512
CREDIT: Final = 256


def streams(storage: str, replicas: int) -> list[tuple[dict[str, object], str]]:
    """Return the configuration of each stream, with the name of its one consumer."""
    shared = {"storage": storage, "num_replicas": replicas}
    work = {"name": WORK, "subjects": ["overhead.work.>"], "retention": "workqueue"}
    results = {"name": RESULTS, "subjects": ["overhead.result.>"], "retention": "limits"}
    return [(work | shared, "worker"), (results | shared, "dispatcher")]


class Tasks:
    """What runs beside, held until it is done; the first failure ends the process."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[object, object, None]) -> None:
        """Run `work`."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception():
            asyncio.get_running_loop().stop()


async def worker(nc: Client, tasks: Tasks) -> None:
    """Answer each piece of work with a result."""
    publisher = RawPublisher(nc)
    await publisher.open()

    async def work(message: Msg) -> None:
        _, _, graph, node = message.subject.split(".")
        await publisher.publish(f"overhead.result.{graph}.{node}", message.data)
        await message.ack()

    consumer = RawConsumer(nc, WORK, "worker", CREDIT, lambda message: tasks.start(work(message)))
    await consumer.open()


class Graph:
    """A graph that runs: what its nodes still wait for."""

    def __init__(self, name: str, needs: list[list[int]]) -> None:
        self.name = name
        self.missing = {node: len(set(needed)) for node, needed in enumerate(needs, 1)}
        self.dependants: dict[int, list[int]] = {node: [] for node in self.missing}
        for node, needed in enumerate(needs, 1):
            for need in set(needed):
                self.dependants[need].append(node)
        self.left = len(needs)
        self.stored_at: dict[int, float] = {}
        self.began_at = self.ended_at = 0.0
        self.done = asyncio.Event()

    def ready(self) -> list[int]:
        """Return the nodes that wait for nothing."""
        return [node for node, missing in self.missing.items() if not missing]

    def take(self, node: int, stored_at: float) -> list[int]:
        """Note that `node` is done; return those that are ready because of it."""
        self.stored_at[node] = stored_at
        self.left -= 1
        if not self.left:
            self.ended_at = time.perf_counter()
            self.done.set()
        for other in self.dependants[node]:
            self.missing[other] -= 1
        return [other for other in self.dependants[node] if not self.missing[other]]


class Dispatcher:
    """Runs graphs."""

    def __init__(self, nc: Client, tasks: Tasks) -> None:
        self._nc = nc
        self._tasks = tasks
        self._publisher = RawPublisher(nc)
        self._graphs: dict[str, Graph] = {}
        self._count = 0

    async def open(self) -> None:
        """Take results and orders."""
        await self._publisher.open()
        await RawConsumer(self._nc, RESULTS, "dispatcher", CREDIT * 4, self._result).open()
        await self._nc.subscribe(RUN, cb=self._asked)

    async def _asked(self, order: Msg) -> None:
        self._tasks.start(self._run(order))

    async def _run(self, order: Msg) -> None:
        asked = orjson.loads(order.data)
        graphs = [self._graph(asked["needs"]) for _ in range(asked["copies"])]
        for graph in graphs:
            graph.began_at = time.perf_counter()
            for node in graph.ready():
                self._tasks.start(self._dispatch(graph, node))
        for graph in graphs:
            await graph.done.wait()
            del self._graphs[graph.name]
        told = [
            {
                "total_ms": (graph.ended_at - graph.began_at) * 1000,
                "stored_at": [graph.stored_at[node] for node in sorted(graph.stored_at)],
            }
            for graph in graphs
        ]
        wall_s = max(g.ended_at for g in graphs) - min(g.began_at for g in graphs)
        await order.respond(orjson.dumps({"graphs": told, "wall_s": wall_s}))

    def _graph(self, needs: list[list[int]]) -> Graph:
        self._count += 1
        graph = self._graphs[f"g{self._count}"] = Graph(f"g{self._count}", needs)
        return graph

    async def _dispatch(self, graph: Graph, node: int) -> None:
        await self._publisher.publish(f"overhead.work.{graph.name}.{node}", PAYLOAD)

    def _result(self, message: Msg) -> None:
        self._tasks.start(self._take(message))

    async def _take(self, message: Msg) -> None:
        """What follows is stored before the result is acked, as in the services."""
        _, _, name, node = message.subject.split(".")
        graph = self._graphs[name]
        ready = graph.take(int(node), message.metadata.timestamp.timestamp())
        await asyncio.gather(*(self._dispatch(graph, other) for other in ready))
        await message.ack()


async def main(role: str, url: str) -> None:
    """Run one of the two processes until it is killed."""
    nc, tasks = Client(), Tasks()
    await nc.connect(url)
    if role == "worker":
        await worker(nc, tasks)
    else:
        await Dispatcher(nc, tasks).open()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
