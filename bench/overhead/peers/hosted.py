"""A peer as a process of its environment: started, given graphs, ended with all it has started."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import orjson

from bench.overhead.cpu import cpu_us
from bench.overhead.peers.peer import NATS_URL_VARIABLE
from bench.overhead.shapes import Shape

START_TIMEOUT_S: Final = 60.0
RUN_TIMEOUT_S: Final = 60.0
END_TIMEOUT_S: Final = 15.0
_LINE_BYTES: Final = 64 * 1024**2


class PeerFailed(Exception):
    """A peer did not start, or did not do what it was asked for; says where its log is."""


class Hosted:
    """A peer that runs."""

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self._name = name
        self._process = process
        self._log = log

    async def run(self, shape: Shape, copies: int = 1) -> dict[str, Any]:
        """Run so many of `shape` at once; see `host` for what is told.

        Raises:
            PeerFailed: no answer, or not in time.
        """
        assert self._process.stdin
        order = orjson.dumps({"needs": shape.needs, "copies": copies})
        self._process.stdin.write(order + b"\n")
        told: dict[str, Any] = orjson.loads(await self.line(RUN_TIMEOUT_S))
        return told

    async def line(self, timeout_s: float) -> bytes:
        """Return what it says next."""
        assert self._process.stdout
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line:
            raise PeerFailed(f"{self._name}: nothing said in {timeout_s:.0f} s; see {self._log}")
        return line

    def cpu_us(self) -> float:
        """Microseconds of CPU that it and all its processes have used."""
        return sum(cpu_us(pid) for pid in _family(self._process.pid))


@asynccontextmanager
async def hosted(python: Path, name: str, nats_url: str, folder: Path) -> AsyncIterator[Hosted]:
    """Run a peer within the block.

    Args:
        python: of the peers' environment.
        name: of the peer.
        nats_url: a server that it may use.
        folder: for its files and its log.

    Raises:
        PeerFailed: it did not start.
    """
    folder.mkdir(parents=True)  # noqa: ASYNC240  # once, before anything runs
    env = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "RAY_USAGE_STATS_ENABLED": "0",
        NATS_URL_VARIABLE: nats_url,
    }
    log = folder / "log.txt"
    argv = (str(python), "-m", "bench.overhead.peers.host", name, nats_url, str(folder))
    with log.open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=PIPE, stdout=PIPE, stderr=said, env=env, limit=_LINE_BYTES,
            start_new_session=True,
        )  # fmt: skip
    peer = Hosted(name, process, log)
    try:
        if (line := await peer.line(START_TIMEOUT_S)).strip() != b"ready":
            raise PeerFailed(f"{name}: {line!r}; see {log}")
        yield peer
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    """Close its input, by which it ends; kill what is left of it."""
    family = list(_family(process.pid))
    assert process.stdin
    process.stdin.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(END_TIMEOUT_S):
            await process.wait()
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await process.wait()


def _family(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))
