"""A pool of endpoints over real HTTP."""

from __future__ import annotations

import asyncio

import pytest

from proto.errors import EngineUnavailable
from services.runtime.dialects import TGI
from services.runtime.endpoints import EnginePool
from services.runtime.engine import ChatCall, ChatMessage, EngineStream
from tests.scripted_engine import Finish, Say, ScriptedEngine, Wait

CALL = ChatCall((ChatMessage("user", "Why?"),), max_tokens=4)


async def read(stream: EngineStream) -> str:
    async with stream:
        return "".join([chunk.text async for chunk in stream])


def answers(_: object) -> list[Say | Finish]:
    return [Say("a"), Finish()]


async def test_calls_go_on_when_an_endpoint_dies() -> None:
    async with ScriptedEngine(answers) as stays:
        async with ScriptedEngine(answers) as dies:
            pool = EnginePool([stays.url, dies.url], dialect=TGI)
            key = next(
                str(n) for n in range(99) if pool.stream(CALL, key=str(n)).endpoint == dies.url
            )
            assert await read(pool.stream(CALL, key=key)) == "a"
        await pool.check()
        with pytest.raises(EngineUnavailable):
            await read(pool.stream(CALL, key=key))
        assert await read(pool.stream(CALL, key=key)) == "a"
        assert pool.in_flight == 0
    with pytest.raises(EngineUnavailable):
        await pool.check()
    await pool.close()


async def test_in_flight_counts_what_is_open_and_forgets_what_is_cancelled() -> None:
    async with ScriptedEngine(lambda _: [Say("a"), Wait(3600.0)]) as engine:
        pool = EnginePool([engine.url], dialect=TGI)
        task = asyncio.create_task(read(pool.stream(CALL, key="k")), name="reader")
        call = await engine.call()
        assert pool.in_flight == 1
        task.cancel()
        async with asyncio.timeout(1):
            await call.left.wait()
            await asyncio.wait([task])
        assert pool.in_flight == 0
        await pool.close()


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_one_healthy_endpoint_is_enough_and_a_hung_one_does_not_delay() -> None:
    hung = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with ScriptedEngine(answers) as engine:
        url = f"http://127.0.0.1:{hung.sockets[0].getsockname()[1]}"
        pool = EnginePool([url, engine.url], dialect=TGI)
        async with asyncio.timeout(2):
            await pool.check()
        await pool.close()
    hung.close()
