"""What is measured: ours and the raw loop in turns, so that noise meets both."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bench.overhead import floor
from bench.overhead.cpu import memory_kb
from bench.overhead.requests import Requests, Run
from bench.overhead.shapes import Shape
from bench.overhead.stand import Stand
from bench.overhead.traffic import FIELDS, traffic
from proto.names import Stream

RAW_TIMEOUT_S: Final = 120.0


@dataclass
class Pair:
    """The same figure of ours and of the raw loop, from the same rounds."""

    ours: list[float] = field(default_factory=list)
    raw: list[float] = field(default_factory=list)


@dataclass
class Latency:
    """How long one graph takes, alone. Milliseconds."""

    totals: Pair = field(default_factory=Pair)
    hops: Pair = field(default_factory=Pair)


@dataclass(frozen=True, slots=True)
class Load:
    """How many nodes a second many graphs at once make, and what a node costs.

    Args:
        nodes_a_s: nodes done a second.
        cpu_us: CPU of each process, a node.
        traffic: messages and bytes through the NATS servers, a node.
        log_bytes: that the event log has grown by, a node.
    """

    nodes_a_s: float
    cpu_us: Mapping[str, float]
    traffic: Mapping[str, float]
    log_bytes: float = 0.0


class Bench:
    """Runs graphs on a stand.

    Args:
        stand: what runs.
        requests: its services.
    """

    def __init__(self, stand: Stand, requests: Requests) -> None:
        self._stand = stand
        self._requests = requests

    async def latency(self, shape: Shape, repeats: int) -> Latency:
        """Run `shape` alone, ours and raw in turns."""
        found = Latency()
        for _ in range(repeats):
            run = (await self._ours(shape))[0]
            found.totals.ours.append(run.total_ms)
            found.hops.ours.extend(run.hops_ms)
            graph = (await self._raw(shape, 1))["graphs"][0]
            found.totals.raw.append(graph["total_ms"])
            stored = graph["stored_at"]
            found.hops.raw.extend((b - a) * 1000 for a, b in itertools.pairwise(stored))
        return found

    async def load(self, shape: Shape, copies: int) -> tuple[Load, Load]:
        """Run so many of `shape` at once: ours, then raw; plans are stored beforehand."""
        requests = await self._requests.plan(shape, copies)
        nodes = copies * len(shape.nodes)
        before, logged = await self._meters(self._stand.ours), await self._stand.log_bytes()
        began = time.perf_counter()
        await self._requests.start(requests)
        await self._requests.ended(requests)
        rate = nodes / (time.perf_counter() - began)
        after, grown = await self._meters(self._stand.ours), await self._stand.log_bytes() - logged
        ours = _load(rate, nodes, before, after, grown)
        before = await self._meters(self._stand.raw)
        told = await self._raw(shape, copies)
        after = await self._meters(self._stand.raw)
        return ours, _load(nodes / told["wall_s"], nodes, before, after)

    async def busy_us(self, shape: Shape, copies: int) -> dict[str, float]:
        """Run so many of `shape` at once; return the CPU of each process, in all."""
        requests = await self._requests.plan(shape, copies)
        before = self._stand.cpu_us(self._stand.ours)
        await self._requests.start(requests)
        await self._requests.ended(requests)
        after = self._stand.cpu_us(self._stand.ours)
        return {name: after[name] - before[name] for name in after}

    async def held_kb(self, shape: Shape, copies: int) -> dict[str, float]:
        """Start so many of `shape`, none of which ends; return what each process holds more."""
        before = {name: memory_kb(pid) for name, pid in self._stand.ours.items()}
        requests = await self._requests.plan(shape, copies)
        await self._requests.start(requests)
        await self._until_queue_is_taken(copies * len(shape.nodes))
        return {name: memory_kb(pid) - before[name] for name, pid in self._stand.ours.items()}

    async def _until_queue_is_taken(self, nodes: int) -> None:
        held = 0
        while held < nodes:
            await asyncio.sleep(0.1)
            listed = await self._stand.connection.api(f"CONSUMER.LIST.{Stream.NODES}")
            consumers = listed["consumers"]
            assert isinstance(consumers, list)
            held = sum(int(one["num_ack_pending"]) for one in consumers)

    async def _ours(self, shape: Shape) -> list[Run]:
        requests = await self._requests.plan(shape, 1)
        await self._requests.start(requests)
        await self._requests.ended(requests)
        return await self._requests.runs(requests)

    async def _raw(self, shape: Shape, copies: int) -> dict[str, Any]:
        order = orjson.dumps({"needs": shape.needs, "copies": copies})
        reply = await self._stand.connection.request(floor.RUN, order, timeout_s=RAW_TIMEOUT_S)
        told: dict[str, Any] = orjson.loads(reply.data)
        return told

    async def _meters(self, pids: Mapping[str, int]) -> dict[str, float]:
        urls = [server.monitor_url for server in self._stand.nats]
        return self._stand.cpu_us(pids) | await asyncio.to_thread(traffic, urls)


def _load(
    nodes_a_s: float,
    nodes: int,
    before: Mapping[str, float],
    after: Mapping[str, float],
    log_bytes: float = 0.0,
) -> Load:
    each = {name: (after[name] - before[name]) / nodes for name in after}
    passed = {name: each.pop(name) for name in FIELDS}
    return Load(nodes_a_s, each, passed, log_bytes / nodes)
