"""Judging by hand without knowing whose answer is whose: pairs, a sheet, and the key apart; pure.

A packet compares two methods: pages, a sheet, and a key. Its pairs are shuffled and their sides
drawn by a seed, so the same records and seed give the same pages. Only the key says which method
wrote which side.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from pydantic import ValidationError

from bench.evaluate.judging import Outcome, Verdict, score
from bench.evaluate.records import Frozen, Records
from proto.errors import InvalidRequest

COLUMNS: Final = ("pair", "verdict", "remark")
_VERDICTS: Final[Mapping[str, Verdict]] = {"a": "A", "b": "B", "tie": "tie"}


class WrongSheet(InvalidRequest):
    """The sheet of verdicts cannot be taken as it is."""

    code = "wrong_sheet"


class KeyLine(Frozen):
    """What a pair is: the methods that are compared, and whether they changed sides."""

    question: str
    category: str
    first: str
    second: str
    swapped: bool


class Key(Frozen):
    """What every pair is, by its name on the pages."""

    seed: int
    pairs: dict[str, KeyLine]


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair as it is read."""

    name: str
    question: str
    answer_a: str
    answer_b: str


def export(
    records: Records,
    questions: Iterable[str],
    methods: tuple[str, str],
    seed: int,
    first_number: int = 1,
) -> tuple[list[Pair], Key]:
    """Return the pairs of a packet to read, and their key.

    A packet compares two methods only: who sees two pairs of a question side by side knows by the
    text that stands in both whose it is.

    Args:
        records: where the answers are.
        questions: ids; those of which an answer is missing are left out.
        methods: the two that are compared.
        seed: of order and sides.
        first_number: of the pairs; packets that go on from one another share no name, so that no
            sheet is read by another's key.
    """
    random = Random(f"{seed} {' '.join(methods)}")
    found = [
        (one, two)
        for question in questions
        if (one := records.find(question, methods[0]))
        and (two := records.find(question, methods[1]))
        if one.answer and two.answer
    ]
    random.shuffle(found)
    pairs, key = [], {}
    for number, (one, two) in enumerate(found, start=first_number):
        name, swapped = f"{number:03}", random.random() < 0.5
        texts = [one.answer.text if one.answer else "", two.answer.text if two.answer else ""]
        pairs.append(Pair(name, one.question, *(texts[::-1] if swapped else texts)))
        key[name] = KeyLine(
            question=one.question,
            category=one.category,
            first=one.method,
            second=two.method,
            swapped=swapped,
        )
    return pairs, Key(seed=seed, pairs=key)


def pages(pairs: Sequence[Pair], texts: Mapping[str, str]) -> str:
    """Return the pairs for reading, as Markdown; `texts` are the questions that may be shown."""
    parts = [
        "# Pairs of answers",
        "Which answer would have helped you more: A, B, or is it a tie? Write it into the sheet.",
    ]
    for pair in pairs:
        asked = texts.get(pair.question)
        said = f"Question {pair.question}" + (f": {asked}" if asked else "")
        parts += [f"## Pair {pair.name}", said]
        parts += ["### A", quoted(pair.answer_a), "### B", quoted(pair.answer_b)]
    return "\n\n".join(parts) + "\n"


def sheet(pairs: Sequence[Pair]) -> str:
    """Return the sheet of verdicts, to be filled, as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([pair.name, "", ""] for pair in pairs)
    return file.getvalue()


def read_key(path: Path) -> Key:
    """Return the key in a file.

    Raises:
        WrongSheet: it holds none.
    """
    try:
        return Key.model_validate_json(path.read_bytes())
    except ValidationError:
        raise WrongSheet(f"{path} is no key", field="key") from None


def read_sheet(data: bytes, key: Key) -> list[tuple[KeyLine, Verdict]]:
    """Return the verdicts of a filled sheet.

    Raises:
        WrongSheet: it is not of this key, or not filled; says everything that is wrong.
    """
    rows = _rows(data)
    if not rows or tuple(cell.strip().lower() for cell in rows[0]) != COLUMNS:
        raise WrongSheet(f"its first line is not {','.join(COLUMNS)}", field="line 1")
    found: dict[str, Verdict] = {}
    wrong: list[str] = []
    for number, row in enumerate(rows[1:], start=2):
        if any(cell.strip() for cell in row):
            _take(row, number, key, found, wrong)
    missing = [name for name in key.pairs if name not in found]
    if missing and not wrong:
        wrong.append(f"no verdict on {_some(missing)}")
    if wrong:
        raise WrongSheet("; ".join(wrong))
    return [(key.pairs[name], verdict) for name, verdict in found.items()]


def outcomes(verdicts: Iterable[tuple[KeyLine, Verdict]]) -> dict[tuple[str, str], list[Outcome]]:
    """Return how the first of each two methods fared, by the two."""
    found: dict[tuple[str, str], list[Outcome]] = {}
    for line, verdict in verdicts:
        points = score(verdict, swapped=line.swapped)
        outcome = Outcome(
            line.question, line.category, "win" if points > 0 else "loss" if points else "tie"
        )
        found.setdefault((line.first, line.second), []).append(outcome)
    return found


def _rows(data: bytes) -> list[list[str]]:
    try:
        # Whatever ends a line; and spreadsheets write a byte order mark.
        return list(csv.reader(data.decode("utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise WrongSheet(f"it is no CSV in UTF-8: {error}") from None


def _take(
    row: Sequence[str], number: int, key: Key, found: dict[str, Verdict], wrong: list[str]
) -> None:
    name, said = row[0].strip(), (row[1].strip() if len(row) > 1 else "")
    name = name.zfill(3) if name.isdigit() else name  # as spreadsheets leave it
    if name not in key.pairs:
        wrong.append(f"line {number}: there is no pair {name!r}")
    elif name in found:
        wrong.append(f"line {number}: pair {name} a second time")
    elif said and said.lower() not in _VERDICTS:
        wrong.append(f"line {number}: pair {name}: {said!r} is not A, B or tie")
    elif said:
        found[name] = _VERDICTS[said.lower()]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"pair {', '.join(names[:5])}{more}"


def quoted(text: str) -> str:
    """Return `text` as a quotation, so that its headings are none of the page's."""
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())
