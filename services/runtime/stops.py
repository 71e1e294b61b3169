"""Work that ends when its request has ended, however that becomes known.

A `StopWork` on core NATS says so at once; because core NATS may lose it, the event log
is looked at too, at every third of the ack wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Final, TypeVar

import structlog
from nats.aio.msg import Msg

from proto.codec import decode
from proto.errors import Cancelled, DeadlineExceeded, MalformedMessage, QueueUnavailable
from proto.messages import StopWork
from proto.names import ANY_STOP
from services.runtime.clock import ServerClock
from services.runtime.connection import Connection
from services.runtime.facts import EventLog

log = structlog.get_logger()

T = TypeVar("T")

#: A stop that came before its work is remembered for this long.
REMEMBER_S: Final = 60.0


class Stops:
    """Runs work and cancels it when its request has ended.

    Args:
        events: the event log.
        look_every_s: how often it is asked whether running requests have ended.
        clock: NATS's clock, set.
    """

    def __init__(self, events: EventLog, *, look_every_s: float, clock: ServerClock) -> None:
        self._events = events
        self._clock = clock
        self._look_every_s = look_every_s
        self._running: dict[asyncio.Task[object], tuple[str, int | None]] = {}
        self._stopped: set[asyncio.Task[object]] = set()
        self._recent: dict[str, tuple[float, StopWork]] = {}

    async def listen(self, connection: Connection) -> None:
        """Hear stops from now on."""
        await connection.subscribe(ANY_STOP, self._heard)

    async def look(self) -> None:
        """Look for requests that ended unheard, for ever."""
        while True:
            await asyncio.sleep(self._look_every_s)
            await self._look_once()
            self._forget_old()

    async def run(
        self,
        work: Coroutine[object, object, T],
        *,
        request: str,
        node: int | None,
        deadline_at: float,
    ) -> T:
        """Run `work` until it is done or of no more use.

        Raises:
            Cancelled: the request has ended otherwise, or does not need this node.
            DeadlineExceeded: `deadline_at` (seconds since the epoch, NATS's clock) has passed.
        """
        task = asyncio.create_task(work, name=f"{request}/{node}")
        self._running[task] = (request, node)
        if self._is_stopped(request, node):
            self._cancel(task)
        try:
            left_s = max(0.0, deadline_at - self._clock.now())
            done, _ = await asyncio.wait([task], timeout=left_s)
            if not done:
                await _end(task)
                raise DeadlineExceeded
            return await self._result(task)
        finally:
            await _end(task)
            del self._running[task]
            self._stopped.discard(task)

    async def _result(self, task: asyncio.Task[T]) -> T:
        try:
            return await task
        except asyncio.CancelledError:
            if task in self._stopped:
                raise Cancelled from None
            raise

    async def _heard(self, message: Msg) -> None:
        try:
            stop = decode(StopWork, message.data)
        except MalformedMessage as error:
            log.warning("stop_unreadable", subject=message.subject, error=error.message)
            return
        self._recent[stop.request] = (time.monotonic(), stop)
        for task, (request, node) in self._running.items():
            if request == stop.request and _concerns(stop, node):
                self._cancel(task)

    def _cancel(self, task: asyncio.Task[T]) -> None:
        self._stopped.add(task)
        task.cancel()

    def _is_stopped(self, request: str, node: int | None) -> bool:
        known = self._recent.get(request)
        return known is not None and _concerns(known[1], node)

    async def _look_once(self) -> None:
        for request in {request for request, _ in self._running.values()}:
            try:
                ended = await self._events.has_ended(request)
            except QueueUnavailable as error:
                log.warning("look_for_end_failed", request=request, error=error.message)
                continue
            for task, (other, _) in list(self._running.items()):
                if ended and other == request:
                    self._cancel(task)

    def _forget_old(self) -> None:
        old = time.monotonic() - REMEMBER_S
        self._recent = {request: known for request, known in self._recent.items() if known[0] > old}


def _concerns(stop: StopWork, node: int | None) -> bool:
    return stop.nodes is None or node in stop.nodes


async def _end(task: asyncio.Task[T]) -> None:
    """Cancel `task` unless it is done, and wait for its end."""
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
