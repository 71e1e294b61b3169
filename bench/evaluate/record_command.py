"""`record`: answers of several methods side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from bench.evaluate.app import app
from bench.evaluate.methods import METHODS, Method, choose
from bench.evaluate.recording import Cell, Recorder
from bench.evaluate.records import Record, Records, read_folders, records_of, refuse_changed
from bench.evaluate.runs import open_run, reach_of, told
from bench.questions import Question, err, progress, read_questions
from proto.messages import RequestFailed
from skelgraph.app import run
from skelgraph.local.config import SLOTS
from skelgraph.options import (
    LARGE_MODEL,
    SMALL_MODEL,
    Engines,
    LargeModel,
    LargeUrls,
    NatsUrl,
    SmallModel,
    SmallUrls,
)
from skelgraph.session import Where, reach

Folder = Annotated[Path, typer.Argument(help="of the run: made, or gone on with")]
Questions = Annotated[Path, typer.Argument(help="questions, a JSON object a line", exists=True)]
_NAMES: Final = ", ".join(method.name for method in METHODS)


@app.command()
def record(
    folder: Folder,
    questions: Questions,
    methods: Annotated[str, typer.Option(help=f"separated by commas: {_NAMES}")] = (
        "direct,sot,sgd-na,sgd"
    ),
    own_method: Annotated[
        list[str] | None,
        typer.Option(help='one of your own, as name={"mode": "sgd", …}: fields of the request'),
    ] = None,
    plans_only: Annotated[bool, typer.Option(help="dry runs: plan, decode nothing")] = False,
    max_tokens: Annotated[int | None, typer.Option(help="limit of a node's text, tokens")] = None,
    limit: Annotated[int | None, typer.Option(help="ask only the first so many")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="requests at once")] = 1,
    slots: Annotated[int, typer.Option(min=1, help="nodes a pool decodes at once")] = SLOTS,
    nats_url: NatsUrl = None,
    large_url: LargeUrls = None,
    small_url: SmallUrls = None,
    large_model: LargeModel = LARGE_MODEL,
    small_model: SmallModel = SMALL_MODEL,
) -> None:
    """Answer each question by each method and record all of it; killed, it goes on where it was.

    Asks the services at --nats-url, or runs a stack of its own in FOLDER.
    """
    engines = Engines(large_url, small_url, large_model, small_model)
    common: dict[str, object] = {"dry_run": True} if plans_only else {}
    if max_tokens:
        common["sampling"] = {"max_tokens": max_tokens}

    async def command() -> int:
        asked, by = read_questions(questions)[:limit], choose(methods.split(","), own_method or ())
        refuse_changed(read_folders([folder]), asked)
        token = open_run(folder, common, told(nats_url, engines)).run
        where = reach_of(folder, nats_url, engines, slots)
        return await _record(where, folder, token, common, _cells(asked, by), concurrency)

    run(command)


def _cells(questions: Sequence[Question], methods: Sequence[Method]) -> list[Cell]:
    """Return what to record: one question of each category, then the second of each, and so on.

    A run that is left early thus has some of each category, by every method.
    """
    turn: Counter[str] = Counter()
    placed = []
    for question in questions:
        placed.append((turn[question.category], question))
        turn[question.category] += 1
    ordered = [question for _, question in sorted(placed, key=lambda one: one[0])]
    return [Cell(question, method) for question in ordered for method in methods]


async def _record(
    where: Where,
    folder: Path,
    token: str,
    common: dict[str, object],
    cells: Sequence[Cell],
    concurrency: int,
) -> int:
    lines = records_of(folder)
    known, failed = Records(lines.read()), 0
    shown = progress()
    with lines.adding() as adder:
        async with reach(where, may_start=True) as session:
            with shown:
                done = sum(known.find(c.question.id, c.method.name) is not None for c in cells)
                task = shown.add_task("recording", total=len(cells), completed=done)

                def tell(made: Record) -> None:
                    nonlocal failed
                    failed += isinstance(made.end, RequestFailed)
                    shown.update(task, advance=1, description=f"{made.question} {made.method}")

                recorder = Recorder(
                    client=session.over_nats,
                    known=known,
                    adder=adder,
                    run=token,
                    common=common,
                    tell=tell,
                )
                await recorder.record(cells, concurrency)
    _say_missing(known, cells)
    return 1 if failed else 0


def _say_missing(known: Records, cells: Sequence[Cell]) -> None:
    for cell in cells:
        if known.find(cell.question.id, cell.method.name):
            continue
        if known.failures(cell.question.id, cell.method.name):
            why = "failed; the next run asks again"
        else:
            why = f"needs an answer of {cell.method.as_long_as}"
        err.print(f"{cell.question.id} by {cell.method.name}: {why}")
