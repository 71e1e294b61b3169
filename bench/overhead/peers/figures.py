"""Figures of the systems, and their tables. Pure."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.overhead.peers.peer import Kind
from bench.overhead.tables import percentile, spread, table

_HEAD: Final = (
    "system", "hop p50 ms", "hop p99 ms", "chain of 3 p50 ms", "fan-out of 16 p50 ms",
    "nodes/s", "CPU µs a node",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Round:
    """What one system did in one round. Milliseconds.

    Args:
        hops: from one result of a long chain to the next.
        chain: of three, from its start to its end.
        fan_out: of sixteen.
        nodes_a_s: with many graphs at once.
        cpu_us: of all processes that it needs, a node, meanwhile.
    """

    hops: Sequence[float]
    chain: Sequence[float]
    fan_out: Sequence[float]
    nodes_a_s: float
    cpu_us: float


def hops_of(told: Mapping[str, Any]) -> list[float]:
    """Return the hops of a chain, as a peer's host tells of it."""
    done_at = told["graphs"][0]["done_at"]
    return [(b - a) * 1000 for a, b in itertools.pairwise(done_at)]


def total_of(told: Mapping[str, Any]) -> float:
    """Return how long the one graph took."""
    return float(told["graphs"][0]["total_ms"])


def rows(name: str, rounds: Sequence[Round]) -> list[str]:
    """Return the cells of one system: medians of the rounds, with their range."""

    def medians(figures: Sequence[Sequence[float]]) -> str:
        return spread([statistics.median(one) for one in figures], 2)

    return [
        name,
        medians([one.hops for one in rounds]),
        spread([percentile(one.hops, 0.99) for one in rounds], 2),
        medians([one.chain for one in rounds]),
        medians([one.fan_out for one in rounds]),
        spread([one.nodes_a_s for one in rounds]),
        spread([one.cpu_us for one in rounds]),
    ]


def figures(found: Mapping[str, Sequence[Round]], failed: Mapping[str, str]) -> str:
    """One row a system; of those that failed, why."""
    lines = [rows(name, rounds) for name, rounds in found.items() if rounds]
    said = "".join(f"\n\n{name} failed: {why}" for name, why in failed.items())
    return table(_HEAD, lines) + said


def ratios(found: Mapping[str, Sequence[Round]], ours: str) -> str:
    """One row a system: its figures by ours, of the same round. Above 1: ours is better."""
    head = ("system", "hop p50", "chain of 3", "fan-out of 16", "ours nodes/s by theirs", "CPU")
    lines = [
        [name, *_ratio_cells(found[ours], rounds)]
        for name, rounds in found.items()
        if name != ours and rounds
    ]
    return table(head, lines)


def _ratio_cells(ours: Sequence[Round], theirs: Sequence[Round]) -> list[str]:
    pairs = list(zip(ours, theirs, strict=False))
    latencies = [
        [_by(getattr(other, name), getattr(mine, name)) for mine, other in pairs]
        for name in ("hops", "chain", "fan_out")
    ]
    rates = [mine.nodes_a_s / other.nodes_a_s for mine, other in pairs]
    costs = [other.cpu_us / mine.cpu_us for mine, other in pairs]
    return [spread(one, 2) for one in (*latencies, rates, costs)]


def _by(other: Sequence[float], mine: Sequence[float]) -> float:
    return statistics.median(other) / statistics.median(mine)


def kinds(known: Mapping[str, Kind]) -> str:
    """What each system is."""
    head = ("system", "durable", "a node in another process", "result")
    return table(head, [[n, one.durable, one.processes, one.result] for n, one in known.items()])
