"""Watches the processes while they run: memory, open files, and deaths nobody ordered."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from tests.chaos.stack import Member, Stack

EVERY_S: Final = 1.0
#: Of a shorter life nothing is said.
MIN_SAMPLES: Final = 15
_PAGE_KIB: Final = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory and open files of a process at a moment."""

    at: float
    rss_mib: float
    files: int


@dataclass(frozen=True, slots=True)
class Growth:
    """How a long life went: medians of its second third, when it was warm, and of its last.

    Attributes:
        warm_at: the middle of the second third, in seconds since the epoch.
        last_at: the middle of the last third.
    """

    role: str
    warm_mib: float
    last_mib: float
    warm_files: float
    last_files: float
    warm_at: float
    last_at: float

    def kib_each(self, requests: int) -> str:
        """Tell the growth as memory per request, of so many between the two instants."""
        grown_kib = (self.last_mib - self.warm_mib) * 1024
        return f"{grown_kib / requests:+.1f} KiB a request" if requests else "no request"


@dataclass
class Watch:
    """Samples all processes, and notices who dies by himself.

    Args:
        stack: the processes.
        load_over_at: when the load was over; growth is told until then.
    """

    stack: Stack
    samples: dict[tuple[str, int], list[Sample]] = field(default_factory=dict)
    deaths: list[str] = field(default_factory=list)
    load_over_at: float = math.inf
    _suspects: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Watch, for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            for one in self.stack.members:
                self._look(one)

    def _look(self, one: Member) -> None:
        pid = one.child.pid
        if pid is not None and (sample := _sample(pid)):
            self.samples.setdefault((one.role, pid), []).append(sample)
        if pid is None and one.started and not one.busy and len(one.died) < len(one.started):
            self._died(one)

    def _died(self, one: Member) -> None:
        """A fault may be about to say that it was its doing: believe it the second time."""
        if one.name not in self._suspects:
            self._suspects.add(one.name)
            return
        self._suspects.discard(one.name)
        self.deaths.append(one.child.obituary())
        one.died.append(time.time())
        one.launch()

    def growth(self) -> list[Growth]:
        """Return how the longest life in each role went while there was load."""
        longest: dict[str, list[Sample]] = {}
        for (role, _), every in self.samples.items():
            samples = [one for one in every if one.at <= self.load_over_at]
            if len(samples) > max(MIN_SAMPLES, len(longest.get(role, ()))):
                longest[role] = samples
        return [growth_of(role, samples) for role, samples in longest.items()]


def growth_of(role: str, samples: list[Sample]) -> Growth:
    """Return how a life went, from samples of all of it."""
    third = len(samples) // 3
    warm, last = samples[third : 2 * third], samples[-third:]
    return Growth(
        role,
        median(one.rss_mib for one in warm),
        median(one.rss_mib for one in last),
        median(one.files for one in warm),
        median(one.files for one in last),
        warm[len(warm) // 2].at,
        last[len(last) // 2].at,
    )


def _sample(pid: int) -> Sample | None:
    folder = Path("/proc") / str(pid)
    try:
        pages = int((folder / "statm").read_text().split()[1])
        files = sum(1 for _ in (folder / "fd").iterdir())
    except OSError:  # it ended meanwhile
        return None
    return Sample(time.time(), pages * _PAGE_KIB / 1024, files)
