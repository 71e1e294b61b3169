"""Commands of callers that follow no facts: take a request, wait for its end, reply with it.

Whose a request is comes from the subject, where NATS has put it (`names.of_tenant`); what is
somebody else's is unknown. Nothing tells that a caller has gone, so a wait has its limit, and the
request goes on to its own deadline.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from nats.aio.msg import Msg

from proto.codec import decode, encode
from proto.errors import Busy, InvalidRequest, RequestIdTaken, UnknownRequest
from proto.messages import (
    AnswerPending,
    AskQuestion,
    AwaitAnswer,
    CreateRequest,
    Question,
    RequestCreated,
    SubmitRequest,
)
from proto.names import (
    check_request_id,
    in_tenant,
    new_request_id,
    request_of,
    split_tenant,
    tenant_of,
)
from services.runtime import metrics
from services.runtime.client import Client
from services.runtime.ends import Ends
from services.runtime.pull import traceparent_of
from services.runtime.room import FULL_RETRY_S, Room


class Asking:
    """Answers `CreateRequest`, `AskQuestion` and `AwaitAnswer`, whatever partition they concern.

    Args:
        client: submits and reads.
        ends: waits.
        most_waiting: callers that may wait at once; further ones are told `busy`, and so is a
            tenant that would leave no room to others.
    """

    def __init__(self, client: Client, ends: Ends, most_waiting: int) -> None:
        self._client = client
        self._ends = ends
        self._room = Room(most_waiting)

    async def submit(self, message: Msg) -> bytes:
        """Store a request and return the reply."""
        command = decode(CreateRequest, message.data)
        request, new = await self._taken(message, command, command.request)
        return encode(RequestCreated(request=request, outcome="created" if new else "known"))

    async def answer(self, message: Msg) -> bytes:
        """Store a request and return its end, or that it is pending."""
        with self._place(message):
            command = decode(AskQuestion, message.data)
            request, _ = await self._taken(message, command, command.request)
            return await self._end(request, command.wait_s)

    async def await_answer(self, message: Msg) -> bytes:
        """Return the end of a stored request, or that it is pending."""
        with self._place(message):
            owner, subject = split_tenant(message.subject)
            request = check_request_id(request_of(subject))
            command = decode(AwaitAnswer, message.data or b"{}")
            _, submitted = await self._client.find(request)
            # An end without a beginning is a refusal: it holds nothing of the request.
            if submitted and submitted.owner != owner:
                raise UnknownRequest(request)
            return await self._end(request, command.wait_s)

    async def _taken(
        self, message: Msg, command: Question, request: str | None
    ) -> tuple[str, bool]:
        """Store the request that `command` asks for; return its id and whether it is new."""
        owner, _ = split_tenant(message.subject)
        submitted = _submitted(command, owner)
        if request is None:
            request = new_request_id(owner)
        elif owner and tenant_of(request) != owner:
            begin = in_tenant(owner, "")
            raise InvalidRequest(f"ids of your requests begin with {begin!r}", field="request")
        elif await self._is_known(request, submitted):
            return request, False
        trace = traceparent_of(message.headers or {})
        new = await self._client.store(submitted, request, traceparent=trace)
        if not new:  # somebody has stored one under this id meanwhile
            await self._is_known(request, submitted)
        return request, new

    async def _is_known(self, request: str, submitted: SubmitRequest) -> bool:
        """Return whether `submitted` is stored under this id; raise if something else is."""
        try:
            _, known = await self._client.find(request)
        except UnknownRequest:
            return False
        except InvalidRequest:
            raise RequestIdTaken(request, field="request") from None
        if known and known != submitted:
            raise RequestIdTaken(request, field="request")
        return True

    async def _end(self, request: str, wait_s: float) -> bytes:
        end = await self._ends.wait(request, wait_s)
        return end or encode(AnswerPending(request=request))

    @contextlib.contextmanager
    def _place(self, message: Msg) -> Iterator[None]:
        owner, _ = split_tenant(message.subject)
        if not self._room.take(owner):
            raise Busy(f"{self._room.taken} callers wait here", retry_after_s=FULL_RETRY_S)
        metrics.IN_FLIGHT.labels("waiting_caller").set(self._room.taken)
        try:
            yield
        finally:
            self._room.leave(owner)
            metrics.IN_FLIGHT.labels("waiting_caller").set(self._room.taken)


def _submitted(command: Question, owner: str) -> SubmitRequest:
    asked = {name: getattr(command, name) for name in Question.model_fields if name != "type"}
    return SubmitRequest(**asked, owner=owner)
