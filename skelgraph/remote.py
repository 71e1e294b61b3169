"""A client of a gateway: asks, follows and cancels over HTTP what `Client` does over NATS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Final

import httpx2
import orjson
import pydantic

from proto.codec import decode_fact, decode_preview
from proto.errors import QueueUnavailable, SkelgraphError, UnknownRequest, all_errors
from proto.messages import CancelOutcome, Preview, SubmitRequest
from proto.names import check_request_id, new_request_id
from services.gateway import errors as http_errors
from services.runtime.client import END_TYPES
from services.runtime.facts import StoredFact

#: Longer than a gateway's longest silence.
READ_TIMEOUT_S: Final = 45.0
#: How long the gateway may be away before following is given up, and how often it is tried.
AWAY_S: Final = 30.0
PAUSE_S: Final = 0.5
#: What a client does not choose.
_NOT_SENT: Final = {"type", "owner"}


class GatewayUnavailable(QueueUnavailable):
    """The gateway does not answer."""

    code = "gateway_unavailable"


@dataclass(slots=True)
class _Event:
    """A server-sent event as its lines come."""

    name: str = ""
    ident: int | None = None
    data: str = ""


class RemoteClient:
    """Speaks to a gateway.

    Args:
        http: a client whose base address is the gateway's.
    """

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    def new_id(self) -> str:
        """Return a fresh request id."""
        return new_request_id()

    async def check(self) -> None:
        """Return if the gateway answers and takes our key.

        Raises:
            GatewayUnavailable: it does not answer.
            SkelgraphError: it refuses.
        """
        await self._call("GET", "/v1/models")

    async def submit(
        self, request: SubmitRequest, request_id: str, *, traceparent: str | None = None
    ) -> str:
        """Submit `request` and return the id that the gateway gave it.

        Args:
            request: what to answer.
            request_id: names this try, so that a repetition asks nothing twice.
            traceparent: W3C Trace Context to pass on.

        Raises:
            GatewayUnavailable: it does not answer.
            SkelgraphError: it refuses.
        """
        headers = {"Idempotency-Key": request_id}
        if traceparent:
            headers["traceparent"] = traceparent
        body = request.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_SENT)
        answer = await self._call("POST", "/v1/requests", json=body, headers=headers)
        return str(answer["id"])

    async def listen(self, request_id: str) -> AsyncGenerator[StoredFact | Preview, None]:
        """Yield the request's facts from the first, and previews, until its end.

        A broken stream is taken up again after the last fact.

        Raises:
            GatewayUnavailable: it was away for too long.
            SkelgraphError: it refuses.
        """
        check_request_id(request_id)
        last_seq, away_since = 0, asyncio.get_running_loop().time()
        while True:
            try:
                async for event in self._events(request_id, last_seq):
                    away_since = asyncio.get_running_loop().time()
                    if one := _read(event):
                        yield one
                    if isinstance(one, StoredFact):
                        last_seq = one.stream_seq
                        if isinstance(one.fact, END_TYPES):
                            return
            except (httpx2.HTTPError, QueueUnavailable) as error:
                if asyncio.get_running_loop().time() - away_since > AWAY_S:
                    raise GatewayUnavailable(f"{self._http.base_url}: {_said(error)}") from None
            await asyncio.sleep(PAUSE_S)

    async def cancel(self, request_id: str, reason: str = "") -> CancelOutcome:
        """Cancel a request; returns once its end is stored. The gateway names the reason."""
        check_request_id(request_id)
        try:
            answer = await self._call("DELETE", f"/v1/requests/{request_id}")
        except UnknownRequest:
            return CancelOutcome(request=request_id, outcome="unknown")
        return CancelOutcome.model_validate(
            {"request": request_id, "outcome": answer.get("outcome")}
        )

    async def state(self, request_id: str) -> None:
        """Return if there is such a request; raises `UnknownRequest`."""
        check_request_id(request_id)
        await self._call("GET", f"/v1/requests/{request_id}")

    async def _events(self, request_id: str, last_seq: int) -> AsyncIterator[_Event]:
        path, headers = f"/v1/requests/{request_id}/events", {"Last-Event-ID": str(last_seq)}
        async with self._http.stream("GET", path, headers=headers) as response:
            if response.status_code >= 400:
                await response.aread()
                raise _error_of(response)
            event = _Event()
            async for line in response.aiter_lines():
                if line:
                    _add(line, event)
                else:
                    yield event
                    event = _Event()

    async def _call(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, object]:
        try:
            response = await self._http.request(method, path, json=json, headers=headers)
        except httpx2.HTTPError as error:
            raise GatewayUnavailable(f"{self._http.base_url}: {_said(error)}") from error
        if response.status_code >= 400:
            raise _error_of(response)
        answer: dict[str, object] = orjson.loads(response.content)
        return answer


@contextlib.asynccontextmanager
async def open_remote(url: str, key: str | None) -> AsyncIterator[RemoteClient]:
    """Reach the gateway at `url`.

    Raises:
        GatewayUnavailable: it does not answer.
        SkelgraphError: it refuses.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    base = url.rstrip("/").removesuffix("/v1")
    timeout = httpx2.Timeout(10.0, read=READ_TIMEOUT_S)
    async with httpx2.AsyncClient(base_url=base, headers=headers, timeout=timeout) as http:
        client = RemoteClient(http)
        await client.check()
        yield client


class _ErrorBody(pydantic.BaseModel):
    code: str
    message: str
    param: str | None = None


class _ErrorAnswer(pydantic.BaseModel):
    error: _ErrorBody


def _add(line: str, event: _Event) -> None:
    field, _, value = line.partition(": ")
    match field:
        case "event":
            event.name = value
        case "id":
            event.ident = int(value)
        case "data":
            event.data = value
        case _:
            pass  # a comment, or a field of no use here


def _read(event: _Event) -> StoredFact | Preview | None:
    data = event.data.encode()
    if not data:
        return None
    if event.ident is None:
        return decode_preview(data)
    return StoredFact(decode_fact(data), event.ident, float(orjson.loads(data)["stored_at"]))


def _error_of(response: httpx2.Response) -> SkelgraphError:
    try:
        info = _ErrorAnswer.model_validate_json(response.content).error
    except pydantic.ValidationError:
        said = f"{response.url} answers {response.status_code}"
        if response.status_code >= 502:  # a proxy whose gateway is away
            return GatewayUnavailable(said)
        return SkelgraphError(f"{said}: no gateway?")
    wait = response.headers.get("retry-after", "")
    kind = _known().get(info.code, SkelgraphError)
    detail = info.message.partition(": ")[2]
    return kind(detail, field=info.param, retry_after_s=float(wait) if wait.isdigit() else None)


def _known() -> dict[str, type[SkelgraphError]]:
    own = [kind for kind in vars(http_errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in own if issubclass(kind, SkelgraphError)]
    return {kind.code: kind for kind in kinds} | all_errors()


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
