"""What an engine speaks is asked of it, and asked again when it may have changed."""

from __future__ import annotations

import time

import pytest

from proto.errors import EngineRejected, EngineUnavailable
from services.runtime.calls import ChatCall, ChatMessage, EngineStream
from services.runtime.endpoints import EnginePool
from services.runtime.engine import EngineClient
from tests.scripted_engine import Fail, Finish, Say, ScriptedEngine, Step
from tests.scripted_steps import Json

CALL = ChatCall((ChatMessage("user", "Why?"),), max_tokens=4)


def answers(_: Json) -> list[Step]:
    return [Say("a"), Finish()]


async def read(stream: EngineStream) -> str:
    async with stream:
        return "".join([chunk.text async for chunk in stream])


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
async def test_an_engine_that_cannot_tell_now_is_asked_again(status: int) -> None:
    async with ScriptedEngine(answers, dialect="vllm") as engine:
        client = EngineClient(engine.url)
        engine.routes_fail_with = status
        with pytest.raises(EngineUnavailable):
            await client.dialect()
        engine.routes_fail_with = 0
        assert (await client.dialect()).name == "vllm"
        await client.close()


async def test_plain_is_only_remembered_of_an_engine_that_told_its_models() -> None:
    async with ScriptedEngine(answers, dialect="vllm") as engine:
        client = EngineClient(engine.url)
        engine.routes_fail_with = 404
        assert (await client.dialect()).name == "plain"
        assert await read(client.stream(CALL)) == "a"
        engine.routes_fail_with = 0
        assert (await client.dialect()).name == "vllm"
        await client.close()


async def test_an_engine_that_is_told_once_is_not_asked_again() -> None:
    async with ScriptedEngine(answers, dialect="plain") as engine:
        client = EngineClient(engine.url)
        for _ in range(3):
            await client.dialect()
        assert engine.asked.count("/v1/models") == 1
        await client.close()


async def test_after_a_404_an_engine_is_asked_anew() -> None:
    async with ScriptedEngine(lambda _: [Fail(404, b"no such model")], dialect="vllm") as engine:
        client = EngineClient(engine.url)
        with pytest.raises(EngineRejected):
            await read(client.stream(CALL))
        engine.script, engine.dialect = answers, "tgi"
        await read(client.stream(CALL))
        assert [call.body["model"] for call in engine.calls] == ["scripted/model", "tgi"]
        await client.close()


async def test_an_endpoint_that_was_left_out_is_asked_anew_what_it_speaks() -> None:
    async with ScriptedEngine(lambda _: [Fail(503)], dialect="vllm") as engine:
        passed_s = 0.0
        pool = EnginePool([engine.url], clock=lambda: time.monotonic() + passed_s)
        with pytest.raises(EngineUnavailable):
            await read(pool.stream(CALL, key="k"))
        engine.script, engine.dialect = answers, "llamacpp"
        passed_s = 60.0
        pool.look()
        await read(pool.stream(CALL, key="k"))
        assert engine.calls[-1].body["model"] == "default"
        await pool.close()
