"""What one would use instead, on the same graphs, beside ours and the raw queue, in turns.

`make peers` makes the environment, then `python -m bench.overhead.peers`. All stay up, and in each
round one after another is measured, so that noise meets all of them.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from bench.overhead.measure import Bench, Load
from bench.overhead.peers import figures
from bench.overhead.peers.figures import Round
from bench.overhead.peers.hosted import Hosted, PeerFailed, hosted
from bench.overhead.peers.systems import KINDS, MODULES, OURS, RAW
from bench.overhead.requests import Requests
from bench.overhead.shapes import LOAD, chain, fan_out
from bench.overhead.stand import Setting, Stand, running
from services.runtime import logs

HOPS, CHAIN, FAN_OUT = chain(32), chain(3), fan_out(16)
#: Each graph so often before anything is measured: code is loaded, connections are open.
WARM = 3


async def _ours(bench: Bench, repeats: int, copies: int) -> tuple[Round, Round]:
    """Return a round of ours and one of the raw loop."""
    hops = (await bench.latency(HOPS, repeats)).hops
    short, wide = [(await bench.latency(shape, repeats)).totals for shape in (CHAIN, FAN_OUT)]
    ours, raw = await bench.load(LOAD, copies)
    return (
        Round(hops.ours, short.ours, wide.ours, ours.nodes_a_s, _cpu(ours)),
        Round(hops.raw, short.raw, wide.raw, raw.nodes_a_s, _cpu(raw)),
    )


def _cpu(load: Load) -> float:
    return sum(load.cpu_us.values())


async def _warm(peer: Hosted) -> None:
    for shape in (HOPS, CHAIN, FAN_OUT):
        await peer.run(shape, WARM)


async def _theirs(peer: Hosted, stand: Stand, repeats: int, copies: int) -> Round:
    hops = [await peer.run(HOPS) for _ in range(repeats)]
    short = [await peer.run(CHAIN) for _ in range(repeats)]
    wide = [await peer.run(FAN_OUT) for _ in range(repeats)]
    before = peer.cpu_us() + stand.cpu_us({})["nats"]
    load = await peer.run(LOAD, copies)
    nodes = copies * len(LOAD.nodes)
    # Of those that do not use NATS, what it costs to idle: next to nothing.
    used = peer.cpu_us() + stand.cpu_us({})["nats"] - before
    return Round(
        [hop for one in hops for hop in figures.hops_of(one)],
        [figures.total_of(one) for one in short],
        [figures.total_of(one) for one in wide],
        nodes / load["wall_s"],
        used / nodes,
    )


class Peers:
    """The peers that run; one that fails is left out from then on, and told with its reason."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self.running: dict[str, Hosted] = {}
        self.found: dict[str, list[Round]] = {}
        self.failed: dict[str, str] = {}

    async def open(self, stack: AsyncExitStack, python: Path, names: list[str], at: Path) -> None:
        """Start each, one after another."""
        url = self._stand.nats[0].url
        for number, name in enumerate(names):
            typer.echo(f"starting {name}", err=True)
            try:
                peer = await stack.enter_async_context(hosted(python, name, url, at / str(number)))
                await _warm(peer)
                self.running[name] = peer
            except PeerFailed as error:
                self.failed[name] = str(error)

    async def round(self, repeats: int, copies: int) -> None:
        """Measure each once, one after another."""
        for name, peer in list(self.running.items()):
            try:
                one = await _theirs(peer, self._stand, repeats, copies)
                self.found.setdefault(name, []).append(one)
            except PeerFailed as error:
                self.failed[name] = str(error)
                del self.running[name]


async def _measure(
    folder: Path, python: Path, names: list[str], rounds: int, repeats: int, copies: int
) -> tuple[dict[str, list[Round]], dict[str, str]]:
    found: dict[str, list[Round]] = {OURS: [], RAW: []}
    async with running(folder / "stand", Setting()) as stand, AsyncExitStack() as stack:
        requests = Requests(stand)
        await requests.listen()
        bench, peers = Bench(stand, requests), Peers(stand)
        await peers.open(stack, python, names, folder)
        await _ours(bench, WARM, WARM)
        for number in range(rounds):
            typer.echo(f"round {number + 1}", err=True)
            for name, one in zip((OURS, RAW), await _ours(bench, repeats, copies), strict=True):
                found[name].append(one)
            await peers.round(repeats, copies)
        return found | peers.found, peers.failed


def main(
    python: Annotated[Path, typer.Option(help="of the peers' environment")] = Path(
        ".venv-peers/bin/python"
    ),
    rounds: Annotated[int, typer.Option(help="of all systems, in turns")] = 3,
    repeats: Annotated[int, typer.Option(help="of each graph a round")] = 12,
    copies: Annotated[int, typer.Option(help="chains of 8 at once, for nodes a second")] = 128,
    only: Annotated[str, typer.Option(help="peers, by semicolon; all if empty")] = "",
    report: Annotated[Path | None, typer.Option(help="write the tables to this file")] = None,
) -> None:
    """Measure peers beside ours."""
    logs.configure("error", "console")
    names = [name for name in MODULES if not only or name in only.split(";")]
    with tempfile.TemporaryDirectory(prefix="skelgraph-peers-") as folder:
        loads = [os.getloadavg()[0]]
        found, failed = uvloop.run(
            _measure(Path(folder), python.absolute(), names, rounds, repeats, copies)
        )
        loads.append(os.getloadavg()[0])
    shown = {name: KINDS[name] for name in found}
    load = f"Load of the machine: {loads[0]:.1f} before, {loads[1]:.1f} after."
    ratios = "By ours, in the same round (above 1: ours is ahead):\n\n" + figures.ratios(
        found, OURS
    )
    text = "\n\n".join([figures.kinds(shown), figures.figures(found, failed), ratios, load])
    typer.echo(text)
    if report:
        report.write_text(f"{text}\n")


if __name__ == "__main__":
    typer.run(main)
