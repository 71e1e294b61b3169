"""Reads the event log, a request's facts or all, and goes on through restarts of NATS.

An ephemeral consumer does the reading. When it or the server has gone away, another one
is made that begins after the last fact read: nothing is lost, nothing comes twice.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import structlog

from proto.errors import MalformedMessage, NotProvisioned, QueueUnavailable
from proto.names import Stream, Subjects
from services.runtime.connection import ApiError, Connection, Json
from services.runtime.facts import StoredFact, fact_at
from services.runtime.pull import ConsumerPull, Delivery

log = structlog.get_logger()

#: Facts that may be on their way at once.
CREDIT: Final = 256
#: The server drops a consumer that nobody pulls from for this long.
INACTIVE_S: Final = 30
#: After this long without a fact it is asked whether the consumer is still there.
CHECK_S: Final = 5.0
#: Wait before asking again while JetStream is not there.
PAUSE_S: Final = 0.2
_STREAM_NOT_FOUND: Final = 10059


class LogReader:
    """Hands every message of the event log that matches to a callback, once and in order.

    Args:
        connection: an open connection.
        name: whose reading it is, for logs.
        filters: subjects of the event log, with wildcards.
        on_message: called with each message; must not block.
        after_seq: where to begin: with the first message after this position; 0 is all there is.
        since: begin with what was stored at this time (seconds since the epoch) or later.
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        filters: Sequence[str],
        on_message: Callable[[Delivery], None],
        *,
        after_seq: int = 0,
        since: float | None = None,
    ) -> None:
        self._connection = connection
        self._name = name
        self._filters = list(filters)
        self._on_message = on_message
        self._since = since
        #: Position of the last message that was handed out, or where reading began.
        self.last_seq = after_seq
        #: Set as soon as no stored message is left to be read.
        self.caught_up = asyncio.Event()
        self._stirred = asyncio.Event()
        self._broken = False
        self._delivered = 0

    async def run(self) -> None:
        """Read for ever.

        Raises:
            NotProvisioned: there is no event log.
        """
        self._connection.on_reconnect(self._server_is_back)
        try:
            while True:
                consumer = await self._make_consumer()
                await self._read(consumer)
        finally:
            self._connection.forget(self._server_is_back)

    async def read_stored(self) -> None:
        """Read all that is stored now, and end.

        Raises:
            NotProvisioned: there is no event log.
        """
        reading = asyncio.create_task(self.run(), name=f"reader {self._name}")
        waiting = asyncio.create_task(self.caught_up.wait(), name=f"end of {self._name}")
        try:
            await asyncio.wait([reading, waiting], return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        finally:
            for task in (reading, waiting):
                task.cancel()
            await asyncio.wait([reading, waiting])

    async def _read(self, consumer: str) -> None:
        """Read until `consumer` is of no more use, then remove it."""
        pull = ConsumerPull(self._connection, Stream.EVENTS, consumer, self._received)
        await pull.start()
        pull.want(CREDIT)
        try:
            while await self._stirs() or await self._is_there(consumer):
                if pull.task.done():
                    pull.task.result()
                if self._broken:
                    break
            log.info("reader_consumer_gone", reader=self._name, last_seq=self.last_seq)
        finally:
            await pull.stop()
            # Nobody waits for the answer: a consumer that stays ends by itself.
            await self._connection.publish(
                f"$JS.API.CONSUMER.DELETE.{Stream.EVENTS}.{consumer}", b""
            )

    async def _make_consumer(self) -> str:
        while True:
            self._broken, self._delivered = False, 0
            name = f"follow-{secrets.token_hex(8)}"
            body: Json = {"stream_name": Stream.EVENTS.value, "config": self._config(name)}
            try:
                await self._connection.wait_connected()
                made = await self._connection.api(f"CONSUMER.CREATE.{Stream.EVENTS}.{name}", body)
            except QueueUnavailable as error:
                log.info("reader_waits_for_nats", reader=self._name, error=error.message)
            except ApiError as error:
                if error.err_code == _STREAM_NOT_FOUND:
                    raise NotProvisioned(str(error)) from error
                log.warning("reader_refused", reader=self._name, error=str(error))
            else:
                if not made.get("num_pending"):
                    self.caught_up.set()
                return name
            await asyncio.sleep(PAUSE_S)

    def _config(self, name: str) -> Json:
        return self._start() | {
            "name": name,
            "filter_subjects": self._filters,
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": INACTIVE_S * 1_000_000_000,
            "mem_storage": True,
            "num_replicas": 1,
        }

    def _start(self) -> Json:
        if self.last_seq:
            return {"deliver_policy": "by_start_sequence", "opt_start_seq": self.last_seq + 1}
        if self._since is not None:
            at = datetime.fromtimestamp(self._since, UTC).isoformat().replace("+00:00", "Z")
            return {"deliver_policy": "by_start_time", "opt_start_time": at}
        return {"deliver_policy": "all"}

    async def _stirs(self) -> bool:
        """Wait for a fact or the server's return; return whether there was one."""
        try:
            async with asyncio.timeout(CHECK_S):
                await self._stirred.wait()
        except TimeoutError:
            return False
        self._stirred.clear()
        return True

    async def _is_there(self, consumer: str) -> bool:
        try:
            await self._connection.api(f"CONSUMER.INFO.{Stream.EVENTS}.{consumer}")
        except (ApiError, QueueUnavailable) as error:
            # No answer is a no: the server that holds it may be gone for good, others are there.
            log.info("reader_consumer_lost", reader=self._name, error=str(error))
            return False
        return True

    def _server_is_back(self) -> None:
        # The consumer may have survived, but not what the server knew of its deliveries.
        self._broken = True
        self._stirred.set()

    def _received(self, delivery: Delivery) -> None:
        self._stirred.set()
        if delivery.consumer_seq != self._delivered + 1:
            self._broken = True  # a delivery was lost on its way; the next consumer begins there
        if self._broken:
            return
        self._delivered += 1
        if delivery.stream_seq > self.last_seq:
            self.last_seq = delivery.stream_seq
            self._on_message(delivery)
        if not delivery.pending:
            self.caught_up.set()


class FactReader(LogReader):
    """Hands every fact of a request to a callback, once and in order.

    Args:
        connection: an open connection.
        request: the request's id.
        on_fact: called with each fact; must not block.
    """

    def __init__(
        self, connection: Connection, request: str, on_fact: Callable[[StoredFact], None]
    ) -> None:
        def read(delivery: Delivery) -> None:
            if stored := fact_of(delivery):
                on_fact(stored)

        super().__init__(connection, request, [Subjects.facts_of(request)], read)


def fact_of(delivery: Delivery) -> StoredFact | None:
    """Return the fact; None for one that cannot be read, of a newer version perhaps."""
    try:
        fact = fact_at(delivery.subject, delivery.data)
    except MalformedMessage as error:
        log.warning("fact_unreadable", subject=delivery.subject, error=error.message)
        return None
    return StoredFact(fact, delivery.stream_seq, delivery.stored_at, delivery.headers)
