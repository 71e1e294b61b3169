"""An engine that means harm: packed replies, replies without an end, redirects."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import tracemalloc
from collections.abc import AsyncIterator

import httpx2
import pytest

from proto.errors import EngineError
from services.runtime.calls import ChatCall, ChatMessage
from services.runtime.engine import EngineClient
from services.runtime.engine_http import MAX_REPLY_BYTES, Wire

#: 64 MB in 64 kB.
BOMB = gzip.compress(b"\0" * 64_000_000)
CALL = ChatCall((ChatMessage("user", "Why?"),), max_tokens=8)


@contextlib.asynccontextmanager
async def replying(
    head: str,
    body: bytes,
    times: int = 1,
    *,
    status: str = "200 OK",
    asked: list[bytes] | None = None,
) -> AsyncIterator[str]:
    """Serve one reply to whatever is asked, on the loopback address; note it in `asked`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            said = await reader.readuntil(b"\r\n\r\n")
            if asked is not None:
                asked.append(said)
            writer.write(f"HTTP/1.1 {status}\r\n{head}\r\nconnection: close\r\n\r\n".encode())
            for _ in range(times):
                writer.write(body)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_packed_stream_is_refused_and_not_unpacked() -> None:
    head = "content-type: text/event-stream\r\ncontent-encoding: gzip"
    async with replying(head, BOMB) as url:
        client = EngineClient(url)
        tracemalloc.start()
        try:
            with pytest.raises(EngineError):
                await read(client)
            assert tracemalloc.get_traced_memory()[1] < 16_000_000
        finally:
            tracemalloc.stop()
            await client.close()


@pytest.mark.parametrize(
    ("head", "body", "times"),
    [
        ("content-type: application/json\r\ncontent-encoding: gzip", BOMB, 1),
        ("content-type: application/json", b"[" * 65_536, 10_000),
    ],
    ids=["packed", "endless"],
)
async def test_what_an_engine_says_of_itself_is_bounded(head: str, body: bytes, times: int) -> None:
    async with replying(head, body, times) as url:
        wire = Wire(url, api_key=None, connect_s=2)
        tracemalloc.start()
        try:
            async with wire.http() as http:
                with pytest.raises(httpx2.TransportError):
                    await http.get(f"{url}/info")
            assert tracemalloc.get_traced_memory()[1] < 8 * MAX_REPLY_BYTES
        finally:
            tracemalloc.stop()
            await wire.close()


@pytest.mark.parametrize("status", ["302 Found", "307 Temporary Redirect"])
async def test_an_engine_sends_us_nowhere(status: str) -> None:
    inside: list[bytes] = []
    async with (
        replying("content-type: application/json", b"{}", asked=inside) as secret,
        replying(f"location: {secret}/v1/admin", b"", status=status) as url,
    ):
        client = EngineClient(url, api_key="mine")
        for call in (client.check(), client.dialect(), read(client)):
            with contextlib.suppress(EngineError):
                await call
        with pytest.raises(EngineError):
            await read(client)
        await client.close()
    assert inside == []


async def read(client: EngineClient) -> None:
    async with client.stream(CALL) as stream:
        [chunk async for chunk in stream]
