"""What the gateway costs: beside reading the same events from NATS directly, in the same run.

`python -m bench.gateway --streams 200 --rate 20 --tokens 200`: so many streamed chat completions
are open at once, each with so many tokens a second. Events are made up; no model runs. Reported:
the time that the gateway adds to the first ordered text, its processor time a token beside that
of a process that follows the same requests over NATS, and its memory.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Annotated, Any

import orjson
import typer

from services.runtime import logs
from services.runtime.streams import StreamLimits
from skelgraph.local import ports
from skelgraph.local.nats import NatsServer
from skelgraph.local.process import Child, ProcessSpec
from skelgraph.session import provision_at

PARTITIONS = 8


@dataclass
class Load:
    """How much is asked at once."""

    streams: int
    rate: float
    tokens: int


class Role:
    """A process beside the gateway, see `bench.gateway_load`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, stack: AsyncExitStack, name: str, **arguments: object) -> Role:
        """Start it."""
        argv = [sys.executable, "-m", "bench.gateway_load", name, orjson.dumps(arguments).decode()]
        process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, limit=2**24)
        stack.callback(_end, process)
        return cls(process)

    async def hear(self) -> dict[str, Any]:
        """Return what it says next."""
        assert self._process.stdout is not None
        told: dict[str, Any] = orjson.loads(await self._process.stdout.readline())
        return told

    def tell(self, **told: object) -> None:
        """Tell it something."""
        assert self._process.stdin is not None
        self._process.stdin.write(orjson.dumps(told) + b"\n")


def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()


async def measure(load: Load, folder: Path) -> str:
    """Return the report of one run."""
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(NatsServer(folder / "nats"))
        await provision_at(
            nats.url, StreamLimits(partitions=PARTITIONS, max_queued_requests=load.streams + 100)
        )
        gateway, url = await _gateway(stack, nats.url, folder)
        events = await Role.start(
            stack,
            "events",
            url=nats.url,
            partitions=PARTITIONS,
            streams=load.streams,
            tokens=load.tokens,
            rate=load.rate,
        )
        direct = await Role.start(stack, "nats", url=nats.url)
        http = await Role.start(stack, "http", url=url, streams=load.streams, tokens=load.tokens)
        requests = (await events.hear())["requests"]
        direct.tell(requests=requests)
        await direct.hear()
        before_s, idle_kb = _cpu_s(gateway), _rss_kb(gateway)
        events.tell(go=True)
        over_http, over_nats, made = await asyncio.gather(http.hear(), direct.hear(), events.hear())
        spent_s = _cpu_s(gateway) - before_s
        memory = f"{idle_kb / 1024:.0f} MB with all open, {_rss_kb(gateway) / 1024:.0f} MB after"
        return _report(load, over_http, over_nats, made, spent_s, memory)


async def _gateway(stack: AsyncExitStack, nats_url: str, folder: Path) -> tuple[Child, str]:
    http_port, health_port = ports.free_ports(2)
    spec = ProcessSpec(
        name="gateway",
        argv=(sys.executable, "-m", "services.gateway"),
        env={
            "SKELGRAPH_NATS_URL": nats_url,
            "SKELGRAPH_PARTITIONS": str(PARTITIONS),
            "SKELGRAPH_HTTP_PORT": str(http_port),
            "SKELGRAPH_HEALTH_PORT": str(health_port),
            "SKELGRAPH_LOG_LEVEL": "warning",
        },
        port=health_port,
        ready_path="/readyz",
    )
    child = Child(spec, folder / "gateway.log")
    stack.callback(child.kill)
    child.launch()
    await child.ready()
    return child, f"http://127.0.0.1:{http_port}"


def _report(
    load: Load,
    over_http: dict[str, Any],
    over_nats: dict[str, Any],
    made: dict[str, Any],
    spent_s: float,
    memory: str,
) -> str:
    firsts: dict[str, float] = over_http["firsts"]
    added_ms = sorted((at - over_nats["firsts"][request]) * 1000 for request, at in firsts.items())
    cuts = quantiles(added_ms, n=100)
    tokens = load.streams * load.tokens
    rows = [
        ("streams, tokens/s each", f"{load.streams}, {load.rate:g}"),
        ("streams whole", f"{over_http['whole']} of {load.streams}"),
        ("first ordered text after NATS's reader, ms", _spread(cuts, added_ms)),
        ("gateway, CPU µs a token", f"{spent_s / tokens * 1e6:.0f}"),
        ("reader over NATS, CPU µs a token", f"{over_nats['cpu_s'] / tokens * 1e6:.0f}"),
        ("maker of the events, CPU µs a token", f"{made['cpu_s'] / tokens * 1e6:.0f}"),
        ("gateway, memory", memory),
        ("load of the machine at the end", f"{os.getloadavg()[0]:.1f}"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _spread(cuts: list[float], values: list[float]) -> str:
    return f"p50 {cuts[49]:.1f}, p99 {cuts[98]:.1f}, range {values[0]:.1f} to {values[-1]:.1f}"


def _cpu_s(child: Child) -> float:
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_kb(child: Child) -> int:
    lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def main(
    streams: Annotated[int, typer.Option(help="open at once")] = 200,
    rate: Annotated[float, typer.Option(help="tokens a second of each")] = 20,
    tokens: Annotated[int, typer.Option(help="of each")] = 200,
) -> None:
    """Measure, and print a table."""
    logs.configure("error", "console")
    with tempfile.TemporaryDirectory() as folder:
        print(asyncio.run(measure(Load(streams, rate, tokens), Path(folder))))


if __name__ == "__main__":
    typer.run(main)
