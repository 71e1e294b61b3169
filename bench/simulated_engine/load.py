"""How many streams one core carries before the simulated time drifts from the real one.

`python -m bench.simulated_engine.load` runs the engine as a process of its own, once for each
number of streams, keeps that many chat streams open, and prints a table: tokens a second that
came, tokens a second that the timing model wants, CPU of the engine, and by how much tokens
were handed out late.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

import uvloop

from bench.simulated_engine.profiles import PROFILES

_EVENT: Final = b"data: {"
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PROMPT_WORDS: Final = 200
_COLUMNS: Final = (
    "profile", "streams", "tokens/s", "of the model's", "CPU %", "µs CPU/token", "late ms", "max",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reading:
    """The engine's own figures at one moment."""

    cpu_s: float
    steps: float
    virtual_s: float
    late_s: float
    most_late_s: float


class _Stream(asyncio.Protocol):
    """Asks for one chat after another and counts their events."""

    def __init__(self, request: bytes) -> None:
        self.events = 0
        self._request = request
        self._rest = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        self.events += data.count(_EVENT)
        if b"data: [DONE]" in data and self._transport:
            self._transport.write(self._request)
        self._rest = data[-(len(_EVENT) - 1) :]


def _request(number: int, tokens: int) -> bytes:
    words = " ".join(f"w{number}x{index}" for index in range(_PROMPT_WORDS))
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": words}],
            "stream": True,
            "max_tokens": tokens,
        }
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def _engine(profile: str, streams: int) -> Iterator[tuple[str, int]]:
    flags = ("--profile", profile, "--max-concurrent-requests", str(2 * streams))
    lengths = ("--median-tokens", "4000", "--spread", "0")
    command = (sys.executable, "-m", "bench.simulated_engine", *flags, *lengths)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.kill()


def _read(url: str, pid: int) -> Reading:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as reply:
        lines = [line.split() for line in reply.read().decode().splitlines()]
    told = {line[0]: float(line[1]) for line in lines if len(line) == 2}
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123
        ticks = file.read().rsplit(")", 1)[1].split()[11:13]
    return Reading(
        cpu_s=sum(map(int, ticks)) / _TICKS_A_SECOND,
        steps=told["simulated_steps"],
        virtual_s=told["simulated_seconds"],
        late_s=told.get("simulated_late_seconds_median", 0.0),
        most_late_s=told.get("simulated_late_seconds_max", 0.0),
    )


async def _measure(profile: str, streams: int, seconds: float, tokens: int) -> str:
    loop = asyncio.get_running_loop()
    with _engine(profile, streams) as (url, pid):
        port = urllib.parse.urlsplit(url).port or 0
        protocols = []
        for number in range(streams):
            made = partial(_Stream, _request(number, tokens))
            _, one = await loop.create_connection(made, "127.0.0.1", port)
            protocols.append(one)
        while not all(one.events for one in protocols):  # noqa: ASYNC110  # no one event tells
            await asyncio.sleep(0.05)
        before, began = await asyncio.to_thread(_read, url, pid), loop.time()
        events = sum(one.events for one in protocols)
        await asyncio.sleep(seconds)
        after, ended = await asyncio.to_thread(_read, url, pid), loop.time()
        got = sum(one.events for one in protocols) - events
    return _row(profile, streams, got, ended - began, before, after)


def _row(
    profile: str, streams: int, got: int, passed_s: float, before: Reading, after: Reading
) -> str:
    cpu_s = after.cpu_s - before.cpu_s
    virtual_s = after.virtual_s - before.virtual_s
    share = f"{virtual_s / passed_s:.3f}" if PROFILES[profile].weights_s else "-"
    cells = (
        profile,
        str(streams),
        f"{got / passed_s:.0f}",
        share,
        f"{100 * cpu_s / passed_s:.0f}",
        f"{1e6 * cpu_s / got:.1f}",
        f"{1000 * after.late_s:.2f}",
        f"{1000 * after.most_late_s:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="How many streams one core carries.")
    parser.add_argument("--profiles", nargs="+", default=["no-op", "llama-70b-4xh100"])
    parser.add_argument("--streams", nargs="+", type=int, default=[16, 64, 128, 256])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--tokens", type=int, default=500)
    args = parser.parse_args(argv)
    print(f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|", sep="\n")
    for profile in args.profiles:
        for streams in args.streams:
            print(uvloop.run(_measure(profile, streams, args.seconds, args.tokens)), flush=True)


if __name__ == "__main__":
    main()
