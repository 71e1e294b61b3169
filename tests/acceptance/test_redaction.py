"""No text of a client's or a model's, and no secret, is in a log, a metric or a span."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from bench.collector import Collector
from proto.names import Band, Pool, Subjects
from services.runtime.connection import Connection
from skelgraph.local import ports
from skelgraph.local.process import Child
from tests.conftest import PARTITIONS, Runtime
from tests.processes import Services, end_of
from tests.scripted_engine import (
    Cut,
    Fail,
    FailInBand,
    Finish,
    Say,
    ScriptedEngine,
    Step,
    asks_for_plan,
)

#: One word for each thing that must not be told, so that a failure says what was.
CANARIES: Final = {
    name: f"canary{number}{name}q7x3"
    for number, name in enumerate(
        ("question", "context", "summary", "nodetext", "enginekey", "natspassword", "httpkey")
    )
}
PLAN: Final = f"""graph
1. {CANARIES["summary"]} one | hard
2. {CANARIES["summary"]} two | easy
3. {CANARIES["summary"]} three | easy | needs 1,2
end"""
Failure = Callable[[dict[str, Any]], list[Step]]


def echoed(request: dict[str, Any]) -> str:
    return " ".join(str(message["content"]) for message in request["messages"])


def refusal(status: int, words: object) -> Step:
    return Fail(status, json.dumps({"error": words}).encode())


#: How an engine may fail and repeat what it was sent.
FAILURES: Final[dict[str, Failure]] = {
    "body": lambda asked: [refusal(500, echoed(asked)[-200:])],
    "shouting": lambda _: [refusal(503, CANARIES["question"].upper())],
    "key": lambda _: [refusal(401, f"bad key {CANARIES['enginekey']}")],
    "page": lambda _: [Fail(502, f"<p>{CANARIES['question']}</p>".encode(), "text/html")],
    "escaped": lambda _: [refusal(500, json.dumps([CANARIES["context"], CANARIES["summary"]]))],
    "in band": lambda asked: [
        Say(CANARIES["nodetext"]),
        FailInBand({"error": {"message": echoed(asked)[:300]}}),
    ],
    "cut": lambda _: [Say(f"{CANARIES['nodetext']} and"), Cut()],
}


class Engine:
    """Plans, writes, and fails first in each of the ways that it is told."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.seen = ""

    def __call__(self, request: dict[str, Any]) -> list[Step]:
        self.seen += echoed(request)
        if self.failures:
            return self.failures.pop(0)(request)
        text = PLAN if asks_for_plan(request) else f"It is {CANARIES['nodetext']} indeed."
        return [*(Say(f"{line}\n") for line in text.splitlines()), Finish()]


@dataclass
class Stack:
    runtime: Runtime
    engine: Engine
    gateway_url: str
    children: list[Child]
    logs: Path

    async def metrics(self) -> str:
        async with httpx2.AsyncClient(trust_env=False) as http:
            pages = [
                await http.get(f"http://127.0.0.1:{child.spec.port}/metrics")
                for child in self.children
            ]
        return "".join(page.text for page in pages)

    def logged(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self.logs.glob("*.log"))


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


async def start(
    stack: AsyncExitStack, runtime: Runtime, folder: Path, env: dict[str, str], **settings: str
) -> Stack:
    engine = Engine()
    server = await stack.enter_async_context(ScriptedEngine(engine))
    user = f"user:{CANARIES['natspassword']}@"
    services = Services(
        stack,
        runtime,
        folder / "logs",
        large_urls=server.url,
        small_urls=server.url,
        engine_api_key=CANARIES["enginekey"],
        nats_url=runtime.server.url.replace("nats://", f"nats://{user}"),
        log_level="debug",
        log_format="json",
        backoff_s="0",
        **settings,
    )
    services.environment.update(env)
    port = ports.free_port()
    children = await asyncio.gather(
        services.start("planner"),
        services.start("worker", "--pool", "large"),
        services.start("worker", "--pool", "small"),
        services.start("assembler"),
        services.start("gateway", http_port=str(port)),
    )
    return Stack(runtime, engine, f"http://127.0.0.1:{port}", list(children), folder / "logs")


@pytest.fixture
async def stack(runtime: Runtime, tmp_path: Path, collector: Collector) -> AsyncIterator[Stack]:
    async with AsyncExitStack() as exits:
        yield await start(exits, runtime, tmp_path, collector.environment)


async def ask(stack: Stack, **more: object) -> str:
    """Ask the gateway, and return the request's id when it has ended."""
    body = {
        "question": f"Why {CANARIES['question']}, and what follows?",
        "context": [{"role": "system", "content": f"Be {CANARIES['context']}."}],
        "mode": "sgd",
        **more,
    }
    async with httpx2.AsyncClient(trust_env=False) as http:
        reply = await http.post(f"{stack.gateway_url}/v1/requests", json=body)
    request = str(reply.json()["id"])
    await end_of(stack.runtime, request)
    return request


async def send_garbage(stack: Stack) -> None:
    """Send every service what it cannot read, with canaries in it."""
    word, subjects = CANARIES["question"], Subjects(PARTITIONS)
    garbage = json.dumps({"type": word, "question": {word: word}, "node": word}).encode()
    publish, connection = stack.runtime.publisher.publish, stack.runtime.connection
    await publish(Subjects.request("bad-1"), garbage)
    await publish(Subjects.node(Pool.LARGE, Band.NORMAL, "bad-2", 1, 1), garbage)
    await publish(subjects.planned("bad-3", 1), garbage)
    await connection.publish(Subjects.stop("bad-4"), garbage)
    await connection.publish(Subjects.live("bad-5", 1), garbage)
    await end_of(stack.runtime, "bad-1")
    await call_badly(stack.gateway_url)
    await cancel_badly(connection, garbage)


async def call_badly(url: str) -> None:
    key = {"Authorization": f"Bearer {CANARIES['httpkey']}"}
    word = CANARIES["question"]
    bodies = [f'{{"{word}'.encode(), json.dumps({word: word}).encode(), word.encode() * 60_000]
    async with httpx2.AsyncClient(trust_env=False, headers=key) as http:
        for body in bodies:
            for path in ("/v1/requests", "/v1/chat/completions"):
                reply = await http.post(
                    f"{url}{path}", content=body, headers={"Content-Type": "application/json"}
                )
                assert reply.status_code >= 400
        await http.get(f"{url}/v1/requests/{word}?after={word}")


async def cancel_badly(connection: Connection, garbage: bytes) -> None:
    await connection.request(Subjects.cancel("bad-1"), garbage, timeout_s=5)


async def test_no_text_and_no_secret_is_in_logs_metrics_or_spans(
    stack: Stack, collector: Collector
) -> None:
    await ask(stack)
    for failure in FAILURES.values():
        stack.engine.failures = [failure, failure]
        await ask(stack)
    stack.engine.failures = [*FAILURES.values()] * 4
    await ask(stack, on_failure="fail")
    stack.engine.failures = []
    await send_garbage(stack)
    told = {"metrics": await stack.metrics()}
    for child in stack.children:
        assert await child.stop()
    told["logs"] = stack.logged()
    told["spans"] = b"".join(collector.bodies).decode(errors="replace")
    assert_told_of_the_run(stack, told)
    for where, text in told.items():
        found = {name for name, word in CANARIES.items() if word in text.lower()}
        assert not found, f"{found} in {where}: {lines_with('canary', text)}"


def assert_told_of_the_run(stack: Stack, told: dict[str, str]) -> None:
    """The canaries were there to be told, and logs, metrics and spans tell of the rest."""
    for name in ("question", "context", "summary", "nodetext"):
        assert CANARIES[name] in stack.engine.seen
    for word in ("node_failed", "request_answered", "work_unreadable", "trace_id", "quotes the"):
        assert word in told["logs"], word
    assert "skelgraph_node_failures_total{" in told["metrics"]
    assert "engine_rejected" in told["spans"]


def lines_with(word: str, text: str) -> list[str]:
    return [line[:400] for line in text.splitlines() if re.search(word, line, re.IGNORECASE)][:3]


@pytest.mark.long
async def test_texts_are_logged_where_they_are_asked_for(runtime: Runtime, tmp_path: Path) -> None:
    async with AsyncExitStack() as exits:
        stack = await start(exits, runtime, tmp_path, {}, log_texts="true")
        await ask(stack)
        logged = stack.logged()
    for name in ("question", "context", "summary", "nodetext"):
        assert CANARIES[name] in logged, name
    for name in ("enginekey", "natspassword"):
        assert CANARIES[name] not in logged, name
