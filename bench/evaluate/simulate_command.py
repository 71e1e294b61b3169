"""`simulate`: recorded plans and lengths on simulated engines, direct beside every method."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from bench.evaluate.app import app
from bench.evaluate.figures import SUITS
from bench.evaluate.lines import JsonLines
from bench.evaluate.methods import BASELINE, Method, choose
from bench.evaluate.replay import Replay
from bench.evaluate.simulated_report import bounds, method_table, seconds_table
from bench.evaluate.simulation import PAIRS, Set, Timed, lateness, simulating
from bench.questions import err, out
from bench.simulated_engine.options import FAMILIES
from bench.simulated_engine.profiles import PROFILES, Profile
from proto.errors import InvalidRequest
from proto.names import Pool
from skelgraph.app import run

RECORDED: Final = Path(__file__).parent / "recorded" / "qwen2.5-coder-1.5b.jsonl"
#: Real seconds of a simulated one, by the requests at once: two cores keep up with that.
SCALES: Final[Mapping[int, float]] = {1: 1, 4: 1, 16: 2, 64: 4}


@app.command()
def simulate(
    recorded: Annotated[Path, typer.Option(help="plans and lengths, of `pack`")] = RECORDED,
    methods: Annotated[str, typer.Option(help="beside direct; separated by commas")] = "sgd,auto",
    concurrency: Annotated[
        str, typer.Option(help="requests at once; separated by commas")
    ] = "1,16",
    per_category: Annotated[
        int | None, typer.Option(help="only the first so many questions of each category")
    ] = 1,
    rounds: Annotated[int, typer.Option(help="how often each question is asked")] = 1,
    pair: Annotated[str, typer.Option(help=f"of profiles: {', '.join(PAIRS)}")] = "a100",
    dialect: Annotated[str, typer.Option(help="of the engines")] = "vllm",
    time_scale: Annotated[
        float | None, typer.Option(help="real seconds of a simulated one; by the concurrency")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="write the tables here, as Markdown")] = None,
    save: Annotated[Path | None, typer.Option(help="write each request's times here")] = None,
) -> None:
    """Latency ratio to direct by category, on simulated 70B + 8B engines, with the real services.

    The defaults take a few minutes; all of it is
    --methods sot,sgd-na,sgd,auto --concurrency 1,4,16,64 --per-category 99.
    """

    async def command() -> int:
        by = choose([BASELINE, *methods.split(",")])
        all_ = read_replays(recorded, by, per_category)
        sets = sets_of(concurrency, pair, dialect, time_scale, rounds)
        levels = [one.concurrency for one in sets]
        timed, notes = await run_sets(sets, by, all_)
        text = simulated_text(all_, timed, by, levels, pair, notes)
        out.print(text, markup=False)
        if report:
            report.write_text(text)
        if save:
            save.write_text("".join(f"{one.model_dump_json()}\n" for one in timed))
        return 0

    run(command)


def sets_of(
    concurrency: str, pair: str, dialect: str, time_scale: float | None, rounds: int
) -> list[Set]:
    """Return what the options say, a set for each number of requests at once.

    Raises:
        InvalidRequest: an option is not valid; names it.
    """
    if pair not in PAIRS:
        raise InvalidRequest(f"{pair!r}; known are {', '.join(PAIRS)}", field="pair")
    if dialect not in FAMILIES:
        raise InvalidRequest(f"{dialect!r}; known are {', '.join(FAMILIES)}", field="dialect")
    levels = concurrency.split(",")
    if not all(level.strip().isdigit() and int(level) > 0 for level in levels):
        raise InvalidRequest(f"{concurrency!r} is not like 1,4,16", field="concurrency")
    return [
        Set(
            pair=pair,
            dialect=dialect,
            time_scale=time_scale or SCALES.get(int(level), max(1.0, int(level) / 16)),
            concurrency=int(level),
            rounds=rounds,
        )
        for level in levels
    ]


def read_replays(path: Path, by: Sequence[Method], per_category: int | None) -> list[Replay]:
    """Return what is recorded of those methods; those not recorded repeat `sgd` or `auto`.

    Raises:
        InvalidRequest: nothing is.
    """
    read = JsonLines(path, Replay).read()
    chosen = _first_of_each(read, per_category)
    found: dict[tuple[str, str], Replay] = {}
    for method in by:
        like = _recorded_like(method, {one.method for one in read})
        for one in read:
            if one.method == like and one.question in chosen:
                found[method.name, one.question] = one.model_copy(update={"method": method.name})
    if not found:
        raise InvalidRequest(f"{path} holds none of these methods", field="recorded")
    return list(found.values())


async def run_sets(
    sets: Sequence[Set], by: Sequence[Method], all_: Sequence[Replay]
) -> tuple[list[Timed], list[str]]:
    """Return the times of all methods at all loads, and notes on how they were taken."""
    timed: list[Timed] = []
    notes: list[str] = []
    for one in sets:
        async with simulating(one, all_) as running:
            for method in by:
                asked = [replay for replay in all_ if replay.method == method.name]
                timed += await running.measure(method, asked)
                late = [lateness(engine) for engine in running.engines]
                told = " and ".join(f"{x.median_ms:.2f} (at most {x.most_ms:.0f})" for x in late)
                notes.append(
                    f"{one.concurrency} at once, {method.name}: {len(asked)} questions, a second"
                    f" lasted {one.time_scale:g} s, engines late by {told} ms of the profile,"
                    f" machine's load {os.getloadavg()[0]:.1f}"
                )
                err.print(notes[-1], markup=False)
    return timed, notes


def simulated_text(
    all_: Sequence[Replay],
    timed: Sequence[Timed],
    by: Sequence[Method],
    levels: Sequence[int],
    pair: str,
    notes: Sequence[str],
) -> str:
    """Return the report as Markdown."""
    intro = (
        "Latency ratio to direct: its time by the method's, geometric mean over the questions"
        " (quartiles); more is faster. *bound*: the same on idle engines if nothing but the"
        f" critical path took time. Suited: {', '.join(SUITS)}."
    )
    parts = [intro]
    for method in by[1:]:
        best = bounds(all_, method.name, profiles(pair), method.way)
        parts.append(f"`{method.name}`: {method.about}")
        parts.append(method_table(timed, method.name, levels, best))
    parts.append(seconds_table(timed, [method.name for method in by], levels))
    parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def profiles(pair: str) -> dict[Pool, Profile]:
    """Return the profiles of both pools."""
    large, small = PAIRS[pair]
    return {Pool.LARGE: PROFILES[large], Pool.SMALL: PROFILES[small]}


def _recorded_like(method: Method, recorded: set[str]) -> str:
    """Return the method whose plans and lengths are repeated for `method`."""
    usual = "auto" if method.fields.get("mode") == "auto" else "sgd"
    return method.name if method.name in recorded else usual


def _first_of_each(read: Sequence[Replay], most: int | None) -> set[str]:
    by_category: dict[str, dict[str, None]] = {}
    for one in read:
        by_category.setdefault(one.category, {})[one.question] = None
    return {question for many in by_category.values() for question in list(many)[:most]}
