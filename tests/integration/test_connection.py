"""What waits for an answer of NATS can be stopped at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from nats.aio.transport import TcpTransport

from proto.messages import DecodeNode, NodeSpec, TokensDecoded
from proto.names import Pool, Subjects
from services.runtime.connection import Connection
from services.worker.preview import Preview
from skelgraph.local import nats
from skelgraph.local.nats import NatsServer
from tests.conftest import Runtime


async def asks(runtime: Runtime) -> None:
    while True:
        await runtime.connection.api("INFO")


async def reads(runtime: Runtime) -> None:
    while True:
        await runtime.events.read("r1")


@pytest.mark.parametrize("work", [asks, reads])
async def test_a_cancel_is_heeded_whenever_it_comes(
    runtime: Runtime, work: Callable[[Runtime], Coroutine[object, object, None]]
) -> None:
    for turns in range(150):
        task = asyncio.create_task(work(runtime))
        for _ in range(turns % 40):
            await asyncio.sleep(0)
        task.cancel()
        _, deaf = await asyncio.wait([task], timeout=2)
        assert not deaf


async def test_a_cancel_that_meets_the_answer_is_heeded(runtime: Runtime) -> None:
    connection: Connection = runtime.connection
    task = asyncio.create_task(asks(runtime))
    waiting = connection.nc._resp_map
    while not waiting:  # noqa: ASYNC110 - the very next turn of the loop matters
        await asyncio.sleep(0)
    (answer,) = waiting.values()
    answer.add_done_callback(lambda _: task.cancel())
    _, deaf = await asyncio.wait([task], timeout=2)
    assert not deaf


async def test_what_is_published_as_the_connection_closes_arrives_after_the_reconnect(
    runtime: Runtime, another: Runtime
) -> None:
    told: list[Msg] = []
    await another.connection.hear("told", told.append)
    await another.connection.api("INFO")
    back = asyncio.Event()
    runtime.connection.on_reconnect(back.set)
    transport = runtime.connection.nc._transport
    assert isinstance(transport, TcpTransport)
    assert transport._io_writer
    runtime.connection.put("told", b"before")
    transport._io_writer.transport.abort()  # nats-py does not know it yet
    runtime.connection.put("told", b"after")
    async with asyncio.timeout(5):
        await back.wait()
    await runtime.connection.api("INFO")
    await another.connection.api("INFO")
    assert [one.data for one in told] == [b"before", b"after"]


@pytest.fixture
async def narrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Connection, list[Msg]]]:
    """A connection to a server that takes 64 KiB a message, and what is told there of a node."""
    monkeypatch.setattr(nats, "_MAX_PAYLOAD_BYTES", 64 * 1024)
    async with (
        NatsServer(tmp_path / "nats") as server,
        Connection([server.url], name="test") as connection,
    ):
        await connection.open(timeout_s=5)
        told: list[Msg] = []
        await connection.hear(Subjects.live("r1", 0), told.append)
        yield connection, told


async def test_a_preview_that_is_too_large_is_dropped_and_the_connection_stays(
    narrow: tuple[Connection, list[Msg]],
) -> None:
    connection, told = narrow
    subject = Subjects.live("r1", 0)
    connection.preview(subject, b"x" * (64 * 1024 + 1))
    connection.preview(subject, b"x" * (64 * 1024))
    await connection.api("INFO")
    assert [len(one.data) for one in told] == [64 * 1024]
    assert connection.is_connected


@pytest.mark.parametrize("char", ["x", "\U0001f600", "\x01"])
async def test_a_preview_of_much_at_once_is_told_in_pieces_that_nats_takes(
    narrow: tuple[Connection, list[Msg]], char: str
) -> None:
    connection, told = narrow
    work = DecodeNode(
        request="r1",
        node=NodeSpec(id=0, summary="", difficulty="hard"),
        attempt=1,
        pool=Pool.LARGE,
        mode="direct",
        question="?",
        deadline_at=1e12,
    )
    with Preview(connection, work) as preview:
        for size in (1, 4_000, 4_000, 4_000, 50_000, 3):  # in one turn of the loop
            preview.add(char * size)
    await connection.api("INFO")
    text = ""
    for message in told:
        piece = TokensDecoded.model_validate_json(message.data)
        assert piece.offset == len(text)
        text += piece.text
    assert text == char * 62_004
    assert connection.is_connected
