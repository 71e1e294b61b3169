"""Reads the event log as it grows, all of it or one request's part, and goes on through restarts.

Facts are heard as the server says them once they are stored (`skelgraph.v1.fact.…`), each with its
position; what was said before we listened, or while nobody could hear, is read from the log.
Nothing is made on the server for it: who may make consumers of a stream may change and remove those
of the services too, which is no right for a reader to have (ADR 0027).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import nats.errors
import structlog
from nats.aio.msg import Msg

from proto.errors import QueueUnavailable
from proto.names import ANY_FACT, STREAM_SUBJECTS, Stream, Subjects
from services.runtime.connection import Connection, Json
from services.runtime.direct import direct_get
from services.runtime.facts import EventLog, LogEntry, StoredFact, entry_of, seq_of, stored_fact
from services.runtime.waits import until_set

log = structlog.get_logger()

#: Facts that are read from the log at once, and the bytes that they may have.
BATCH: Final = 256
BATCH_BYTES: Final = 8 * 1024**2
#: Facts that may wait while a gap before them is read; further ones are read like the gap.
MAX_EARLY: Final = 10_000
#: How often the log is looked at without a word: the last word of all may be lost unnoticed.
CHECK_S: Final = 5.0
#: In a cluster what is stored before all servers know that we listen is not said to us.
SOON_S: Final = 0.25
#: Wait before asking again while JetStream is not there, or a replica lags behind.
PAUSE_S: Final = 0.2


class LogReader:
    """Hands every message of the event log to a callback, once and in order.

    Args:
        connection: an open connection.
        name: whose reading it is, for logs.
        on_entry: called with each message; must not block.
        since: begin with what was stored at this time (seconds since the epoch) or later; by
            default with the first that is kept.
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        on_entry: Callable[[LogEntry], None],
        *,
        since: float | None = None,
    ) -> None:
        self._connection = connection
        self._name = name
        self._on_entry = on_entry
        self._since = since
        #: Position of the last message that was handed out.
        self.last_seq = 0
        #: Set as soon as all that was stored has been read.
        self.caught_up = asyncio.Event()
        self._early: deque[Msg] = deque()
        self._in_step = False
        self._stirred = asyncio.Event()

    async def run(self) -> None:
        """Read for ever."""
        heard = await self._connection.hear(ANY_FACT, self._heard)
        self._connection.on_reconnect(self._stir)
        try:
            while True:
                await self._catch_up()
                self._stirred.clear()
                await until_set(self._stirred, CHECK_S if self._in_step else PAUSE_S)
        finally:
            self._connection.forget(self._stir)
            await _leave(heard.unsubscribe)

    def _heard(self, message: Msg) -> None:
        if self._in_step and seq_of(message) == self.last_seq + 1:
            self._hand_out(entry_of(message))
            return
        if seq_of(message) <= self.last_seq:
            return
        if len(self._early) >= MAX_EARLY:
            self._early.clear()
        self._early.append(message)
        self._stir()

    def _stir(self) -> None:
        self._in_step = False
        self._stirred.set()

    async def _catch_up(self) -> None:
        """Read what is stored and was not heard, then what was heard meanwhile."""
        self._in_step = False
        try:
            await self._connection.wait_connected()
            async for entry in stored_entries(
                self._connection, STREAM_SUBJECTS[Stream.EVENTS], self.last_seq + 1, self._begin()
            ):
                self._hand_out(entry)
        except QueueUnavailable as error:
            log.info("reader_waits_for_nats", reader=self._name, error=error.message)
            return
        while self._early and seq_of(self._early[0]) <= self.last_seq + 1:
            self._hand_out(entry_of(self._early.popleft()))
        # What is left was said of a log that the replica we asked does not have yet.
        self._in_step = not self._early
        if self._in_step:
            self.caught_up.set()

    def _begin(self) -> float | None:
        return None if self.last_seq else self._since

    def _hand_out(self, entry: LogEntry) -> None:
        if entry.stream_seq > self.last_seq:
            self.last_seq = entry.stream_seq
            self._on_entry(entry)


class FactReader:
    """Hands every fact of a request to a callback, once.

    Args:
        connection: an open connection.
        events: reads facts.
        request: the request's id.
        on_fact: called with each fact; must not block.
    """

    def __init__(
        self,
        connection: Connection,
        events: EventLog,
        request: str,
        on_fact: Callable[[StoredFact], None],
    ) -> None:
        self._connection = connection
        self._events = events
        self._request = request
        self._on_fact = on_fact
        self._seen: set[int] = set()
        self._early: list[StoredFact] | None = []
        self._stirred = asyncio.Event()

    async def run(self) -> None:
        """Read for ever.

        Raises:
            NotProvisioned: there is no event log.
        """
        heard = await self._connection.hear(Subjects.said_of(self._request), self._heard)
        self._connection.on_reconnect(self._stirred.set)
        wait_s = SOON_S
        try:
            while True:
                wait_s = wait_s if await self._catch_up() else PAUSE_S
                await until_set(self._stirred, wait_s)
                self._stirred.clear()
                wait_s = CHECK_S
        finally:
            self._connection.forget(self._stirred.set)
            await _leave(heard.unsubscribe)

    def _heard(self, message: Msg) -> None:
        if stored := stored_fact(message):
            if self._early is None:
                self._hand_out(stored)
            else:
                self._early.append(stored)

    async def _catch_up(self) -> bool:
        """Read what may have been said before we listened, or while nobody could hear."""
        self._early = self._early or []
        try:
            await self._connection.wait_connected()
            if await self._events.last_of(self._request) > max(self._seen, default=0):
                self._early += await self._events.read(self._request)
        except QueueUnavailable as error:
            log.info("reader_waits_for_nats", reader=self._request, error=error.message)
            await self._events.check()
            return False
        early, self._early = self._early, None
        for stored in sorted(early, key=lambda one: one.stream_seq):
            self._hand_out(stored)
        return True

    def _hand_out(self, stored: StoredFact) -> None:
        if stored.stream_seq not in self._seen:
            self._seen.add(stored.stream_seq)
            self._on_fact(stored)


async def stored_entries(
    connection: Connection, subjects: str, seq: int = 1, since: float | None = None
) -> AsyncIterator[LogEntry]:
    """Yield what is stored in the event log, in order.

    Args:
        connection: an open connection.
        subjects: whose messages, with wildcards.
        seq: begin with this position,
        since: or with what was stored at this time (seconds since the epoch) or later.

    Raises:
        QueueUnavailable: no complete answer.
    """
    begin: Json = {"seq": seq}
    if since is not None:
        begin = {"start_time": datetime.fromtimestamp(since, UTC).isoformat()}
    while True:
        query = begin | {"next_by_subj": subjects, "batch": BATCH, "max_bytes": BATCH_BYTES}
        messages, ending = await direct_get(connection, Stream.EVENTS, query)
        for message in messages:
            yield entry_of(message)
        if not messages or not int((ending.headers or {}).get("Nats-Num-Pending", 0)):
            return
        begin = {"seq": seq_of(messages[-1]) + 1}


async def _leave(unsubscribe: Callable[[], Awaitable[None]]) -> None:
    with contextlib.suppress(nats.errors.Error):  # the connection may be gone
        await unsubscribe()
