"""How huggingface_hub gets its connections to an engine.

huggingface_hub keeps a stream's connection until its client is closed, so each stream gets a
client of its own, and with it headers of its own. What is costly (TLS set-up, the pool of
connections) is shared: all clients of one endpoint ride on one transport, which outlives them.

Of huggingface_hub's reply only the HTTP response is used (the hook for responses is where it
is to be had): its own parser costs most of what a token costs, see ADR 0017.

A connection serves one stream: nothing reads on after `[DONE]`, to the end of the body. That
also means that a Service in front of several engines spreads the streams, and that no stream
is lost to a connection that had gone stale.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import Final

import httpx2
from huggingface_hub import AsyncInferenceClient, set_async_client_factory
from huggingface_hub.utils._http import default_async_client_factory

from proto.errors import EngineTimedOut, EngineUnavailable
from services.runtime.engine_errors import Refused
from services.runtime.events import MAX_EVENT_BYTES

#: As much of an error's body is read.
MAX_ERROR_BYTES: Final = 64 * 1024
#: Of what an engine says of itself.
MAX_REPLY_BYTES: Final = 1024 * 1024
#: Keeps huggingface_hub from looking for a token of the person who runs this.
NO_KEY: Final = "-"


@asynccontextmanager
async def answering(url: str, timeout_s: float) -> AsyncIterator[None]:
    """Bound the block, which asks the engine at `url` something.

    Raises:
        EngineUnavailable: it cannot be reached.
        EngineTimedOut: it did not answer in `timeout_s`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except (httpx2.TimeoutException, TimeoutError):
        raise EngineTimedOut(f"{url} does not answer") from None
    except httpx2.HTTPError as error:
        raise EngineUnavailable(f"{url}: {type(error).__name__}") from None


class Wire:
    """The connections to one endpoint.

    Args:
        url: of the endpoint, without `/v1`.
        api_key: its key; without one, no Authorization header is sent.
        connect_s: limit for the making of a connection.
    """

    def __init__(self, url: str, *, api_key: str | None, connect_s: float) -> None:
        set_async_client_factory(_client_of_this_call)
        self._url = url
        self.api_key = api_key
        self._connect_s = connect_s
        # Loading the certificate authorities takes 10 ms and more: only where they are used.
        self._transport = httpx2.AsyncHTTPTransport(
            verify=url.startswith("https://"),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        )

    def hub(self, headers: Mapping[str, str]) -> AsyncInferenceClient:
        """Return a client for one stream; call it inside `lent`, and close it."""
        key = self.api_key or NO_KEY
        return AsyncInferenceClient(base_url=self._url, api_key=key, headers=dict(headers))

    def http(self) -> httpx2.AsyncClient:
        """Return a client for other routes than chat completions."""
        key = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return httpx2.AsyncClient(
            transport=_Borrowed(self._transport, self._connect_s),
            trust_env=False,
            timeout=None,
            event_hooks={"response": [_bounded]},
            headers={"accept-encoding": "identity", **key},
        )

    @contextmanager
    def lent(self) -> Iterator[Loan]:
        """Have huggingface_hub use this wire within the block, in this task."""
        loan = Loan(self)
        token = _LOAN.set(loan)
        try:
            yield loan
        finally:
            _LOAN.reset(token)

    def client(self, taken: Callable[[httpx2.Response], Awaitable[None]]) -> httpx2.AsyncClient:
        """Return the client that huggingface_hub uses for one stream.

        Args:
            taken: is given the response as soon as its head is there.
        """
        return httpx2.AsyncClient(
            transport=_Borrowed(self._transport, self._connect_s),
            trust_env=False,
            timeout=None,
            event_hooks={"request": [self._sign], "response": [taken]},
            headers={"accept-encoding": "identity"},
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def _sign(self, request: httpx2.Request) -> None:
        if self.api_key is None:
            request.headers.pop("authorization", None)


class _Borrowed(httpx2.AsyncBaseTransport):
    """A transport that a client may use but not close."""

    def __init__(self, lender: httpx2.AsyncBaseTransport, connect_s: float) -> None:
        self._lender = lender
        self._timeout = {"connect": connect_s}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.extensions = {**request.extensions, "timeout": self._timeout}
        return await self._lender.handle_async_request(request)

    async def aclose(self) -> None:
        """Leave the lender open."""


class Loan:
    """One stream's use of a wire."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._response: httpx2.Response | None = None

    def client(self) -> httpx2.AsyncClient:
        """Return the client for huggingface_hub."""
        return self._wire.client(self._take)

    def events(self) -> AsyncGenerator[str, None]:
        """Return the data of the response's events; only once there is a response."""
        if self._response is None:
            raise RuntimeError("there is no response yet")
        return _events_of(self._response)

    async def _take(self, response: httpx2.Response) -> None:
        """Keep the response, or raise `Refused`, with the body, if it is no stream of events.

        huggingface_hub reads an error's body only if it has a Content-Length, takes a redirect
        for an empty stream, and any page with status 200 for a stream without events.
        """
        _check_plain(response)
        content_type = response.headers.get("content-type", "")
        streams = content_type.strip().lower().startswith("text/event-stream")
        if response.status_code == httpx2.codes.OK and streams:
            self._response = response
            return
        body = await _beginning(response)
        retry_after = response.headers.get("retry-after", "")
        raise Refused(response.status_code, content_type, body, retry_after)


async def _events_of(response: httpx2.Response) -> AsyncGenerator[str, None]:
    async for event in httpx2.EventSource(response, max_event_size=MAX_EVENT_BYTES):
        # httpx2 hands out what has an id or a name alone; by the standard that is no event.
        if event.data:
            yield event.data


def _check_plain(response: httpx2.Response) -> None:
    """Refuse what is packed although `identity` was asked for: a little of it may be a lot."""
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise httpx2.RemoteProtocolError("the engine packed its reply, which was not asked for")


async def _bounded(response: httpx2.Response) -> None:
    """Have whoever reads the whole body fail beyond `MAX_REPLY_BYTES`."""
    _check_plain(response)
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Bounded(response.stream)


class _Bounded(httpx2.AsyncByteStream):
    """A body that breaks off where it becomes too large."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_REPLY_BYTES
        async for part in self._stream:
            left -= len(part)
            if left < 0:
                raise httpx2.ReadError(f"the reply has more than {MAX_REPLY_BYTES} bytes")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


_LOAN: ContextVar[Loan | None] = ContextVar("engine_loan", default=None)


def _client_of_this_call() -> httpx2.AsyncClient:
    loan = _LOAN.get()
    return loan.client() if loan else default_async_client_factory()


async def _beginning(response: httpx2.Response) -> bytes:
    body = bytearray()
    # The status is known; that the body is cut does not change what it says.
    with suppress(httpx2.HTTPError):
        async for part in response.aiter_raw():
            body += part
            if len(body) >= MAX_ERROR_BYTES:
                break
    return bytes(body[:MAX_ERROR_BYTES])
