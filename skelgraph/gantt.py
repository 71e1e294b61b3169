"""How an answer's time went: a bar a node, and one closing line. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from proto.messages import AnswerAssembled
from proto.names import DIRECT_NODE, Pool
from skelgraph.draw import POOL_STYLES, Glyphs
from skelgraph.view import Dag


@dataclass(frozen=True, slots=True)
class Bar:
    """The time of one engine call, in seconds since the request was stored."""

    label: str
    pool: Pool
    released_s: float
    started_s: float
    ended_s: float
    is_critical: bool


def bars(dag: Dag, end: AnswerAssembled) -> list[Bar]:
    """Return a bar for the plan and one for each decoded node, in plan order."""
    found = []
    if dag.plan and dag.plan.plan_ms:
        ended_s = dag.plan_at - dag.begun_at
        started_s = max(0.0, ended_s - dag.plan.plan_ms / 1000)
        found.append(Bar("plan", Pool.LARGE, 0.0, started_s, ended_s, True))
    critical = set(end.timings.critical_path)
    for number, node in sorted(dag.nodes.items()):
        if node.decoded:
            ended_s = node.decoded_at - dag.begun_at
            started_s = ended_s - node.decoded.decode_ms / 1000
            released_s = started_s - node.decoded.queued_ms / 1000
            times = (max(0.0, released_s), max(0.0, started_s), ended_s)
            found.append(Bar(str(number), node.decoded.pool, *times, number in critical))
    return found


def gantt(dag: Dag, end: AnswerAssembled, glyphs: Glyphs, *, width: int) -> list[Text]:
    """Return one line a bar: light while queued, solid while decoding; `*` is critical."""
    found = bars(dag, end)
    total_s = max([end.timings.wall_ms / 1000, *(bar.ended_s for bar in found), 0.001])
    room = max(10, width - 24)
    return [_line(bar, glyphs, room / total_s) for bar in found]


def closing(end: AnswerAssembled, glyphs: Glyphs) -> str:
    """Return the line that sums an answer up."""
    timings = end.timings
    wall_ms = max(timings.wall_ms, 0.001)
    pools = len({report.pool for report in end.nodes})
    gain = timings.sequential_ms / wall_ms
    done = "answered directly after a failure" if end.fallback else "answered"
    path = f" {glyphs.arrow} ".join(_path(end))
    parts = [
        f"{done} in {wall_ms / 1000:.1f} s",
        f"{_plural(len(end.nodes), 'node')} on {_plural(pools, 'pool')}",
        f"critical path {path}",
        f"{gain:.1f}x against one after another ({timings.sequential_ms / 1000:.1f} s)",
        f"overhead {timings.overhead_ms:.0f} ms ({timings.overhead_ms / wall_ms:.1%})",
    ]
    return f" {glyphs.dot} ".join(parts)


def _path(end: AnswerAssembled) -> list[str]:
    nodes = ["answer" if node == DIRECT_NODE else str(node) for node in end.timings.critical_path]
    return ["plan", *nodes] if end.plan.plan_ms else nodes


def _line(bar: Bar, glyphs: Glyphs, cells_per_s: float) -> Text:
    released, started, ended = (
        round(at_s * cells_per_s) for at_s in (bar.released_s, bar.started_s, bar.ended_s)
    )
    ended = max(ended, started + 1)
    line = Text(f"{bar.label:>4} {'*' if bar.is_critical else ' '} {' ' * released}")
    line.append(glyphs.queued_bar * (started - released), style="dim")
    bold = "bold " if bar.is_critical else ""
    line.append(glyphs.run_bar * (ended - started), style=bold + POOL_STYLES[bar.pool])
    line.append(f" {bar.ended_s - bar.started_s:.1f} s {bar.pool}", style="dim")
    return line


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
