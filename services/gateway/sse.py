"""Server-sent events: their form, and a response that ends when its client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Final

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

log = structlog.get_logger()

#: What keeps proxies from taking a silent stream for a dead one.
KEEP_ALIVE: Final = b":\n\n"
DONE: Final = b"data: [DONE]\n\n"
#: Where the server's protocol puts what closes a connection at once, in `scope["state"]`.
ABORT: Final = "abort_connection"
#: Where some clients end a line although the standard does not; as JSON says them.
_LINE_ENDS: Final = {
    "\u2028".encode(): b"\\u2028",
    "\u2029".encode(): b"\\u2029",
    "\u0085".encode(): b"\\u0085",
}
_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-store",
    "X-Accel-Buffering": "no",
}


def event(data: bytes, *, name: str = "", ident: int | None = None) -> bytes:
    """Return an event; `data` is JSON without line breaks."""
    head = b"event: %b\n" % name.encode() if name else b""
    if ident is not None:
        head = b"id: %d\n" % ident + head
    return b"%bdata: %b\n\n" % (head, escaped(data))


def escaped(data: bytes) -> bytes:
    """Return JSON that no client breaks into lines."""
    for mark, said in _LINE_ENDS.items():
        data = data.replace(mark, said)
    return data


async def until_gone(receive: Receive) -> None:
    """Return when the client has closed the connection; its body must be read already."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Sends what `body` yields, until it ends or the client has gone; then `body` is closed.

    Args:
        body: pieces of the stream.
        headers: further headers.
        stack: is closed at the end, even if `body` has never begun.
        write_timeout_s: how long a client may take nothing before it counts as gone.
    """

    def __init__(
        self,
        body: AsyncGenerator[bytes, None],
        *,
        headers: Mapping[str, str] | None = None,
        stack: AsyncExitStack | None = None,
        write_timeout_s: float = 60.0,
    ) -> None:
        super().__init__(None, 200, {**_HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._pieces = body
        self._stack = stack or AsyncExitStack()
        self._write_timeout_s = write_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        writing = asyncio.create_task(self._write(scope, send), name="event stream")
        gone = asyncio.create_task(until_gone(receive), name="client of an event stream")
        try:
            await asyncio.wait([writing, gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, gone):
                task.cancel()
            await asyncio.wait([writing, gone])
            await self._stack.aclose()
        if not writing.cancelled():
            writing.result()

    async def _write(self, scope: Scope, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        async with aclosing(self._pieces) as pieces:
            await send({"type": "http.response.start", **start})
            try:
                async for piece in pieces:
                    await self._send(piece, send)
            except _SlowClientError:
                await abort(scope)
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, piece: bytes, send: Send) -> None:
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:
            log.info("slow_client_dropped", limit_s=self._write_timeout_s)
            raise _SlowClientError from None


class _SlowClientError(Exception):
    """The client takes nothing."""


async def abort(scope: Scope) -> None:
    """Close the connection without waiting for what the client did not take."""
    abort_connection = scope.get("state", {}).get(ABORT)
    if abort_connection:
        abort_connection()
        await asyncio.sleep(0)  # the server notices before the response returns
