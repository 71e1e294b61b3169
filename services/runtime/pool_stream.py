"""A reply of a pool: whichever endpoint has its first token, and that one from then on.

Until the first token nothing has been told to anybody, so the call may be sent to another
endpoint: when the first cannot be reached, is overloaded or falls silent, or, where that is
wanted, beside the first when it is late. From the first token on there is one endpoint, and its
errors are the caller's: a text is never pieced together from two engines.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import structlog

from proto.errors import (
    EngineCutOff,
    EngineError,
    EngineOverloaded,
    EngineTimedOut,
    EngineUnavailable,
)
from services.runtime import metrics
from services.runtime.calls import ChatCall, Chunk, Completion
from services.runtime.endpoint import Endpoint
from services.runtime.engine import ChatStream

if TYPE_CHECKING:
    from services.runtime.endpoints import EnginePool

log = structlog.get_logger()

#: How often a call is sent elsewhere because of failures; a prompt that kills engines goes no
#: further. (Refusals for overload do not count.)
MAX_FAILOVERS: Final = 2
#: Pause after every endpoint with room refused: doubles up to the longest, and is jittered.
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0
LOOK_EVERY_S: Final = 0.5

Opened = tuple[ChatStream, Chunk | None]
Attempt = asyncio.Task[Opened]


class PoolStream:
    """A reply of a pool; see `EngineStream` for what it is and raises.

    Entering it returns at the first token.

    Args:
        pool: the engines.
        call: what is asked.
        key: calls with the same key go to the same endpoint.
        avoid: URL of an endpoint to be passed over if there is another.
        headers: to send with it.
    """

    def __init__(
        self,
        pool: EnginePool,
        call: ChatCall,
        *,
        key: str,
        avoid: str | None,
        headers: Mapping[str, str] | None,
    ) -> None:
        self.endpoint = pool.likely(key, avoid)
        self.started_at = 0.0
        self.first_token_ms: float | None = None
        self._pool = pool
        self._call = call
        self._key = key
        self._headers = headers
        self._unwanted = {avoid} if avoid else set()
        self._avoid = set(self._unwanted)
        self._running: dict[Attempt, Endpoint] = {}
        self._failovers = 0
        self._refusals = 0
        self._refused_at = 0.0
        self._hedged = False
        self._second: Endpoint | None = None
        self._winner: tuple[ChatStream, Endpoint] | None = None
        self._first: Chunk | None = None
        self._left = False

    @property
    def completion(self) -> Completion:
        """How the reply ended; only once the iteration has ended."""
        if self._winner is None:
            raise RuntimeError("the reply has not ended")
        return self._winner[0].completion

    def so_far(self) -> Completion:
        """Return how the reply would have ended here."""
        if self._winner is None:
            raise RuntimeError("the reply has not begun")
        return self._winner[0].so_far()

    async def __aenter__(self) -> Self:
        self.started_at = time.monotonic()
        try:
            await self._start()
            while self._winner is None:
                await self._step()
            await self._call_off()
        except BaseException:
            try:
                await self._call_off()
            finally:
                await self._leave()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self._winner is None:
            raise RuntimeError("a stream is to be entered with `async with`, and read within")
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._winner[0].__anext__()

    async def _start(self) -> None:
        left_s = self._pool.limits.first_token_s - self._passed_s()
        self._attempt(await self._pool.take(self._key, self._avoid, left_s))

    def _attempt(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint.url
        task = asyncio.create_task(self._open(endpoint), name=f"open {endpoint.url}")
        self._running[task] = endpoint

    async def _open(self, endpoint: Endpoint) -> Opened:
        stream = endpoint.client.stream(
            self._call, headers=self._headers, watcher=endpoint, since=self.started_at
        )
        endpoint.streams.add(stream)
        try:
            await stream.__aenter__()
            return stream, await anext(stream, None)
        except BaseException:
            endpoint.streams.discard(stream)
            await stream.__aexit__(None, None, None)
            raise

    async def _step(self) -> None:
        """Wait for something to happen, and see what follows from it."""
        done, _ = await asyncio.wait(
            self._running, timeout=self._patience_s(), return_when=asyncio.FIRST_COMPLETED
        )
        self._pool.look()
        for task in done:
            await self._take(task)
        if self._winner is None and self._is_late():
            self._hedge()

    async def _take(self, task: Attempt) -> None:
        endpoint = self._running.pop(task)
        opened = _opened(task)
        if opened and self._winner is None:
            self._win(endpoint, *opened)
            return
        self._pool.release(endpoint)
        if opened:
            await _close(opened[0], endpoint)
        elif self._winner is None:
            await self._lose(endpoint, _failure_of(task))

    def _win(self, endpoint: Endpoint, stream: ChatStream, first: Chunk | None) -> None:
        self._winner, self._first = (stream, endpoint), first
        if self._second:
            metrics.HEDGES.labels("won" if endpoint is self._second else "lost").inc()
        self.endpoint = endpoint.url
        if first:
            self.first_token_ms = self._passed_s() * 1000
            self._pool.first_tokens.add(self._passed_s())

    async def _lose(self, endpoint: Endpoint, failure: EngineError) -> None:
        """Try elsewhere, or raise `failure` if that is of no use."""
        if isinstance(failure, EngineOverloaded):
            await self._refused(endpoint, failure)
        elif not isinstance(failure, EngineUnavailable | EngineTimedOut | EngineCutOff):
            raise failure
        elif not self._running:
            self._fail_over(endpoint, failure)
            await self._start()

    def _fail_over(self, endpoint: Endpoint, failure: EngineError) -> None:
        self._avoid.add(endpoint.url)
        self._failovers += not endpoint.fell_silent  # no prompt is to blame for silence
        others = any(one.url not in self._avoid for one in self._pool.endpoints)
        late = self._passed_s() >= self._pool.limits.first_token_s
        if self._failovers > MAX_FAILOVERS or late or not others:
            raise failure
        metrics.FAILOVERS.labels(failure.code).inc()
        log.info("call_sent_elsewhere", endpoint=endpoint.url, code=failure.code)

    async def _refused(self, endpoint: Endpoint, failure: EngineOverloaded) -> None:
        if self._running:
            return
        self._avoid.add(endpoint.url)
        if other := self._pool.try_take(self._key, self._avoid):
            self._attempt(other)
            return
        await self._pause(failure)
        await self._start()

    async def _pause(self, failure: EngineOverloaded) -> None:
        """Wait until the endpoints may be asked again; raise `failure` if that took too long."""
        longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._refusals, 30))
        pause_s = failure.retry_after_s or longest_s * random.uniform(0.5, 1.0)
        if not self._refusals:
            self._refused_at = time.monotonic()
        self._refusals += 1
        if time.monotonic() - self._refused_at + pause_s > self._pool.policy.overload_wait_s:
            raise failure
        await asyncio.sleep(pause_s)
        self._avoid = set(self._unwanted)

    def _patience_s(self) -> float:
        late_s = self._late_in_s()
        return LOOK_EVERY_S if late_s is None else max(0.0, min(LOOK_EVERY_S, late_s))

    def _late_in_s(self) -> float | None:
        """Return after how many seconds this call is late; None if it is not to be hedged."""
        late_s = None if self._hedged else self._pool.first_tokens.late_after_s()
        return None if late_s is None else late_s - self._passed_s()

    def _is_late(self) -> bool:
        late_in_s = self._late_in_s()
        return late_in_s is not None and late_in_s <= 0

    def _hedge(self) -> None:
        """Send the call to a second endpoint as well."""
        self._hedged = True
        if not self._pool.first_tokens.may_hedge():
            return
        avoid = self._avoid | {endpoint.url for endpoint in self._running.values()}
        self._second = self._pool.try_take(self._key, avoid)
        if self._second:
            self._attempt(self._second)

    async def _call_off(self) -> None:
        """Leave all attempts but the winner; their connections are closed."""
        left, self._running = self._running, {}
        for task in left:
            task.cancel()
        # The pool sees them to their end: this call may be cancelled again meanwhile.
        ends = [
            self._pool.spawn(self._end(task, endpoint), f"leave {endpoint.url}")
            for task, endpoint in left.items()
        ]
        if ends:
            await asyncio.wait(ends)

    async def _end(self, task: Attempt, endpoint: Endpoint) -> None:
        try:
            await asyncio.wait([task])
            if opened := _opened(task):
                await _close(opened[0], endpoint)
        finally:
            self._pool.release(endpoint)

    async def _leave(self) -> None:
        if self._winner is None or self._left:
            return
        self._left = True
        stream, endpoint = self._winner
        try:
            await _close(stream, endpoint)
        finally:
            self._pool.release(endpoint)

    def _passed_s(self) -> float:
        return time.monotonic() - self.started_at


async def _close(stream: ChatStream, endpoint: Endpoint) -> None:
    endpoint.streams.discard(stream)
    await stream.__aexit__(None, None, None)


def _opened(task: Attempt) -> Opened | None:
    """Return what came of the attempt, if it has come to its first token."""
    return None if task.cancelled() or task.exception() else task.result()


def _failure_of(task: Attempt) -> EngineError:
    """Return how the attempt failed; other errors than the engine's are raised."""
    error = None if task.cancelled() else task.exception()
    if not isinstance(error, EngineError):
        raise error or RuntimeError("the attempt has not failed")
    return error
