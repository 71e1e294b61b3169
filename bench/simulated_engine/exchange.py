"""One HTTP request and its answer, over ASGI; no more than the simulated engine needs.

An own ASGI application and not Starlette's: the client's leaving must reach the engine also
while nothing is sent, and a fault must be able to break the connection off at any byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import orjson
from starlette.types import Receive, Scope, Send

#: TGI's payload limit.
MAX_BODY_BYTES: Final = 2_000_000
_JSON: Final = (b"content-type", b"application/json")
_PLAIN: Final = (b"content-type", b"text/plain; charset=utf-8")

Headers = Iterable[tuple[bytes, bytes]]


class Cut(Exception):
    """The connection is to be broken off. The server does so when this escapes."""


class TooLarge(Exception):
    """The body is larger than `MAX_BODY_BYTES`."""


class Exchange:
    """A request and its answer.

    Attributes:
        path, method: of the request.
        departure: set when the client has closed the connection, from `when_gone` on.
        begun: the answer's head is sent.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.path: str = scope["path"]
        self.method: str = scope["method"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.departure = asyncio.Event()
        self.begun = False
        self._receive = receive
        self._send = send
        self._calls: list[Callable[[], None]] = []
        self._watching: asyncio.Task[None] | None = None

    @property
    def gone(self) -> bool:
        """Whether the client has closed the connection."""
        return self.departure.is_set()

    async def body(self) -> bytes:
        """Return the request's body.

        Raises:
            TooLarge: it is.
        """
        parts = bytearray()
        more = True
        while more:
            message = await self._receive()
            parts += message.get("body", b"")
            more = message.get("more_body", False)
            if len(parts) > MAX_BODY_BYTES:
                raise TooLarge
        return bytes(parts)

    def when_gone(self, call: Callable[[], None]) -> None:
        """Call once if the client leaves before the answer is complete."""
        self._calls.append(call)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="watch client")

    def close(self) -> None:
        """Watch no longer."""
        if self._watching:
            self._watching.cancel()

    async def json(self, status: int, payload: object, headers: Headers = ()) -> None:
        """Answer with JSON."""
        await self.whole(status, orjson.dumps(payload), (_JSON, *headers))

    async def plain(self, status: int, text: str, headers: Headers = (_PLAIN,)) -> None:
        """Answer with plain text."""
        await self.whole(status, text.encode(), headers)

    async def whole(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Answer at once."""
        length = (b"content-length", b"%d" % len(body))
        await self.begin(status, (*headers, length))
        await self._send({"type": "http.response.body", "body": body})

    async def begin(self, status: int, headers: Headers) -> None:
        """Send the head of an answer."""
        self.begun = True
        await self._send(
            {"type": "http.response.start", "status": status, "headers": list(headers)}
        )

    async def write(self, data: bytes) -> None:
        """Send a part of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """End the body."""
        await self._send({"type": "http.response.body", "body": b""})

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.departure.set()
        for call in self._calls:
            call()
