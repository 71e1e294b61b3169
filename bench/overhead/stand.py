"""The services and the raw loop on one NATS of their own, each in processes of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from bench.overhead import floor
from bench.overhead.cpu import cpu_us
from proto.errors import SkelgraphError
from proto.names import Stream
from services.runtime.connection import ApiError, Connection
from services.runtime.facts import EventLog
from services.runtime.publisher import DurablePublisher
from services.runtime.streams import StreamLimits, provision
from skelgraph.local import ports
from skelgraph.local.cluster import ClusterServer, cluster
from skelgraph.local.nats import NatsServer
from skelgraph.local.process import Child, ProcessSpec

Storage = Literal["file", "memory"]
PARTITIONS: Final = 8
PROVISION_TRIES: Final = 50


@dataclass
class Stand:
    """What runs.

    Args:
        connection: of the benchmark itself.
        events: the event log.
        nats: the servers.
        ours: the services' process ids, by name.
        raw: those of the raw loop.
    """

    connection: Connection
    events: EventLog
    nats: list[NatsServer] | list[ClusterServer]
    ours: dict[str, int]
    raw: dict[str, int]

    def cpu_us(self, pids: Mapping[str, int]) -> dict[str, float]:
        """CPU that each process has used, NATS included."""
        used = {name: cpu_us(pid) for name, pid in pids.items()}
        return used | {"nats": sum(cpu_us(server.pid or 0) for server in self.nats)}

    async def log_bytes(self) -> float:
        """Bytes in the event log."""
        state = (await self.connection.api(f"STREAM.INFO.{Stream.EVENTS}"))["state"]
        assert isinstance(state, dict)
        return float(state["bytes"])


@dataclass(frozen=True, slots=True)
class Setting:
    """Where streams are kept, how often, and how much the worker takes at once."""

    storage: Storage = "file"
    replicas: int = 1
    slots: int = 256
    #: Settings of the no-op worker.
    worker: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For tables."""
        copies = "1 server" if self.replicas == 1 else f"{self.replicas} servers"
        return f"{self.storage}, {copies}"


@asynccontextmanager
async def running(folder: Path, setting: Setting) -> AsyncIterator[Stand]:
    """Run everything within the block."""
    async with AsyncExitStack() as stack:
        nats = await _servers(stack, folder, setting.replicas)
        url = ",".join(server.url for server in nats)
        connection = Connection(url.split(","), name="overhead")
        await connection.open(timeout_s=10)
        stack.push_async_callback(connection.close)
        await _provision(connection, setting)
        publisher = DurablePublisher(connection, window=1024)
        await publisher.open()
        events = EventLog(connection, publisher, PARTITIONS)
        ours = await _services(stack, folder, url, setting)
        raw = {role: _raw(stack, role, nats[0].url) for role in ("worker", "dispatcher")}
        yield Stand(connection, events, nats, ours, raw)


async def _servers(
    stack: AsyncExitStack, folder: Path, replicas: int
) -> list[NatsServer] | list[ClusterServer]:
    if replicas == 1:
        return [await stack.enter_async_context(NatsServer(folder / "nats"))]
    servers = cluster(folder, replicas)
    for server in servers:
        server.launch()
        stack.callback(server.kill)
    for server in servers:
        await server.ready()
    return servers


async def _provision(connection: Connection, setting: Setting) -> None:
    """Make the streams of both; a cluster has no leader at first."""
    limits = StreamLimits(
        partitions=PARTITIONS,
        replicas=setting.replicas,
        storage=setting.storage,
        queue_max_bytes=64 * 1024**2,
        events_max_bytes=512 * 1024**2,
    )
    for tries in range(PROVISION_TRIES):
        try:
            await provision(connection, limits)
            await _provision_raw(connection, setting)
        except (SkelgraphError, ApiError):
            if tries == PROVISION_TRIES - 1:
                raise
            await asyncio.sleep(0.2)
        else:
            return


async def _provision_raw(connection: Connection, setting: Setting) -> None:
    for stream, consumer in floor.streams(setting.storage, setting.replicas):
        await connection.api(f"STREAM.CREATE.{stream['name']}", stream)
        config = {"durable_name": consumer, "ack_policy": "explicit", "max_ack_pending": -1}
        body = {"stream_name": stream["name"], "config": config | {"name": consumer}}
        await connection.api(f"CONSUMER.CREATE.{stream['name']}.{consumer}", body)


async def _services(
    stack: AsyncExitStack, folder: Path, url: str, setting: Setting
) -> dict[str, int]:
    modules = {
        "assembler": ("services.assembler",),
        "worker": ("bench.overhead.worker", "--slots", str(setting.slots), *setting.worker),
    }
    started = {}
    for name, argv in modules.items():
        port = ports.free_port()
        env = {
            "SKELGRAPH_NATS_URL": url,
            "SKELGRAPH_PARTITIONS": str(PARTITIONS),
            "SKELGRAPH_HEALTH_PORT": str(port),
            "SKELGRAPH_LOG_FORMAT": "json",
        }
        command = (sys.executable, "-m", *argv)
        spec = ProcessSpec(
            name=name, argv=command, env=env, port=port, ready_path="/readyz", ready_timeout_s=120
        )
        child = Child(spec, folder / f"{name}.log")
        stack.callback(child.kill)
        child.launch()
        await child.ready()
        started[name] = child.pid or 0
    return started


def _raw(stack: AsyncExitStack, role: str, url: str) -> int:
    command = (sys.executable, "-m", "bench.overhead.floor", role, url)
    process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    stack.callback(process.kill)
    if not process.stdout or process.stdout.readline().strip() != "ready":
        raise RuntimeError(f"the raw {role} did not start")
    return process.pid
