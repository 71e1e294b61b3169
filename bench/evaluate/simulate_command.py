"""`simulate`: recorded plans and lengths on simulated engines, direct beside every method."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from bench.evaluate.app import app
from bench.evaluate.figures import SUITED
from bench.evaluate.lines import JsonLines
from bench.evaluate.methods import BASELINE, Method, choose
from bench.evaluate.replay import Replay, as_method
from bench.evaluate.simulated_report import bound_table, bounds, method_table, seconds_table
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

Recorded = Annotated[Path, typer.Option(help="plans and lengths, of `pack`")]
Concurrency = Annotated[str, typer.Option(help="at once; separated by commas")]
PerCategory = Annotated[
    int | None, typer.Option(help="only the first so many questions of each category")
]
Rounds = Annotated[int, typer.Option(help="how often each question is asked")]
PairName = Annotated[str, typer.Option(help=f"of profiles: {', '.join(PAIRS)}")]
DialectName = Annotated[str, typer.Option(help="of the engines")]
TimeScale = Annotated[
    float | None, typer.Option(help="real seconds of a simulated one; by the concurrency")
]
SameArrivals = Annotated[
    bool,
    typer.Option(
        help="direct has so many at once; the others' requests come when those of direct came"
    ),
]
ReportFile = Annotated[Path | None, typer.Option(help="write the tables here, as Markdown")]


@app.command()
def simulate(
    recorded: Recorded = RECORDED,
    methods: Annotated[str, typer.Option(help="beside direct; separated by commas")] = "sgd,auto",
    concurrency: Concurrency = "1,16",
    per_category: PerCategory = 1,
    rounds: Rounds = 1,
    pair: PairName = "a100",
    dialect: DialectName = "vllm",
    time_scale: TimeScale = None,
    same_arrivals: SameArrivals = False,
    only_bound: Annotated[
        bool, typer.Option(help="run nothing: what could be had at best, at once")
    ] = False,
    report: ReportFile = None,
    save: Annotated[Path | None, typer.Option(help="write each request's times here")] = None,
) -> None:
    """Latency ratio to direct by category, on simulated 70B + 8B engines, with the real services.

    The defaults take a few minutes; all of it is
    --methods sot,sgd-na,sgd,auto --concurrency 1,4,16,64 --per-category 99.
    """

    async def command() -> int:
        by = choose([BASELINE, *methods.split(",")])
        all_ = read_replays(recorded, by, per_category)
        sets = sets_of(concurrency, pair, dialect, time_scale, rounds, same_arrivals)
        levels = [one.concurrency for one in sets]
        if only_bound:
            text = bound_table({m.name: _bounds(all_, m, pair) for m in by[1:]}, all_) + "\n"
        else:
            timed, notes = await run_sets(sets, by, all_)
            text = simulated_text(all_, timed, by, levels, pair, notes)
        out.print(text, markup=False, soft_wrap=True)
        if report:
            report.write_text(text)
        if save and not only_bound:
            save.write_text("".join(f"{one.model_dump_json()}\n" for one in timed))
        return 0

    run(command)


def sets_of(
    concurrency: str,
    pair: str,
    dialect: str,
    time_scale: float | None,
    rounds: int,
    same_arrivals: bool = False,
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
            same_arrivals=same_arrivals,
        )
        for level in levels
    ]


def read_replays(path: Path, by: Sequence[Method], per_category: int | None) -> list[Replay]:
    """Return what is recorded of those methods; where it is not, what `sgd` or `auto` planned.

    Raises:
        InvalidRequest: nothing is.
    """
    read = JsonLines(path, Replay).read()
    chosen = _first_of_each(read, per_category)
    known = {(one.question, one.method): one for one in read}
    found: list[Replay] = []
    for method in by:
        names = [method.name] if method.name == BASELINE else [method.name, "sgd", "auto"]
        if method.fields.get("mode") == "auto":
            names = [method.name, "auto"]
        for question in chosen:
            like = next((known[question, n] for n in names if (question, n) in known), None)
            if like and (method.name == BASELINE or like.plan):
                found.append(as_method(like, method.name, str(method.fields["mode"])))
    if not found:
        raise InvalidRequest(f"{path} holds none of these methods", field="recorded")
    return [one for one in found if one.method == BASELINE or _is_of(one, by)]


def _is_of(replay: Replay, by: Sequence[Method]) -> bool:
    """Say whether its method may have answered so: a forced method never answers directly."""
    mode = next(method.fields["mode"] for method in by if method.name == replay.method)
    return mode == "auto" or not replay.is_direct


async def run_sets(
    sets: Sequence[Set], by: Sequence[Method], all_: Sequence[Replay]
) -> tuple[list[Timed], list[str]]:
    """Return the times of all methods at all loads, and notes on how they were taken."""
    timed: list[Timed] = []
    notes: list[str] = []
    for one in sets:
        async with simulating(one, all_) as running:
            for method in by:
                as_of_direct = ", arrivals of direct" if running.arrivals else ""
                asked = [replay for replay in all_ if replay.method == method.name]
                timed += await running.measure(method, asked)
                late = [lateness(engine) for engine in running.engines]
                told = " and ".join(f"{x.median_ms:.2f} (at most {x.most_ms:.0f})" for x in late)
                notes.append(
                    f"{one.concurrency} at once{as_of_direct}, {method.name}: {len(asked)}"
                    f" questions, a second lasted {one.time_scale:g} s, engines late by {told} ms"
                    f" of the profile, machine's load {os.getloadavg()[0]:.1f}"
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
        " critical path took time. *At equal length*: the ratio, divided by how many times as"
        " long direct's answer is, so the ratio of tokens a second; what a method gains by writing"
        f" less is not in it. Suited: {', '.join(SUITED)}."
    )
    parts = [intro]
    planned = {one.question for one in all_ if one.lengths == "planned"}
    if planned:
        parts.append(
            f"Of {len(planned)} questions the lengths of nodes are what the plan asked for."
        )
    for method in by[1:]:
        best = _bounds(all_, method, pair)
        parts.append(f"`{method.name}`: {method.about}")
        parts.append(method_table(timed, method.name, levels, best))
    parts.append(seconds_table(timed, [method.name for method in by], levels))
    parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def profiles(pair: str) -> dict[Pool, Profile]:
    """Return the profiles of both pools."""
    large, small = PAIRS[pair]
    return {Pool.LARGE: PROFILES[large], Pool.SMALL: PROFILES[small]}


def _bounds(all_: Sequence[Replay], method: Method, pair: str) -> dict[str, float]:
    return bounds(all_, method.name, profiles(pair), method.way)


def _first_of_each(read: Sequence[Replay], most: int | None) -> list[str]:
    by_category: dict[str, dict[str, None]] = {}
    for one in read:
        by_category.setdefault(one.category, {})[one.question] = None
    return [question for many in by_category.values() for question in list(many)[:most]]
