"""The HTTP server against clients that mean no good; a real server, real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from services.gateway.server import GatewayServer

LARGE_BYTES = 8 * 1024**2
_ASKED: list[tuple[str, str, int]] = []
_SERVERS: list[GatewayServer] = []


async def _echo(request: Request) -> Response:
    body = await request.body()
    _ASKED.append((request.method, request.url.path, len(body)))
    return JSONResponse({"read": len(body), "headers": sorted(request.headers)})


async def _unread(_: Request) -> Response:
    return PlainTextResponse("here")


async def _large(_: Request) -> Response:
    return Response(b"x" * LARGE_BYTES)


@asynccontextmanager
async def serving(**limits: float) -> AsyncIterator[int]:
    """Serve; yield the port."""
    routes = [Route("/unread", _unread), Route("/large", _large)]
    routes.append(Route("/{path:path}", _echo, methods=["POST", "GET", "DELETE"]))
    options = {"max_connections": 100, "head_timeout_s": 5, "write_timeout_s": 5} | limits
    server = GatewayServer(Starlette(routes=routes), "127.0.0.1", 0, **options)  # type: ignore[arg-type]
    server.start()
    _ASKED.clear()
    _SERVERS.append(server)
    try:
        yield server.port
    finally:
        await server.stop(0.1)
        await server.kill()


async def said(port: int, *pieces: bytes, after: bytes = b"") -> bytes:
    """Send pieces, wait for `after` before the last one, and return all until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    async with asyncio.timeout(10):
        for piece in pieces[:-1]:
            writer.write(piece)
            await writer.drain()
        if after:
            answer = await reader.readuntil(after)
        writer.write(pieces[-1])
        with contextlib.suppress(ConnectionResetError):
            answer += await reader.read()
    writer.close()
    return answer


H2C = (
    b"POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
)
SMUGGLED = b"DELETE /v1/requests/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("packets", [1, 2, 1000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_the_body_of_an_upgrade_is_a_body(packets: int, chunked: bool) -> None:
    size = len(SMUGGLED)
    if chunked:
        whole = (
            H2C + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size + SMUGGLED + b"\r\n0\r\n\r\n"
        )
    else:
        whole = H2C + b"Content-Length: %d\r\n\r\n" % size + SMUGGLED
    step = -(-len(whole) // packets)
    pieces = [whole[at : at + step] for at in range(0, len(whole), step)]
    async with serving() as port:
        answer = await said(port, *pieces, LAST)
    first, second = _ASKED
    assert first == ("POST", "/echo", size)
    assert second == ("GET", "/last", 0)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b'"upgrade"' not in answer


async def test_a_tunnel_is_refused_and_nothing_after_it_is_read() -> None:
    async with serving() as port:
        answer = await said(port, b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n" + SMUGGLED)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert _ASKED == []


@pytest.mark.parametrize("rest", [b"x", b""])
async def test_who_leaves_its_body_out_is_cut_off_after_the_answer(rest: bytes) -> None:
    head = b"GET /unread HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
    async with serving() as port:
        assert b"here" in await said(port, head, rest, after=b"here")


async def test_who_sends_line_breaks_for_requests_is_cut_off() -> None:
    head = b"GET /unread HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with serving(head_timeout_s=0.3) as port:
        assert b"408" in await said(port, head, b"\r\n", after=b"here")


async def test_trailers_are_bounded_and_are_no_headers() -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    end = b"1\r\nx\r\n0\r\nX-Late: 1\r\n\r\n"
    async with serving() as port:
        taken = await said(port, head, end, LAST)
        endless = [b"X: " + b"y" * 9000 + b"\r\n"] * 100
        refused = await said(port, head + b"0\r\n", *endless)
    assert b"x-late" not in taken
    assert _ASKED[0] == ("POST", "/echo", 1)
    assert refused == b"" or refused.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
async def test_who_does_not_read_its_answer_is_cut_off(more: bytes) -> None:
    async with serving(write_timeout_s=0.3) as port:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % more)
            async with asyncio.timeout(5):
                client.setblocking(False)
                await asyncio.get_running_loop().sock_recv(client, 1)
                while _SERVERS[-1].open_connections:  # noqa: ASYNC110  # nobody tells
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost", 408, "request_timed_out"),
        (b"nonsense\r\n\r\n", 400, "invalid_request"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000, 431, "headers_too_large"),
    ],
)
async def test_the_servers_own_refusals_are_in_openais_form(
    sent: bytes, status: int, code: str
) -> None:
    async with serving(head_timeout_s=0.3) as port:
        head, _, body = (await said(port, sent)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert orjson.loads(body)["error"]["code"] == code


async def test_one_connection_too_many_is_told_when_to_come_again() -> None:
    async with serving(max_connections=1) as port:
        _, first = await asyncio.open_connection("127.0.0.1", port)
        head, _, body = (await said(port, LAST)).partition(b"\r\n\r\n")
        first.close()
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: " in head
    assert orjson.loads(body)["error"]["code"] == "too_many_connections"
