"""Dead letters as a person reads them, and the times that a person writes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.table import Table

from proto.errors import InvalidRequest
from proto.messages import DeadLetter, LetterShown, LetterSummary
from skelgraph.draw import printable
from skelgraph.letters import LetterId

_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_STATES: Final = {
    "open": "still being answered",
    "answered": "answered",
    "fell_back": "answered directly instead",
    "failed": "failed",
    "gone": "no longer kept",
}


def since_of(text: str, now: float) -> float:
    """Return seconds since the epoch for a time ago (`30m`) or a date (UTC if it names no zone).

    Raises:
        InvalidRequest: it is neither.
    """
    if ago := _AGO.fullmatch(text):
        return max(0.0, now - float(ago[1]) * _UNIT_S[ago[2]])
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        said = f"{text!r} is neither a time ago (30m, 2h, 7d) nor a date (2026-01-31T12:00)"
        raise InvalidRequest(said, field="since") from None
    return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


def instant(at: float) -> str:
    """Return a time in UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def letters_table(letters: Sequence[LetterSummary]) -> Table:
    """Return the letters, one a row; what errors say is cut to the width."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("letter", "died", "attempts", "pool", "code"):
        table.add_column(name, no_wrap=True, justify="right" if name == "attempts" else "left")
    table.add_column("message", no_wrap=True, overflow="ellipsis")
    for letter in letters:
        table.add_row(
            str(LetterId(letter.request, letter.node)),
            instant(letter.died_at),
            str(letter.attempts),
            letter.pool,
            letter.code,
            one_line(letter.message),
        )
    return table


def letter_lines(shown: LetterShown, *, with_text: bool) -> Iterator[str]:
    """Yield one letter in full, line by line; texts only if asked for."""
    letter = shown.letter
    end = f" ({shown.end_code})" if shown.end_code else ""
    yield f"letter    {LetterId(letter.request, letter.node)}"
    yield f"died      {instant(shown.died_at)}, attempts: {letter.attempts}"
    yield f"error     {letter.error.code}: {one_line(letter.error.message)}"
    yield f"request   {_STATES[shown.request_state]}{end}"
    yield from _asked(letter)
    yield from _attempts(letter)
    if with_text:
        yield from _texts(letter)


def one_line(text: str) -> str:
    """Return `text` without line ends and control characters."""
    return " ".join(printable(text).split())


def _asked(letter: DeadLetter) -> Iterator[str]:
    if letter.submitted:
        asked = letter.submitted
        limits = f"deadline {asked.deadline_s:g} s, on failure {asked.on_failure}"
        yield f"asked     mode {asked.mode}, {limits}"
        if asked.requeued_from:
            yield f"          requeued from {asked.requeued_from}"
    needs = ", ".join(map(str, letter.work.node.needs)) or "nothing"
    yield f"work      pool {letter.work.pool}, needs {needs}"


def _attempts(letter: DeadLetter) -> Iterator[str]:
    for one in letter.history:
        where = f"{one.pool} pool, {one.endpoint or 'no engine'}, {one.worker}"
        yield f"attempt {one.attempt} {instant(one.failed_at)} {where}"
        yield f"          {one.error.code}: {one_line(one.error.message)}"


def _texts(letter: DeadLetter) -> Iterator[str]:
    work = letter.work
    question = work.question or (letter.submitted.question if letter.submitted else "")
    parts = {
        "question": question,
        "node": work.node.summary,
        "skeleton": "\n".join(work.skeleton),
        **{f"text of node {one.id}": one.text for one in work.predecessors},
    }
    for name, text in parts.items():
        if text:
            yield f"\n{name}:\n{printable(text)}"
