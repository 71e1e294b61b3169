"""Simulated engines as processes of their own, one or many, for tests and benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Simulated:
    """A simulated engine that runs.

    Args:
        url: where.
        process: what.
    """

    url: str
    process: subprocess.Popen[str]

    def control(self, **order: object) -> Json:
        """Tell it what shall go wrong, see `bench.simulated_engine.faults`; return its state."""
        data = json.dumps(order).encode() if order else None
        with urllib.request.urlopen(f"{self.url}/control", data, timeout=10) as reply:
            told: Json = json.load(reply)
        return told

    def metrics(self) -> dict[str, float]:
        """Return its metrics by name, labels included."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")
        }

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels; 0 if there is none."""
        return sum(v for key, v in self.metrics().items() if key.partition("{")[0] == name)


@contextmanager
def simulated_engine(*flags: str) -> Iterator[Simulated]:
    """Run `python -m bench.simulated_engine` with `flags` within the block."""
    with simulated_engines(flags) as (engine,):
        yield engine


@contextmanager
def simulated_engines(*flags: Sequence[str]) -> Iterator[list[Simulated]]:
    """Run one for each of `flags`; they start beside one another."""
    with ExitStack() as stack:
        started = [_start(each, stack) for each in flags]
        yield [Simulated(_url(process), process) for process in started]


def _start(flags: Sequence[str], stack: ExitStack) -> subprocess.Popen[str]:
    command = (sys.executable, "-m", "bench.simulated_engine", *flags)
    process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    stack.callback(process.kill)
    return process


def _url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url, f"{process.args!r} ended with {process.wait()}"
    return url
