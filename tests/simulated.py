"""Simulated engines as processes of their own, one or many, for tests and benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
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


@contextmanager
def simulated_engine(*flags: str) -> Iterator[Simulated]:
    """Run `python -m bench.simulated_engine` with `flags` within the block."""
    command = (sys.executable, "-m", "bench.simulated_engine", *flags)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, f"{command} ended with {process.wait()}"
            yield Simulated(url, process)
        finally:
            process.kill()


@contextmanager
def simulated_engines(count: int, *flags: str) -> Iterator[list[Simulated]]:
    """Run `count` of them."""
    with ExitStack() as stack:
        yield [stack.enter_context(simulated_engine(*flags)) for _ in range(count)]
