"""How many calls, messages and bytes a node costs: figures that a busy machine does not change.

The real assembler and worker run in this process, against a real nats-server, and work off chains
one after another, while Python counts every call, of its own functions and of C's.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import pstats
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Final

import uvloop

from bench.overhead.requests import Requests
from bench.overhead.scheduling import Crowd, Scheduling
from bench.overhead.shapes import Shape, chain, fan_out
from bench.overhead.stand import PARTITIONS, Stand
from bench.overhead.traffic import traffic
from bench.overhead.worker import NoOpSettings, engines_of
from services.assembler.__main__ import AssemblerSettings
from services.assembler.__main__ import serve as assemble
from services.runtime import logs
from services.runtime.connection import Connection
from services.runtime.facts import EventLog
from services.runtime.lifecycle import Process
from services.runtime.publisher import DurablePublisher
from services.runtime.settings import ServiceSettings
from services.runtime.streams import StreamLimits, provision
from services.worker.__main__ import serve as decode
from skelgraph.local.nats import NatsServer

#: What a node cost when somebody last looked; `python -m bench.overhead.counts` writes it anew.
BASELINE: Final = Path(__file__).with_name("baseline.json")
REPEATS: Final = 3
#: What is counted is the difference between these two, so that a request's own costs fall out.
LONG, SHORT = chain(24), chain(4)


#: Functions whose calls are counted one by one: figure → end of the file's name, function. A C
#: function has no file.
WATCHED: Final = {
    "encodings": ("proto/codec.py", "encode"),
    "decodings": ("", "validate_json"),
    "models": ("pydantic/main.py", "BaseModel.__init__"),
    "publishes": ("runtime/connection.py", "Connection._buffer"),
    "tasks": ("asyncio/tasks.py", "create_task"),
    "waits": ("asyncio/tasks.py", "_wait"),
    "log_lines": ("structlog/_base.py", "BoundLoggerBase._process_event"),
    "patterns": ("re/__init__.py", "_compile"),
}

#: What is said by the clock, however many nodes there are: pulls, the load, who has which
#: partition. It is taken off what is published; words also off what is encoded.
BY_THE_CLOCK: Final = {
    "pulls": ("runtime/pull.py", "ConsumerPull._ask"),
    "loads": ("runtime/pool_load.py", "LoadAnnouncer._tell"),
    "claims": ("assembler/sharing.py", "Sharing._tell"),
}

#: Scheduling is counted apart, with more ready nodes than slots: of narrow and of wide graphs.
NARROW, WIDE = fan_out(16), fan_out(64)
HELD: Final = Crowd("8 requests", 8)

Counts = dict[str, float]


async def count(folder: Path, repeats: int) -> tuple[Counts, pstats.Stats]:
    """Return what a node costs, by name, and where its calls are made.

    Args:
        folder: of the server's store.
        repeats: of each chain.
    """
    async with _services(folder) as stand:
        requests = Requests(stand)
        await requests.listen()
        for _ in range(3):
            await _run(requests, LONG)
        profile = cProfile.Profile()
        sums: dict[str, Counts] = {shape.name: defaultdict(float) for shape in (LONG, SHORT)}
        for _ in range(repeats):
            for shape in (LONG, SHORT):
                told = await _counted(stand, requests, shape, profile)
                for name, value in told.items():
                    sums[shape.name][name] += value
        nodes = repeats * (len(LONG.nodes) - len(SHORT.nodes))
        each = {n: (v - sums[SHORT.name][n]) / nodes for n, v in sums[LONG.name].items()}
        scheduling = {f"calls_held_{s.name.split()[-1]}": held_calls(s) for s in (NARROW, WIDE)}
        return _without_clock(each) | scheduling, pstats.Stats(profile)


def held_calls(shape: Shape) -> float:
    """Return the calls that scheduling makes for a node of `shape`, most of them held."""
    scheduling, profile = Scheduling(shape, HELD), cProfile.Profile()
    facts = scheduling.plans(0)
    profile.enable()
    scheduling.run(facts)
    profile.disable()
    return sum(entry.callcount for entry in profile.getstats()) / (HELD.requests * len(shape.nodes))


def _without_clock(counts: Counts) -> Counts:
    words = counts.pop("loads") + counts.pop("claims")
    counts["encodings"] -= words
    counts["publishes"] -= words + counts.pop("pulls")
    return counts


async def _counted(
    stand: Stand, requests: Requests, shape: Shape, profile: cProfile.Profile
) -> Counts:
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
    made = {name: made - calls[name] for name, made in _calls(profile).items()}
    return made | {
        "messages": grown["in_msgs"] + grown["out_msgs"],
        "kilobytes": (grown["in_bytes"] + grown["out_bytes"]) / 1000,
        "stored_kilobytes": (await stand.log_bytes() - stored) / 1000,
    }


def _calls(profile: cProfile.Profile) -> Counts:
    """Return how many calls there were in all, and of the functions that are watched."""
    watched = WATCHED | BY_THE_CLOCK
    counted = dict.fromkeys(("calls", *watched), 0.0)
    for entry in profile.getstats():
        counted["calls"] += entry.callcount
        for name, (file, function) in watched.items():
            if _is_of(entry.code, file, function):
                counted[name] += entry.callcount
    return counted


def _is_of(code: CodeType | str, file: str, function: str) -> bool:
    if isinstance(code, str):
        return not file and f"'{function}'" in code
    return bool(file) and code.co_filename.endswith(file) and code.co_qualname == function


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
    process.spawn(process.health.serve(), "health")
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


async def _main() -> None:
    with tempfile.TemporaryDirectory(prefix="skelgraph-counts-") as folder:
        counts, _ = await count(Path(folder), REPEATS)
    BASELINE.write_text(json.dumps({n: round(v, 2) for n, v in counts.items()}, indent=2) + "\n")


if __name__ == "__main__":
    logs.configure("info", "json")
    uvloop.run(_main())
