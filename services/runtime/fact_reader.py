"""Reads a request's facts from the first one on, and goes on through restarts of NATS.

An ephemeral consumer does the reading. When it or the server has gone away, another one
is made that begins after the last fact read: nothing is lost, nothing comes twice.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

import structlog

from proto.codec import decode_fact
from proto.errors import MalformedMessage, NotProvisioned, QueueUnavailable
from proto.names import Stream, Subjects
from services.runtime.connection import ApiError, Connection, Json
from services.runtime.facts import StoredFact
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


class FactReader:
    """Hands every fact of a request to a callback, once and in order.

    Args:
        connection: an open connection.
        request: the request's id.
        on_fact: called with each fact; must not block.
    """

    def __init__(
        self, connection: Connection, request: str, on_fact: Callable[[StoredFact], None]
    ) -> None:
        self._connection = connection
        self._request = request
        self._on_fact = on_fact
        self._filter = Subjects.facts_of(request)
        self._last_seq = 0
        self._stirred = asyncio.Event()
        self._reconnected = False

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

    async def _read(self, consumer: str) -> None:
        """Read until `consumer` is of no more use, then remove it."""
        pull = ConsumerPull(self._connection, Stream.EVENTS, consumer, self._received)
        await pull.start()
        pull.want(CREDIT)
        try:
            while await self._stirs() or await self._is_there(consumer):
                if pull.task.done():
                    pull.task.result()
                if self._reconnected:
                    break
            log.info("follow_consumer_gone", request=self._request, last_seq=self._last_seq)
        finally:
            await pull.stop()
            # Nobody waits for the answer: a consumer that stays ends by itself.
            await self._connection.publish(
                f"$JS.API.CONSUMER.DELETE.{Stream.EVENTS}.{consumer}", b""
            )

    async def _make_consumer(self) -> str:
        while True:
            self._reconnected = False
            name = f"follow-{secrets.token_hex(8)}"
            create = f"CONSUMER.CREATE.{Stream.EVENTS}.{name}.{self._filter}"
            body: Json = {"stream_name": Stream.EVENTS.value, "config": self._config(name)}
            try:
                await self._connection.wait_connected()
                await self._connection.api(create, body)
            except QueueUnavailable as error:
                log.info("follow_waits_for_nats", request=self._request, error=error.message)
            except ApiError as error:
                if error.err_code == _STREAM_NOT_FOUND:
                    raise NotProvisioned(str(error)) from error
                log.warning("follow_refused", request=self._request, error=str(error))
            else:
                return name
            await asyncio.sleep(PAUSE_S)

    def _config(self, name: str) -> Json:
        start: Json = (
            {"deliver_policy": "by_start_sequence", "opt_start_seq": self._last_seq + 1}
            if self._last_seq
            else {"deliver_policy": "all"}
        )
        return start | {
            "name": name,
            "filter_subject": self._filter,
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": INACTIVE_S * 1_000_000_000,
            "mem_storage": True,
            "num_replicas": 1,
        }

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
        except ApiError:
            return False
        except QueueUnavailable as error:
            log.info("follow_waits_for_nats", request=self._request, error=error.message)
        return True

    def _server_is_back(self) -> None:
        # The consumer may have survived, but not what the server knew of its deliveries.
        self._reconnected = True
        self._stirred.set()

    def _received(self, delivery: Delivery) -> None:
        self._stirred.set()
        if delivery.stream_seq <= self._last_seq:
            return
        self._last_seq = delivery.stream_seq
        try:
            fact = decode_fact(delivery.data)
        except MalformedMessage as error:  # of a newer version, perhaps
            log.warning("fact_unreadable", subject=delivery.subject, error=error.message)
            return
        self._on_fact(StoredFact(fact, delivery.stream_seq, delivery.stored_at, delivery.headers))
