"""`python -m bench.scale`: throughput, overhead, CPU and memory as the stack and its load grow.

Simulated engines of one profile behind both pools, all of them in one process; their time is
stretched so that so many requests are in flight at once on this machine. Each row is a stack of its
own: its requests come at once, or within a given time, and it ends with the last answer.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from bench.overhead.cpu import cpu_us, memory_kb
from bench.scale.figures import Found, costs, rows
from bench.scale.stand import Size, Stand, running
from proto.messages import AnswerAssembled
from proto.names import new_request_id
from services.runtime import logs
from services.runtime.client import Client, make_request

DEADLINE_S = 1800
QUESTION = "What would it take for a town of a hundred thousand to need half as many cars?"


async def _ask(client: Client, after_s: float = 0.0, **fields: object) -> AnswerAssembled | None:
    await asyncio.sleep(after_s)
    request = new_request_id()
    fields = {"mode": "sgd", "adaptive": True, **fields}
    asked = make_request(question=QUESTION, deadline_s=DEADLINE_S, **fields)
    await client.submit(asked, request)
    end = await client.end_of(request)
    return end if isinstance(end, AnswerAssembled) else None


def _cpu(stand: Stand) -> dict[str, list[float]]:
    return {kind: [cpu_us(pid) for pid in pids] for kind, pids in stand.pids.items()}


def _memory(stand: Stand) -> dict[str, float]:
    return {kind: sum(map(memory_kb, pids)) for kind, pids in stand.pids.items()}


async def _most(stand: Stand, most: dict[str, float]) -> None:
    """Keep the most memory of each kind of process that is seen."""
    while True:
        for kind, kb in _memory(stand).items():
            most[kind] = max(most.get(kind, 0.0), kb)
        await asyncio.sleep(1)


async def _measure(folder: Path, size: Size) -> Found:
    async with running(folder, size) as stand:
        # A short one first: connections are there then, and modules loaded.
        await _ask(stand.client, mode="direct", sampling={"max_tokens": 1})
        idle, before = _memory(stand), _cpu(stand)
        most: dict[str, float] = dict(idle)
        watching = asyncio.create_task(_most(stand, most), name="watch memory")
        began = time.perf_counter()
        pause_s = size.spread_s / size.in_flight
        ended = await asyncio.gather(
            *(_ask(stand.client, number * pause_s) for number in range(size.in_flight))
        )
        wall_s = time.perf_counter() - began
        watching.cancel()
        after = _cpu(stand)
        used = {
            kind: [(b - a) / 1e6 for a, b in zip(before[kind], after[kind], strict=True)]
            for kind in after
        }
        held = {kind: most[kind] - idle[kind] for kind in idle}
        return Found(size, wall_s, [one for one in ended if one], used, held)


def _size(told: str, time_scale: float, tokens: float, spread_s: float, profile: str) -> Size:
    endpoints, processes, in_flight = (int(one) for one in told.split("x"))
    return Size(
        endpoints=endpoints,
        processes=processes,
        in_flight=in_flight,
        time_scale=time_scale,
        tokens=tokens,
        spread_s=spread_s,
        profile=profile,
    )


def main(
    sizes: Annotated[
        str, typer.Option(help="endpoints a pool x processes a service x requests, by comma")
    ] = "1x1x64,4x1x64,16x1x64,16x2x64,16x4x64,16x1x250,16x1x1000",
    time_scale: Annotated[float, typer.Option(help="real seconds of one of the profile")] = 40,
    tokens: Annotated[float, typer.Option(help="of each text")] = 32,
    spread_s: Annotated[float, typer.Option(help="seconds over which the requests come")] = 0,
    profile: Annotated[
        str, typer.Option(help="timing of the engines; no-op: what the services cost over HTTP")
    ] = "llama-8b-1xh100",
    report: Annotated[Path | None, typer.Option(help="write the tables to this file")] = None,
) -> None:
    """Measure how far it carries."""
    logs.configure("error", "console")
    found, loads = [], [os.getloadavg()[0]]
    for told in sizes.split(","):
        size = _size(told, time_scale, tokens, spread_s, profile)
        with tempfile.TemporaryDirectory(prefix="skelgraph-scale-") as folder:
            found.append(uvloop.run(_measure(Path(folder), size)))
        loads.append(os.getloadavg()[0])
        typer.echo(rows(found[-1:]), err=True)
    load = f"Load of the machine: {min(loads):.1f} to {max(loads):.1f}, {os.cpu_count()} cores."
    text = "\n\n".join([rows(found), costs(found), load])
    typer.echo(text)
    if report:
        report.write_text(f"{text}\n")


if __name__ == "__main__":
    typer.run(main)
