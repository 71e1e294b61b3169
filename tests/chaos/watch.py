"""Watches the processes while they run: memory, open files, and deaths nobody ordered."""

from __future__ import annotations

import asyncio
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


@dataclass
class Growth:
    """Memory of a process over its life: medians of its first and last third, in MiB."""

    name: str
    first_mib: float
    last_mib: float
    first_files: float
    last_files: float
    span_s: float


@dataclass
class Watch:
    """Samples all processes, and notices who dies by himself.

    Args:
        stack: the processes.
    """

    stack: Stack
    samples: dict[tuple[str, int], list[Sample]] = field(default_factory=dict)
    deaths: list[str] = field(default_factory=list)
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
        """Return how the longest life in each role went."""
        longest: dict[str, list[Sample]] = {}
        for (role, _), samples in self.samples.items():
            if len(samples) > max(MIN_SAMPLES, len(longest.get(role, ()))):
                longest[role] = samples
        return [_growth(role, samples) for role, samples in longest.items()]


def _growth(name: str, samples: list[Sample]) -> Growth:
    third = len(samples) // 3
    first, last = samples[:third], samples[-third:]
    return Growth(
        name,
        median(one.rss_mib for one in first),
        median(one.rss_mib for one in last),
        median(one.files for one in first),
        median(one.files for one in last),
        samples[-1].at - samples[0].at,
    )


def _sample(pid: int) -> Sample | None:
    folder = Path("/proc") / str(pid)
    try:
        pages = int((folder / "statm").read_text().split()[1])
        files = sum(1 for _ in (folder / "fd").iterdir())
    except OSError:  # it ended meanwhile
        return None
    return Sample(time.time(), pages * _PAGE_KIB / 1024, files)
