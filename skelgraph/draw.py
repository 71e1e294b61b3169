"""Rows to lines of a terminal: glyphs, columns, cropping. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from proto.names import Pool
from skelgraph.rows import URGENT, NodeState, Picture, Row

#: Frames of the spinner a second.
SPIN_PER_S: Final = 8
#: Below this width needs and notes are left out.
NARROW_CELLS: Final = 64

STYLES: Final[Mapping[NodeState, str]] = {
    NodeState.PENDING: "dim",
    NodeState.QUEUED: "yellow",
    NodeState.RUNNING: "bold cyan",
    NodeState.DONE: "green",
    NodeState.RETRY: "bold yellow",
    NodeState.FAILED: "bold red",
    NodeState.SKIPPED: "dim",
    NodeState.CANCELLED: "magenta",
}
POOL_STYLES: Final[Mapping[Pool, str]] = {Pool.LARGE: "blue", Pool.SMALL: "magenta"}


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The signs of one character set."""

    states: Mapping[NodeState, str]
    spinner: str
    arrow: str
    back_arrow: str
    dot: str
    more: str
    queued_bar: str
    run_bar: str


UNICODE: Final = Glyphs(
    states={
        NodeState.PENDING: "○",
        NodeState.QUEUED: "◌",
        NodeState.DONE: "●",
        NodeState.RETRY: "↻",
        NodeState.FAILED: "!",
        NodeState.SKIPPED: "–",
        NodeState.CANCELLED: "⊘",
    },
    spinner="⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏",
    arrow="→",
    back_arrow="←",
    dot="·",
    more="…",
    queued_bar="░",
    run_bar="█",
)
ASCII: Final = Glyphs(
    states={
        NodeState.PENDING: ".",
        NodeState.QUEUED: "o",
        NodeState.DONE: "*",
        NodeState.RETRY: "r",
        NodeState.FAILED: "!",
        NodeState.SKIPPED: "-",
        NodeState.CANCELLED: "x",
    },
    spinner="|/-\\",
    arrow="->",
    back_arrow="<-",
    dot="|",
    more="~",
    queued_bar=".",
    run_bar="#",
)


def glyphs_for(encoding: str | None, term: str | None) -> Glyphs:
    """Return the signs that a terminal of this encoding and type can show."""
    is_unicode = (encoding or "").lower().replace("-", "").startswith("utf")
    return UNICODE if is_unicode and term not in {"dumb", "linux"} else ASCII


def lines(picture: Picture, glyphs: Glyphs, *, width: int, height: int, now: float) -> list[Text]:
    """Return the picture in at most `height` lines of at most `width` cells."""
    rows, hidden = crop((picture.plan, *picture.nodes), height - 1)
    found = [_header(picture, width)]
    found.extend(_line(row, glyphs, width, now) for row in rows)
    if hidden:
        said = f"     {glyphs.more} {len(hidden)} more: {_counts(hidden)}"
        found.append(Text(_fit(said, width, glyphs), style="dim"))
    return found


def crop(rows: Sequence[Row], height: int) -> tuple[list[Row], list[Row]]:
    """Return the rows that are shown in `height` lines, and the others.

    When not all fit, one line is left for the count of the others. Running and failed ones
    come first, then those done last and due next.
    """
    if len(rows) <= height:
        return list(rows), []
    front = next((i for i, row in enumerate(rows) if row.state in URGENT), len(rows))
    ranked = sorted(
        range(len(rows)), key=lambda i: (rows[i].state not in URGENT, abs(i - front), i)
    )
    kept = set(ranked[: max(0, height - 1)])
    shown = [row for i, row in enumerate(rows) if i in kept]
    return shown, [row for i, row in enumerate(rows) if i not in kept]


def transition(row: Row) -> str:
    """Return one line that says what `row` is doing now, for output that is not live."""
    parts = [f"{row.label if row.label == 'plan' else '#' + row.label} {row.state}"]
    if row.state in {NodeState.PENDING, NodeState.QUEUED} and row.waits_for:
        parts.append(f"waits for {_ids(row.waits_for)}")
    if row.pool:
        parts.append(row.pool.value)
    if row.state is NodeState.DONE and row.time_s is not None:
        parts.append(f"{row.time_s:.1f} s, {row.tokens} tokens")
    if row.note:
        parts.append(row.note)
    return " · ".join(parts) + (f": {row.summary}" if row.summary else "")


def printable(text: str) -> str:
    """Return `text` without the control characters that could steer a terminal."""
    return "".join(
        char for char in text if char in "\n\t" or not (char < " " or "\x7f" <= char <= "\x9f")
    )


def _header(picture: Picture, width: int) -> Text:
    done = picture.count(NodeState.DONE)
    running, queued = picture.count(NodeState.RUNNING), picture.count(NodeState.QUEUED)
    minutes, seconds = divmod(picture.elapsed_s, 60)
    parts = [f"{done}/{picture.in_answer} nodes"] if picture.nodes else []
    parts += [f"{running} running", f"{queued} queued"] if picture.nodes else []
    parts.append(f"{int(minutes):02}:{seconds:04.1f}")
    header = Text(f"run {picture.request}", style="bold")
    header.append("  " + "   ".join(parts), style="not bold")
    header.truncate(width)
    return header


def _line(row: Row, glyphs: Glyphs, width: int, now: float) -> Text:
    style = STYLES[row.state]
    line = Text(f"{row.label:>4} ")
    line.append(_glyph(row.state, glyphs, now), style=style)
    line.append(" ")
    wide = width >= NARROW_CELLS
    room = width - (58 if wide else 29)
    summary = _fit(printable(row.summary).replace("\n", " "), max(4, room), glyphs)
    dim = row.state in {NodeState.SKIPPED, NodeState.PENDING}
    line.append(set_cell_size(summary, max(4, room)), style="dim" if dim else "")
    if wide:
        line.append(f" {_fit(_needs(row, glyphs), 9, glyphs):<9}", style="dim")
    pool = row.pool.value if row.pool else ""
    line.append(f" {pool:<5}", style=POOL_STYLES[row.pool] if row.pool else "")
    line.append(f" {_seconds(row.time_s):>6}")
    line.append(f" {f'{row.tokens} tok' if row.tokens else '':>8}")
    if wide:
        line.append(f" {_fit(_tail(row), 18, glyphs)}", style=style)
    line.truncate(width)
    line.rstrip()
    return line


def _glyph(state: NodeState, glyphs: Glyphs, now: float) -> str:
    if state is NodeState.RUNNING:
        return glyphs.spinner[int(now * SPIN_PER_S) % len(glyphs.spinner)]
    return glyphs.states[state]


def _needs(row: Row, glyphs: Glyphs) -> str:
    waits = row.state in {NodeState.PENDING, NodeState.QUEUED}
    needs = row.waits_for if waits else row.needs
    return f"{glyphs.back_arrow} {_ids(needs)}" if needs else ""


def _tail(row: Row) -> str:
    if row.note:
        return row.note
    if row.state is NodeState.RUNNING:
        return f"{row.rate:.0f} tok/s" if row.rate else ""
    if row.state is NodeState.PENDING and row.waits_for:
        return "waits"
    return "" if row.state is NodeState.DONE else row.state.value


def _seconds(time_s: float | None) -> str:
    return "" if time_s is None else f"{time_s:.1f}s"


def _ids(nodes: Sequence[int]) -> str:
    return ",".join(map(str, nodes))


def _counts(rows: Sequence[Row]) -> str:
    by_state = [(state, sum(row.state is state for row in rows)) for state in NodeState]
    return ", ".join(f"{count} {state.value}" for state, count in by_state if count)


def _fit(text: str, width: int, glyphs: Glyphs) -> str:
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)).rstrip() + glyphs.more
