"""What the simulated engine has done, for its metrics; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.simulated_engine.jobs import Job

Labels = tuple[tuple[str, str], ...]
BUCKETS_S: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
BUCKETS_TOKENS: Final = (1, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(slots=True)
class Histogram:
    """Counts by upper bound."""

    bounds: Sequence[float]
    counts: Counter[float] = field(default_factory=Counter)
    sum: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """Count `value`."""
        self.sum += value
        self.count += 1
        for bound in self.bounds:
            if value <= bound:
                self.counts[bound] += 1


class Counts:
    """Requests and tokens since the start.

    Attributes:
        requests: that came.
        ended: by reason.
        failed: by kind.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.ended: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.preemptions = 0
        self.seconds: Mapping[str, Histogram] = {
            name: Histogram(BUCKETS_S)
            for name in ("total", "queue", "inference", "first_token", "per_token")
        }
        self.tokens: Mapping[str, Histogram] = {
            name: Histogram(BUCKETS_TOKENS) for name in ("prompt", "generated", "max_new")
        }

    def over(self, job: Job, now_s: float) -> None:
        """Count a request that was in the batch: it is complete, or its client has left."""
        sequence = job.sequence
        self.prompt_tokens += job.prompt_tokens
        self.generated_tokens += sequence.generated
        self.preemptions += sequence.preempted
        if sequence.ended_s is None:
            self.failed["dropped"] += 1
            return
        self.ended[job.ending] += 1
        admitted_s = sequence.arrived_s if sequence.admitted_s is None else sequence.admitted_s
        self.seconds["total"].add(sequence.ended_s - sequence.arrived_s)
        self.seconds["queue"].add(admitted_s - sequence.arrived_s)
        self.seconds["inference"].add(sequence.ended_s - admitted_s)
        self.seconds["first_token"].add((sequence.first_token_s or now_s) - sequence.arrived_s)
        self.seconds["per_token"].add((sequence.ended_s - admitted_s) / sequence.generated)
        self.tokens["prompt"].add(job.prompt_tokens)
        self.tokens["generated"].add(sequence.generated)
        self.tokens["max_new"].add(job.ask.max_new_tokens)


class Text:
    """Prometheus' text form."""

    def __init__(self, labels: Labels = ()) -> None:
        self._labels = labels
        self._lines: list[str] = []

    def one(self, kind: str, name: str, value: float, labels: Labels = ()) -> None:
        """Add a gauge or a counter."""
        self.many(kind, name, {labels: value})

    def many(self, kind: str, name: str, values: Mapping[Labels, float]) -> None:
        """Add a gauge or counter by labels."""
        if values:
            self._lines.append(f"# TYPE {name} {kind}")
        for labels, value in values.items():
            self._lines.append(f"{name}{self._braces(labels)} {value:g}")

    def histogram(self, name: str, histogram: Histogram) -> None:
        """Add a histogram."""
        self._lines.append(f"# TYPE {name} histogram")
        for bound in histogram.bounds:
            le = (("le", f"{bound:g}"),)
            self._lines.append(f"{name}_bucket{self._braces(le)} {histogram.counts[bound]}")
        infinite = self._braces((("le", "+Inf"),))
        self._lines.append(f"{name}_bucket{infinite} {histogram.count}")
        self._lines.append(f"{name}_sum{self._braces(())} {histogram.sum:.9g}")
        self._lines.append(f"{name}_count{self._braces(())} {histogram.count}")

    def __str__(self) -> str:
        return "\n".join([*self._lines, ""])

    def _braces(self, labels: Labels) -> str:
        inside = ",".join(f'{name}="{value}"' for name, value in (*self._labels, *labels))
        return f"{{{inside}}}" if inside else ""
