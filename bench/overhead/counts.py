"""How many calls, messages and bytes a node costs: figures that a busy machine does not change.

The real assembler and worker run in this process, against a real nats-server, and work off chains
one after another, while Python counts every call, of its own functions and of C's.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from bench.overhead.requests import Requests
from bench.overhead.shapes import Shape, chain
from bench.overhead.stand import PARTITIONS, Stand
from bench.overhead.traffic import traffic
from bench.overhead.worker import NoOpSettings, engines_of
from services.assembler.__main__ import AssemblerSettings
from services.assembler.__main__ import serve as assemble
from services.runtime.connection import Connection
from services.runtime.facts import EventLog
from services.runtime.lifecycle import Process
from services.runtime.publisher import DurablePublisher
from services.runtime.settings import ServiceSettings
from services.runtime.streams import StreamLimits, provision
from services.worker.__main__ import serve as decode
from skelgraph.local.nats import NatsServer

#: What is counted is the difference between these two, so that a request's own costs fall out.
LONG, SHORT = chain(24), chain(4)


@dataclass(frozen=True, slots=True)
class Counts:
    """What a node costs.

    Args:
        calls: of Python and C functions, in assembler and worker together.
        messages: to the server and from it.
        kilobytes: the same in size.
        stored_kilobytes: by which the event log grows.
    """

    calls: float
    messages: float
    kilobytes: float
    stored_kilobytes: float

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name."""
        return asdict(self)


async def count(folder: Path, repeats: int) -> tuple[Counts, pstats.Stats]:
    """Return what a node costs, and where its calls are made."""
    async with _services(folder) as stand:
        requests = Requests(stand)
        await requests.listen()
        for _ in range(3):
            await _run(requests, LONG)
        profile = cProfile.Profile()
        sums = {shape.name: dict.fromkeys(Counts.__slots__, 0.0) for shape in (LONG, SHORT)}
        for _ in range(repeats):
            for shape in (LONG, SHORT):
                told = await _counted(stand, requests, shape, profile)
                for name, value in told.items():
                    sums[shape.name][name] += value
        nodes = repeats * (len(LONG.nodes) - len(SHORT.nodes))
        each = {n: (v - sums[SHORT.name][n]) / nodes for n, v in sums[LONG.name].items()}
        return Counts(**each), pstats.Stats(profile)


async def _counted(
    stand: Stand, requests: Requests, shape: Shape, profile: cProfile.Profile
) -> dict[str, float]:
    planned = await requests.plan(shape, 1)
    url = [server.monitor_url for server in stand.nats]
    before, stored = await asyncio.to_thread(traffic, url), await stand.log_bytes()
    calls = _calls(profile)
    profile.enable()
    await requests.start(planned)
    await requests.ended(planned)
    profile.disable()
    after = await asyncio.to_thread(traffic, url)
    grown = {name: after[name] - before[name] for name in after}
    return {
        "calls": _calls(profile) - calls,
        "messages": grown["in_msgs"] + grown["out_msgs"],
        "kilobytes": (grown["in_bytes"] + grown["out_bytes"]) / 1000,
        "stored_kilobytes": (await stand.log_bytes() - stored) / 1000,
    }


def _calls(profile: cProfile.Profile) -> float:
    return float(sum(entry.callcount for entry in profile.getstats()))


async def _run(requests: Requests, shape: Shape) -> None:
    planned = await requests.plan(shape, 1)
    await requests.start(planned)
    await requests.ended(planned)


@asynccontextmanager
async def _services(folder: Path) -> AsyncIterator[Stand]:
    """Run an assembler and a worker in this process."""
    async with NatsServer(folder / "nats") as server, Connection([server.url], name="counts") as nc:
        await nc.open(timeout_s=5)
        await provision(nc, StreamLimits(partitions=PARTITIONS))
        publisher = DurablePublisher(nc)
        await publisher.open()
        shared = {"nats_url": server.url, "partitions": PARTITIONS}
        async with (
            _service(AssemblerSettings.model_validate(shared), assemble),
            _service(NoOpSettings.model_validate(shared), partial(decode, engines_of=engines_of)),
        ):
            events = EventLog(nc, publisher, PARTITIONS)
            yield Stand(nc, events, [server], {}, {})


@asynccontextmanager
async def _service(
    settings: ServiceSettings, serve: Callable[[Process], Awaitable[None]]
) -> AsyncIterator[None]:
    process = Process("counted", settings)
    await process.connection.open(timeout_s=5)
    serving = asyncio.ensure_future(serve(process))
    try:
        while not process.is_serving:
            await asyncio.sleep(0.01)
            if serving.done():
                serving.result()
        yield
    finally:
        process.stopping.set()
        await serving
        await process.cancel_tasks()
        await process.connection.close()
