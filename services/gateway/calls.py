"""A call as handlers see it: who calls, the body as a checked value, the client's presence."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from proto.errors import InvalidRequest, RequestTooLarge
from services.gateway.errors import (
    Json,
    RequestTimedOut,
    UnknownParameter,
    UnsupportedMediaType,
)
from services.gateway.gateway import Limits
from services.gateway.keys import Caller
from services.gateway.sse import until_gone
from services.runtime import tracing
from services.runtime.pull import traceparent_of

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

#: How much of a body that is too large is read, and for how long, before it is refused.
LINGER_BYTES: Final = 8 * 1024**2
LINGER_S: Final = 1.0
#: Floating-point numbers below this are exact integers if they are integers at all.
_EXACT: Final = 2.0**53
#: Where the state of an HTTP request names the request that it means.
REQUEST_ID: Final = "skelgraph_request"


class ClientGone(Exception):
    """The client closed the connection before its answer."""


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request.

    Args:
        http: as the server hands it over.
        caller: who asks.
        limits: what a client may do to this process.
    """

    http: Request
    caller: Caller
    limits: Limits

    @property
    def request(self) -> str:
        """The request id in the path."""
        return str(self.http.path_params["id"])

    @property
    def idempotency_key(self) -> str | None:
        """The `Idempotency-Key` header."""
        return self.http.headers.get("idempotency-key")

    @property
    def trace(self) -> str | None:
        """The caller's W3C Trace Context, if it is one."""
        return traceparent_of(self.http.headers)

    def means(self, request: str) -> None:
        """Note the request that this call means: its answer names it, an error too."""
        setattr(self.http.state, REQUEST_ID, request)
        tracing.current().note(request=request)

    async def json(self) -> Json:
        """Return the body, an object.

        Raises:
            UnsupportedMediaType: it is not sent as JSON. A browser may send other types to
                foreign hosts without asking; JSON it may not.
            RequestTooLarge: it is larger than the limit; the rest is not read.
            RequestTimedOut: it did not come in time.
            InvalidRequest: it is no JSON object.
            ClientGone: the client has gone.
        """
        kind = self.http.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise UnsupportedMediaType(kind)
        try:
            value = orjson.loads(await self._body())
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"the body is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise InvalidRequest("the body is not a JSON object")
        return value

    async def read(self, kind: type[M]) -> M:
        """Return the body as a value; raises what `json` and `checked` raise."""
        return checked(kind, await self.json())

    async def while_there(self, work: Coroutine[object, object, T]) -> T:
        """Return what `work` returns, unless the client goes before; then `work` is cancelled.

        Raises:
            ClientGone: the client has gone.
        """
        working = asyncio.create_task(work, name="answer")
        gone = asyncio.create_task(until_gone(self.http.receive), name="client of an answer")
        try:
            await asyncio.wait([working, gone], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientGone
            return working.result()
        finally:
            for task in (working, gone):
                task.cancel()
            await asyncio.wait([working, gone])

    async def _body(self) -> bytes:
        limit = self.limits.body_bytes
        pieces, body = self.http.stream(), bytearray()
        announced = self.http.headers.get("content-length", "")
        too_large = announced.isdigit() and int(announced) > limit
        try:
            async with asyncio.timeout(self.limits.body_timeout_s):
                while not too_large and (piece := await anext(pieces, b"")):
                    body += piece
                    too_large = len(body) > limit
        except TimeoutError:
            raise RequestTimedOut(f"{self.limits.body_timeout_s:g} s") from None
        except ClientDisconnect:
            raise ClientGone from None
        if too_large:
            if "expect" not in self.http.headers:  # who waits for our word sends nothing
                await _discard(pieces)
            raise RequestTooLarge(f"{announced or 'too many'} bytes, at most {limit} are taken")
        return bytes(body)


async def _discard(pieces: AsyncIterator[bytes]) -> None:
    """Read a little of what is refused: who is cut off while sending may miss the answer."""
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(LINGER_S):
            left = LINGER_BYTES
            async for piece in pieces:
                left -= len(piece)
                if left < 0:
                    return


def checked(kind: type[M], value: Json) -> M:
    """Return `value` as a value of `kind`.

    Raises:
        UnknownParameter: it has a field that `kind` does not know.
        InvalidRequest: a field is not valid; names it.
    """
    try:
        return kind.model_validate_json(orjson.dumps(_with_integers(value)), strict=True)
    except (RecursionError, orjson.JSONEncodeError):
        raise InvalidRequest("it is nested too deeply") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = _field(kind, first["loc"])
    if first["type"] == "extra_forbidden":
        raise UnknownParameter(field=field)
    raise InvalidRequest(first["msg"], field=field)


def _field(kind: type[BaseModel], place: tuple[int | str, ...]) -> str | None:
    """Return the name of a field as clients write it, without the choices of a union."""
    if not place:
        return None
    name, *rest = place
    of_union = isinstance(name, str) and name in getattr(kind, "UNIONS", ())
    return ".".join(map(str, [name] if of_union else [name, *rest]))


def _with_integers(value: object) -> object:
    """Return `value` with 2 in the place of 2.0, which is the same number in JSON."""
    if isinstance(value, dict):
        return {name: _with_integers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_with_integers(one) for one in value]
    whole = isinstance(value, float) and value.is_integer() and abs(value) < _EXACT
    return int(value) if whole and isinstance(value, float) else value


def json_response(
    body: BaseModel | Json, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return a JSON response that nobody may keep."""
    said = body.model_dump(mode="json") if isinstance(body, BaseModel) else body
    return Response(
        orjson.dumps(said),
        status,
        {"Cache-Control": "no-store", **(headers or {})},
        media_type="application/json",
    )
