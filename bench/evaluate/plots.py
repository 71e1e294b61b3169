"""The report's pictures, by matplotlib (extra `bench`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.evaluate.figures import SUITED, geometric_mean
from bench.evaluate.judging import tally
from bench.evaluate.methods import BASELINE
from bench.evaluate.records import Records
from bench.evaluate.report import Judged, answer_tokens, compared, plan_share
from services.planner.gate import depth, width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BOTH: Final = (("those that suit", True), ("the others", False))


def draw(records: Records, judged: Judged, into: Path) -> list[Path]:
    """Write the pictures that the records and verdicts allow, and return their files."""
    into.mkdir(parents=True, exist_ok=True)
    methods = [method for method in records.methods() if compared(records, method)]
    others = [method for method in methods if method != BASELINE]
    made = {"lengths.svg": _lengths(records, methods)}
    if others:
        made["by-category.svg"] = _by_category(records, others)
        made["plan-share.svg"] = _plan_share(records, others)
        made["depth-width.svg"] = _depth_width(records, others)
    if any((method, BASELINE) in judged for method in others):
        made["speed-quality.svg"] = _speed_quality(records, others, judged)
    for name, figure in made.items():
        figure.savefig(into / name, metadata={"Date": None})
    return [into / name for name in made]


def _new(title: str, x: str, y: str, width_in: float = 6.4) -> tuple[Figure, Axes]:
    # The object interface: no window system, and no state that outlives a figure.
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "skelgraph"
    figure = Figure(figsize=(width_in, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _speed_quality(records: Records, methods: Sequence[str], judged: Judged) -> Figure:
    figure, axes = _new("Speed against quality", "latency ratio to direct", "net win rate")
    for method in methods:
        for judge, found in judged.get((method, BASELINE), {}).items():
            for marker, (name, suits) in zip("os", _BOTH, strict=True):
                some = [
                    one for one in compared(records, method) if (one.category in SUITED) == suits
                ]
                net = tally([one for one in found if (one.category in SUITED) == suits]).net
                if some and net is not None:
                    x = geometric_mean(one.latency for one in some)
                    axes.plot(x, net, marker, label=f"{method}, {name}, by {judge}")
    axes.axhline(0, color="grey", linewidth=1)
    axes.axvline(1, color="grey", linewidth=1)
    axes.legend(fontsize="small")
    return figure


def _by_category(records: Records, methods: Sequence[str]) -> Figure:
    figure, axes = _new("Latency ratio by category", "", "direct's time by the method's", 8)
    names = sorted({record.category for record in records.all()})
    for place, method in enumerate(methods):
        some = compared(records, method)
        of = [[one.latency for one in some if one.category == name] for name in names]
        x = [
            number + (place - (len(methods) - 1) / 2) * 0.8 / len(methods)
            for number in range(len(of))
        ]
        axes.bar(x, [geometric_mean(one) for one in of], 0.8 / len(methods), label=method)
    axes.axhline(1, color="grey", linewidth=1)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.legend(fontsize="small")
    return figure


def _lengths(records: Records, methods: Sequence[str]) -> Figure:
    figure, axes = _new("Length of the answers", "", "tokens")
    of = [
        [answer_tokens(r) for r in records.all() if r.method == method and r.answer]
        for method in methods
    ]
    axes.boxplot(of, tick_labels=list(methods))
    return figure


def _plan_share(records: Records, methods: Sequence[str]) -> Figure:
    figure, axes = _new("Time of the planning call", "share of the wall time", "answers")
    for method in methods:
        shares = [plan_share(record) for record in records.all() if record.method == method]
        known = [share for share in shares if share is not None]
        if known:
            axes.hist(known, bins=[n / 20 for n in range(21)], histtype="step", label=method)
    axes.legend(fontsize="small")
    return figure


def _depth_width(records: Records, methods: Sequence[str]) -> Figure:
    figure, axes = _new("Depth and width of the plans", "depth", "width")
    for place, method in enumerate(methods):
        found = Counter(
            (depth(record.specs), width(record.specs))
            for record in records.all()
            if record.method == method and len(record.specs) > 1
        )
        if not found:
            continue
        shift = (place - (len(methods) - 1) / 2) * 0.12
        sizes = [20 * count for count in found.values()]
        x, y = [one[0] + shift for one in found], [one[1] for one in found]
        axes.scatter(x, y, s=sizes, alpha=0.6, label=method)
    axes.legend(fontsize="small")
    return figure
