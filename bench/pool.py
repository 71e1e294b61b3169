"""One worker's engine client against simulated endpoints: scaling, prefix hits, and faults.

`python -m bench.pool scale` runs 1, 2, 4 and 8 endpoints at saturation, with and without
stickiness. `python -m bench.pool faults` runs four endpoints, one of which dies, hangs or slows
down tenfold in the middle, next to a run without a fault. The engines are processes of
`bench.simulated_engine`; the client is one process, as a worker is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Final

import typer
import uvloop
from prometheus_client import REGISTRY

from bench.pool_load import FIRST_POINTS, Load, Tally, percentile, spread_of_load
from bench.simulated_engine.processes import Simulated, simulated_engines
from services.runtime import logs
from services.runtime.balance import PoolPolicy
from services.runtime.calls import EngineLimits
from services.runtime.endpoints import EnginePool

PROFILE: Final = "llama-70b-4xa100"
CAPACITY: Final = 8
MAX_TOKENS: Final = 24

app = typer.Typer(add_completion=False, help=__doc__)


@contextmanager
def engines(number: int, time_scale: float) -> Iterator[list[Simulated]]:
    """Run simulated engines of `CAPACITY` streams within the block."""
    flags = ["--profile", PROFILE, "--time-scale", str(time_scale)]
    flags += ["--max-concurrent-requests", str(CAPACITY), "--median-tokens", str(4 * MAX_TOKENS)]
    with simulated_engines(*([*flags, "--seed", str(seed)] for seed in range(number))) as running:
        yield running


def _counted(name: str) -> float:
    found = [s.value for m in REGISTRY.collect() for s in m.samples if s.name == name]
    return sum(found)


@dataclass(frozen=True, slots=True)
class Run:
    """A run, and what was counted during it."""

    tally: Tally
    hits: float
    refusals: float
    failovers: float
    hedges: float


async def _run(
    running: Sequence[Simulated],
    *,
    callers: int,
    seconds: float,
    policy: PoolPolicy,
    sticky: bool = True,
    fault: str = "",
) -> Run:
    names = ("refusals_total", "failovers_total", "hedges_total")
    before = [_counted(f"skelgraph_engine_{name}") for name in names]
    cache = [engine.control() for engine in running]
    limits = EngineLimits()
    pool = EnginePool([engine.url for engine in running], limits=limits, policy=policy)
    # A seed of its own: what an earlier run left in the caches is of no use to this one.
    load = Load(pool, max_tokens=MAX_TOKENS, sticky=sticky, seed=time.time_ns())
    until = time.monotonic() + seconds
    try:
        hurting = asyncio.create_task(_hurt(running[0], fault, seconds / 4), name="fault")
        tally = await load.run(callers, lambda: time.monotonic() >= until)
        await hurting
    finally:
        await pool.close()
    counted = [_counted(f"skelgraph_engine_{n}") - b for n, b in zip(names, before, strict=True)]
    return Run(tally, _hits(running, cache, fault), *counted)


def _hits(running: Sequence[Simulated], before: Sequence[dict[str, float]], fault: str) -> float:
    """Return the share of the prompt tokens that were found in the prefix caches."""
    if fault:
        return 0.0
    hit = asked = 0.0
    for engine, was in zip(running, before, strict=True):
        state = engine.control()
        hit += state["hit_tokens"] - was["hit_tokens"]
        asked += state["queried_tokens"] - was["queried_tokens"]
    return hit / asked if asked else 0.0


async def _hurt(engine: Simulated, fault: str, after_s: float) -> None:
    await asyncio.sleep(after_s)
    if fault == "dies":
        engine.process.kill()
    elif fault == "hangs":
        os.kill(engine.process.pid, signal.SIGSTOP)
    elif fault == "slows down 10x":
        await asyncio.to_thread(engine.control, slow=10)


@app.command()
def scale(
    seconds: Annotated[float, typer.Option(help="of each run")] = 20,
    time_scale: Annotated[float, typer.Option(help="real seconds of a simulated one")] = 2,
    numbers: Annotated[str, typer.Option(help="of endpoints")] = "1,2,4,8",
    load_factor: Annotated[float, typer.Option(help="of the pool")] = 1.25,
    load: Annotated[float, typer.Option(help="callers' streams as a share of the capacity")] = 1,
) -> None:
    """Throughput against the ideal, prefix hits, spread of load and refusals, at saturation."""
    logs.configure("error", "console")
    kinds = [("sticky", True), ("not sticky", False)]
    typer.echo(
        "| endpoints | kind | calls | tokens/s | of the ideal | prefix hits | calls an endpoint, "
        "of the mean | refused | failed |\n|---|---|---|---|---|---|---|---|---|"
    )
    alone: dict[str, float] = {}
    for number in map(int, numbers.split(",")):
        with engines(number, time_scale) as running:
            for kind, sticky in kinds:
                callers = max(1, round(load * number * CAPACITY / FIRST_POINTS))
                policy = PoolPolicy(load_factor=load_factor)
                run = uvloop.run(
                    _run(running, callers=callers, seconds=seconds, policy=policy, sticky=sticky)
                )
                alone.setdefault(kind, run.tally.tokens_per_s / number)
                typer.echo(_scale_row(number, kind, run, alone[kind] * number))


def _scale_row(number: int, kind: str, run: Run, ideal: float) -> str:
    tally = run.tally
    calls = len(tally.latencies_s)
    return (
        f"| {number} | {kind} | {calls} | {tally.tokens_per_s:.0f} | "
        f"{tally.tokens_per_s / ideal:.2f} | {run.hits:.0%} | {spread_of_load(tally, number)} | "
        f"{run.refusals:.0f} ({run.refusals / calls:.1%}) | {tally.failed} |"
    )


@app.command()
def faults(
    seconds: Annotated[float, typer.Option(help="of each run; the fault comes at a quarter")] = 60,
    time_scale: Annotated[float, typer.Option(help="real seconds of a simulated one")] = 2,
    load: Annotated[float, typer.Option(help="callers' streams as a share of the capacity")] = 0.6,
    hedge: Annotated[float, typer.Option(help="percentile of a second round; 0: none")] = 95,
) -> None:
    """Added latency and failed calls when one of four endpoints dies, hangs or slows down."""
    logs.configure("error", "console")
    typer.echo(
        "| fault | hedging | calls | median s | p99 s | worst s | first token p99 s | failovers | "
        "hedges | attempts repeated | failed |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for percent in [0.0, hedge] if hedge else [0.0]:
        for fault in ("", "dies", "hangs", "slows down 10x"):
            with engines(4, time_scale) as running:
                callers = round(load * 4 * CAPACITY / FIRST_POINTS)
                policy = PoolPolicy(hedge_percentile=percent)
                run = uvloop.run(
                    _run(running, callers=callers, seconds=seconds, policy=policy, fault=fault)
                )
                typer.echo(_fault_row(fault, percent, run))


def _fault_row(fault: str, percent: float, run: Run) -> str:
    tally = run.tally
    times = tally.latencies_s
    hedging = f"p{percent:.0f}" if percent else "off"
    return (
        f"| {fault or 'none'} | {hedging} | {len(times)} | {percentile(times, 0.5):.2f} | "
        f"{percentile(times, 0.99):.2f} | {max(times):.2f} | "
        f"{percentile(tally.first_tokens_s, 0.99):.2f} | {run.failovers:.0f} | {run.hedges:.0f} | "
        f"{tally.retries} {dict(tally.errors) or ''} | {tally.failed} |"
    )


if __name__ == "__main__":
    app()
