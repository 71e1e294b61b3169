"""Skelgraph's own API: submit, look, follow, cancel, draft a skeleton."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack
from typing import Final

import orjson
import structlog
from starlette.responses import Response

from proto.errors import InvalidRequest, MalformedMessage, SkelgraphError, UnknownRequest
from proto.messages import RequestFailed, SkeletonDrafted
from services.gateway import request_view, sse
from services.gateway.accounts import MAX_RECENT
from services.gateway.bodies import (
    MAX_NUMBER,
    AskedRequest,
    Cancelled,
    NewRequest,
    NewSkeleton,
    RequestList,
    RequestRef,
)
from services.gateway.calls import Call, json_response
from services.gateway.errors import TooManyStreams
from services.gateway.following import Following
from services.gateway.gateway import Claim, Gateway
from services.runtime.client import END_TYPES, Ending, error_of
from services.runtime.facts import StoredFact

log = structlog.get_logger()

#: How soon a browser asks again after a broken stream.
RETRY_MS: Final = 1000
_DEFAULT_RECENT: Final = 20
_CAMEL: Final = re.compile(r"(?<!^)(?=[A-Z])")


def event_name(message_type: str) -> str:
    """Return the name of the event for a message type: `NodePlanned` → `node_planned`."""
    return _CAMEL.sub("_", message_type).lower()


class RequestsApi:
    """The handlers; each takes a call and returns a response.

    Args:
        gateway: requests over the queue.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._streams: Counter[str] = Counter()  # open ones by owner

    async def submit(self, call: Call) -> Response:
        """Take a request up and answer at once."""
        submitted = (await call.read(NewRequest)).submitted(call.caller.owner)
        claim = await self._gateway.claim(call.caller, submitted, call.idempotency_key)
        call.means(claim.request)
        await self._gateway.submit(claim, submitted, call.trace)
        location = {"Location": f"/v1/requests/{claim.request}", "X-Request-Id": claim.request}
        return json_response(RequestRef(id=claim.request), 202, location)

    async def show(self, call: Call) -> Response:
        """Answer with a request as it stands."""
        found = await self._gateway.find(call.caller, call.request)
        view = request_view.view(found.state, found.submitted)
        return json_response(view)

    async def recent(self, call: Call) -> Response:
        """Answer with the last requests of the caller."""
        limit = _number(call, "limit", _DEFAULT_RECENT, least=1)
        asked = self._gateway.accounts.recent(call.caller.owner, min(limit, MAX_RECENT))
        data = (
            AskedRequest(
                id=one.request,
                question=one.question,
                asked_mode=one.asked_mode,
                submitted_at=one.submitted_at,
                ended_at=one.ended_at,
                state=one.state,
            )
            for one in asked
        )
        return json_response(RequestList(data=tuple(data)))

    async def cancel(self, call: Call) -> Response:
        """Cancel a request; answer when its end is stored."""
        outcome = await self._gateway.cancel(call.caller, call.request, "by HTTP")
        if outcome.outcome == "unknown":
            raise UnknownRequest(call.request)
        return json_response(Cancelled(id=call.request, outcome=outcome.outcome))

    async def events(self, call: Call) -> Response:
        """Answer with the events of a request, from the first one or after the one named."""
        after = _resumed_after(call)
        previews = _flag(call, "previews", default=True)
        found = await self._gateway.find(call.caller, call.request)
        if found.state.end and after >= found.state.last_seq:
            return Response(status_code=204)
        pieces = self._events(call.request, after, previews=previews)
        stack = AsyncExitStack()
        stack.enter_context(self._counted(call))
        return sse.EventStream(pieces, stack=stack, write_timeout_s=call.limits.write_timeout_s)

    @contextlib.contextmanager
    def _counted(self, call: Call) -> Iterator[None]:
        owner, limit = call.caller.owner, call.limits.streams
        if owner and self._streams[owner] >= limit:
            raise TooManyStreams(f"{limit}")
        self._streams[owner] += 1
        try:
            yield
        finally:
            self._streams[owner] -= 1
            if not self._streams[owner]:
                del self._streams[owner]

    async def skeleton(self, call: Call) -> Response:
        """Draft a skeleton and answer with it; who leaves before cancels it."""
        submitted = (await call.read(NewSkeleton)).submitted(call.caller.owner)
        claim = await self._gateway.claim(call.caller, submitted, call.idempotency_key)
        call.means(claim.request)
        async with AsyncExitStack() as stack:
            following: Following[bytes] = await stack.enter_async_context(
                self._gateway.follower.follow(claim.request, None, new=claim.new)
            )
            await self._gateway.submit(claim, submitted, call.trace)
            end = await self._end_of(call, claim, following)
        if isinstance(end, SkeletonDrafted):
            return json_response(end, headers={"X-Request-Id": claim.request})
        raise error_of(end.error) if isinstance(end, RequestFailed) else SkelgraphError(end.type)

    async def _end_of(self, call: Call, claim: Claim, following: Following[bytes]) -> Ending:
        done = False
        try:
            end = await call.while_there(end_of(following))
            done = True
            return end
        finally:
            if not done:
                self._gateway.cancel_soon(claim.request, "the client has gone")

    async def _events(
        self, request: str, after: int, *, previews: bool
    ) -> AsyncGenerator[bytes, None]:
        yield b"retry: %d\n\n" % RETRY_MS
        follow = self._gateway.follower.follow(
            request, _preview_event if previews else None, after_seq=after, resumable=True
        )
        try:
            async with follow as following:
                ended = False
                while not ended:
                    taken = await following.take(self._gateway.limits.keep_alive_s)
                    yield b"".join(map(_as_event, taken)) or sse.KEEP_ALIVE
                    ended = _holds_end(taken)
        except SkelgraphError as error:  # the client asks again, perhaps another gateway
            log.info("events_broken_off", request=request, code=error.code)


async def end_of(following: Following[bytes]) -> Ending:
    """Return how a request ends.

    Raises:
        ShuttingDown: this process ends before.
    """
    while True:
        for one in await following.take(60.0):
            if isinstance(one, StoredFact) and isinstance(one.fact, END_TYPES):
                return one.fact


def _holds_end(taken: list[StoredFact | bytes]) -> bool:
    return any(isinstance(one, StoredFact) and isinstance(one.fact, END_TYPES) for one in taken)


def _as_event(one: StoredFact | bytes) -> bytes:
    if isinstance(one, bytes):
        return one
    data = orjson.dumps({**one.fact.model_dump(mode="json"), "stored_at": one.stored_at})
    return sse.event(data, name=event_name(one.fact.type), ident=one.stream_seq)


def _preview_event(data: bytes) -> bytes:
    """Return the event of a preview, whose bytes go through as they came."""
    try:
        kind = orjson.loads(data)["type"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise MalformedMessage(str(error)) from None
    return sse.event(data.replace(b"\n", b" "), name=event_name(str(kind)))


def _flag(call: Call, name: str, *, default: bool) -> bool:
    text = call.http.query_params.get(name)
    if text not in {None, "true", "false"}:
        raise InvalidRequest("it is neither `true` nor `false`", field=name)
    return default if text is None else text == "true"


def _resumed_after(call: Call) -> int:
    asked = _number(call, "after", 0)
    header = call.http.headers.get("last-event-id")
    return _checked_number("Last-Event-ID", header, least=0) if header else asked


def _number(call: Call, name: str, default: int, *, least: int = 0) -> int:
    text = call.http.query_params.get(name)
    return default if text is None else _checked_number(name, text, least=least)


def _checked_number(name: str, text: str, *, least: int) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_NUMBER))
    if not digits or not least <= int(text) <= MAX_NUMBER:
        raise InvalidRequest(f"it is not a number from {least} to {MAX_NUMBER}", field=name)
    return int(text)
