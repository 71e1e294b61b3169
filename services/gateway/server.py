"""The HTTP server, with a soft end."""

from __future__ import annotations

import asyncio
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from services.gateway.protocol import BoundedProtocol
from services.runtime.listener import QuietServer, listen

_BACKLOG: Final = 2048
_KEEP_ALIVE_S: Final = 75


class GatewayServer:
    """Serves an application.

    Args:
        app: what to serve.
        host: address to listen on.
        port: port to listen on; 0 for any free one.
        max_connections: further ones get 503.
        head_timeout_s: how long a request's headers may take to come.
        write_timeout_s: how long a client may take nothing of its answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        *,
        max_connections: int,
        head_timeout_s: float = BoundedProtocol.head_timeout_s,
        write_timeout_s: float = BoundedProtocol.write_timeout_s,
    ) -> None:
        limits = {
            "max_connections": max_connections,
            "head_timeout_s": head_timeout_s,
            "write_timeout_s": write_timeout_s,
        }
        self._socket = listen(host, port, backlog=_BACKLOG)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            http=type("Protocol", (BoundedProtocol,), limits),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            loop="none",
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        self._server = QuietServer(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def open_connections(self) -> int:
        """How many clients are connected."""
        return len(self._server.server_state.connections)

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
