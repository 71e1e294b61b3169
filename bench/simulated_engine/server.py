"""The simulated engine as an ASGI application, and as a server."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial

import orjson
import uvicorn
from starlette.types import Receive, Scope, Send

from bench.simulated_engine.core import Core
from bench.simulated_engine.exchange import Cut, Exchange, TooLarge
from bench.simulated_engine.faults import Faults
from bench.simulated_engine.openai import OpenAi
from bench.simulated_engine.options import Options
from bench.simulated_engine.tgi import Tgi

#: Whoever waits longer than this to end is left.
_DRAIN_S = 2
_BACKLOG = 4096


class Application:
    """The routes of a family and `/control`.

    Args:
        core: the engine.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self._routes = Tgi(core) if core.options.family == "tgi" else OpenAi(core)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        try:
            if exchange.path == "/control":
                await self._control(exchange)
            else:
                await self._routes.answer(exchange)
        except TooLarge:
            await exchange.plain(413, "Failed to buffer the request body: length limit exceeded")
        finally:
            exchange.close()

    async def _control(self, exchange: Exchange) -> None:
        if exchange.method == "POST":
            order = orjson.loads(await exchange.body() or b"{}")
            if order.get("now") == "die":
                os._exit(137)
            try:
                self._obey(order)
            except (TypeError, ValueError) as error:
                await exchange.json(400, {"error": str(error)})
                return
        await exchange.json(200, self._state())

    def _obey(self, order: dict[str, object]) -> None:
        core = self.core
        core.healthy = bool(order.pop("healthy", core.healthy))
        core.pace.slow = float(str(order.pop("slow", core.pace.slow)))
        if order.pop("now", None) == "cut":
            core.pace.cut_all()
        core.pace.freeze(bool(order.pop("frozen", core.pace.frozen)))
        if "fault" in order:
            core.faults = Faults(order.pop("fault"), **order)  # type: ignore[arg-type]
        elif order:
            raise ValueError(f"unknown: {', '.join(order)}")

    def _state(self) -> dict[str, object]:
        core = self.core
        return core.faults.told() | {
            "slow": core.pace.slow,
            "frozen": core.pace.frozen,
            "healthy": core.healthy,
            "in_flight": core.in_flight,
            "running": len(core.batch.running),
            "queued": sum(not one.gone for one in core.batch.queue),
            "requests": core.counts.requests,
            "generated_tokens": core.counts.generated_tokens,
            "hit_tokens": core.batch.hit_tokens,
            "queried_tokens": core.batch.queried_tokens,
        }


def configure(application: Application) -> uvicorn.Config:
    """Return how the application is served."""
    return uvicorn.Config(
        application,
        http="httptools",
        loop="none",
        lifespan="off",
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=_DRAIN_S,
        backlog=_BACKLOG,
    )


@asynccontextmanager
async def serving(
    options: Options,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    when_dead: Callable[[], None] = lambda: None,
) -> AsyncIterator[str]:
    """Serve within the block; gives the URL.

    Args:
        options: of the engine.
        host: to listen on.
        port: to listen on; any that is free if 0.
        when_dead: called if the engine breaks. Its requests are ended, and the exception leaves
            the block at its end.

    Raises:
        OSError: the port is taken.
    """
    core = Core(options)
    server = _Server(configure(Application(core)))
    with socket.create_server((host, port), backlog=_BACKLOG) as listening:
        url = f"http://{host}:{listening.getsockname()[1]}"
        serve = asyncio.create_task(server.serve([listening]), name="serve")
        run = asyncio.create_task(core.run(), name="engine")
        run.add_done_callback(partial(_notice, core, when_dead))
        async with _ended(server, serve, run):
            yield url


def _notice(core: Core, when_dead: Callable[[], None], run: asyncio.Task[None]) -> None:
    if not run.cancelled() and run.exception():
        core.pace.cut_all()
        when_dead()


class _Server(uvicorn.Server):
    """A server that leaves the signals to the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


@asynccontextmanager
async def _ended(
    server: uvicorn.Server, serve: asyncio.Task[None], run: asyncio.Task[None]
) -> AsyncIterator[None]:
    """End server and engine after the block."""
    try:
        yield
    finally:
        server.should_exit = True
        await serve
        run.cancel()
        with suppress(asyncio.CancelledError):
            await run


__all__ = ["Application", "Cut", "configure", "serving"]
