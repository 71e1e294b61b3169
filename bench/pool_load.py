"""Calls like those of a worker, and what came of them: the load of `bench.pool`."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Final

from proto.errors import EngineError, EngineRejected
from services.runtime.calls import ChatCall, ChatMessage
from services.runtime.endpoints import EnginePool

#: As the assembler has it: attempts at a node, each but the first on another endpoint.
ATTEMPTS: Final = 4
#: A request: so many points at once, then so many that build on them, all with one prefix.
FIRST_POINTS: Final = 4
LATER_POINTS: Final = 4
PREFIX_WORDS: Final = 400

_TEXT: Final = (
    "time water people system light work change energy number value cost effect reason answer "
    "model form part point group place case week company program question government night"
)
_WORDS: Final = tuple(_TEXT.split())


@dataclass(slots=True)
class Tally:
    """What came of the calls."""

    latencies_s: list[float] = field(default_factory=list)
    first_tokens_s: list[float] = field(default_factory=list)
    endpoints: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    chunks: int = 0
    retries: int = 0
    failed: int = 0
    started: float = 0.0
    wall_s: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the calls that were answered, by the wall clock."""
        return self.chunks / self.wall_s if self.wall_s else 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values are; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Load:
    """Requests one after another, by several callers at once.

    Args:
        pool: that is measured.
        max_tokens: of each call.
        sticky: whether the calls of a request have one key.
        seed: of the prompts.
    """

    def __init__(self, pool: EnginePool, *, max_tokens: int, sticky: bool, seed: int) -> None:
        self._pool = pool
        self._max_tokens = max_tokens
        self._sticky = sticky
        self._random = Random(seed)
        self._numbers = count()
        self.tally = Tally()

    async def run(self, callers: int, enough: Callable[[], bool]) -> Tally:
        """Let `callers` make requests until there are enough; returns when all have ended."""
        self.tally = tally = Tally(started=time.monotonic())
        await asyncio.gather(*(self._caller(enough) for _ in range(callers)))
        tally.wall_s = time.monotonic() - tally.started
        return tally

    async def _caller(self, enough: Callable[[], bool]) -> None:
        while not enough():
            number = next(self._numbers)
            prefix = " ".join(self._random.choices(_WORDS, k=PREFIX_WORDS))
            for points in (range(FIRST_POINTS), range(LATER_POINTS)):
                await asyncio.gather(
                    *(self._call(f"{number}: {prefix}", f"{number}", point) for point in points)
                )

    async def _call(self, prefix: str, request: str, point: int) -> None:
        prompt = ChatMessage("user", f"{prefix}\nWrite point {point}.")
        call = ChatCall((prompt,), max_tokens=self._max_tokens)
        key = request if self._sticky else f"{self._random.random()}"
        began, avoid = time.monotonic(), None
        for attempt in range(ATTEMPTS):
            stream = self._pool.stream(call, key=key, avoid=avoid)
            try:
                async with stream:
                    chunks = sum([1 async for _ in stream])
            except EngineError as error:
                self.tally.errors[error.code] += 1
                avoid = stream.endpoint
                if attempt == ATTEMPTS - 1 or isinstance(error, EngineRejected):
                    self.tally.failed += 1
                    return
                self.tally.retries += 1
                continue
            self.tally.chunks += chunks
            self.tally.endpoints[stream.endpoint] += 1
            self.tally.latencies_s.append(time.monotonic() - began)
            self.tally.first_tokens_s.append((stream.first_token_ms or 0.0) / 1000)
            return


def spread_of_load(tally: Tally, endpoints: int) -> str:
    """Return the least and the most calls of an endpoint, as multiples of the mean."""
    calls = list(tally.endpoints.values()) + [0] * (endpoints - len(tally.endpoints))
    mean = statistics.mean(calls) or 1
    return f"{min(calls) / mean:.2f}–{max(calls) / mean:.2f}"
