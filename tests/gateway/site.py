"""The gateway over the whole product: real NATS, real services, an engine that follows a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import orjson

from skelgraph.local import ports
from skelgraph.local.nats import NatsServer
from skelgraph.local.process import Child
from tests.conftest import Runtime, open_runtime
from tests.processes import Services
from tests.scripted_engine import Finish, Say, Script, ScriptedEngine, Step, Wait, writer
from tests.scripted_steps import Json

QUESTION = "Shall we move the office?"


@asynccontextmanager
async def whole_site(
    folder: Path, script: Script | None = None, **settings: str
) -> AsyncIterator[Site]:
    """Start everything, NATS too."""
    async with NatsServer(folder / "nats") as server, AsyncExitStack() as stack:
        runtime = await open_runtime(stack, server)
        async with running_site(runtime, folder, script, **settings) as site:
            yield site


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


def chat(**asked: object) -> dict[str, object]:
    """The body of a chat completion."""
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": "skelgraph-sgd", "messages": messages, **asked}


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


async def complete(site: Site, **asked: object) -> dict[str, Any]:
    """Return a chat completion."""
    async with site.http() as http:
        response = await http.post("/v1/chat/completions", json=chat(**asked))
        body: dict[str, Any] = response.json()
        assert response.status_code == 200, body
        return body


async def streamed(site: Site, **asked: object) -> list[dict[str, Any]]:
    """Return the chunks of a streamed chat completion."""
    body = chat(stream=True, **asked)
    async with (
        site.http() as http,
        http.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        assert response.status_code == 200
        return [one.data async for one in events(response)]


def text_of(chunks: list[dict[str, Any]]) -> str:
    """Return the text of a streamed chat completion."""
    deltas = (chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"])
    return "".join(delta.get("content", "") for delta in deltas)


async def follow(http: httpx2.AsyncClient, request: str, **headers: str) -> list[Sent]:
    """Return all events of a request, from the first or from `Last-Event-ID` on."""
    async with http.stream("GET", f"/v1/requests/{request}/events", headers=headers) as response:
        assert response.status_code == 200
        return [one async for one in events(response)]


def endless(after: int) -> Script:
    """An engine that says so many words and then nothing, to any call."""

    async def steps(_: Json) -> AsyncIterator[Step]:
        for _word in range(after):
            yield Say("word. ")
        yield Wait(60)

    return steps


def in_two_parts(going_on: asyncio.Event) -> Script:
    """An engine that says something before `going_on`, and something after it."""

    async def steps(_: Json) -> AsyncIterator[Step]:
        yield Say("Before. ")
        yield Wait(going_on)
        yield Say("After.")
        yield Finish()

    return steps
