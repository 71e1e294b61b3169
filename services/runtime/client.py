"""A client of the services: ask, follow, cancel, look; NATS is all that it needs.

What is yielded while following is the whole truth in order (the facts, replayed from the
first) mixed with previews (tokens as they come, which may be lost or late).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import nats.errors
import orjson
import structlog
from nats.aio.msg import Msg

from proto.codec import MAX_REQUEST_BYTES, decode, decode_preview, decode_request, encode
from proto.errors import (
    Busy,
    InvalidRequest,
    MalformedMessage,
    NotConfirmed,
    NotProvisioned,
    QueueUnavailable,
    RequestTooLarge,
    SkelgraphError,
    UnknownRequest,
    all_errors,
)
from proto.messages import (
    AnswerAssembled,
    CancelOutcome,
    CancelRequest,
    ErrorInfo,
    Fact,
    Preview,
    RequestAccepted,
    RequestFailed,
    SkeletonDrafted,
    SubmitRequest,
)
from proto.names import Header, Stream, Subjects, check_request_id, new_request_id
from services.runtime import tracing
from services.runtime.connection import ApiError, Connection
from services.runtime.direct import get_last
from services.runtime.fact_reader import FactReader
from services.runtime.facts import EventLog, StoredFact
from services.runtime.publisher import DurablePublisher, Outcome
from services.runtime.trace_ids import own_traceparent

log = structlog.get_logger()

#: How long NATS may take to store a request.
SUBMIT_TIMEOUT_S: Final = 10.0
BUSY_RETRY_S: Final = 30.0
#: How long an assembler may take to store a cancel; then another one is asked.
CANCEL_TIMEOUT_S: Final = 0.75
CANCEL_TRIES: Final = 12
#: Previews that may wait for a slow reader; further ones are dropped, as previews may be.
MAX_WAITING: Final = 10_000

END_TYPES: Final = (AnswerAssembled, SkeletonDrafted, RequestFailed)
Ending = AnswerAssembled | SkeletonDrafted | RequestFailed


@dataclass(frozen=True, slots=True)
class RequestState:
    """What is stored about a request now.

    Args:
        request: its id.
        facts: its facts, in the order in which they were stored.
        queued: whether it is with a planner, or waits for one.
    """

    request: str
    facts: tuple[StoredFact, ...]
    queued: bool

    @property
    def end(self) -> Ending | None:
        """How it ended, if it has. Facts of work that was under way may follow its end."""
        return next((one.fact for one in self.facts if isinstance(one.fact, END_TYPES)), None)

    @property
    def last_seq(self) -> int:
        """Position of its end, or of its last fact; 0 if there is none."""
        ends = [one for one in self.facts if isinstance(one.fact, END_TYPES)]
        return (ends or self.facts)[-1].stream_seq if self.facts else 0


def make_request(**fields: object) -> SubmitRequest:
    """Return a request made of untrusted `fields`, checked as the services check it.

    Raises:
        RequestTooLarge: the question is larger than the limit.
        InvalidRequest: a field is not valid; names it.
    """
    question = fields.get("question")
    if isinstance(question, str) and not question.strip():
        raise InvalidRequest("it is empty", field="question")
    try:
        data = orjson.dumps(fields)
    except TypeError:  # a lone surrogate: bytes of the command line that are no UTF-8
        raise InvalidRequest("it is not valid UTF-8", field="question") from None
    _check_size(data)
    return decode(SubmitRequest, data)


class Client:
    """Speaks to the services over an open connection.

    Args:
        connection: an open connection.
        publisher: an open publisher on it.
    """

    def __init__(self, connection: Connection, publisher: DurablePublisher) -> None:
        self.connection = connection
        self._publisher = publisher
        # Its reads go by wildcard, so the number of partitions is of no matter here.
        self._events = EventLog(connection, publisher, partitions=1)

    def new_id(self) -> str:
        """Return a fresh request id."""
        return new_request_id()

    def check_id(self, request_id: str) -> str:
        """Return `request_id` if requests may be asked and looked for under it.

        Raises:
            InvalidRequest: it may not stand in a subject.
        """
        return check_request_id(request_id)

    async def check(self) -> None:
        """Return if requests can be taken.

        Raises:
            NotProvisioned: the streams are missing.
            QueueUnavailable: NATS does not answer.
        """
        for stream in (Stream.REQUESTS, Stream.EVENTS):
            try:
                await self.connection.api(f"STREAM.INFO.{stream}")
            except ApiError as error:
                raise NotProvisioned(str(error)) from error

    async def submit(
        self,
        request: SubmitRequest,
        request_id: str,
        *,
        traceparent: str | None = None,
        timeout_s: float = SUBMIT_TIMEOUT_S,
    ) -> str:
        """Store `request` for a planner, and return its id; see `store`."""
        await self.store(request, request_id, traceparent=traceparent, timeout_s=timeout_s)
        return request_id

    async def store(
        self,
        request: SubmitRequest,
        request_id: str,
        *,
        traceparent: str | None = None,
        timeout_s: float = SUBMIT_TIMEOUT_S,
    ) -> bool:
        """Store `request` for a planner; return whether it is new.

        Once more under an id that is queued changes nothing.

        Raises:
            InvalidRequest: `request_id` may not stand in a subject.
            RequestTooLarge: nothing was sent.
            Busy: the queue is full, or NATS does not store; says when to try again.
            NotConfirmed: NATS does not say whether it is stored; ask again under the same id.
        """
        self.check_id(request_id)
        data = encode(request)
        _check_size(data)
        given = tracing.traceparent() or traceparent
        headers = {Header.TRACEPARENT.value: given or own_traceparent(request_id)}
        with tracing.submitting(request_id, headers):
            try:
                outcome = await self._publisher.publish(
                    Subjects.request(request_id), data, headers=headers, timeout_s=timeout_s
                )
            except NotConfirmed as error:
                outcome = await self._found(request_id, error)
        new = outcome is Outcome.STORED
        log.info("request_submitted", request=request_id, new=new)
        return new

    async def _found(self, request_id: str, error: NotConfirmed) -> Outcome:
        """Look whether a request is stored although NATS did not say so."""
        if not self.connection.is_connected:
            raise error
        if await self._is_queued(request_id) or await self._events.knows(request_id):
            return Outcome.STORED
        said = "NATS is there and does not store: is its disk full?"
        raise Busy(said, retry_after_s=BUSY_RETRY_S) from error

    async def follow(self, request_id: str) -> AsyncGenerator[Fact | Preview, None]:
        """Yield the request's facts from the first, and previews, until its end.

        Raises:
            InvalidRequest: `request_id` may not stand in a subject.
            NotProvisioned: there is no event log.
        """
        async with aclosing(self.listen(request_id)) as heard:
            async for one in heard:
                yield one.fact if isinstance(one, StoredFact) else one

    async def listen(self, request_id: str) -> AsyncGenerator[StoredFact | Preview, None]:
        """Do what `follow` does, with the time at which each fact was stored."""
        self.check_id(request_id)
        inbox: asyncio.Queue[StoredFact | Preview | None] = asyncio.Queue()
        async with (
            self._previews(request_id, inbox),
            self._facts(request_id, inbox) as reading,
        ):
            while (one := await inbox.get()) is not None:
                yield one
                if isinstance(one, StoredFact) and isinstance(one.fact, END_TYPES):
                    return
            reading.result()  # the reader has died: say of what

    async def end_of(self, request_id: str) -> Ending:
        """Return how a request ends, once it does; cheaper than to follow it.

        Raises:
            InvalidRequest: `request_id` may not stand in a subject.
            NotProvisioned: there is no event log.
        """
        self.check_id(request_id)
        inbox: asyncio.Queue[StoredFact | Preview | None] = asyncio.Queue()
        async with self._facts(request_id, inbox) as reading:
            while isinstance(one := await inbox.get(), StoredFact):
                if isinstance(one.fact, END_TYPES):
                    return one.fact
            reading.result()
            raise QueueUnavailable("the event log was left before the request ended")

    async def cancel(self, request_id: str, reason: str = "") -> CancelOutcome:
        """Cancel a request; returns once its end is stored. To ask twice is as good as once.

        Raises:
            InvalidRequest: the id or the reason is not valid.
            QueueUnavailable: no assembler is running, or it did not answer in time.
        """
        self.check_id(request_id)
        command = encode(CancelRequest(reason=reason))
        subject = Subjects.cancel(request_id)
        reply = await self._asked(subject, command)
        if orjson.loads(reply.data).get("type") != "CancelOutcome":
            raise error_of(decode(ErrorInfo, reply.data))
        return decode(CancelOutcome, reply.data)

    async def _asked(self, subject: str, command: bytes) -> Msg:
        for _ in range(CANCEL_TRIES):
            try:
                return await self.connection.request(subject, command, timeout_s=CANCEL_TIMEOUT_S)
            except nats.errors.NoRespondersError:
                raise QueueUnavailable("no assembler is running") from None
            except (nats.errors.Error, TimeoutError):
                log.info("asked_again", subject=subject)  # the one that was asked may be frozen
        limit_s = CANCEL_TRIES * CANCEL_TIMEOUT_S
        raise QueueUnavailable(f"no assembler answered in {limit_s:g} s")

    async def state(self, request_id: str) -> RequestState:
        """Return what is stored about a request now.

        Raises:
            UnknownRequest: there is no such request, or its facts are too old to be kept.
            QueueUnavailable: NATS does not answer.
            NotProvisioned: the streams are missing.
        """
        self.check_id(request_id)
        # First the queue: a planner stores facts before it takes a request out of the queue.
        queued = await self._is_queued(request_id)
        facts = tuple(await self._events.read(request_id))
        if not facts and not queued:
            raise UnknownRequest(f"{request_id} was never asked, or so long ago that it is gone")
        return RequestState(request_id, facts, queued)

    async def find(self, request_id: str) -> tuple[RequestState, SubmitRequest | None]:
        """Return what is stored about a request now, and how it was asked for.

        The latter is None of a request that was refused before a planner took it up.

        Raises:
            UnknownRequest: there is no such request, or its facts are too old to be kept.
            InvalidRequest: the id is not valid, or what is queued under it is no valid request.
            QueueUnavailable: NATS does not answer.
        """
        for _ in range(2):  # between the two reads a planner may take it out of the queue
            state = await self.state(request_id)
            submitted = _accepted(state) or await self.queued_request(request_id)
            if submitted is not None:
                break
        return state, submitted

    async def queued_request(self, request_id: str) -> SubmitRequest | None:
        """Return a request that waits for a planner or is with one; None if there is none.

        Raises:
            QueueUnavailable: NATS does not answer.
            InvalidRequest: what is stored there is no valid request.
        """
        reply = await get_last(self.connection, Stream.REQUESTS, Subjects.request(request_id))
        return decode_request(request_id, reply.data) if reply else None

    async def _is_queued(self, request_id: str) -> bool:
        only = {"subjects_filter": Subjects.request(request_id)}
        try:
            info = await self.connection.api(f"STREAM.INFO.{Stream.REQUESTS}", dict(only))
        except ApiError as error:
            raise NotProvisioned(str(error)) from error
        state = info.get("state")
        return bool(isinstance(state, dict) and state.get("subjects"))

    @contextlib.asynccontextmanager
    async def _previews(
        self, request_id: str, inbox: asyncio.Queue[StoredFact | Preview | None]
    ) -> AsyncIterator[None]:
        async def heard(message: Msg) -> None:
            if inbox.qsize() >= MAX_WAITING:
                return
            try:
                inbox.put_nowait(decode_preview(message.data))
            except MalformedMessage as error:
                log.warning("preview_unreadable", request=request_id, error=error.message)

        subscription = await self.connection.subscribe(Subjects.live_of(request_id), heard)
        try:
            yield
        finally:
            with contextlib.suppress(nats.errors.Error):  # the connection may be gone
                await subscription.unsubscribe()

    @contextlib.asynccontextmanager
    async def _facts(
        self, request_id: str, inbox: asyncio.Queue[StoredFact | Preview | None]
    ) -> AsyncIterator[asyncio.Task[None]]:
        reader = FactReader(self.connection, self._events, request_id, inbox.put_nowait)
        reading = asyncio.create_task(reader.run(), name=f"facts of {request_id}")
        reading.add_done_callback(lambda _: inbox.put_nowait(None))
        try:
            yield reading
        finally:
            reading.cancel()
            await asyncio.wait([reading])


def _accepted(state: RequestState) -> SubmitRequest | None:
    facts = (stored.fact for stored in state.facts)
    return next((fact.submitted for fact in facts if isinstance(fact, RequestAccepted)), None)


def error_of(info: ErrorInfo) -> SkelgraphError:
    """Return the error that `info` describes; one of an unknown code is `internal`."""
    kind = all_errors().get(info.code, SkelgraphError)
    detail = info.message.partition(": ")[2]
    return kind(detail, field=info.field, retry_after_s=info.retry_after_s)


def _check_size(data: bytes) -> None:
    if len(data) > MAX_REQUEST_BYTES:
        said = f"the request has {len(data)} bytes, at most {MAX_REQUEST_BYTES} are taken"
        raise RequestTooLarge(said, field="question")
