"""The commands on dead letters: nodes that failed for good."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from proto.errors import InvalidRequest
from proto.names import check_request_id
from skelgraph import dead_commands
from skelgraph.answering import Manner
from skelgraph.app import EXIT_CODES, Command, app, run
from skelgraph.letter_texts import since_of
from skelgraph.letters import LetterId, Wanted
from skelgraph.options import AsJson, NatsCreds, NatsUrl, ProgressOption, grain_of, where

dead_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=EXIT_CODES,
    help="Dead letters: nodes that failed for good. See why, do their requests again, drop them.",
)
app.add_typer(dead_app, name="dead")

_FILTER = "Which letters"
OneLetter = Annotated[
    str, typer.Argument(metavar="ID", help="A letter, REQUEST/NODE, as `dead list` writes it.")
]
SomeLetters = Annotated[
    list[str] | None, typer.Argument(metavar="ID…", help="Letters, REQUEST/NODE each.")
]
All = Annotated[
    bool, typer.Option("--all", help="All letters, or those chosen by the options below.")
]
OfRequest = Annotated[
    str | None,
    typer.Option("--request", metavar="ID", help="Of this request.", rich_help_panel=_FILTER),
]
OfCode = Annotated[
    str | None,
    typer.Option(
        "--code",
        help="Whose last attempt failed with this error code.",
        rich_help_panel=_FILTER,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="WHEN",
        help="That died since then: 30m, 2h, 7d ago, or a date (2026-01-31T12:00, UTC).",
        rich_help_panel=_FILTER,
    ),
]


def _wanted(request: str | None, code: str | None, since: str | None) -> Wanted:
    if request is not None:
        check_request_id(request)
    return Wanted(request, code, None if since is None else since_of(since, time.time()))


@dead_app.command("list", epilog=EXIT_CODES)
def list_letters(
    request: OfRequest = None,
    code: OfCode = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most letters shown.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON a letter.")] = False,
    nats_url: NatsUrl = None,
    nats_creds: NatsCreds = None,
) -> None:
    """List dead letters, oldest first.

    [bold]skelgraph dead list --code engine_unavailable --since 2h[/]
    """

    def command() -> Command:
        place = where(nats_url, nats_creds, "quiet")
        wanted = _wanted(request, code, since)
        return dead_commands.list_letters(place, wanted, limit, as_json=as_json)

    run(command)


@dead_app.command(epilog=EXIT_CODES)
def show(
    letter: OneLetter,
    text: Annotated[
        bool, typer.Option("--text", help="Also the question, the plan and the texts.")
    ] = False,
    as_json: AsJson = False,
    nats_url: NatsUrl = None,
    nats_creds: NatsCreds = None,
) -> None:
    """Show one dead letter: each attempt, its error, and what became of the request."""

    def command() -> Command:
        place = where(nats_url, nats_creds, "quiet")
        return dead_commands.show(place, LetterId.parse(letter), text=text, as_json=as_json)

    run(command)


@dead_app.command(epilog=EXIT_CODES)
def requeue(
    letters: SomeLetters = None,
    everything: All = False,
    request: OfRequest = None,
    code: OfCode = None,
    since: Since = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Follow the new request to its answer (one ID).")
    ] = False,
    progress: ProgressOption = "auto",
    nats_url: NatsUrl = None,
    nats_creds: NatsCreds = None,
) -> None:
    """Do the requests of dead letters again, as new requests; their ids go to stdout.

    For when the cause is mended. The old request keeps its end; all its letters are done with.
    Twice is once: the new id is always the same.

    [bold]skelgraph dead requeue 8f14e45fceea167a/3 --follow[/]

    [bold]skelgraph dead requeue --all --code engine_unavailable[/]
    """

    def command() -> Command:
        wanted = _wanted(request, code, since)
        chosen = dead_commands.choose(letters, everything=everything, wanted=wanted)
        if follow and len(chosen.ids) != 1:
            raise InvalidRequest("--follow wants exactly one ID")
        manner = Manner(progress, grain_of("auto")) if follow else None
        return dead_commands.requeue(where(nats_url, nats_creds, progress), chosen, manner)

    run(command)


@dead_app.command(epilog=EXIT_CODES)
def drop(
    letters: SomeLetters = None,
    everything: All = False,
    request: OfRequest = None,
    code: OfCode = None,
    since: Since = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    nats_url: NatsUrl = None,
    nats_creds: NatsCreds = None,
) -> None:
    """Remove dead letters for good; asks first at a terminal.

    [bold]skelgraph dead drop --all --code prompt_too_long --yes[/]
    """

    def command() -> Command:
        wanted = _wanted(request, code, since)
        chosen = dead_commands.choose(letters, everything=everything, wanted=wanted)
        return dead_commands.drop(where(nats_url, nats_creds, "quiet"), chosen, sure=yes)

    run(command)
