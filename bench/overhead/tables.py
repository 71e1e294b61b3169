"""The tables of the overhead benchmark, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.overhead.measure import Latency, Load, Pair


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of them lie."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latencies(found: dict[str, Latency]) -> str:
    """One row a shape: the whole graph, ours beside raw."""
    head = ("graph", "ours p50 ms", "p99", "raw p50 ms", "p99", "ratio of p50")
    return table(head, [[name, *_beside(one.totals)] for name, one in found.items()])


def hops(found: dict[str, Latency]) -> str:
    """One row a setting: a node of a long chain."""
    head = ("streams", "ours p50 ms", "p99", "raw p50 ms", "p99", "ratio of p50")
    return table(head, [[name, *_beside(one.hops)] for name, one in found.items()])


def _beside(pair: Pair) -> list[str]:
    medians = [statistics.median(values) for values in (pair.ours, pair.raw)]
    cells = []
    for values, median in zip((pair.ours, pair.raw), medians, strict=True):
        cells += [f"{median:.2f}", f"{percentile(values, 0.99):.2f}"]
    return [*cells, f"{medians[0] / medians[1]:.2f}"]


def loads(found: dict[str, list[tuple[Load, Load]]]) -> str:
    """One row a setting: nodes a second, and their ratio to raw in each round."""
    head = ("streams", "ours nodes/s", "raw nodes/s", "ratio", "ours CPU µs", "raw CPU µs")
    return table(head, [[name, *_load_cells(rounds)] for name, rounds in found.items()])


def _load_cells(rounds: list[tuple[Load, Load]]) -> list[str]:
    ours, raw = zip(*rounds, strict=True)
    return [
        spread([one.nodes_a_s for one in ours]),
        spread([one.nodes_a_s for one in raw]),
        spread([mine.nodes_a_s / other.nodes_a_s for mine, other in rounds], 2),
        _cpu(ours),
        _cpu(raw),
    ]


def _cpu(loads_: Sequence[Load]) -> str:
    names = loads_[0].cpu_us
    medians = {n: statistics.median(one.cpu_us[n] for one in loads_) for n in names}
    parts = " + ".join(f"{name} {value:.0f}" for name, value in medians.items())
    return f"{parts} = {sum(medians.values()):.0f}"


def traffic(rounds: list[tuple[Load, Load]]) -> str:
    """Messages and bytes a node, through NATS and in the log."""
    head = ("a node", "messages in", "messages out", "KB in", "KB out", "KB in the log")
    ours, raw = (statistics_of(one) for one in zip(*rounds, strict=True))
    return table(head, [["ours", *ours], ["raw", *raw]])


def statistics_of(loads_: Sequence[Load]) -> list[str]:
    """Return the medians of a row of `traffic`."""

    def median(name: str) -> float:
        return statistics.median(one.traffic[name] for one in loads_)

    log_kb = statistics.median(one.log_bytes for one in loads_) / 1000
    messages = [f"{median(name):.1f}" for name in ("in_msgs", "out_msgs")]
    sizes = [f"{median(name) / 1000:.2f}" for name in ("in_bytes", "out_bytes")]
    return [*messages, *sizes, f"{log_kb:.2f}"]


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Return median and range."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"
