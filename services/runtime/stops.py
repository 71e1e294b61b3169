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
from proto.errors import (
    Cancelled,
    DeadlineExceeded,
    MalformedMessage,
    QueueUnavailable,
    SkelgraphError,
)
from proto.messages import StopWork
from proto.names import ANY_STOP
from services.runtime.clock import ServerClock
from services.runtime.connection import Connection
from services.runtime.facts import EventLog

log = structlog.get_logger()

T = TypeVar("T")

#: A stop that came before its work is remembered for this long.
REMEMBER_S: Final = 60.0
#: Requests whose end is looked for at once: one slow answer does not hold up all others.
LOOKS_AT_ONCE: Final = 16


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
        self._stopped: dict[asyncio.Task[object], type[SkelgraphError]] = {}
        self._recent: dict[str, tuple[float, StopWork]] = {}
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)

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
        """Run `work` in this task until it is done or of no more use.

        Raises:
            Cancelled: the request has ended otherwise, or does not need this node.
            DeadlineExceeded: `deadline_at` (seconds since the epoch, NATS's clock) has passed.
        """
        task = asyncio.current_task()
        if task is None or self._is_stopped(request, node):
            work.close()
            raise Cancelled
        self._running[task] = (request, node)
        left_s = max(0.0, deadline_at - self._clock.now())
        loop, cancels = asyncio.get_running_loop(), task.cancelling()
        timer = loop.call_later(left_s, self._stop, task, DeadlineExceeded)
        try:
            return await work
        except asyncio.CancelledError:
            # Ours, and nobody else's as well: as in `asyncio.timeout`.
            stopped = self._stopped.pop(task, None)
            if stopped and task.uncancel() <= cancels:
                raise stopped() from None
            raise
        finally:
            timer.cancel()
            del self._running[task]
            if self._stopped.pop(task, None):
                task.uncancel()

    async def _heard(self, message: Msg) -> None:
        try:
            stop = decode(StopWork, message.data)
        except MalformedMessage as error:
            log.warning("stop_unreadable", subject=message.subject, error=error.message)
            return
        self._recent[stop.request] = (time.monotonic(), stop)
        for task, (request, node) in self._running.items():
            if request == stop.request and _concerns(stop, node):
                self._stop(task, Cancelled)

    def _stop(self, task: asyncio.Task[object], why: type[SkelgraphError]) -> None:
        if task not in self._stopped:
            self._stopped[task] = why
            task.cancel()

    def _is_stopped(self, request: str, node: int | None) -> bool:
        known = self._recent.get(request)
        return known is not None and _concerns(known[1], node)

    async def _look_once(self) -> None:
        requests = {request for request, _ in self._running.values()}
        await asyncio.gather(*map(self._look_at, requests))

    async def _look_at(self, request: str) -> None:
        async with self._looks:
            try:
                ended = await self._events.has_ended(request)
            except QueueUnavailable as error:
                log.warning("look_for_end_failed", request=request, error=error.message)
                return
        for task, (other, _) in list(self._running.items()):
            if ended and other == request:
                self._stop(task, Cancelled)

    def _forget_old(self) -> None:
        old = time.monotonic() - REMEMBER_S
        self._recent = {request: known for request, known in self._recent.items() if known[0] > old}


def _concerns(stop: StopWork, node: int | None) -> bool:
    return stop.nodes is None or node in stop.nodes
