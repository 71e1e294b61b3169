"""All processes of a chaos run: who they are, and what has been done to them."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx2

from proto.errors import SkelgraphError
from services.runtime.connection import Connection
from services.runtime.streams import StreamLimits, provision
from skelgraph.local import ports
from skelgraph.local.cluster import ClusterServer, cluster
from skelgraph.local.engine import EngineOptions
from skelgraph.local.models import ensure_model
from skelgraph.local.nats import NatsServer
from skelgraph.local.process import Child, ProcessSpec
from tests.chaos.options import Options

PARTITIONS: Final = 4
POOLS: Final = ("large", "small")
ENGINES_A_POOL: Final = 2
REPLICAS: Final = {"planner": 3, "assembler": 3, "worker-large": 4, "worker-small": 4}
#: Services of which a further replica may be started.
SPARE: Final = 1
_REAL_MODEL: Final = "smollm2-135m"


@dataclass
class Member:
    """A process, over all its lives.

    Args:
        name: `planner-2`; its key at the engines, too.
        role: `planner`, `worker-large`, `engine-small`, `nats`.
        child: the process.
        veteran: whether it is spared death, so that its memory can be watched.
    """

    name: str
    role: str
    child: Child
    veteran: bool = False
    busy: bool = False
    #: Seconds since the epoch, as all instants here.
    started: list[float] = field(default_factory=list)
    died: list[float] = field(default_factory=list)
    frozen: list[tuple[float, float]] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.child.alive

    @property
    def url(self) -> str:
        """Its HTTP address: an engine's API, or a service's health and metrics."""
        return f"http://{ports.HOST}:{self.child.spec.port}"

    def launch(self) -> None:
        """Start it, again or for the first time."""
        self.started.append(time.time())
        self.child.launch()

    def kill(self) -> None:
        """`kill -9`."""
        self.child.kill()
        self.died.append(time.time())

    async def terminate(self) -> None:
        """SIGTERM, and wait for its end."""
        self.child.signal(signal.SIGTERM)
        await self.child.ended()
        self.died.append(time.time())

    async def freeze(self, for_s: float) -> None:
        """SIGSTOP, then SIGCONT."""
        began = time.time()
        self.child.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(for_s)
        finally:
            self.child.signal(signal.SIGCONT)
            self.frozen.append((began, time.time()))


class Stack:
    """Starts, knows and stops all processes of a run.

    Args:
        options: of the run.
        folder: for stores and logs.
    """

    def __init__(self, options: Options, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.http = httpx2.AsyncClient(trust_env=False, timeout=3)
        self.nats = self._make_nats()
        self.engines = [self._make_engine(pool, n) for pool in POOLS for n in self._numbers()]
        self.services = [
            self._make_service(role, number)
            for role, count in REPLICAS.items()
            for number in range(1, count + 1 + SPARE)
        ]

    @property
    def servers(self) -> list[str]:
        """Addresses of the NATS servers."""
        return [one.child.url for one in self.nats if isinstance(one.child, Nats)]

    @property
    def members(self) -> list[Member]:
        """All processes."""
        return [*self.nats, *self.engines, *self.services]

    def member(self, name: str) -> Member | None:
        """The process of this name."""
        return next((one for one in self.members if one.name == name), None)

    async def start(self) -> None:
        """Start everything but the spare services, and make the streams."""
        for one in [*self.nats, *self.engines]:
            one.launch()
        await _all_ready([*self.nats, *self.engines])
        await self._provision()
        regulars = [one for one in self.services if not _is_spare(one)]
        for one in regulars:
            one.launch()
        await _all_ready(regulars)

    async def heal(self) -> None:
        """Have everything run as at the start."""
        for one in [*self.nats, *self.engines, *self.services]:
            if not one.alive and not _is_spare(one):
                one.launch()
        await _all_ready([one for one in self.members if one.alive])
        for engine in self.engines:
            await self.control(engine, mode="normal")

    async def stop(self) -> None:
        """End everything."""
        await self.http.aclose()
        for one in self.members:
            one.child.kill()

    async def control(self, engine: Member, **order: object) -> None:
        """Tell a scripted engine how to behave."""
        if self.options.engine == "scripted":
            (await self.http.post(f"{engine.url}/control", json=order)).raise_for_status()

    async def get(self, member: Member, path: str) -> httpx2.Response:
        """Return a page of a member."""
        return await self.http.get(f"{member.url}{path}")

    def log_of(self, member: Member) -> Path:
        """Where a member's output goes."""
        return member.child.log_path

    def calls_log(self, engine: Member) -> Path:
        """Where an engine tells its calls."""
        return self.folder / "calls" / f"{engine.name}.jsonl"

    # --- how they are made ---------------------------------------------------------------

    def _numbers(self) -> Iterable[int]:
        return range(1, 2 if self.options.engine == "real" else ENGINES_A_POOL + 1)

    def _make_nats(self) -> list[Member]:
        if self.options.profile == "cluster":
            servers = cluster(self.folder / "cluster")
            return [Member(one.server_name, "nats", one) for one in servers]
        port, monitor_port = ports.free_ports(2)
        log_path = self.folder / "logs" / "nats-1.log"
        single = NatsServer(self.folder / "nats", port, monitor_port, log_path=log_path)
        return [Member("nats-1", "nats", single)]

    def _make_engine(self, pool: str, number: int) -> Member:
        name = f"engine-{pool}-{number}"
        port = ports.free_port()
        if self.options.engine == "real":
            spec = _real_engine(name, port)
        else:
            log = self.folder / "calls" / f"{name}.jsonl"
            log.parent.mkdir(parents=True, exist_ok=True)
            pace = ("--token-s", str(self.options.token_s))
            argv = ("-m", "tests.chaos.engine", "--name", name, "--port", str(port), *pace)
            spec = ProcessSpec(
                name=name,
                argv=(sys.executable, *argv, "--log", str(log)),
                port=port,
                ready_path="/health",
            )
        return Member(name, f"engine-{pool}", self._child(spec))

    def _make_service(self, role: str, number: int) -> Member:
        name = f"{role}-{number}"
        service, _, pool = role.partition("-")
        port = ports.free_port()
        spec = ProcessSpec(
            name=name,
            argv=(sys.executable, "-m", f"services.{service}", *(["--pool", pool] if pool else [])),
            env=self._env(name, port),
            port=port,
            ready_path="/readyz",
            ready_timeout_s=60,
        )
        return Member(name, role, self._child(spec), veteran=number == 1)

    def _child(self, spec: ProcessSpec) -> Child:
        return Child(spec, self.folder / "logs" / f"{spec.name}.log")

    def _env(self, name: str, port: int) -> dict[str, str]:
        real = self.options.engine == "real"
        urls = {
            f"{pool}_urls": ",".join(one.url for one in self.engines if one.role.endswith(pool))
            for pool in POOLS
        }
        settings = {
            "nats_url": ",".join(self.servers),
            "partitions": PARTITIONS,
            "ack_wait_s": self.options.ack_wait_s,
            "drain_s": 5,
            "rebalance_after_s": 1,
            "backoff_s": self.options.backoff_s,
            "slots": 1 if real else 8 if name.startswith("planner") else 4,
            "connect_timeout_s": 1,
            "first_token_timeout_s": 60 if real else 3,
            "between_tokens_timeout_s": 30 if real else 2,
            "total_timeout_s": 120 if real else 20,
            "engine_api_key": name,
            "health_port": port,
            "log_format": "json",
            "log_level": "debug",
            **urls,
        }
        return {f"SKELGRAPH_{key.upper()}": str(value) for key, value in settings.items()}

    async def _provision(self) -> None:
        limits = StreamLimits(
            partitions=PARTITIONS,
            ack_wait_s=self.options.ack_wait_s,
            replicas=len(self.nats),
        )
        async with Connection(self.servers, name="chaos-provision") as connection:
            await connection.open(timeout_s=30)
            async with asyncio.timeout(60):
                while not await _provisioned(connection, limits):  # noqa: ASYNC110 - a remote state
                    await asyncio.sleep(0.5)


Nats = NatsServer | ClusterServer


async def _provisioned(connection: Connection, limits: StreamLimits) -> bool:
    """Whether the streams could be made; a cluster has to elect its leader first."""
    try:
        await provision(connection, limits)
    except SkelgraphError:
        return False
    return True


def _real_engine(name: str, port: int) -> ProcessSpec:
    engine = EngineOptions(
        model=ensure_model(_REAL_MODEL), port=port, slots=4, context_tokens_per_slot=2048, threads=1
    )
    return engine.process_spec(name)


def _is_spare(member: Member) -> bool:
    number = int(member.name.rpartition("-")[2])
    return number > REPLICAS.get(member.role, number)


async def _all_ready(members: Iterable[Member]) -> None:
    await asyncio.gather(*(one.child.ready() for one in members))
