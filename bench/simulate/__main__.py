"""`python -m bench.simulate`: scheduling policies side by side, as Markdown tables."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

from bench.simulate import plot, real
from bench.simulate.figures import Figures, figures
from bench.simulate.policies import DIRECT, POLICIES, Policy
from bench.simulate.recorded import read_recording
from bench.simulate.study import (
    FLOOD,
    ONE_TENANT,
    SCENARIOS,
    Scenario,
    arriving,
    capacity,
    run,
    table,
    with_small_cards,
)
from bench.simulate.work import Question, drawn
from bench.simulate.world import Deployment
from bench.simulated_engine.profiles import PROFILES
from services.runtime import logs

_QUESTIONS: Final = 200
_MORE_CARDS: Final = "direct, with the small pool's cards"


def parser() -> argparse.ArgumentParser:
    """Return the flags."""
    found = argparse.ArgumentParser(
        prog="python -m bench.simulate",
        description="Scheduling policies side by side in a discrete-event simulation.",
    )
    add = found.add_argument
    add(
        "--recording",
        type=Path,
        help="of the evaluation: plans and lengths of real runs; else drawn",
    )
    add("--large", choices=sorted(PROFILES), default="llama-70b-4xa100")
    add("--small", choices=sorted(PROFILES), default="llama-8b-1xa100")
    add("--endpoints", type=int, nargs=2, default=(4, 4), metavar=("LARGE", "SMALL"))
    add("--slots", type=int, default=8, help="nodes an endpoint decodes at once")
    add("--seeds", type=int, default=3)
    add("--requests", type=int, default=200, help="of each run")
    add("--loads", type=float, nargs="+", help="instead of the scenarios: these loads")
    add("--arrivals", choices=["poisson", "bursty"], default="poisson", help="with --loads")
    add("--policies", nargs="+", help="only those whose names contain one of these")
    add("--real", action="store_true", help="beside it the real services, on simulated engines")
    add("--load", type=float, default=0.8, help="of the baseline, with --real")
    add(
        "--flood",
        action="store_true",
        help="one tenant of four asks ten times as much, with --loads",
    )
    add("--planner-slots", type=int, help="requests planned at once; half of the large slots")
    add("--large-only", action="store_true", help="without the small pool, with --loads or --real")
    add("--time-scale", type=float, default=1.0, help="real seconds of one simulated, with --real")
    add("--report", type=Path, help="Markdown file to write, beside standard output")
    add("--plot", type=Path, help="picture of the answer times over --loads to write (SVG, PNG)")
    return found


def lines(args: argparse.Namespace) -> Iterator[str]:
    """Yield the report line by line, as it comes about."""
    deployment = Deployment(
        large=PROFILES[args.large],
        small=PROFILES[args.small],
        large_endpoints=args.endpoints[0],
        small_endpoints=args.endpoints[1],
        slots=args.slots,
        planner_slots=args.planner_slots or max(8, args.endpoints[0] * args.slots // 2),
    )
    questions = _questions(args)
    most = capacity(deployment, questions)
    yield (
        f"{args.endpoints[0]} × {args.large}, {args.endpoints[1]} × {args.small},"
        f" {args.slots} slots an endpoint; {len(questions)} questions {_source(args)};"
        f" {args.seeds} seeds of {args.requests} requests; load 1 is {most:.2f} requests/s;"
        " ± is the 95 % confidence of the mean over seeds."
    )
    if args.real:
        yield from _beside_the_real(deployment, questions, most, args)
        return
    curves: dict[str, list[tuple[float, Sequence[Figures]]]] = {}
    for scenario in _scenarios(args):
        rows = _compared(deployment, scenario, questions, most, args)
        for name, found in rows:
            curves.setdefault(name, []).append((scenario.load, found))
        yield from ("", f"### {scenario.title.capitalize()}", "")
        yield from table(rows, [name for name, _ in scenario.tenants if name])
    if args.plot:
        plot.draw(curves, f"{len(questions)} questions {_source(args)}", args.plot)


def _compared(
    deployment: Deployment,
    scenario: Scenario,
    questions: Sequence[Question],
    most: float,
    args: argparse.Namespace,
) -> list[tuple[str, list[Figures]]]:
    def of(deployment: Deployment, policy: Policy) -> list[Figures]:
        rate = scenario.load * most
        return [
            run(deployment, policy, scenario, questions, rate, seed) for seed in range(args.seeds)
        ]

    rows = [(DIRECT.name, of(deployment, DIRECT))]
    if scenario.adaptive:
        rows.append((_MORE_CARDS, of(with_small_cards(deployment), DIRECT)))
    return rows + [(one.name, of(deployment, one)) for one in _policies(args)]


def _beside_the_real(
    deployment: Deployment, questions: Sequence[Question], most: float, args: argparse.Namespace
) -> Iterator[str]:
    adaptive = not args.large_only
    scenario = Scenario(load=args.load, adaptive=adaptive, tenants=FLOOD, count=args.requests)
    yield ""
    yield f"### {scenario.title.capitalize()}: simulated, and the real services"
    yield ""
    coming = arriving(scenario, questions, scenario.load * most, 0)
    ways = {way.name: way for way in real.WAYS}
    simulated, measured = [], []
    for policy in POLICIES:
        if way := ways.get(policy.name):
            found = run(deployment, policy, scenario, questions, scenario.load * most, 0)
            simulated.append((f"{policy.name}: simulated", [found]))
            answered = asyncio.run(
                real.run(deployment, way, coming, scale=args.time_scale, adaptive=adaptive)
            )
            measured.append((f"{policy.name}: real", [figures(answered)]))
    yield from table(simulated, [name for name, _ in FLOOD])
    yield ""
    yield from table(measured, [name for name, _ in FLOOD])


def _questions(args: argparse.Namespace) -> list[Question]:
    if args.recording:
        return read_recording(args.recording)
    return drawn(Random("questions"), _QUESTIONS)


def _source(args: argparse.Namespace) -> str:
    return f"recorded in {args.recording.name}" if args.recording else "drawn"


def _scenarios(args: argparse.Namespace) -> list[Scenario]:
    if args.loads:
        return [
            Scenario(
                load=load,
                kind=args.arrivals,
                adaptive=not args.large_only,
                count=args.requests,
                tenants=FLOOD if args.flood else ONE_TENANT,
            )
            for load in args.loads
        ]
    return [replace(scenario, count=args.requests) for scenario in SCENARIOS]


def _policies(args: argparse.Namespace) -> list[Policy]:
    wanted = args.policies or [""]
    return [one for one in POLICIES[1:] if any(part in one.name for part in wanted)]


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print the report and, if asked, write it."""
    args = parser().parse_args(argv)
    logs.configure("error", "console")
    said = []
    for line in lines(args):
        print(line, flush=True)
        said.append(line)
    if args.report:
        args.report.write_text("\n".join(said) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
