"""What the engine client costs in CPU, next to raw httpx2 streaming of the same bytes.

`python -m bench.client_cost` serves recorded bytes from a process of its own and reads them in this
one, kind after kind in each round: raw httpx2, huggingface_hub's own stream, the client of one
endpoint, and a pool. CPU time is this process's own (`process_time`). Cost a token is the slope
between long and short replies, cost a stream what is left of a short one.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

import httpx2
import typer
import uvloop
from huggingface_hub import AsyncInferenceClient

from services.runtime import logs
from services.runtime.calls import ChatCall, ChatMessage
from services.runtime.dialects import TGI
from services.runtime.endpoints import EnginePool
from services.runtime.engine import EngineClient

SHORT_TOKENS: Final = 8
HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
)
PROMPT: Final = "Why is the sky blue? " * 20

Read = Callable[[int], Awaitable[None]]


def _event(text: str, reason: str | None = None) -> bytes:
    choice = {
        "index": 0,
        "delta": {"role": "assistant", "content": text},
        "logprobs": None,
        "finish_reason": reason,
    }
    event = {
        "object": "chat.completion.chunk",
        "id": "",
        "created": 1_700_000_000,
        "model": "meta-llama/Llama-3.1-70B-Instruct",
        "system_fingerprint": "3.3.7-sha-0000000",
        "choices": [choice],
        "usage": None,
    }
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def serve(port: int, tokens_a_write: int) -> None:
    """Answer each call with as many tokens as its `max_tokens` says, forever."""
    token, end = _chunk(_event(" word")), _chunk(_event("", "stop") + b"data: [DONE]\n\n")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if b"ent-l" in x)
        tokens = json.loads(await reader.readexactly(size))["max_tokens"]
        writer.write(HEAD)
        for _ in range(tokens // tokens_a_write):
            writer.write(token * tokens_a_write)
            await writer.drain()
            await asyncio.sleep(0.0005)
        writer.write(end + b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", port)
        async with server:
            await server.serve_forever()

    asyncio.run(run())


def raw(url: str) -> Read:
    """Read the bytes, and nothing more."""
    client = httpx2.AsyncClient(trust_env=False, timeout=None, verify=False)  # no TLS here

    async def read(tokens: int) -> None:
        body = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": tokens}
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as reply:
            async for _ in reply.aiter_raw():
                pass

    return read


def hub(url: str) -> Read:
    """Read with huggingface_hub alone, one client for all."""

    async def read(tokens: int) -> None:
        async with AsyncInferenceClient(base_url=url, api_key="-") as client:
            events = await client.chat_completion(
                [{"role": "user", "content": PROMPT}], max_tokens=tokens, stream=True
            )
            async for _ in events:
                pass

    return read


def ours(url: str) -> Read:
    """Read with the client of one endpoint."""
    client = EngineClient(url, dialect=TGI)

    async def read(tokens: int) -> None:
        call = ChatCall((ChatMessage("user", PROMPT),), max_tokens=tokens)
        async with client.stream(call) as stream:
            async for _ in stream:
                pass

    return read


def pool(url: str) -> Read:
    """Read with a pool of that one endpoint."""
    engines = EnginePool([url], dialect=TGI)

    async def read(tokens: int) -> None:
        call = ChatCall((ChatMessage("user", PROMPT),), max_tokens=tokens)
        async with engines.stream(call, key="k") as stream:
            async for _ in stream:
                pass

    return read


async def cost_us(read: Read, tokens: int, streams: int) -> float:
    """Return the CPU time of a stream of so many tokens, four at once."""
    began = time.process_time()
    for _ in range(streams // 4):
        await asyncio.gather(*(read(tokens) for _ in range(4)))
    return (time.process_time() - began) / (streams // 4 * 4) * 1e6


async def measure(url: str, tokens: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return, for each kind and round, the cost of a token and of a stream."""
    kinds = {one.__name__: one(url) for one in (raw, hub, ours, pool)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for read in kinds.values():
        await read(SHORT_TOKENS)
    for _ in range(rounds):
        for name, read in kinds.items():
            short = await cost_us(read, SHORT_TOKENS, 40)
            long = await cost_us(read, tokens, 8)
            a_token = (long - short) / (tokens - SHORT_TOKENS)
            found[name].append((a_token, short - SHORT_TOKENS * a_token))
    return found


def row(tokens_a_write: int, name: str, found: dict[str, list[tuple[float, float]]]) -> str:
    """Return a kind's line of the table."""
    cells = [f"| {tokens_a_write} | {name} "]
    for which in (0, 1):
        mine = [pair[which] for pair in found[name]]
        base = [pair[which] for pair in found["raw"]]
        ratios = [value / other for value, other in zip(mine, base, strict=True) if other > 0]
        cells.append(f"| {statistics.median(mine):.0f} ({min(mine):.0f}–{max(mine):.0f}) ")
        cells.append(f"| {statistics.median(ratios):.2f} ")
    return "".join([*cells, "|"])


def main(
    tokens: Annotated[int, typer.Option(help="of a long reply")] = 400,
    rounds: Annotated[int, typer.Option(help="side by side")] = 7,
) -> None:
    """Measure the client's CPU time a token and a stream."""
    logs.configure("error", "console")
    typer.echo(
        "| tokens a write | client | µs a token (range) | of raw | µs a stream (range) | of raw |"
        "\n|---|---|---|---|---|---|"
    )
    for number, tokens_a_write in enumerate((1, 8)):
        port = 9420 + number
        server = multiprocessing.Process(target=serve, args=(port, tokens_a_write), daemon=True)
        server.start()
        try:
            time.sleep(1)
            found = uvloop.run(measure(f"http://127.0.0.1:{port}", tokens, rounds))
            for name in found:
                typer.echo(row(tokens_a_write, name, found))
        finally:
            server.kill()


if __name__ == "__main__":
    typer.run(main)
