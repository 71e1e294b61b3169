"""What was found at each size, and its tables. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.overhead.tables import percentile, table
from bench.scale.stand import Size
from proto.messages import AnswerAssembled

_HEAD: Final = (
    "endpoints a pool", "processes a service", "in flight", "answered", "requests/s", "nodes/s",
    "tokens/s", "wall s p50", "overhead ms p50", "p99", "overhead % p50", "p99",
    "unstretched % p50", "p99", "busiest process", "assemblers",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """What was found at one size.

    Args:
        size: what ran.
        wall_s: from the first request to the last answer.
        answers: of all requests that got one.
        cpu_s: of each process meanwhile, by what it is.
        held_kb: the most memory of all processes of a kind, less what they had before.
    """

    size: Size
    wall_s: float
    answers: Sequence[AnswerAssembled]
    cpu_s: Mapping[str, Sequence[float]]
    held_kb: Mapping[str, float]

    @property
    def nodes(self) -> int:
        """Nodes of all answers."""
        return sum(len(one.nodes) for one in self.answers)

    @property
    def tokens(self) -> int:
        """Generated tokens of all answers, plans included."""
        return sum(one.usage.generated_tokens for one in self.answers)


def overhead_share(answer: AnswerAssembled) -> float:
    """Return which share of the time of an answer is neither engines nor a wait for a slot."""
    return answer.timings.overhead_ms / answer.timings.wall_ms


def unstretched_share(answer: AnswerAssembled, time_scale: float) -> float:
    """Return that share if engines and waits took the time of the profile, and the rest the same.

    For requests that come at the same rate, of which fewer are in flight then; as many in flight
    would be as many times the rate, which is what this machine cannot carry.
    """
    overhead_ms = answer.timings.overhead_ms
    return overhead_ms / (overhead_ms + (answer.timings.wall_ms - overhead_ms) / time_scale)


def rows(found: Sequence[Found]) -> str:
    """One row a size."""
    return table(_HEAD, [_row(one) for one in found])


def _row(found: Found) -> list[str]:
    size, answers = found.size, found.answers
    overhead = [one.timings.overhead_ms for one in answers]
    shares = [100 * overhead_share(one) for one in answers]
    unstretched = [100 * unstretched_share(one, size.time_scale) for one in answers]
    wall_s = [one.timings.wall_ms / 1000 for one in answers]
    counts = [str(one) for one in (size.endpoints, size.processes, size.in_flight, len(answers))]
    rates = [len(answers), found.nodes, found.tokens]
    return [
        *counts,
        *(f"{one / found.wall_s:.1f}" for one in rates),
        f"{statistics.median(wall_s):.1f}",
        f"{statistics.median(overhead):.0f}",
        f"{percentile(overhead, 0.99):.0f}",
        f"{statistics.median(shares):.2f}",
        f"{percentile(shares, 0.99):.2f}",
        f"{statistics.median(unstretched):.1f}",
        f"{percentile(unstretched, 0.99):.1f}",
        _busiest(found),
        _spread(found, "assembler"),
    ]


def _busiest(found: Found) -> str:
    """Name the service process that used most CPU, in % of a core."""
    used = {kind: max(each) for kind, each in found.cpu_s.items() if kind != "engines"}
    kind = max(used, key=lambda one: used[one])
    return f"{kind} {100 * used[kind] / found.wall_s:.0f} %"


def _spread(found: Found, kind: str) -> str:
    """Say what the least and the most busy process of a kind used, in % of a core."""
    used = [100 * one / found.wall_s for one in found.cpu_s[kind]]
    return f"{min(used):.0f}–{max(used):.0f} %"


def costs(found: Sequence[Found]) -> str:
    """One row a size: what a request costs each kind of process."""
    kinds = list(found[0].cpu_s)
    head = ("size", "of a request", *kinds)
    lines = []
    for one in found:
        size, count = one.size, max(1, len(one.answers))
        name = f"{size.endpoints} × {size.processes} × {size.in_flight}"
        cpu = [f"{1000 * sum(one.cpu_s[kind]) / count:.1f}" for kind in kinds]
        lines.append([name, "CPU ms", *cpu])
        each = [f"{1e6 * sum(one.cpu_s[kind]) / max(1, one.nodes):.0f}" for kind in kinds]
        lines.append([name, "CPU µs a node", *each])
        lines.append([name, "KB", *(f"{one.held_kb[kind] / size.in_flight:.0f}" for kind in kinds)])
    return table(head, lines)
