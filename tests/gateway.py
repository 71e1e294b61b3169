"""The gateway over the whole product: real NATS, real services, an engine that follows a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import orjson

from skelgraph.local import ports
from skelgraph.local.process import Child
from tests.conftest import Runtime
from tests.processes import Services
from tests.scripted_engine import Script, ScriptedEngine, writer

QUESTION = "Shall we move the office?"


@dataclass
class Sent:
    """A server-sent event."""

    name: str
    ident: int | None
    data: dict[str, object]


@dataclass
class Site:
    """A running gateway, the services behind it, and the engine behind them."""

    runtime: Runtime
    services: Services
    engine: ScriptedEngine
    gateway: Child
    url: str

    def http(self, key: str | None = None, url: str | None = None) -> httpx2.AsyncClient:
        """Return a client of the gateway."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx2.AsyncClient(
            base_url=url or self.url, headers=headers, timeout=20, trust_env=False
        )

    async def another_gateway(self, **settings: str) -> tuple[Child, str]:
        """Start a second gateway beside the first; return it and its address."""
        return await start_gateway(self.services, **settings)


async def start_gateway(services: Services, **settings: str) -> tuple[Child, str]:
    """Start a gateway; return it and its address."""
    port = ports.free_port()
    child = await services.start("gateway", http_port=str(port), **settings)
    return child, f"http://127.0.0.1:{port}"


@asynccontextmanager
async def running_site(
    runtime: Runtime, logs: Path, script: Script | None = None, **settings: str
) -> AsyncIterator[Site]:
    """Start everything; `settings` are the gateway's."""
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(ScriptedEngine(script or writer(token_s=0.002)))
        services = Services(stack, runtime, logs, large_urls=engine.url, small_urls=engine.url)
        started = await asyncio.gather(
            start_gateway(services, **settings),
            services.start("assembler"),
            services.start("planner"),
            services.start("worker", "--pool", "large", slots="8"),
            services.start("worker", "--pool", "small", slots="8"),
        )
        gateway, url = started[0]
        yield Site(runtime, services, engine, gateway, url)


def chat(model: str = "skelgraph-sgd", **more: object) -> dict[str, object]:
    """The body of a chat completion."""
    return {"model": model, "messages": [{"role": "user", "content": QUESTION}], **more}


async def events(response: httpx2.Response) -> AsyncIterator[Sent]:
    """Yield the events of a stream as they come."""
    name, ident, data = "", None, ""
    async for line in response.aiter_lines():
        field, _, value = line.partition(": ")
        match field:
            case "event":
                name = value
            case "id":
                ident = int(value)
            case "data":
                data = value
            case "" if data:
                if data != "[DONE]":
                    yield Sent(name, ident, orjson.loads(data))
                name, ident, data = "", None, ""
            case _:
                pass
