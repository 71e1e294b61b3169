"""Shows how a request goes, on stderr: a live picture, lines, JSON, or nothing.

`auto` is `tty` at a terminal and `plain` elsewhere. The answer's text goes through the
show too, because at a terminal both share the screen: it is printed above the picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from typing import Final, Literal, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from proto.codec import encode
from proto.messages import AnswerAssembled, Fact, Preview, TokensDecoded
from services.runtime.order import Mark
from skelgraph import draw, gantt
from skelgraph.draw import Glyphs
from skelgraph.outlet import Outlet, is_same_terminal
from skelgraph.rows import NodeState, Row
from skelgraph.view import Dag
from skelgraph.wrap import LineFiller

Kind = Literal["auto", "tty", "plain", "json", "quiet"]

#: Pictures a second.
FRAMES_PER_S: Final = 8


class Show:
    """What is common to all kinds, and what `quiet` does: the answer, nothing else.

    Args:
        dag: the request's picture.
        outlet: where the answer goes.
    """

    def __init__(self, dag: Dag, outlet: Outlet) -> None:
        self.dag = dag
        self.outlet = outlet

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.outlet.finish()

    def event(self, event: Fact | Preview, at: float) -> None:
        """Take note of an event that was stored or heard at `at`."""
        self.dag.fold(event, at)

    def text(self, text: str) -> None:
        """Print a piece of the answer."""
        self.outlet.write(text)

    def mark(self, mark: Mark) -> None:
        """Say where printed text is void."""
        what = "the answer" if mark.node is None else f"part {mark.node}"
        self.text(f"\n\n[{what} was made anew; it follows from its beginning]\n\n")

    def notice(self, text: str) -> None:
        """Say something that a person should know."""

    def summary(self, end: AnswerAssembled) -> None:
        """Sum an answer up."""


class JsonShow(Show):
    """Each event as one line of JSON, as it travels."""

    def event(self, event: Fact | Preview, at: float) -> None:
        """Write the event itself."""
        super().event(event, at)
        sys.stderr.write(encode(event).decode() + "\n")
        sys.stderr.flush()


class PlainShow(Show):
    """One line a transition."""

    def __init__(self, dag: Dag, outlet: Outlet, glyphs: Glyphs) -> None:
        super().__init__(dag, outlet)
        self._glyphs = glyphs
        self._said: dict[str, tuple[NodeState, str]] = {}

    def event(self, event: Fact | Preview, at: float) -> None:
        """Say which rows have changed."""
        super().event(event, at)
        if isinstance(event, TokensDecoded) and self._is_known_to_run(event.node):
            return
        picture = self.dag.picture(at)
        for row in (picture.plan, *picture.nodes):
            self._say(row, picture.elapsed_s)

    def notice(self, text: str) -> None:
        """Print it."""
        _to_stderr(text)

    def summary(self, end: AnswerAssembled) -> None:
        """Print the closing line."""
        _to_stderr(gantt.closing(end, self._glyphs))

    def _is_known_to_run(self, node: int) -> bool:
        return self._said.get(str(node), (None, ""))[0] is NodeState.RUNNING

    def _say(self, row: Row, elapsed_s: float) -> None:
        now = (row.state, row.note)
        if self._said.get(row.label) != now:
            self._said[row.label] = now
            _to_stderr(f"{elapsed_s:7.1f}s {draw.transition(row)}")


class LiveShow(Show):
    """The live picture; where stdout is the same terminal, the answer runs above it."""

    def __init__(self, dag: Dag, outlet: Outlet, glyphs: Glyphs, console: Console) -> None:
        super().__init__(dag, outlet)
        self._glyphs = glyphs
        self._console = console
        self._live = Live(
            console=console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._above = (
            LineFiller(console.width) if is_same_terminal(sys.stdout, sys.stderr) else None
        )
        self._has_text = False
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._live.start()
        self._ticking = asyncio.create_task(self._tick(), name="live picture")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ticking:
            self._ticking.cancel()
            await asyncio.wait([self._ticking])
        if self._above:
            self._print(self._above.finish())
        self._refresh()
        self._live.stop()
        if not self._above:
            self.outlet.finish()

    def text(self, text: str) -> None:
        """Print above the picture, whole lines as they fill."""
        if self._above is None:
            super().text(text)
        else:
            self._has_text = True
            self._print(self._above.feed(draw.printable(text)))

    def notice(self, text: str) -> None:
        """Print it above the picture."""
        self._print([text], style="yellow")

    def summary(self, end: AnswerAssembled) -> None:
        """Draw the times and print the closing line."""
        self._console.print()
        for line in gantt.gantt(self.dag, end, self._glyphs, width=self._console.width):
            self._console.print(line)
        self._console.print(Text(gantt.closing(end, self._glyphs), style="bold"))

    async def _tick(self) -> None:
        while True:
            self._refresh()
            await asyncio.sleep(1 / FRAMES_PER_S)

    def _unfinished(self) -> list[str]:
        """What stands between the whole lines of the answer and the picture."""
        if self._above is None or not self._has_text:
            return []
        return [self._above.rest, ""] if self._above.rest else [""]

    def _print(self, lines: list[str], style: str = "") -> None:
        for line in lines:
            self._console.print(Text(line, style=style), soft_wrap=True)

    def _refresh(self) -> None:
        now, width, height = time.time(), self._console.width, self._console.height
        head = [Text(line) for line in self._unfinished()]
        room = height - 1 - len(head)
        picture = self.dag.picture(now)
        body = draw.lines(picture, self._glyphs, width=width, height=room, now=now)
        self._live.update(Group(*head, *body), refresh=True)


def choose(kind: Kind) -> Kind:
    """Return what `auto` means here; any other kind is itself."""
    if kind != "auto":
        return kind
    smart = sys.stderr.isatty() and os.environ.get("TERM") not in {"dumb", None}
    return "tty" if smart else "plain"


def make_show(kind: Kind, dag: Dag) -> Show:
    """Return the show of this kind for this request."""
    outlet, glyphs = Outlet(sys.stdout), stderr_glyphs()
    match choose(kind):
        case "tty":
            return LiveShow(dag, outlet, glyphs, stderr_console(force=True))
        case "json":
            return JsonShow(dag, outlet)
        case "quiet":
            return Show(dag, outlet)
        case _:
            return PlainShow(dag, outlet, glyphs)


def stderr_glyphs() -> Glyphs:
    """Return the signs that stderr can show."""
    return draw.glyphs_for(sys.stderr.encoding, os.environ.get("TERM"))


def stderr_console(*, force: bool = False) -> Console:
    """Return a console on stderr that adds nothing of its own to what it prints."""
    return Console(
        file=sys.stderr,
        force_terminal=True if force else None,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _to_stderr(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(draw.printable(text), file=sys.stderr, flush=True)
