"""The event log: facts are written once, read back whole, and never change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson
import structlog
from nats.aio.msg import Msg

from proto.codec import decode_fact, encode
from proto.errors import Busy, MalformedMessage, NotProvisioned, QueueUnavailable
from proto.messages import (
    AnswerAssembled,
    Fact,
    NodeDecoded,
    NodeFailed,
    NodePlanned,
    PlanCompleted,
    RequestAccepted,
    RequestFailed,
    SkeletonDrafted,
)
from proto.names import Stream, Subjects
from services.runtime.clock import epoch
from services.runtime.cloud_events import attributes
from services.runtime.connection import STREAM_NOT_FOUND, ApiError, Connection, Json
from services.runtime.direct import direct_get, get_last
from services.runtime.publisher import DurablePublisher, Outcome

log = structlog.get_logger()

READ_TRIES: Final = 6
#: Pause before a replica that lags behind is asked again, doubled each time.
READ_PAUSE_S: Final = 0.02
#: Pause before a fact is offered again to a full log.
FULL_PAUSE_S: Final = 1.0
FULL_SAY_EVERY: Final = 30


@dataclass(frozen=True, slots=True)
class StoredFact:
    """A fact as it stands in the log."""

    fact: Fact
    stream_seq: int
    #: When NATS stored it, in seconds since the epoch.
    stored_at: float
    headers: Mapping[str, str] = field(default_factory=dict)


def subject_of(fact: Fact, subjects: Subjects) -> str:
    """Return the one subject under which `fact` is stored."""
    match fact:
        case RequestAccepted():
            return subjects.accepted(fact.request)
        case NodePlanned():
            return subjects.planned(fact.request, fact.node.id)
        case PlanCompleted():
            return subjects.plan(fact.request)
        case NodeDecoded():
            return subjects.decoded(fact.request, fact.node)
        case NodeFailed():
            return subjects.failed(fact.request, fact.node, fact.attempt)
        case AnswerAssembled() | SkeletonDrafted() | RequestFailed():
            return subjects.end(fact.request)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A message of the event log.

    Args:
        subject: under which it is stored.
        data: the body.
        headers: its headers, with what the server says of it.
        stream_seq: its position.
        stored_at: when it was stored, in seconds since the epoch.
    """

    subject: str
    data: bytes
    headers: dict[str, str]
    stream_seq: int
    stored_at: float


#: A fact's place among those of its request is the same however many partitions there are.
_PLACES: Final = Subjects(1)


def fact_at(subject: str, data: bytes) -> Fact:
    """Return the fact that `data` is, stored or said under `subject`.

    NATS checks who may write under which subject; what the body says of itself counts only as
    far as it is the same.

    Raises:
        MalformedMessage: it is no fact, or one whose place is another subject.
    """
    fact = decode_fact(data)
    if _place(subject) != _place(subject_of(fact, _PLACES)):
        raise MalformedMessage(f"{subject} holds another fact: of {fact.request!r}")
    return fact


def _place(subject: str) -> str:
    return subject.split(".", 4)[-1]


class EventLog:
    """Appends facts, the first one winning, and reads those of a request.

    Args:
        connection: an open connection.
        publisher: an open publisher.
        partitions: how many partitions the log has.
        cloud_events: whether facts carry the attributes of CloudEvents in headers.
    """

    def __init__(
        self,
        connection: Connection,
        publisher: DurablePublisher,
        partitions: int,
        *,
        cloud_events: bool = False,
    ) -> None:
        self.subjects = Subjects(partitions)
        self._connection = connection
        self._publisher = publisher
        self._cloud_events = cloud_events

    async def append(self, fact: Fact, *, headers: Mapping[str, str] | None = None) -> bool:
        """Store `fact`; return whether it was the first of its subject. Repeats until stored.

        A full log keeps its writers waiting: what they hold is not lost, and new requests
        pile up in their queue until that says `busy`.

        Raises:
            MessageTooLarge: the fact is larger than NATS takes.
        """
        subject, data = subject_of(fact, self.subjects), encode(fact)
        if self._cloud_events:
            headers = {**(headers or {}), **attributes(fact, subject, time.time())}
        tries = 0
        while True:
            try:
                outcome = await self._publisher.publish(subject, data, headers=headers, first=True)
            except Busy as error:
                if tries % FULL_SAY_EVERY == 0:
                    log.error("event_log_full", subject=subject, error=error.message)  # noqa: TRY400
                tries += 1
                await asyncio.sleep(FULL_PAUSE_S)
            else:
                return outcome is Outcome.STORED

    async def has_ended(self, request: str) -> bool:
        """Return whether the end of `request` is stored.

        Raises:
            QueueUnavailable: NATS does not answer.
        """
        return await self.read_end(request) is not None

    async def read_end(self, request: str) -> bytes | None:
        """Return the end of `request` as it is stored, or None; what is of another is none.

        Raises:
            QueueUnavailable: NATS does not answer.
        """
        subject = self.subjects.end(request)
        reply = await get_last(self._connection, Stream.EVENTS, subject)
        if reply is None:
            return None
        if _request_in(reply.data) != request:
            log.error("end_of_another", subject=subject)
            return None
        return reply.data

    async def knows(self, request: str) -> bool:
        """Return whether any fact of `request` is stored. The stream's leader answers, so that
        a no is one also where replicas lag.

        Raises:
            QueueUnavailable: NATS does not answer.
        """
        only: Json = {"subjects_filter": self.subjects.facts_of(request)}
        state = (await self._info(only)).get("state")
        return bool(isinstance(state, dict) and state.get("subjects"))

    async def last_of(self, request: str) -> int:
        """Return the position of the last fact of `request`, 0 without one.

        Raises:
            QueueUnavailable: NATS does not answer.
        """
        last = await get_last(self._connection, Stream.EVENTS, self.subjects.facts_of(request))
        return seq_of(last) if last else 0

    async def check(self) -> None:
        """Return if the log is there, or nobody knows.

        Raises:
            NotProvisioned: it is not.
        """
        try:
            await self._connection.api(f"STREAM.INFO.{Stream.EVENTS}")
        except ApiError as error:
            if error.err_code == STREAM_NOT_FOUND:
                raise NotProvisioned(str(error)) from error
        except QueueUnavailable:
            pass

    async def last_seq(self) -> int:
        """Return the position of the log's last fact, as its leader knows it.

        Raises:
            QueueUnavailable: NATS does not answer.
        """
        state = (await self._info({})).get("state")
        return int(state["last_seq"]) if isinstance(state, dict) else 0

    async def _info(self, query: Json) -> Json:
        try:
            return await self._connection.api(f"STREAM.INFO.{Stream.EVENTS}", query)
        except ApiError as error:
            raise QueueUnavailable(f"{Stream.EVENTS}: {error}") from error

    async def read(self, request: str, *, up_to_seq: int = 0) -> list[StoredFact]:
        """Return all facts of `request` in the order in which they were stored.

        Args:
            request: the request's id.
            up_to_seq: position in the stream that the read must include; a replica that
                lags behind it is asked again.

        Raises:
            QueueUnavailable: no complete answer.
        """
        for tries in range(READ_TRIES):
            query: Json = {"multi_last": [self.subjects.facts_of(request)]}
            messages, ending = await direct_get(self._connection, Stream.EVENTS, query)
            if _reached(ending) >= up_to_seq:
                facts = [stored for message in messages if (stored := stored_fact(message))]
                return sorted(facts, key=lambda stored: stored.stream_seq)
            if not messages and not await self.knows(request):
                return []  # a replica without anything of it does not say how far it is
            await asyncio.sleep(READ_PAUSE_S * 2**tries)
        raise QueueUnavailable(f"{Stream.EVENTS}: replicas lag behind message {up_to_seq}")


def _reached(end_of_batch: Msg) -> int:
    # 404, nothing of the request is there, does not say how far the replica is.
    return int((end_of_batch.headers or {}).get("Nats-UpTo-Sequence", 0))


def _request_in(end: bytes) -> object:
    """Return which request's end it says to be; without the price of decoding a whole answer."""
    try:
        said = orjson.loads(end)
    except orjson.JSONDecodeError:
        return None
    return said.get("request") if isinstance(said, dict) else None


def seq_of(message: Msg) -> int:
    """Return the position of a message of the log that was read, or said as it was stored."""
    return int((message.headers or {})["Nats-Sequence"])


def entry_of(message: Msg) -> LogEntry:
    """Return a message of the log that was read, or said as it was stored."""
    headers = message.headers or {}
    return LogEntry(
        headers["Nats-Subject"],
        message.data,
        headers,
        seq_of(message),
        epoch(headers["Nats-Time-Stamp"]),
    )


def fact_of(entry: LogEntry) -> StoredFact | None:
    """Return the fact; None for one that cannot be read, of a newer version perhaps."""
    try:
        fact = fact_at(entry.subject, entry.data)
    except MalformedMessage as error:
        log.warning("fact_unreadable", subject=entry.subject, error=error.message)
        return None
    return StoredFact(fact, entry.stream_seq, entry.stored_at, entry.headers)


def stored_fact(message: Msg) -> StoredFact | None:
    """Return the fact that `message` is, as `fact_of`."""
    return fact_of(entry_of(message))
