"""Says how the local stack starts and stops, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import orjson
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.progress_bar import ProgressBar
from rich.text import Text

from skelgraph.draw import UNICODE, printable
from skelgraph.local.events import StackEvent, StackStep
from skelgraph.progress import Kind, choose, stderr_console, stderr_glyphs

#: A download is said again, where there is no bar, after this share of it.
SHARE: Final = 0.1
_LOUD: Final = {StackStep.WARNING, StackStep.DIED, StackStep.RESTARTING, StackStep.KILLED}


class Startup:
    """Takes the stack's events; a context manager around its start.

    While it is entered and stderr is a terminal, downloads have bars and steps a spinner.

    Args:
        kind: how progress is shown.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind = choose(kind)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._shares: dict[str, float] = {}
        self._stopped: list[str] = []

    def __enter__(self) -> Self:
        if self._kind == "tty":
            self._bars = _make_bars()
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()

    def report(self, event: StackEvent) -> None:
        """Take note of what happened to a part of the stack."""
        if event.step in {StackStep.STOPPED, StackStep.KILLED}:
            self._stopped.append(event.part)
        if self._kind == "json":
            self._say(_as_json(event))
        elif self._kind != "quiet":
            show: Callable[[StackEvent], None] = self._draw if self._bars else self._print
            show(event)

    def say(self, text: str) -> None:
        """Print a line for a person."""
        if self._kind in {"tty", "plain"}:
            self._say(text)

    def stopped(self) -> str:
        """Say what was stopped."""
        return f"stopped {', '.join(self._stopped)}" if self._stopped else "nothing was running"

    def _draw(self, event: StackEvent) -> None:
        if self._bars is None:
            return
        if event.step in _LOUD:
            self._bars.console.print(_sentence(event), style="yellow")
            return
        key = event.part
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(key, total=None)
        known = event.total_bytes or None
        done = event.step is StackStep.READY
        self._bars.update(
            self._tasks[key],
            description=_sentence(event),
            completed=1 if done else event.done_bytes,
            total=1 if done else known,
            visible=event.step not in {StackStep.STOPPING, StackStep.STOPPED},
        )

    def _print(self, event: StackEvent) -> None:
        if event.step is StackStep.FETCHING:
            share = event.done_bytes / event.total_bytes if event.total_bytes else 0.0
            key = f"{event.part} {event.detail}"
            if share < 1 and share - self._shares.get(key, -1.0) < SHARE:
                return
            if self._shares.get(key) == share:
                return
            self._shares[key] = share
        if event.step in _LOUD | {StackStep.READY, StackStep.FETCHING}:
            self._say(_sentence(event))

    def _say(self, text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)


def _make_bars() -> Progress:
    return Progress(
        SpinnerColumn(finished_text=Text("●" if UNICODE is stderr_glyphs() else "*")),
        TextColumn("{task.description}"),
        _Bar(),
        console=stderr_console(force=True),
        transient=True,
    )


class _Bar(ProgressColumn):
    """A bar for what has bytes, nothing for other steps."""

    def __init__(self) -> None:
        super().__init__()
        self._bar = BarColumn(bar_width=24)

    def render(self, task: Task) -> ProgressBar | Text:
        """Draw the bar, if there is one."""
        return self._bar.render(task) if task.total and task.total > 1 else Text()


def _sentence(event: StackEvent) -> str:
    if event.step is StackStep.FETCHING:
        done, total = event.done_bytes / 1e6, event.total_bytes / 1e6
        return f"{event.part}: {event.detail} {done:.0f} of {total:.0f} MB"
    said = f"{event.part}: {event.step.value}"
    if event.took_s is not None:
        said += f" after {event.took_s:.1f} s"
    return f"{said}: {event.detail}" if event.detail else said


def _as_json(event: StackEvent) -> str:
    return orjson.dumps(
        {
            "type": "StackEvent",
            "step": event.step.value,
            "part": event.part,
            "detail": event.detail,
            "took_s": event.took_s,
            "done_bytes": event.done_bytes,
            "total_bytes": event.total_bytes,
        }
    ).decode()
