"""Everything but the gateway, with so many endpoints a pool and so many processes a service."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from services.runtime.client import Client
from services.runtime.opening import open_client
from skelgraph.local.config import PoolConfig, StackConfig
from skelgraph.local.nats import NatsServer
from skelgraph.local.ports import free_ports
from skelgraph.local.process import Child
from skelgraph.local.services import ServiceSpec, common_env, default_services, process_spec
from skelgraph.session import provision_at

#: Nodes that the workers of a pool decode at once, all together: engines decide, not slots.
SLOTS: Final = 4096
#: Many processes start at once, on few cores.
START_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What is run.

    Args:
        endpoints: of each pool.
        processes: of each service.
        in_flight: requests at once.
        time_scale: real seconds of one of the profiles.
        tokens: of each text.
        spread_s: seconds over which the requests come.
        profile: of the engines' timing.
    """

    endpoints: int
    processes: int
    in_flight: int
    time_scale: float
    tokens: float
    spread_s: float = 0.0
    profile: str = "llama-8b-1xh100"


@dataclass(frozen=True, slots=True)
class Stand:
    """What runs: a client, and the processes by the name of what they are."""

    client: Client
    pids: dict[str, list[int]]


@asynccontextmanager
async def running(folder: Path, size: Size) -> AsyncIterator[Stand]:
    """Run everything within the block."""
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(NatsServer(folder / "nats"))
        await provision_at(nats.url)
        urls, engine = await _engines(stack, size)
        config = StackConfig(
            large=_pool(urls[0::2], size),
            small=_pool(urls[1::2], size),
            state_dir=folder,
            log_level="warning",
            env=_settings(size),
        )
        pids = {"nats": [nats.pid or 0], "engines": [engine]}
        for kind, children in (await _services(stack, folder, config, nats.url, size)).items():
            pids[kind] = [child.pid or 0 for child in children]
        client = await stack.enter_async_context(open_client([nats.url]))
        yield Stand(client, pids)


def _pool(urls: Sequence[str], size: Size) -> PoolConfig:
    return PoolConfig(model="", urls=tuple(urls), slots=max(1, SLOTS // size.processes))


def _settings(size: Size) -> dict[str, str]:
    """Long waits are meant: time is stretched so that this machine keeps up."""
    return {
        "SKELGRAPH_MAX_IN_FLIGHT": "1024",
        "SKELGRAPH_FIRST_TOKEN_TIMEOUT_S": "600",
        "SKELGRAPH_SILENT_AFTER_S": "600",
        "SKELGRAPH_BETWEEN_TOKENS_TIMEOUT_S": "600",
        "SKELGRAPH_PLAN_AHEAD": "0",
        "SKELGRAPH_MAX_OPEN_REQUESTS": str(4 * size.in_flight + 100),
    }


async def _engines(stack: AsyncExitStack, size: Size) -> tuple[list[str], int]:
    argv = ["-m", "bench.scale.engines", "--count", str(2 * size.endpoints)]
    argv += ["--profile", size.profile, "--time-scale", str(size.time_scale)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *argv, "--tokens", str(size.tokens), stdout=PIPE
    )
    stack.callback(process.kill)
    assert process.stdout
    return (await process.stdout.readline()).decode().split(), process.pid


async def _services(
    stack: AsyncExitStack, folder: Path, config: StackConfig, nats_url: str, size: Size
) -> dict[str, list[Child]]:
    pools = {pool: list(one.urls) for pool, one in config.pools().items()}
    common = common_env(config, nats_url, pools)
    started: dict[str, list[Child]] = {}
    for service in default_services(config):
        slots = max(1, SLOTS // size.processes)
        own = {"SKELGRAPH_SLOTS": str(slots)} if service.name != "assembler" else {}
        for number, port in enumerate(free_ports(size.processes)):
            one = ServiceSpec(f"{service.name}-{number}", service.argv, own)
            spec = replace(process_spec(one, port, common), ready_timeout_s=START_TIMEOUT_S)
            child = Child(spec, folder / f"{one.name}.log")
            stack.callback(child.kill)
            child.launch()
            started.setdefault(service.name, []).append(child)
    await asyncio.gather(*(one.ready() for each in started.values() for one in each))
    return started
