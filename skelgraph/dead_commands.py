"""What the commands on dead letters do, apart from reading their options."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import orjson
from rich.console import Console

from proto.errors import (
    InvalidRequest,
    LetterNotFound,
    MalformedMessage,
    RequestGone,
    RequestOpen,
    SkelgraphError,
)
from proto.messages import LetterSummary
from skelgraph import answering
from skelgraph.answering import Manner, complain
from skelgraph.letter_texts import letter_lines, letters_table
from skelgraph.letters import LetterId, Letters, Wanted
from skelgraph.session import Session, Where, first_failure, reach

#: Width of the table where nobody looks at it.
WIDE_CELLS: Final = 240
#: Errors that concern one letter, so that the others can go on.
_OF_ONE: Final = (LetterNotFound, MalformedMessage, RequestGone, RequestOpen)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which letters a command is for: those named, or all that are wanted.

    Args:
        ids: those named.
        wanted: filter of all letters; None if some are named.
    """

    ids: tuple[LetterId, ...]
    wanted: Wanted | None


def choose(names: Sequence[str] | None, *, everything: bool, wanted: Wanted) -> Chosen:
    """Return what arguments and options choose together.

    Raises:
        InvalidRequest: they choose nothing, or contradict each other.
    """
    ids = tuple(LetterId.parse(name) for name in names or ())
    if bool(ids) == everything:
        raise InvalidRequest("name letters (REQUEST/NODE), or --all of them")
    if not everything and wanted != Wanted():
        raise InvalidRequest("--request, --code and --since go with --all")
    return Chosen(ids, wanted if everything else None)


async def list_letters(where: Where, wanted: Wanted, limit: int, *, as_json: bool) -> int:
    """Print the letters, oldest first."""
    async with reach(where, may_start=False) as session:
        letters = Letters(session.over_nats.connection)
        found = await _collect(letters, wanted, limit + 1)
    shown = found[:limit]
    if as_json:
        for letter in shown:
            print(orjson.dumps(letter.model_dump(mode="json")).decode())
    elif shown:
        _console().print(letters_table(shown))
    if not shown:
        _say("no dead letters")
    if len(found) > limit:
        _say(f"these are the first {limit}; --limit shows more")
    return 0


async def show(where: Where, letter: LetterId, *, text: bool, as_json: bool) -> int:
    """Print one letter in full."""
    async with _letters(where) as letters:
        shown = await letters.show(letter, text=text)
    if as_json:
        data = orjson.dumps(shown.model_dump(mode="json"), option=orjson.OPT_INDENT_2)
        print(data.decode())
    else:
        for line in letter_lines(shown, with_text=text):
            print(line)
    return 0


async def requeue(where: Where, chosen: Chosen, follow: Manner | None) -> int:
    """Do the requests of letters again and print the new requests' ids."""
    async with reach(where, may_start=False) as session:
        letters = Letters(session.over_nats.connection)
        ids = await _ids(letters, chosen)
        if follow:
            return await _follow(session, await _requeued(letters, ids[0]), follow)
        code, new = 0, dict[str, None]()
        for letter in _one_a_request(ids) if chosen.wanted else ids:
            try:
                request = await _requeued(letters, letter)
            except _OF_ONE as error:
                code = _complain_of(letter, error)
                continue
            if request not in new:
                print(request, flush=True)
            new[request] = None
    return code


async def drop(where: Where, chosen: Chosen, *, sure: bool) -> int:
    """Remove letters, once a person at a terminal has said that they mean it."""
    if chosen.wanted and not sure and not sys.stdin.isatty():
        raise InvalidRequest("--all wants --yes where nobody can be asked")
    async with _letters(where) as letters:
        ids = await _ids(letters, chosen)
        if ids and not sure and sys.stdin.isatty() and not await _confirmed(ids):
            _say("nothing was dropped")
            return 1
        for letter in ids:
            outcome = (await letters.drop(letter)).outcome
            print(f"{letter}: {'dropped' if outcome == 'dropped' else 'was not there'}", flush=True)
    return 0


async def _requeued(letters: Letters, letter: LetterId) -> str:
    done = await letters.requeue(letter)
    _say(f"{letter}: {done.outcome.replace('_', ' ')} as {done.requeued_as}")
    return done.requeued_as


async def _follow(session: Session, request: str, manner: Manner) -> int:
    async def followed() -> int:
        return answering.report(await answering.follow(session.client, request, manner))

    return await first_failure(session, asyncio.create_task(followed(), name="command"))


async def _ids(letters: Letters, chosen: Chosen) -> list[LetterId]:
    if chosen.wanted is None:
        return list(dict.fromkeys(chosen.ids))
    found = await _collect(letters, chosen.wanted, None)
    if not found:
        _say("no dead letters")
    return [LetterId(one.request, one.node) for one in found]


async def _collect(letters: Letters, wanted: Wanted, limit: int | None) -> list[LetterSummary]:
    async with aclosing(letters.each(wanted, limit)) as each:
        return [letter async for letter in each]


def _one_a_request(ids: Sequence[LetterId]) -> list[LetterId]:
    return list({letter.request: letter for letter in reversed(ids)}.values())[::-1]


def _complain_of(letter: LetterId, error: SkelgraphError) -> int:
    complain(error, message=f"{letter}: {error.message}")
    return 1


async def _confirmed(ids: Sequence[LetterId]) -> bool:
    """Ask at the terminal; Ctrl-C is heard meanwhile, as nothing blocks."""
    what = str(ids[0]) if len(ids) == 1 else f"{len(ids)} dead letters"
    print(f"Drop {what} for good? [y/N] ", end="", file=sys.stderr, flush=True)
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str] = loop.create_future()

    def typed() -> None:
        if not line.done():
            line.set_result(sys.stdin.readline())

    loop.add_reader(sys.stdin, typed)
    try:
        return (await line).strip().lower() in {"y", "yes"}
    finally:
        loop.remove_reader(sys.stdin)


@asynccontextmanager
async def _letters(where: Where) -> AsyncIterator[Letters]:
    async with reach(where, may_start=False) as session:
        yield Letters(session.over_nats.connection)


def _console() -> Console:
    width = None if sys.stdout.isatty() else WIDE_CELLS
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
