"""A call as handlers see it: who calls, the body as a checked value, the client's presence."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
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

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")


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
        given = self.http.headers.get("traceparent", "")
        return given if _TRACEPARENT.match(given) else None

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
        announced = self.http.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            raise RequestTooLarge(f"{announced} bytes, at most {limit} are taken")
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_timeout_s):
                async for piece in self.http.stream():
                    body += piece
                    if len(body) > limit:
                        raise RequestTooLarge(f"more than {limit} bytes")
        except TimeoutError:
            raise RequestTimedOut(f"{self.limits.body_timeout_s:g} s") from None
        except ClientDisconnect:
            raise ClientGone from None
        return bytes(body)


def checked(kind: type[M], value: Json) -> M:
    """Return `value` as a value of `kind`.

    Raises:
        UnknownParameter: it has a field that `kind` does not know.
        InvalidRequest: a field is not valid; names it.
    """
    try:
        return kind.model_validate_json(orjson.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or None
    if first["type"] == "extra_forbidden":
        raise UnknownParameter(field=field)
    raise InvalidRequest(first["msg"], field=field)


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
