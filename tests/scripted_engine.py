"""An engine that does as it is told: the HTTP of chat completions, and no model.

A script says for each call which steps to take. As a process of its own:
`python -m tests.scripted_engine --port 9000 --script default`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, Self

from tests.scripted_steps import (
    Begin,
    Call,
    Cut,
    Fail,
    FailInBand,
    Finish,
    Garbage,
    Json,
    KeepAlive,
    Say,
    Script,
    Step,
    Think,
    Wait,
)

__all__ = [
    "PLAN",
    "Begin",
    "Call",
    "Cut",
    "Fail",
    "FailInBand",
    "Family",
    "Finish",
    "Garbage",
    "KeepAlive",
    "Say",
    "Script",
    "ScriptedEngine",
    "Step",
    "Think",
    "Wait",
    "asks_for_plan",
    "writer",
]

Family = Literal["tgi", "vllm", "sglang", "llamacpp", "plain"]
MODEL = "scripted/model"


class _Cut(Exception):
    """The script wants the connection broken off."""


class ScriptedEngine:
    """A server on 127.0.0.1; `async with ScriptedEngine(script) as engine: engine.url`.

    Attributes:
        calls: of chat completions, in the order of their arrival.
        asked: paths of all other requests.
        connections: how many were ever taken.
        open_connections: how many are open now.
        healthy: what `/health` says; a loading engine answers 503 on every route.
        routes_fail_with: status of all routes but chat completions; 0 if they work.
    """

    def __init__(self, script: Script, *, dialect: Family = "tgi", port: int = 0) -> None:
        self.script = script
        self.dialect = dialect
        self.calls: list[Call] = []
        self.asked: list[str] = []
        self.connections = 0
        self.open_connections = 0
        self.healthy = True
        self.loading = False
        self.routes_fail_with = 0
        self._port = port
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Condition()
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def open_streams(self) -> int:
        """How many replies are under way."""
        return sum(not call.over.is_set() for call in self.calls)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server:
            self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def call(self, number: int = 1) -> Call:
        """Wait for the call of this number, from 1, and return it."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.calls) >= number)
        return self.calls[number - 1]

    async def idle(self) -> None:
        """Wait until all connections are closed."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self.open_connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self.connections += 1
        self.open_connections += 1
        try:
            while (request := await _read_request(reader)) is not None:
                await self._answer(*request, reader, writer)
        except (_Cut, ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()
            self._serving.discard(task)
            self.open_connections -= 1
            async with self._changed:
                self._changed.notify_all()

    async def _answer(
        self,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if path != "/v1/chat/completions":
            self.asked.append(path)
            status, payload = self._route(path)
            writer.write(_whole(status, json.dumps(payload).encode()))
            await writer.drain()
            return
        call = Call(path, headers, json.loads(body))
        self.calls.append(call)
        async with self._changed:
            self._changed.notify_all()
        await _Reply(self, call, reader, writer).run()

    def _route(self, path: str) -> tuple[int, Json]:
        if self.routes_fail_with:
            return self.routes_fail_with, {"error": "told to fail"}
        if self.loading or (path == "/health" and not self.healthy):
            return 503, {"error": {"message": "Loading model", "code": 503}}
        owner = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llamacpp"}.get(self.dialect, "me")
        routes: dict[str, Json] = {
            "/health": {},
            "/v1/models": {"object": "list", "data": [{"id": MODEL, "owned_by": owner}]},
        }
        if self.dialect == "llamacpp":
            routes["/props"] = {"default_generation_settings": {}, "model_path": f"/m/{MODEL}"}
        if self.dialect == "tgi":
            routes["/info"] = {"model_id": MODEL, "max_concurrent_requests": 128}
        return (200, routes[path]) if path in routes else (404, {"error": "not found"})


class _Reply:
    """One reply as the script wants it, given up as soon as the client leaves."""

    def __init__(
        self,
        engine: ScriptedEngine,
        call: Call,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._engine = engine
        self._call = call
        self._reader = reader
        self._writer = writer
        self._begun = False
        self._refused = False

    async def run(self) -> None:
        telling = asyncio.create_task(self._tell(), name="tell")
        leaving = asyncio.create_task(self._reader.read(1), name="leave")
        try:
            await asyncio.wait({telling, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not telling.done():
                self._call.left.set()
                raise _Cut
            await telling
        except ConnectionError:
            self._call.left.set()
            raise
        finally:
            for task in (telling, leaving):
                task.cancel()
            await asyncio.gather(telling, leaving, return_exceptions=True)
            self._call.over.set()

    async def _tell(self) -> None:
        steps = self._engine.script(self._call.body)
        if isinstance(steps, AsyncIterator):
            async for step in steps:
                await self._take(step)
        else:
            for step in steps:
                await self._take(step)
        await self._end()

    async def _take(self, step: Step) -> None:
        match step:
            case Wait():
                self._call.waiting.set()
                await self._wait(step)
            case Cut():
                raise _Cut
            case Fail():
                self._writer.write(_failure(step))
                self._refused = True
            case _:
                await self._send(self._bytes_of(step))

    async def _wait(self, step: Wait) -> None:
        if isinstance(step.until, asyncio.Event):
            await step.until.wait()
        else:
            await asyncio.sleep(step.until)

    def _bytes_of(self, step: Step) -> bytes:
        match step:
            case Say(text=text):
                self._call.said += 1
                return self._event({"role": "assistant", "content": text})
            case Think(text=text):
                return self._event({"role": "assistant", "reasoning_content": text})
            case KeepAlive():
                return b":\n\n"
            case FailInBand(payload=payload):
                return _sse(payload) + b"data: [DONE]\n\n"
            case Garbage(data=data):
                return data
            case Finish():
                return self._finish(step)
            case _:
                return b""

    def _event(self, delta: Json, reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _sse(self._frame([choice]) | more)

    def _frame(self, choices: list[Json]) -> Json:
        return {
            "object": "chat.completion.chunk",
            "id": "",
            "created": int(time.time()),
            "model": self._call.body.get("model"),
            "system_fingerprint": "scripted",
            "choices": choices,
            "usage": None,
        }

    def _finish(self, step: Finish) -> bytes:
        end = self._event({"role": "assistant", "content": ""}, step.reason)
        options = self._call.body.get("stream_options") or {}
        if options.get("include_usage"):
            usage = step.usage if step.usage is not None else self._usage(step.cached_tokens)
            end += _sse(self._frame([]) | {"usage": usage})
        return end + step.done

    def _usage(self, cached_tokens: int) -> Json:
        words = sum(len(message["content"].split()) for message in self._call.body["messages"])
        return {
            "prompt_tokens": words,
            "completion_tokens": self._call.said,
            "total_tokens": words + self._call.said,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        }

    async def _send(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            self._writer.write(_STREAM_HEAD)
        if data:
            self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self._writer.drain()

    async def _end(self) -> None:
        if not self._refused:
            await self._send(b"")
            self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()


_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _sse(payload: Any) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def _whole(status: int, body: bytes, content_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def _failure(step: Fail) -> bytes:
    head = [f"HTTP/1.1 {step.status} X", f"content-type: {step.content_type}"]
    head += [f"{name}: {value}" for name, value in step.headers]
    body = step.body
    if step.chunked:
        head.append("transfer-encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    else:
        head.append(f"content-length: {len(body)}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def _read_request(
    reader: asyncio.StreamReader,
) -> tuple[str, Mapping[str, str], bytes] | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return first.split(" ")[1], headers, body


# --- as a process -------------------------------------------------------------------------

PLAN = """\
graph
1. What it is | hard medium
2. What speaks for it | easy short
3. What speaks against it | easy short
4. Conclusion | hard medium needs 2,3
end"""
LOREM = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor. " * 2


def asks_for_plan(request: Json) -> bool:
    """Whether this is the planner's call."""
    first: str = request["messages"][0]["content"]
    return first.startswith("You plan the answer")


def writer(
    *,
    token_s: float = 0.02,
    plan: str = PLAN,
    text: str = LOREM,
    is_plan: Callable[[Json], bool] = asks_for_plan,
) -> Script:
    """Return a script that plans where a plan is asked for, and writes `text` otherwise."""

    async def script(request: Json) -> AsyncIterator[Step]:
        words = (plan if is_plan(request) else text).split(" ")
        taken = words[: request.get("max_tokens") or len(words)]
        for number, word in enumerate(taken):
            yield Wait(token_s)
            yield Say(word if number == 0 else f" {word}")
        yield Finish("stop" if len(taken) == len(words) else "length")

    return script


SCRIPTS: Mapping[str, Callable[[], Script]] = {
    "default": writer,
    "slow": lambda: writer(token_s=0.25),
    "busy": lambda: lambda _: [Fail(429, b'{"error":"Model is overloaded"}')],
    "cut": lambda: lambda _: [Say("This text "), Cut()],
}


async def _run(port: int, script: str, dialect: Family) -> None:
    async with ScriptedEngine(SCRIPTS[script](), dialect=dialect, port=port) as engine:
        print(engine.url, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="An engine that does as it is told.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", choices=sorted(SCRIPTS), default="default")
    parser.add_argument(
        "--dialect", choices=["tgi", "vllm", "sglang", "llamacpp", "plain"], default="tgi"
    )
    args = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(args.port, args.script, args.dialect))


if __name__ == "__main__":
    main()
