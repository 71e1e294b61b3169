"""`judge`, `blind-export`, `blind-import`: who is better, by a model or by hand."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from bench.evaluate import blind
from bench.evaluate.app import app
from bench.evaluate.judge import (
    PATIENT,
    judge,
    judgements_of,
    left,
    looks,
    made_by,
    without_reference,
)
from bench.evaluate.judging import Judgement, Steadiness, outcomes, steadiness
from bench.evaluate.records import Records, read_folders, refuse_changed
from bench.evaluate.report import BY_HAND, judged_table
from bench.questions import err, out, progress, read_questions
from proto.errors import InvalidRequest
from services.runtime.engine import EngineClient
from skelgraph.app import run

KEY_VARIABLE: Final = "SKELGRAPH_JUDGE_API_KEY"
PAIRS_FILE, SHEET_FILE = "pairs.md", "verdicts.csv"

Folders = Annotated[list[Path], typer.Argument(help="of recorded runs", exists=True)]
Questions = Annotated[Path, typer.Option(help="the file of questions", exists=True)]
Against = Annotated[str, typer.Option(help="pairs of methods, first:second, separated by commas")]
_PAIRS: Final = "sgd:direct,sot:direct,sgd:sot"


@app.command("judge")
def judge_(
    folders: Folders,
    questions: Questions,
    url: Annotated[str, typer.Option(help="of the judge: any chat completions endpoint")],
    model: Annotated[str | None, typer.Option(help="name to ask it for")] = None,
    against: Against = _PAIRS,
    into: Annotated[Path | None, typer.Option(help="folder of judgements; the first one")] = None,
    limit: Annotated[int | None, typer.Option(help="look at only so many questions")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="looks at once")] = 1,
) -> None:
    """Have a model compare answers, each pair in both orders; killed, it goes on where it was.

    Its API key is read from SKELGRAPH_JUDGE_API_KEY.
    """

    async def command() -> int:
        pairs, lines = read_pairs(against), judgements_of(into or folders[0])
        asked, records = read_questions(questions)[:limit], read_folders(folders)
        refuse_changed(records, asked)
        all_ = looks(asked, records, pairs)
        client = EngineClient(
            url, api_key=os.environ.get(KEY_VARIABLE), model=model, limits=PATIENT
        )
        waiting = left(all_, made_by(lines.read(), client.url, model))
        shown = progress()
        try:
            with lines.adding() as adder, shown:
                task = shown.add_task(
                    "judging", total=len(all_), completed=len(all_) - len(waiting)
                )

                def tell(made: Judgement) -> None:
                    shown.advance(task)

                await judge(client, waiting, adder, concurrency, tell)
        finally:
            await client.close()
        _print_judged(lines.read(), records, pairs)
        for one in without_reference(asked):
            err.print(f"{one.id} ({one.category}): not judged, it has no reference", markup=False)
        return 0

    run(command)


@app.command()
def blind_export(
    folders: Folders,
    into: Annotated[Path, typer.Option(help="folder of the packets: pairs and a sheet each")],
    key: Annotated[Path, typer.Option(help="folder of their keys: not where the judge reads")],
    questions: Questions,
    against: Against = "sgd:direct,sgd:sot",
    seed: Annotated[int, typer.Option(help="of order and sides")] = 1,
    show_questions: Annotated[
        bool, typer.Option(help="print the questions; else only their ids")
    ] = True,
) -> None:
    """Write pairs to be judged by hand, shuffled and without names, sheets, and the keys apart.

    One packet for each pair of methods. Give them to different people, or judge them on different
    days: a text that stands in two packets is the method's that both compare.
    """

    async def command() -> int:
        if key.resolve().is_relative_to(into.resolve()):
            raise InvalidRequest(f"{key} lies in {into}, where the judge reads", field="key")
        asked, records = read_questions(questions), read_folders(folders)
        refuse_changed(records, asked)
        texts = {one.id: one.told for one in asked} if show_questions else {}
        number = 1
        for methods in read_pairs(against):
            packet = blind.export(records, [one.id for one in asked], methods, seed, number)
            _write_packet(methods, packet, texts, into, key)
            number += len(packet[0])
            left_out = len(asked) - len(packet[0])
            err.print(f"{':'.join(methods)}: {len(packet[0])} pairs, {left_out} questions left out")
        return 0

    run(command)


def _write_packet(
    methods: tuple[str, str],
    packet: tuple[list[blind.Pair], blind.Key],
    texts: Mapping[str, str],
    into: Path,
    key: Path,
) -> None:
    name = re.sub(r"[^\w.]", "-", "-".join(methods))
    for folder in (into / name, key):
        folder.mkdir(parents=True, exist_ok=True)
    (into / name / PAIRS_FILE).write_text(blind.pages(packet[0], texts))
    (into / name / SHEET_FILE).write_text(blind.sheet(packet[0]))
    (key / f"{name}.json").write_text(packet[1].model_dump_json(indent=1) + "\n")


@app.command()
def blind_import(
    sheet: Annotated[Path, typer.Argument(help="filled", exists=True)],
    key: Annotated[Path, typer.Argument(help="file of the key", exists=True)],
) -> None:
    """Read a filled sheet and print net win rates by category and overall."""

    async def command() -> int:
        verdicts = blind.read_sheet(sheet.read_bytes(), blind.read_key(key))
        for pair, found in blind.outcomes(verdicts).items():
            out.print(judged_table(pair, {BY_HAND: found}), markup=False, soft_wrap=True)
        return 0

    run(command)


def read_pairs(text: str) -> list[tuple[str, str]]:
    """Return pairs of methods.

    Raises:
        InvalidRequest: it is none.
    """
    pairs = [tuple(part.strip().split(":")) for part in text.split(",")]
    if any(len(pair) != 2 or not all(pair) or pair[0] == pair[1] for pair in pairs):
        raise InvalidRequest(f"{text!r} is not of the form sgd:direct,sot:direct", field="against")
    return list(dict.fromkeys((pair[0], pair[1]) for pair in pairs))


def _print_judged(
    made: Sequence[Judgement], records: Records, pairs: Sequence[tuple[str, str]]
) -> None:
    for pair in pairs:
        table = judged_table(pair, outcomes(made, records, pair))
        out.print(table, markup=False, soft_wrap=True)
    for name, found in steadiness(made, records, pairs).items():
        out.print(f"{name}: {_in_words(found)}", markup=False, soft_wrap=True)


def _in_words(found: Steadiness) -> str:
    said = found.said
    return (
        f"the same in both orders in {found.same} of {found.pairs} pairs; of {said.total()} looks"
        f" {said['A']} for A, {said['B']} for B, {said['tie']} ties, {said[None]} without a verdict"
    )
