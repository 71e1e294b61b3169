"""What the services add to a node, beside the raw queue in the same run.

`python -m bench.overhead` runs the real assembler and the real worker, each a process, with an
engine that does nothing, and in turns with them a loop over nats-py that does only what must be
done: durable dispatch, durable result, both acked. Plans are stored by the benchmark.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from bench.overhead import scheduling, tables
from bench.overhead.measure import Bench, Latency, Load
from bench.overhead.requests import Requests
from bench.overhead.shapes import CHAINS, FAN_OUTS, LOAD, chain, fan_out
from bench.overhead.stand import Setting, Stand, running
from services.runtime import logs

HOP_CHAIN = chain(32)
TOKENS = 256
GAP_S = 0.02
SETTINGS = tuple(
    Setting(storage, replicas) for replicas in (1, 3) for storage in ("file", "memory")
)


class Report:
    """What was found, as Markdown, part by part."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def add(self, title: str, body: str) -> None:
        """Say it, and keep it for the file."""
        self.parts.append(f"### {title}\n\n{body}\n")
        typer.echo(self.parts[-1])


async def _warm(bench: Bench) -> None:
    await bench.latency(HOP_CHAIN, 2)
    await bench.load(LOAD, 16)


async def _bench(stand: Stand) -> Bench:
    requests = Requests(stand)
    await requests.listen()
    return Bench(stand, requests)


async def _settings(folder: Path, report: Report, rounds: int, copies: int) -> None:
    """Hop and load in each setting."""
    hops: dict[str, Latency] = {}
    loads: dict[str, list[tuple[Load, Load]]] = {}
    for number, setting in enumerate(SETTINGS):
        async with running(folder / f"setting-{number}", setting) as stand:
            bench = await _bench(stand)
            await _warm(bench)
            hops[setting.name] = await bench.latency(HOP_CHAIN, 4 * rounds)
            loads[setting.name] = [await bench.load(LOAD, copies) for _ in range(rounds)]
    report.add("A node of a chain of 32", tables.hops(hops))
    report.add(f"{copies} chains of 8 at once", tables.loads(loads))
    report.add("Traffic (file, 1 server)", tables.traffic(loads[SETTINGS[0].name]))


async def _graphs(folder: Path, report: Report, rounds: int) -> None:
    """Each graph alone, on files."""
    async with running(folder / "graphs", Setting()) as stand:
        bench = await _bench(stand)
        await _warm(bench)
        found = {
            shape.name: await bench.latency(shape, 4 * rounds) for shape in (*CHAINS, *FAN_OUTS)
        }
    report.add("Graphs, one at a time (file, 1 server)", tables.latencies(found))


async def _tokens(folder: Path, report: Report, rounds: int) -> None:
    """Many streams beside one another, with one token each and with many."""
    shape, copies, used = fan_out(16), 4, {}
    for tokens in (1, TOKENS):
        flags = ("--no-op-tokens", str(tokens), "--no-op-gap-s", str(GAP_S))
        async with running(folder / f"tokens-{tokens}", Setting(worker=flags)) as stand:
            bench = await _bench(stand)
            await bench.busy_us(shape, copies)
            used[tokens] = [await bench.busy_us(shape, copies) for _ in range(rounds)]
    streams = copies * len(shape.nodes)
    rows = []
    for name in used[1][0]:
        few, many = ([one[name] / streams for one in used[tokens]] for tokens in (1, TOKENS))
        slope = [(more - less) / (TOKENS - 1) for more, less in zip(many, few, strict=True)]
        rows.append([name, tables.spread(slope, 1)])
    title = f"CPU µs a token ({streams} streams, {1 / GAP_S:.0f} tokens/s each)"
    report.add(title, tables.table(("process", "µs"), rows))


async def _memory(folder: Path, report: Report) -> None:
    """Nodes that are in a slot and do not end."""
    shape, copies = fan_out(8), 250
    nodes = copies * len(shape.nodes)
    setting = Setting(slots=nodes, worker=("--no-op-gap-s", "600"))
    async with running(folder / "memory", setting) as stand:
        held = await (await _bench(stand)).held_kb(shape, copies)
    rows = [[name, f"{kb / nodes:.1f}", f"{kb / copies:.1f}"] for name, kb in held.items()]
    title = f"Memory of {nodes} nodes of {copies} requests in flight"
    report.add(title, tables.table(("process", "KB a node", "KB a request"), rows))


async def _scheduling(report: Report, rounds: int) -> None:
    """Without NATS."""
    title = f"Scheduling: CPU µs a node, with {scheduling.SLOTS} slots"
    report.add(title, await scheduling.measured(rounds))


def main(
    rounds: Annotated[int, typer.Option(help="of each figure, ours and raw in turns")] = 5,
    copies: Annotated[int, typer.Option(help="graphs at once, for nodes a second")] = 256,
    only: Annotated[str, typer.Option(help="settings, graphs, tokens, memory or scheduling")] = "",
    report: Annotated[Path | None, typer.Option(help="write the tables to this file")] = None,
) -> None:
    """Measure what the services add to a node."""
    logs.configure("error", "console")
    told = Report()
    with tempfile.TemporaryDirectory(prefix="skelgraph-overhead-") as name:
        folder = Path(name)
        parts: dict[str, Callable[[], Coroutine[object, object, None]]] = {
            "settings": partial(_settings, folder, told, rounds, copies),
            "graphs": partial(_graphs, folder, told, rounds),
            "tokens": partial(_tokens, folder, told, rounds),
            "memory": partial(_memory, folder, told),
            "scheduling": partial(_scheduling, told, rounds),
        }
        loads = [os.getloadavg()[0]]
        for part, work in parts.items():
            if only in {"", part}:
                uvloop.run(work())
                loads.append(os.getloadavg()[0])
    said = f"Load average while it ran: {min(loads):.1f} to {max(loads):.1f}, median "
    told.add("Machine", f"{said}{statistics.median(loads):.1f}, {os.cpu_count()} cores.")
    if report:
        report.write_text("\n".join(told.parts))


if __name__ == "__main__":
    typer.run(main)
