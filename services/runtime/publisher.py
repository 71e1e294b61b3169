"""The durable publisher: what it reports as stored is stored, whatever happens meanwhile.

One inbox takes all acks of JetStream; a publish is repeated with the same message id
until it is acked or out of time. nats-py's
`publish_async` loses futures when the server restarts (ADR 0005).
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import deque
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Final

import orjson
import structlog
from nats.aio.msg import Msg
from nats.errors import MaxPayloadError

from proto.errors import Busy, MessageTooLarge, NotConfirmed
from proto.names import Header
from services.runtime.connection import Connection
from services.runtime.pause import Pause

log = structlog.get_logger()

#: A publish that is not acked after this long is sent again.
RESEND_S: Final = 1.5
WINDOW: Final = 256
#: Publishes without an ack, one after another, after which it is said.
SAY_EVERY: Final = 10

_ID_BYTES: Final = 12
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


class _NotYet(Exception):
    """JetStream is there but could not take it: starting, electing a leader."""


class _Publish:
    """A message that is to be stored, until NATS has said what became of it."""

    __slots__ = (
        "data",
        "done",
        "has_paused",
        "headers",
        "in_doubt",
        "keep_on",
        "late_at",
        "subject",
        "tries",
    )

    def __init__(
        self,
        subject: str,
        data: bytes,
        headers: dict[str, str],
        done: asyncio.Future[Outcome],
        *,
        keep_on: bool,
    ) -> None:
        self.subject = subject
        self.data = data
        self.headers = headers
        #: Whoever cancels it wants no more repeats.
        self.done = done
        #: Whether a full stream is asked again.
        self.keep_on = keep_on
        #: Whether it was sent under its id before, and nobody knows what became of it.
        self.in_doubt = False
        self.has_paused = False
        self.late_at = 0.0
        #: How often it was sent since NATS last said anything of it.
        self.tries = 0

    @property
    def stream(self) -> str:
        """What it goes to, which is full or not there for all that go there: version and kind."""
        return ".".join(self.subject.split(".", 3)[:3])


class DurablePublisher:
    """Publishes to JetStream with acks, repeats and a bounded window.

    Args:
        connection: an open connection.
        window: how many publishes may wait for their acks at once.
    """

    def __init__(self, connection: Connection, *, window: int = WINDOW) -> None:
        self._connection = connection
        self._window = window
        self._prefix = connection.new_inbox()
        self._tokens = itertools.count()
        #: By inbox, the oldest first: what waits for its ack.
        self._waiting: dict[str, _Publish] = {}
        #: By stream: what it did not take for now. It waits for no ack, so it takes no room from
        #: what goes to other streams.
        self._pauses: dict[str, Pause[_Publish]] = {}
        #: Facts, ends and letters go before work: they make room.
        self._facts: deque[_Publish] = deque()
        self._work: deque[_Publish] = deque()
        self._looking: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Subscribe to the acks."""
        await self._connection.hear(f"{self._prefix}.*", self._acked)
        self._connection.on_reconnect(self._send_all_again)

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
            ValueError: subject or headers would break out of their line.
            Busy: the stream is at its limit.
            NotConfirmed: NATS has not said in `timeout_s` that it is stored: it is away, its disk
                is full, or too many replicas are away. It may be stored all the same.
        """
        done = self.send(subject, data, headers=headers, first=first)
        if timeout_s is None:
            return await done
        try:
            async with asyncio.timeout(timeout_s):
                return await done
        except TimeoutError:
            raise NotConfirmed(f"{subject}: not within {timeout_s:g} s") from None

    def send(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        first: bool = False,
        keep_on: bool = False,
    ) -> asyncio.Future[Outcome]:
        """Store `data` under `subject`; say what became of it when NATS has.

        The errors of `publish` are told in the same way, none is raised here.

        Args:
            subject: a subject that a stream captures.
            data: the message's body.
            headers: further headers.
            first: refuse unless the subject holds no message yet.
            keep_on: where the stream is at its limit, try again until it takes it.
        """
        size = len(data) + sum(len(name) + len(value) for name, value in (headers or {}).items())
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if size > self._connection.max_payload_bytes:
            most = self._connection.max_payload_bytes
            done.set_exception(MessageTooLarge(f"{subject}: {size} of at most {most} bytes"))
            return done
        marked = {**(headers or {}), _MSG_ID: _fresh_id()}
        if first:
            marked[_EXPECTED_LAST] = "0"
        one = _Publish(subject, data, marked, done, keep_on=keep_on)
        self._enter(one)
        return done

    def _enter(self, one: _Publish) -> None:
        if one.done.done():
            return
        if len(self._waiting) < self._window:
            self._put(one)
        else:
            (self._facts if _EXPECTED_LAST in one.headers else self._work).append(one)

    def _put(self, one: _Publish) -> None:
        """Send it, for the first time or again; while NATS is away it waits for its return."""
        inbox = f"{self._prefix}.{next(self._tokens)}"
        if self._connection.is_connected and not self._is_sent(one, inbox):
            return
        loop = asyncio.get_running_loop()
        one.late_at = loop.time() + RESEND_S
        self._waiting[inbox] = one
        if self._looking is None:
            self._looking = loop.call_later(RESEND_S, self._send_late_again)

    def _is_sent(self, one: _Publish, inbox: str) -> bool:
        """Send it; what makes no message is over, and takes no room."""
        try:
            self._connection.put(one.subject, one.data, reply=inbox, headers=one.headers)
        except (ValueError, MaxPayloadError) as error:
            one.done.set_exception(error)
            return False
        one.tries += 1
        if one.tries % SAY_EVERY == 0:
            # A stream that could not write to its disk is silent until NATS is restarted.
            log.error("publish_not_acked", subject=one.subject, tries=one.tries)
        return True

    def _acked(self, message: Msg) -> None:
        one = self._waiting.pop(message.subject, None)
        if one is None:
            return
        if not one.done.done():
            self._settle(one, message)
        self._fill_window()

    def _settle(self, one: _Publish, ack: Msg) -> None:
        try:
            outcome = _read_ack(one.subject, ack, sent_before=one.in_doubt)
        except _NotYet as error:
            self._pause(one, str(error))
        except Busy as error:
            if one.keep_on:
                self._pause(one, error.message)
            else:
                one.done.set_exception(error)
        except MessageTooLarge as error:
            one.done.set_exception(error)
        else:
            one.done.set_result(outcome)
            if self._pauses and outcome is Outcome.STORED:
                self._took_one(one.stream)

    def _pause(self, one: _Publish, why: str) -> None:
        one.tries = 0
        if not one.in_doubt:
            one.headers[_MSG_ID] = _fresh_id()
        pause = self._pauses.get(one.stream)
        if pause is None:
            log.warning("publishes_pause", subject=one.subject, why=why)
            pause = self._pauses[one.stream] = Pause(self._enter)
        pause.add(one)
        if not one.has_paused:
            one.has_paused = True
            one.done.add_done_callback(lambda _: self._pauses_no_more(one))

    def _pauses_no_more(self, one: _Publish) -> None:
        pause = self._pauses.get(one.stream)
        if pause is not None:
            pause.discard(one)
            if not pause:
                del self._pauses[one.stream]

    def _took_one(self, stream: str) -> None:
        pause = self._pauses.get(stream)
        if pause is not None:
            pause.shorten()
            if not pause:
                del self._pauses[stream]

    def _fill_window(self) -> None:
        while len(self._waiting) < self._window and (queue := self._facts or self._work):
            one = queue.popleft()
            if not one.done.done():
                self._put(one)

    def _send_late_again(self) -> None:
        """Send again what has waited too long; one timer for all, as most are acked soon."""
        loop = asyncio.get_running_loop()
        self._looking = None
        for inbox, one in list(self._waiting.items()):
            if one.late_at > loop.time():
                self._looking = self._looking or loop.call_at(one.late_at, self._send_late_again)
                return
            self._send_again(inbox, one)

    def _send_all_again(self) -> None:
        for inbox, one in list(self._waiting.items()):
            self._send_again(inbox, one)

    def _send_again(self, inbox: str, one: _Publish) -> None:
        del self._waiting[inbox]
        one.in_doubt = one.in_doubt or one.tries > 0
        if not one.done.done():  # somebody waits for it
            self._put(one)
        self._fill_window()


def _fresh_id() -> str:
    """Return an id that nobody can guess: what is published under a known one is not stored."""
    return next(_IDS)


def _drawn_ids() -> Iterator[str]:
    # Many at once: to ask the kernel costs as much as all else about a header.
    while True:
        drawn = secrets.token_bytes(_ID_BYTES * 256)
        for start in range(0, len(drawn), _ID_BYTES):
            yield drawn[start : start + _ID_BYTES].hex()


_IDS: Final = _drawn_ids()


def _read_ack(subject: str, ack: Msg, *, sent_before: bool) -> Outcome:
    """Return the outcome in `ack`; raises `_NotYet` if it is worth trying again."""
    if not ack.data:
        raise _NotYet("nobody listens on the subject (yet)")
    answer = orjson.loads(ack.data)
    error = answer.get("error")
    if not error:
        if not answer.get("duplicate") or sent_before:
            return Outcome.STORED
        raise _NotYet("taken for another message")
    err_code, description = int(error.get("err_code", 0)), str(error.get("description", ""))
    if err_code in _WRONG_LAST_SEQUENCE or "per subject" in description:
        return Outcome.REFUSED
    if err_code == _STORE_FAILED or err_code in _RESOURCES_EXCEEDED:
        raise Busy(f"{subject}: {description}", retry_after_s=2.0)
    if err_code in _MESSAGE_TOO_LARGE:
        raise MessageTooLarge(f"{subject}: {description}")
    raise _NotYet(f"{description} ({err_code})")
