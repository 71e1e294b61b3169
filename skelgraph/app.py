"""The program itself: its options before the command, and how a command is run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated

import typer

from proto.errors import SkelgraphError
from services.runtime import logs
from skelgraph import interrupts
from skelgraph.answering import complain

Command = Coroutine[object, object, int]
EXIT_CODES = (
    "Exit codes: 0 answered · 1 failed · 2 wrong use · 3 nothing runs, or NATS does not answer · "
    "4 busy · 130 interrupted."
)

app = typer.Typer(
    name="skelgraph",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)


class _Debug:
    """Whether errors come with their traceback; set by the options before the command."""

    on = False


@app.callback()
def main_options(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Log to stderr, and show errors with their traceback.")
    ] = False,
) -> None:
    """Answers a question by a graph of sub-problems that are decoded in parallel.

    Begin with [bold]skelgraph demo[/]: it needs nothing that runs already.
    """
    _Debug.on = debug
    logs.configure("debug" if debug else "error", "console")
    if context.invoked_subcommand is None:
        print(context.get_help())


def run(make_command: Callable[[], Command]) -> None:
    """Run a command and exit with its code; what is wrong with its options is said likewise."""
    try:
        command = make_command()
    except SkelgraphError as error:
        complain(error)
        raise typer.Exit(interrupts.exit_code(error)) from None
    raise typer.Exit(interrupts.run(command, debug=_Debug.on))
