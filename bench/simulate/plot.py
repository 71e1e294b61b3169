"""Answer times over the load, as a picture, by matplotlib (extra `bench`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.simulate.figures import Figures, spread

#: Of one policy: at each load what its runs came to.
Curve = Sequence[tuple[float, Sequence[Figures]]]

_PANELS: Final[tuple[tuple[str, Callable[[Figures], float]], ...]] = (
    ("mean answer time, s", lambda one: one.mean_s),
    ("99th percentile, s", lambda one: one.p99_s),
    ("time to the first token, s", lambda one: one.first_s),
)


def draw(curves: Mapping[str, Curve], title: str, into: Path) -> None:
    """Write a picture of what each policy comes to at each load, with its confidence."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "skelgraph"
    # The object interface: no window system, and no state that outlives a figure.
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    figure.suptitle(title)
    for axes, (label, of) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for name, curve in curves.items():
            loads = [load for load, _ in curve]
            found = [spread([of(one) for one in runs]) for _, runs in curve]
            means, halves = [mean for mean, _ in found], [half for _, half in found]
            axes.errorbar(loads, means, yerr=halves, label=name, marker="o", capsize=2, ms=3)
        axes.set(xlabel="load (1: direct fills the large pool)", ylabel=label, ylim=(0, None))
        axes.grid(visible=True, alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    into.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(into, metadata={"Date": None})
