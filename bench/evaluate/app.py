"""The program: its commands are in the modules `…_command`."""

from __future__ import annotations

import typer

from services.runtime import logs

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Evaluates the method: record answers, judge them, report, simulate, ablate."""
    logs.configure("error", "console")
