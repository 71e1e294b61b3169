"""`/livez`, `/readyz` and `/metrics` of a service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.runtime.listener import QuietServer, listen

Checks = dict[str, Callable[[], bool]]


class HealthServer:
    """Serves the health and metrics of this process.

    Args:
        host: address to listen on.
        port: port to listen on; 0 for any free one.
        live: checks of which each must hold, or the process had better be restarted.
        ready: checks of which each must hold before work is given to the process.
    """

    def __init__(self, host: str, port: int, *, live: Checks, ready: Checks) -> None:
        self._socket = listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._live, self._ready = live, ready
        routes = [
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
            Route("/metrics", _metrics),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), log_config=None, access_log=False, lifespan="off", loop="none"
        )
        self._server = QuietServer(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to serve."""
        serving = self._server.serve(sockets=[self._socket])
        self._task = asyncio.create_task(serving, name="health server")

    async def stop(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._server.force_exit = True
        if self._task:
            await asyncio.wait([self._task])
        self._socket.close()

    async def _livez(self, _: Request) -> Response:
        return _report(self._live)

    async def _readyz(self, _: Request) -> Response:
        return _report(self._ready)


def _report(checks: Checks) -> Response:
    results = {name: check() for name, check in checks.items()}
    status = 200 if all(results.values()) else 503
    return Response(orjson.dumps(results), status, media_type="application/json")


async def _metrics(_: Request) -> Response:
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
