"""The dead letters: reading them, doing their requests again, removing them.

A letter is removed only after what it is for is stored, and each step may be repeated:
whoever asks twice gets the same answer (ADR 0010).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import structlog
from nats.aio.msg import Msg

from proto.codec import decode, encode
from proto.errors import (
    Busy,
    LetterNotFound,
    MalformedMessage,
    QueueUnavailable,
    RequestGone,
    RequestOpen,
)
from proto.messages import (
    DeadLetter,
    DropLetter,
    LetterDropped,
    LetterPage,
    LetterRequeued,
    LetterShown,
    LetterSummary,
    ListLetters,
    RequestAccepted,
    RequeueLetter,
    ShowLetter,
    SubmitRequest,
)
from proto.names import STREAM_SUBJECTS, Header, Stream, Subjects, requeued_id
from services.assembler.ledger import Ledger
from services.assembler.letter_view import StoredLetter, shown, state_of, summary_of
from services.runtime.clock import epoch
from services.runtime.connection import ApiError, Json
from services.runtime.direct import direct_get
from services.runtime.load import read_load

log = structlog.get_logger()

#: Letters are read in batches of at most this size, whatever they hold.
BATCH_BYTES: Final = 8 * 1024**2
#: Letters that are looked at for one page; a filter may leave fewer of them.
MAX_READ: Final = 2_000
#: Planners refuse no requeued request; so none is submitted to streams that are this full.
FULL_SHARE: Final = 0.9
FULL_RETRY_S: Final = 30.0
#: How long NATS may take to store the new request.
SUBMIT_TIMEOUT_S: Final = 5.0


class Letters:
    """The dead letters of a deployment; any assembler can answer for all of them.

    Args:
        ledger: what an assembler reads and stores with.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._connection = ledger.connection

    async def page(self, ask: ListLetters) -> LetterPage:
        """Return the letters that `ask` wants, as many as fit into one message.

        Raises:
            QueueUnavailable: NATS does not answer.
        """
        page = _Page(ask, self._connection.max_payload_bytes)
        while not page.is_full:
            messages, ending = await direct_get(self._connection, Stream.DEAD, page.query())
            for message in messages:
                page.take(message)
            if not int((ending.headers or {}).get("Nats-Num-Pending", 0)):
                page.at_end = True
                break
        return page.reply()

    async def show(self, ask: ShowLetter) -> LetterShown:
        """Return one letter, and what became of its request.

        Raises:
            LetterNotFound: there is none.
            QueueUnavailable: NATS does not answer.
        """
        stored = await self._read(ask.request, ask.node)
        if stored is None:
            raise LetterNotFound(f"{ask.request}/{ask.node}")
        facts = await self._ledger.events.read(ask.request)
        return shown(stored, [one.fact for one in facts], with_text=ask.text)

    async def requeue(self, ask: RequeueLetter) -> LetterRequeued:
        """Store the letter's request as a new one, then remove all letters of the old one.

        Raises:
            LetterNotFound: there is no such letter, and its request was not requeued.
            RequestOpen: its request may still be answered.
            RequestGone: nothing tells any more what was asked.
            Busy: the queue of requests is full, or another stream nearly so.
            QueueUnavailable: NATS does not answer.
        """
        new = requeued_id(ask.request)
        stored = await self._read(ask.request, ask.node)
        known = await self._is_known(new)
        if stored is None and not known:
            raise LetterNotFound(f"{ask.request}/{ask.node}")
        if stored and not known:
            await self._submit_again(stored, new)
        await self._purge(Subjects.dead_of(ask.request))
        log.info("request_requeued", request=ask.request, requeued_as=new, again=known)
        return LetterRequeued(
            request=ask.request,
            node=ask.node,
            requeued_as=new,
            outcome="already_requeued" if known else "requeued",
        )

    async def drop(self, ask: DropLetter) -> LetterDropped:
        """Remove a letter; that there is none is as good.

        Raises:
            QueueUnavailable: NATS does not answer.
        """
        purged = await self._purge(Subjects.dead(ask.request, ask.node))
        log.info("letter_dropped", request=ask.request, node=ask.node, was_there=bool(purged))
        return LetterDropped(
            request=ask.request, node=ask.node, outcome="dropped" if purged else "unknown"
        )

    async def _submit_again(self, stored: StoredLetter, new: str) -> None:
        request = stored.letter.request
        facts = [one.fact for one in await self._ledger.events.read(request)]
        if state_of(facts)[0] == "open":
            raise RequestOpen(f"{request}: requeue it when it has ended, or cancel it first")
        accepted = next((fact for fact in facts if isinstance(fact, RequestAccepted)), None)
        submitted = stored.letter.submitted or (accepted.submitted if accepted else None)
        if submitted is None:
            raise RequestGone(f"{request}: the letter does not hold it, and its facts are too old")
        await self._check_room()
        again: SubmitRequest = submitted.model_copy(update={"requeued_from": request})
        await self._ledger.publisher.publish(
            Subjects.request(new),
            encode(again),
            headers=stored.trace,
            timeout_s=SUBMIT_TIMEOUT_S,
        )

    async def _check_room(self) -> None:
        load = await read_load(self._connection)
        share = max(load.events_share, load.nodes_share)
        if share >= FULL_SHARE:
            raise Busy(f"the streams are {share:.0%} full", retry_after_s=FULL_RETRY_S)

    async def _is_known(self, request: str) -> bool:
        # The queue before the facts: a planner stores a fact before it leaves the queue.
        queued = await self._ledger.is_queued(request)
        return queued or bool(await self._ledger.events.read(request))

    async def _read(self, request: str, node: int) -> StoredLetter | None:
        query: Json = {"multi_last": [Subjects.dead(request, node)]}
        messages, _ = await direct_get(self._connection, Stream.DEAD, query)
        return _stored(messages[0]) if messages else None

    async def _purge(self, matching: str) -> int:
        try:
            done = await self._connection.api(f"STREAM.PURGE.{Stream.DEAD}", {"filter": matching})
        except ApiError as error:
            raise QueueUnavailable(f"{Stream.DEAD}: {error}") from error
        purged = done.get("purged")
        return purged if isinstance(purged, int) else 0


class _Page:
    """A page as it fills.

    Args:
        ask: what is wanted.
        max_bytes: how large its message may become.
    """

    def __init__(self, ask: ListLetters, max_bytes: int) -> None:
        self._ask = ask
        self._room = max_bytes
        self._found: list[LetterSummary] = []
        self._read = 0
        self._last = ask.after
        self._cut = False
        self.at_end = False

    @property
    def is_full(self) -> bool:
        return self._cut or self._read >= MAX_READ or len(self._found) >= self._ask.limit

    def query(self) -> Json:
        ask = self._ask
        subject = Subjects.dead_of(ask.request) if ask.request else STREAM_SUBJECTS[Stream.DEAD]
        query: Json = {
            "next_by_subj": subject,
            "batch": ask.limit - len(self._found),
            "max_bytes": BATCH_BYTES,
        }
        if ask.since is not None and not self._last:
            # NATS counts in ns, a float cannot: begin a little early, `_wanted` is exact.
            since = datetime.fromtimestamp(max(0.0, ask.since - 0.001), UTC)
            return query | {"start_time": since.isoformat()}
        return query | {"seq": self._last + 1}

    def take(self, message: Msg) -> None:
        """Add the letter in `message` if it is wanted and there is room for it."""
        if self._cut:
            return
        summary = self._wanted(message)
        size = len(encode(summary)) if summary else 0
        if size > self._room:
            self._cut = True
            return
        self._room -= size
        self._read += 1
        self._last = _sequence(message)
        if summary:
            self._found.append(summary)

    def reply(self) -> LetterPage:
        ended = self.at_end and not self._cut
        return LetterPage(letters=tuple(self._found), next=None if ended else self._last)

    def _wanted(self, message: Msg) -> LetterSummary | None:
        try:
            stored = _stored(message)
        except MalformedMessage as error:
            subject = (message.headers or {}).get("Nats-Subject")
            log.warning("letter_unreadable", subject=subject, error=error.message)
            return None
        late = self._ask.since is None or stored.died_at >= self._ask.since
        coded = self._ask.code in (None, stored.letter.error.code)
        return summary_of(stored) if late and coded else None


def _sequence(message: Msg) -> int:
    return int((message.headers or {})["Nats-Sequence"])


def _stored(message: Msg) -> StoredLetter:
    headers = message.headers or {}
    traceparent = headers.get(Header.TRACEPARENT.value)
    return StoredLetter(
        decode(DeadLetter, message.data),
        epoch(headers["Nats-Time-Stamp"]),
        {Header.TRACEPARENT.value: traceparent} if traceparent else {},
    )
