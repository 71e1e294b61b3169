"""`ablate`: sgd with each of its parts left out, side by side in one run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from bench.evaluate.app import app
from bench.evaluate.figures import geometric_mean, table
from bench.evaluate.methods import BASELINE, Method, choose
from bench.evaluate.simulate_command import (
    RECORDED,
    Concurrency,
    DialectName,
    PairName,
    PerCategory,
    Recorded,
    ReportFile,
    Rounds,
    TimeScale,
    read_replays,
    run_sets,
    sets_of,
)
from bench.evaluate.simulated_report import ratios
from bench.evaluate.simulation import Timed
from bench.plans import measure
from bench.plans import report as plans_report
from bench.questions import out, read_questions
from proto.errors import InvalidRequest
from skelgraph.app import run

#: With all its parts, and without each of them.
WHOLE: Final = "sgd"
ABLATIONS: Final = (
    Method("no pipelining", "no node starts before the plan ends", {"without": ["pipelining"]}),
    Method("no prefix layout", "no node's prompt begins as another's", {"without": ["prefix"]}),
    Method("no dependencies", "no node waits for another", {"without": ["needs"]}),
    Method("not adaptive", "easy nodes in the large pool too", {"adaptive": False}),
    Method("no grammar", "plans are written free", {"without": ["grammar"]}),
)


@app.command()
def ablate(
    recorded: Recorded = RECORDED,
    concurrency: Concurrency = "1,16",
    per_category: PerCategory = 1,
    rounds: Rounds = 1,
    pair: PairName = "a100",
    dialect: DialectName = "vllm",
    time_scale: TimeScale = None,
    url: Annotated[
        str | None, typer.Option(help="a real engine, for the validity of plans")
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(help="file of questions for that engine", exists=True)
    ] = None,
    report: ReportFile = None,
) -> None:
    """What each part of sgd is worth: latency and tokens on simulated engines, validity on real.

    Only the questions that sgd decomposed are asked. A recorded plan is valid whether it was
    constrained or not: what the grammar does is seen with --url and --questions only.
    """

    async def command() -> int:
        if (url is None) != (questions is None):
            raise InvalidRequest("--url and --questions go together", field="url")
        sets = sets_of(concurrency, pair, dialect, time_scale, rounds)
        by = [*choose([BASELINE, WHOLE]), *(_of_sgd(method) for method in ABLATIONS)]
        all_ = read_replays(recorded, by, per_category)
        decomposed = {one.question for one in all_ if one.method == WHOLE and not one.is_direct}
        timed, notes = await run_sets(sets, by, [one for one in all_ if one.question in decomposed])
        parts = [ablation_table(timed, by, level.concurrency) for level in sets]
        parts.append("\n".join(f"- {note}" for note in notes))
        if url and questions:
            asked = read_questions(questions)
            plans = await measure(url, asked, "auto", free=True, record=None)
            parts.append(plans_report(plans, "auto", url))
        text = "\n\n".join(parts) + "\n"
        out.print(text, markup=False, soft_wrap=True)
        if report:
            report.write_text(text)
        return 0

    run(command)


def ablation_table(timed: Sequence[Timed], by: Sequence[Method], level: int) -> str:
    """Return one row a variant: its latency beside direct's and beside that of all parts."""
    header = [f"{level} at once", "latency ratio to direct", "to sgd", "s, median"]
    header += ["generated tokens", "prefilled", "cached", "overhead ms"]
    whole = geometric_mean(one.latency for one in ratios(timed, WHOLE, level, {}))
    rows = []
    for method in by:
        some = [one for one in timed if (one.method, one.concurrency) == (method.name, level)]
        latency = geometric_mean(one.latency for one in ratios(timed, method.name, level, {}))
        rows.append([f"{method.name}", f"{latency:.3g}", f"{latency / whole:.3g}", *_row(some)])
    return table(header, rows)


def _row(some: Sequence[Timed]) -> list[str]:
    cached = statistics.fmean(one.cached_tokens for one in some)
    return [
        f"{statistics.median(one.wall_ms for one in some) / 1000:.2f}",
        f"{statistics.fmean(one.generated_tokens for one in some):.0f}",
        f"{statistics.fmean(one.prompt_tokens for one in some) - cached:.0f}",
        f"{cached:.0f}",
        f"{statistics.median(one.overhead_ms for one in some):.0f}",
    ]


def _of_sgd(method: Method) -> Method:
    return Method(method.name, method.about, {"mode": "sgd", **method.fields})
