"""The dashboard's panels with data: `python -m bench.dashboard --out docs/images/dashboard.png`.

All services run on simulated engines that fail now and then; a real Prometheus scrapes them while
requests come in waves. Then each panel of deploy/k8s/components/monitoring/dashboard.json is
drawn from that Prometheus's answers to its queries. Grafana takes no part in this: the panels are
its own, the drawing is matplotlib's.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import httpx2
import matplotlib as mpl
import typer
from matplotlib.axes import Axes

from bench.prometheus import Prometheus, Series, prometheus
from bench.simulated_stack import simulated_stack
from bench.trace import ask
from services.runtime import logs

DASHBOARD: Final = Path("deploy/k8s/components/monitoring/dashboard.json")
#: Metrics that only a cluster has: the NATS exporter and kube-state-metrics.
OF_A_CLUSTER: Final = ("nats_", "kube_")
#: So that everything that may happen does happen within minutes.
ENV: Final = {"SKELGRAPH_MAX_ATTEMPTS": "3", "SKELGRAPH_MAX_OPEN_REQUESTS": "10"}
LARGE: Final = ("--profile", "llama-70b-4xh100", "--fault", "cut", "--fault-share", "0.1")
#: vLLM tells how much of a prompt was in its cache.
SMALL: Final = (
    *("--dialect", "vllm", "--profile", "llama-8b-1xh100"),
    *("--fault", "error", "--fault-share", "0.3"),
)
COLUMNS: Final = 3
#: A label that a series lacks is nothing, as Grafana has it.
_MISSING: Final = re.compile(r"\{\{\w+\}\}")
QUESTIONS: Final = (
    "How does a lighthouse work, who built the first, and which still stand?",
    "Compare trains, buses and bicycles for a town of fifty thousand.",
    "What is 17 times 23?",
    "Explain how bread rises, why it browns, and how to keep it.",
)


@dataclass(frozen=True, slots=True)
class Target:
    """One query of a panel, and what its lines are called."""

    expression: str
    legend: str

    def name(self, series: Series) -> str:
        """Return what a line is called: the legend with the series' labels put in."""
        name = self.legend
        for label, value in series.labels.items():
            name = name.replace(f"{{{{{label}}}}}", value)
        return _MISSING.sub("", name).strip()


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of the dashboard."""

    title: str
    unit: str
    targets: tuple[Target, ...]

    @property
    def needs_a_cluster(self) -> bool:
        """Whether it shows what only a cluster has."""
        return any(word in one.expression for one in self.targets for word in OF_A_CLUSTER)


def panels() -> list[Panel]:
    """Return the panels of the dashboard, as its file has them."""
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return [
        Panel(
            one["title"],
            one["fieldConfig"]["defaults"]["unit"],
            tuple(Target(each["expr"], each["legendFormat"]) for each in one["targets"]),
        )
        for one in dashboard["panels"]
    ]


async def load(gateway_url: str, seconds: float, rate: float) -> None:
    """Ask in waves for so long, on average `rate` times a second, and wait for the answers."""
    rng, until = random.Random(1), time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        while (left_s := until - time.monotonic()) > 0:
            group.create_task(_ask(gateway_url, rng.choice(QUESTIONS)))
            wave = 1 + 0.9 * math.sin(2 * math.pi * left_s / 60)
            await asyncio.sleep(min(left_s, rng.expovariate(rate * wave)))


async def _ask(gateway_url: str, question: str) -> None:
    try:
        await ask(gateway_url, question)
    except httpx2.HTTPStatusError:
        return  # refused as busy: that is to be seen, too


async def read(asked: Prometheus, panel: Panel, start_at: float) -> list[tuple[str, Series]]:
    """Return the lines of a panel since `start_at`, each with its name."""
    end_at = time.time()
    step_s = max(1.0, (end_at - start_at) / 200)
    return [
        (target.name(series), series)
        for target in panel.targets
        for series in await asked.query_range(target.expression, start_at, end_at, step_s)
    ]


def draw(shown: Sequence[tuple[Panel, list[tuple[str, Series]]]], out: Path) -> None:
    """Draw all panels into one picture."""
    mpl.use("Agg")
    from matplotlib import pyplot  # only once the backend is chosen

    rows = math.ceil(len(shown) / COLUMNS)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(18, 3.1 * rows), layout="constrained")
    for axis, (panel, lines) in zip(axes.flat, shown, strict=False):
        _draw_panel(axis, panel, lines)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    figure.suptitle("Skelgraph: the dashboard's panels, drawn by matplotlib from a real Prometheus")
    figure.savefig(out, dpi=70)


def _draw_panel(axis: Axes, panel: Panel, lines: list[tuple[str, Series]]) -> None:
    axis.set_title(panel.title, fontsize=10, loc="left")
    axis.tick_params(labelsize=7)
    if not lines:
        why = "only in a cluster" if panel.needs_a_cluster else "no data"
        axis.text(0.5, 0.5, why, ha="center", va="center", transform=axis.transAxes, color="grey")
        return
    first_at = min(series.points[0][0] for _, series in lines)
    for name, series in lines:
        axis.plot(
            [at - first_at for at, _ in series.points],
            [value for _, value in series.points],
            label=name,
            linewidth=1.2,
            clip_on=False,  # a line along the axis is a line, too
        )
    lowest = min(value for _, series in lines for _, value in series.points)
    axis.set_ylim(bottom=min(0.0, lowest))
    axis.set_ylabel({"percentunit": "share", "short": ""}.get(panel.unit, panel.unit), fontsize=7)
    axis.set_xlabel("s", fontsize=7)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=6, loc="upper left", framealpha=0.6)


async def picture(folder: Path, seconds: float, rate: float, out: Path) -> list[str]:
    """Make the picture; return the titles of panels without data."""
    async with (
        simulated_stack(folder / "stack", env=ENV, large=LARGE, small=SMALL) as state,
        prometheus(folder / "prometheus", state) as asked,
    ):
        assert state.gateway_url
        start_at = time.time()
        await load(state.gateway_url, seconds, rate)
        shown = [(panel, await read(asked, panel, start_at)) for panel in panels()]
    draw(shown, out)
    return [panel.title for panel, lines in shown if not lines]


def main(
    out: Annotated[Path, typer.Option(help="the picture")] = Path("docs/images/dashboard.png"),
    seconds: Annotated[float, typer.Option(help="of load")] = 180,
    rate: Annotated[float, typer.Option(help="requests a second, on average")] = 1.0,
) -> None:
    """Draw the dashboard."""
    logs.configure("error", "console")
    with tempfile.TemporaryDirectory() as folder:
        empty = asyncio.run(picture(Path(folder), seconds, rate, out))
    print(f"{out}; without data: {', '.join(empty) or 'none'}")


if __name__ == "__main__":
    typer.run(main)
