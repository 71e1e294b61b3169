"""A small drawing of time series as SVG: panels below one another on one time axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, Literal

WIDTH: Final = 760
PANEL: Final = 150
GAP: Final = 42
LEFT: Final = 56
RIGHT: Final = 150
COLOURS: Final = ("#0b6e99", "#d9730d", "#448361", "#9065b0")


@dataclass(frozen=True, slots=True)
class Series:
    """Values over time.

    Args:
        name: for the legend.
        points: time in seconds and value, by time.
        style: how they are drawn; `step` holds a value until the next.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: Literal["line", "step", "dots"] = "line"


@dataclass(frozen=True, slots=True)
class Panel:
    """Series that share a value axis from 0."""

    title: str
    series: Sequence[Series]


def svg(title: str, panels: Sequence[Panel]) -> str:
    """Return the drawing of `panels`."""
    end_s = max(at for panel in panels for one in panel.series for at, _ in one.points)
    height = 40 + len(panels) * (PANEL + GAP)
    body = "\n".join(
        line
        for number, panel in enumerate(panels)
        for line in _panel(panel, 40 + number * (PANEL + GAP), end_s)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(title)}">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{escape(title)}</text>\n'
        f"{body}\n</svg>\n"
    )


def _panel(panel: Panel, top: float, end_s: float) -> Iterator[str]:
    highest = max((value for one in panel.series for _, value in one.points), default=1) or 1
    bottom, right = top + PANEL, WIDTH - RIGHT
    yield f'<text x="{LEFT}" y="{top - 6}">{escape(panel.title)}</text>'
    yield from _frame(top, bottom, right, highest, end_s)
    for number, one in enumerate(panel.series):
        colour = COLOURS[number % len(COLOURS)]
        places = [
            (LEFT + (right - LEFT) * at / end_s, bottom - PANEL * value / highest)
            for at, value in one.points
        ]
        yield from _drawn(one, places, colour)
        y = top + 14 + 18 * number
        yield f'<rect x="{right + 12}" y="{y - 9}" width="10" height="10" fill="{colour}"/>'
        yield f'<text x="{right + 28}" y="{y}">{escape(one.name)}</text>'


def _frame(top: float, bottom: float, right: float, highest: float, end_s: float) -> Iterator[str]:
    yield (f'<path d="M{LEFT} {top}V{bottom}H{right}" fill="none" stroke="#888" stroke-width="1"/>')
    for share in (0.5, 1.0):
        y = bottom - PANEL * share
        yield f'<path d="M{LEFT} {y}H{right}" stroke="#ddd" stroke-width="1"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{highest * share:.3g}</text>'
    for quarter in range(5):
        x = LEFT + (right - LEFT) * quarter / 4
        said = f"{end_s * quarter / 4:.0f} s"
        yield f'<text x="{x:.0f}" y="{bottom + 16}" text-anchor="middle">{said}</text>'


def _drawn(one: Series, places: Sequence[tuple[float, float]], colour: str) -> Iterator[str]:
    if one.style == "dots":
        for x, y in places:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6" fill="{colour}" fill-opacity="0.5"/>'
        return
    if not places:
        return
    (x0, y0), *rest = places
    path = f"M{x0:.1f} {y0:.1f}"
    for x, y in rest:
        path += f"H{x:.1f}V{y:.1f}" if one.style == "step" else f"L{x:.1f} {y:.1f}"
    yield f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
