"""`report`: tables and pictures of recorded answers; `side-by-side`: some of them for reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.evaluate import blind
from bench.evaluate.app import app
from bench.evaluate.judge import judgements_of
from bench.evaluate.judge_commands import Folders
from bench.evaluate.judging import outcomes
from bench.evaluate.records import Records, read_folders, refuse_changed
from bench.evaluate.report import BY_HAND, Judged, report
from bench.questions import err, out, read_questions
from proto.errors import InvalidRequest
from skelgraph.app import run


@app.command("report")
def report_(
    folders: Folders,
    into: Annotated[Path | None, typer.Option(help="write the tables here, as Markdown")] = None,
    images: Annotated[Path | None, typer.Option(help="folder of pictures to draw")] = None,
    sheet: Annotated[
        list[Path] | None, typer.Option(help="filled by hand; one a packet", exists=True)
    ] = None,
    key: Annotated[
        list[Path] | None, typer.Option(help="of each sheet, in their order", exists=True)
    ] = None,
) -> None:
    """Report on recorded answers: latency, tokens/s, lengths, plans, and verdicts if there are any.

    Verdicts are those of `judge` in FOLDERS and of the sheets, each judge's apart.
    """

    async def command() -> int:
        records = read_folders(folders)
        judged = _judged(folders, records, sheet or (), key or ())
        text = report(records, judged)
        out.print(text, markup=False, soft_wrap=True)
        if into:
            into.write_text(text)
        if images:
            from bench.evaluate.plots import draw  # matplotlib is an extra

            for made in draw(records, judged, images):
                err.print(str(made), markup=False)
        return 0

    run(command)


@app.command()
def side_by_side(
    folders: Folders,
    ids: Annotated[str, typer.Option(help="of the questions, separated by commas")],
    questions: Annotated[
        Path | None, typer.Option(help="the file of questions, to print them too", exists=True)
    ] = None,
    methods: Annotated[str, typer.Option(help="separated by commas")] = "direct,sot,sgd",
    into: Annotated[Path | None, typer.Option(help="write here instead of stdout")] = None,
) -> None:
    """Print answers to the same questions by several methods, as Markdown, for reading."""

    async def command() -> int:
        found, records = read_questions(questions) if questions else [], read_folders(folders)
        refuse_changed(records, found)
        asked = {one.id: one.told for one in found}
        text = texts_side_by_side(records, ids.split(","), methods.split(","), asked)
        if into:
            into.write_text(text)
        else:
            out.print(text, markup=False, soft_wrap=True)
        return 0

    run(command)


def texts_side_by_side(
    records: Records, ids: list[str], methods: list[str], asked: dict[str, str]
) -> str:
    """Return the answers as Markdown.

    Raises:
        InvalidRequest: one is not recorded; names it.
    """
    parts = ["# Answers side by side"]
    for question in ids:
        parts.append(
            f"## Question {question}" + (f": {asked[question]}" if question in asked else "")
        )
        for method in methods:
            record = records.find(question, method)
            if record is None or record.answer is None:
                raise InvalidRequest(
                    f"question {question} by {method} is not recorded", field="ids"
                )
            end = record.answer
            figures = f"{end.timings.wall_ms / 1000:.0f} s, {end.usage.generated_tokens} tokens"
            parts += [f"### {method} ({end.mode}, {figures})", blind.quoted(end.text)]
            if record.plan:
                parts.append("Plan: " + "; ".join(f"`{one.line}`" for one in record.plan))
    return "\n\n".join(parts) + "\n"


def _judged(
    folders: Sequence[Path], records: Records, sheets: Sequence[Path], keys: Sequence[Path]
) -> Judged:
    if len(sheets) != len(keys):
        raise InvalidRequest("each sheet needs its key, and each key its sheet", field="sheet")
    made = [one for folder in folders for one in judgements_of(folder).read()]
    pairs = dict.fromkeys((one.first, one.second) for one in made)
    found = {pair: outcomes(made, records, pair) for pair in pairs}
    for sheet, key in zip(sheets, keys, strict=True):
        verdicts = blind.read_sheet(sheet.read_bytes(), blind.read_key(key))
        for pair, filled in blind.outcomes(verdicts).items():
            by_judge = found.setdefault(pair, {})
            hands = sum(judge.startswith(BY_HAND) for judge in by_judge)
            by_judge[f"{BY_HAND} {hands + 1}" if hands else BY_HAND] = filled
    return found
