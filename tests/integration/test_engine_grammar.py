"""A grammar that an engine refuses is left out: the plan is free then, and the parser strict."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from proto.errors import EngineRejected, PromptTooLong
from services.runtime.calls import ChatCall, ChatMessage, EngineStream, Grammar
from services.runtime.dialects import TGI
from services.runtime.engine import EngineClient
from tests.scripted_engine import Fail, FailInBand, Finish, Say, ScriptedEngine, Step
from tests.scripted_steps import Json

ONE, OTHER = Grammar('root ::= "a"', "a"), Grammar('root ::= "b"', "b")
NOT_VALID = b'{"error":"Input validation error: grammar is not valid: x","error_type":"validation"}'
NOT_AT_ALL = (
    b'{"error":"Input validation error: grammar is not supported","error_type":"validation"}'
)
IN_BAND = {
    "error": {"message": "Input validation error: grammar is not valid", "http_status_code": 422}
}


def ask(grammar: Grammar | None) -> ChatCall:
    return ChatCall((ChatMessage("user", "Why?"),), max_tokens=4, grammar=grammar)


def refusing(*steps: Step) -> Callable[[Json], Iterable[Step]]:
    return lambda body: steps if "response_format" in body else (Say("free"), Finish())


@asynccontextmanager
async def client_of(*steps: Step) -> AsyncIterator[tuple[ScriptedEngine, EngineClient]]:
    async with ScriptedEngine(refusing(*steps)) as engine:
        client = EngineClient(engine.url, dialect=TGI)
        yield engine, client
        await client.close()


async def read(stream: EngineStream) -> str:
    async with stream:
        return "".join([chunk.text async for chunk in stream])


def constrained(engine: ScriptedEngine) -> list[bool]:
    return ["response_format" in call.body for call in engine.calls]


@pytest.mark.parametrize(
    "refusal", [Fail(422, NOT_VALID), FailInBand(IN_BAND)], ids=["status", "in band"]
)
async def test_the_call_is_made_again_without_it_and_that_is_remembered(refusal: Step) -> None:
    async with client_of(refusal) as (engine, client):
        with capture_logs() as logs:
            for _ in range(3):
                assert await read(client.stream(ask(ONE))) == "free"
            assert await read(client.stream(ask(OTHER))) == "free"
        assert constrained(engine) == [True, False, False, False, True, False]
        assert [line["event"] for line in logs] == ["grammar_refused"]


async def test_an_engine_that_takes_none_at_all_is_sent_none_any_more() -> None:
    async with client_of(Fail(422, NOT_AT_ALL)) as (engine, client):
        assert await read(client.stream(ask(ONE))) == "free"
        assert await read(client.stream(ask(OTHER))) == "free"
        assert constrained(engine) == [True, False, False]


async def test_what_is_refused_without_it_too_was_not_the_grammars_fault() -> None:
    async with ScriptedEngine(lambda _: [Fail(422, b"bad")]) as engine:
        client = EngineClient(engine.url, dialect=TGI)
        with pytest.raises(EngineRejected):
            await read(client.stream(ask(ONE)))
        assert constrained(engine) == [True, False]
        assert client.takes(ONE)
        await client.close()


async def test_a_prompt_that_is_too_long_is_not_sent_again() -> None:
    too_long = Fail(422, b'{"error":"`inputs` must have less than 10 tokens. Given: 11"}')
    async with client_of(too_long) as (engine, client):
        with pytest.raises(PromptTooLong):
            await read(client.stream(ask(ONE)))
        assert constrained(engine) == [True]


async def test_after_its_first_token_a_reply_is_not_asked_for_again() -> None:
    async with client_of(Say("a"), FailInBand(IN_BAND)) as (engine, client):
        with pytest.raises(EngineRejected):
            await read(client.stream(ask(ONE)))
        assert constrained(engine) == [True]


async def test_a_reply_too_long_for_the_engines_grammar_is_asked_for_without() -> None:
    async with client_of(Fail(422, NOT_VALID)) as (engine, client):
        long = ChatCall((ChatMessage("user", "Why?"),), max_tokens=1025, grammar=ONE)
        assert await read(client.stream(long)) == "free"
        assert constrained(engine) == [False]
        assert client.takes(ONE), "it was not sent, so it was not refused"


async def test_an_engine_that_lacks_a_part_of_one_grammar_takes_others() -> None:
    part = b'{"error":"grammar is not valid: look-around is not supported"}'
    async with client_of(Fail(422, part)) as (engine, client):
        for grammar in (ONE, OTHER):
            assert await read(client.stream(ask(grammar))) == "free"
        assert constrained(engine) == [True, False, True, False]
