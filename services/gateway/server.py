"""The HTTP server: bounds on what a client may cost before a handler sees it, and a soft end."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.gateway.sse import ABORT
from services.runtime.listener import QuietServer, listen

log = structlog.get_logger()

#: Bytes of a request's line and headers.
MAX_HEAD_BYTES: Final = 32 * 1024
_BACKLOG: Final = 2048
_KEEP_ALIVE_S: Final = 75


class BoundedProtocol(HttpToolsProtocol):
    """HTTP as uvicorn speaks it, with a limit on a request's head in time and in bytes.

    uvicorn has neither (with httptools): a client that sends its headers byte by byte, or never
    ends them, would hold its connection, or memory, for ever.
    """

    #: How long a head may take to come.
    head_timeout_s = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the first head."""
        super().connection_made(transport)
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head."""
        awaited = self._head_timer is not None
        super().data_received(data)
        if awaited and self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        """Expect the rest of this head, and let handlers close the connection at once."""
        super().on_message_begin()
        self.scope["state"][ABORT] = self.transport.abort
        self._await_head()

    def on_headers_complete(self) -> None:
        """The head is here."""
        self._head_came()
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._head_came()
        self._head_timer = self.loop.call_later(
            self.head_timeout_s, self._refuse, b"408 Request Timeout"
        )

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer, self._head_bytes = None, 0

    def _refuse(self, status: bytes) -> None:
        self._head_came()
        log.info("http_head_refused", status=status.decode())
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 %b\r\nconnection: close\r\n\r\n" % status)
            self.transport.close()


class GatewayServer:
    """Serves an application.

    Args:
        app: what to serve.
        host: address to listen on.
        port: port to listen on; 0 for any free one.
        max_connections: further ones get 503.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, *, max_connections: int) -> None:
        self._socket = listen(host, port, backlog=_BACKLOG)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            loop="none",
            limit_concurrency=max_connections,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        self._server = QuietServer(config)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin to serve; the task ends with the server."""
        serving = self._server.serve(sockets=[self._socket])
        self._task = asyncio.create_task(serving, name="http server")
        return self._task

    async def stop(self, drain_s: float) -> bool:
        """Take no more calls, and return whether those under way have ended within `drain_s`."""
        self._server.should_exit = True
        if self._task is None:
            return True
        done, _ = await asyncio.wait([self._task], timeout=drain_s)
        return bool(done)

    async def kill(self) -> None:
        """End what is left."""
        self._server.force_exit = True
        if self._task:
            await asyncio.wait([self._task], timeout=2)
        self._socket.close()
