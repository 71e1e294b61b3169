"""One request as it goes: its facts, each once and in order, mixed with previews.

A slow reader cannot make it grow: of previews only so many wait, further ones are dropped (they
may be lost anyway), and a request has only so many facts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final, Generic, TypeVar

import nats.errors
import structlog
from nats.aio.msg import Msg

from proto.errors import MalformedMessage
from proto.names import Subjects
from services.gateway.errors import ShuttingDown
from services.gateway.tail import Tail
from services.runtime.connection import Connection
from services.runtime.facts import EventLog, StoredFact
from services.runtime.waits import until_set

log = structlog.get_logger()

P = TypeVar("P")

#: Previews that may wait for a slow reader.
MAX_WAITING: Final = 1000


class Following(Generic[P]):
    """What has come of a request and was not taken yet.

    Args:
        request: the request's id.
        after_seq: facts up to this position are left out.
        read_preview: makes of a preview's bytes what is handed out; may raise `MalformedMessage`.
            None where there are no previews.
    """

    def __init__(
        self, request: str, after_seq: int, read_preview: Callable[[bytes], P] | None
    ) -> None:
        self.request = request
        self._last_seq = after_seq
        self._read_preview = read_preview
        self._waiting: list[StoredFact | P] = []
        self._early: list[StoredFact] | None = []  # heard before what is stored was read
        self._stirred = asyncio.Event()
        self._closed = False
        self.dropped = 0

    async def take(self, timeout_s: float) -> list[StoredFact | P]:
        """Return all that has come; an empty list if nothing came in time.

        Raises:
            ShuttingDown: this process ends.
        """
        if not self._waiting and not self._closed:
            self._stirred.clear()
            await until_set(self._stirred, timeout_s)
        taken, self._waiting = self._waiting, []
        if self._closed and not taken:
            raise ShuttingDown
        return taken

    def close(self) -> None:
        """Hand out what has come, and nothing more."""
        self._closed = True
        self._stirred.set()

    def on_fact(self, stored: StoredFact) -> None:
        """Take note of a fact; one that is known is skipped."""
        if self._early is not None:
            self._early.append(stored)
        elif stored.stream_seq > self._last_seq:
            self._last_seq = stored.stream_seq
            self._waiting.append(stored)
            self._stirred.set()

    async def on_preview(self, message: Msg) -> None:
        """Take note of a preview."""
        if self._read_preview is None or len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        try:
            self._waiting.append(self._read_preview(message.data))
        except MalformedMessage as error:
            log.warning("preview_unreadable", request=self.request, error=error.message)
        self._stirred.set()

    def joined(self, stored: list[StoredFact]) -> None:
        """Take in what was stored before; from here on facts come one by one."""
        early, self._early = self._early or [], None
        for fact in sorted([*stored, *early], key=lambda one: one.stream_seq):
            self.on_fact(fact)


class Follower:
    """Lets requests be followed.

    Args:
        connection: an open connection.
        events: the event log.
        tail: its end.
    """

    def __init__(self, connection: Connection, events: EventLog, tail: Tail) -> None:
        self._connection = connection
        self._events = events
        self._tail = tail
        self._open: dict[Callable[[], None], bool] = {}  # how to close → resumable
        self._ended: set[bool] = set()  # of what is resumable or not no more is begun

    @contextlib.asynccontextmanager
    async def follow(
        self,
        request: str,
        read_preview: Callable[[bytes], P] | None,
        *,
        new: bool = False,
        after_seq: int = 0,
        resumable: bool = False,
    ) -> AsyncIterator[Following[P]]:
        """Follow `request` from its first fact after `after_seq`.

        Args:
            request: the request's id.
            read_preview: see `Following`; None for no previews.
            new: it is about to be submitted, so that nothing of it is stored.
            after_seq: facts up to this position are left out.
            resumable: whoever follows can go on at another gateway.

        Raises:
            QueueUnavailable: NATS does not answer.
        """
        following = Following(request, after_seq, read_preview)
        self._open[following.close] = resumable
        if resumable in self._ended:
            following.close()
        try:
            async with contextlib.AsyncExitStack() as stack:
                stack.enter_context(self._tail.following(request, following.on_fact))
                if read_preview:
                    await stack.enter_async_context(self._previews(following))
                up_to_seq = self._tail.last_seq
                stored = [] if new else await self._events.read(request, up_to_seq=up_to_seq)
                following.joined(stored)
                yield following
        finally:
            del self._open[following.close]

    def close_all(self, *, resumable_only: bool = False) -> None:
        """End what is followed, or only what others can go on with: this process ends."""
        self._ended |= {True} if resumable_only else {True, False}
        for close, resumable in tuple(self._open.items()):
            if resumable or not resumable_only:
                close()

    @property
    def open(self) -> int:
        """How many requests are being followed."""
        return len(self._open)

    @contextlib.asynccontextmanager
    async def _previews(self, following: Following[P]) -> AsyncIterator[None]:
        subject = Subjects.live_of(following.request)
        subscription = await self._connection.subscribe(subject, following.on_preview)
        try:
            yield
        finally:
            with contextlib.suppress(nats.errors.Error):  # the connection may be gone
                await subscription.unsubscribe()
