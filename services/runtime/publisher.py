"""The durable publisher: what it reports as stored is stored, whatever happens meanwhile.

One inbox takes all acks of JetStream; a publish is repeated with the same message id
until it is acked or out of time. nats-py's
`publish_async` loses futures when the server restarts (ADR 0005).
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Mapping
from enum import Enum
from typing import Final

import orjson
import structlog
from nats.aio.msg import Msg

from proto.errors import Busy, MessageTooLarge, NotConfirmed
from proto.names import Header
from services.runtime.connection import Connection

log = structlog.get_logger()

#: A publish that is not acked after this long is sent again.
RESEND_S: Final = 1.5
#: First wait before sending again what JetStream could not take yet.
NOT_YET_S: Final = 0.05
WINDOW: Final = 256
#: Publishes without an ack, one after another, after which it is said.
SAY_EVERY: Final = 10

_MSG_ID: Final = Header.MSG_ID.value
_EXPECTED_LAST: Final = Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value
_WRONG_LAST_SEQUENCE: Final = {10071, 10164}
_STORE_FAILED: Final = 10077
_RESOURCES_EXCEEDED: Final = {10023, 10028, 10047, 10122}
_MESSAGE_TOO_LARGE: Final = {10054, 10097}


class Outcome(Enum):
    """What became of a publish."""

    STORED = "stored"
    #: The subject holds a message already; ours is not stored.
    REFUSED = "refused"


class DurablePublisher:
    """Publishes to JetStream with acks, repeats and a bounded window.

    Args:
        connection: an open connection.
        window: how many publishes may wait for their acks at once.
    """

    def __init__(self, connection: Connection, *, window: int = WINDOW) -> None:
        self._connection = connection
        self._window = asyncio.Semaphore(window)
        self._prefix = connection.new_inbox()
        self._tokens = itertools.count()
        #: By inbox, the oldest first: the ack to come, and when it is late.
        self._waiting: dict[str, tuple[asyncio.Future[Msg | None], float]] = {}
        self._looking: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Subscribe to the acks."""
        await self._connection.hear(f"{self._prefix}.*", self._acked)
        self._connection.on_reconnect(self._resend_all)

    async def publish(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        first: bool = False,
        timeout_s: float | None = None,
    ) -> Outcome:
        """Store `data` under `subject` and return what became of it.

        Args:
            subject: a subject that a stream captures.
            data: the message's body.
            headers: further headers.
            first: refuse unless the subject holds no message yet.
            timeout_s: give up after this long; by default never.

        Raises:
            MessageTooLarge: body and headers are larger than NATS takes.
            Busy: the stream is at its limit.
            NotConfirmed: NATS has not said in `timeout_s` that it is stored: it is away, its disk
                is full, or too many replicas are away. It may be stored all the same.
        """
        size = len(data) + sum(len(name) + len(value) for name, value in (headers or {}).items())
        if size > self._connection.max_payload_bytes:
            raise MessageTooLarge(
                f"{subject}: {size} of at most {self._connection.max_payload_bytes} bytes"
            )
        marked = {**(headers or {}), _MSG_ID: _fresh_id()}
        if first:
            marked[_EXPECTED_LAST] = "0"
        if timeout_s is None:
            return await self._until_acked(subject, data, marked)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._until_acked(subject, data, marked)
        except TimeoutError:
            raise NotConfirmed(f"{subject}: not within {timeout_s:g} s") from None

    async def _until_acked(self, subject: str, data: bytes, headers: dict[str, str]) -> Outcome:
        pause_s = NOT_YET_S
        tries = 0
        sent_before = False  # under this id, and nobody knows what became of it
        async with self._window:
            while True:
                tries += 1
                ack = await self._send_once(subject, data, headers)
                outcome = _read_ack(subject, ack, sent_before=sent_before) if ack else None
                if outcome:
                    return outcome
                sent_before = sent_before or ack is None
                if not sent_before:
                    headers[_MSG_ID] = _fresh_id()
                if tries % SAY_EVERY == 0:
                    # A stream that could not write to its disk is silent until NATS is restarted.
                    log.error("publish_not_acked", subject=subject, tries=tries)
                if ack:  # JetStream is there but cannot take it yet: starting, electing a leader
                    await asyncio.sleep(pause_s)
                    pause_s = min(1.0, pause_s * 2)

    async def _send_once(self, subject: str, data: bytes, headers: dict[str, str]) -> Msg | None:
        """Return the ack, or None if it has not come in time."""
        await self._connection.wait_connected()
        inbox = f"{self._prefix}.{next(self._tokens)}"
        loop = asyncio.get_running_loop()
        acked: asyncio.Future[Msg | None] = loop.create_future()
        self._waiting[inbox] = (acked, loop.time() + RESEND_S)
        if self._looking is None:
            self._looking = loop.call_later(RESEND_S, self._give_up_late)
        try:
            await self._connection.publish(subject, data, reply=inbox, headers=headers)
            return await acked
        finally:
            del self._waiting[inbox]

    def _acked(self, message: Msg) -> None:
        waiting = self._waiting.get(message.subject)
        if waiting and not waiting[0].done():
            waiting[0].set_result(message)

    def _give_up_late(self) -> None:
        """Have sent again what has waited too long; one timer for all, as most are acked soon."""
        loop = asyncio.get_running_loop()
        self._looking = None
        for acked, late_at in self._waiting.values():
            if late_at > loop.time():
                self._looking = loop.call_at(late_at, self._give_up_late)
                return
            _give_up(acked)

    def _resend_all(self) -> None:
        for acked, _ in self._waiting.values():
            _give_up(acked)


def _give_up(acked: asyncio.Future[Msg | None]) -> None:
    if not acked.done():
        acked.set_result(None)


def _fresh_id() -> str:
    """Return an id that nobody can guess: what is published under a known one is not stored."""
    return secrets.token_hex(12)


def _read_ack(subject: str, ack: Msg, *, sent_before: bool) -> Outcome | None:
    """Return the outcome in `ack`, or None if it is worth trying again."""
    if not ack.data:  # 503: nobody listens on the subject (yet)
        return None
    answer = orjson.loads(ack.data)
    error = answer.get("error")
    if not error:
        if not answer.get("duplicate") or sent_before:
            return Outcome.STORED
        log.warning("publish_taken_for_another", subject=subject)
        return None
    err_code, description = int(error.get("err_code", 0)), str(error.get("description", ""))
    if err_code in _WRONG_LAST_SEQUENCE or "per subject" in description:
        return Outcome.REFUSED
    if err_code == _STORE_FAILED or err_code in _RESOURCES_EXCEEDED:
        raise Busy(f"{subject}: {description}", retry_after_s=2.0)
    if err_code in _MESSAGE_TOO_LARGE:
        raise MessageTooLarge(f"{subject}: {description}")
    log.warning("publish_not_taken", subject=subject, error=description, err_code=err_code)
    return None
