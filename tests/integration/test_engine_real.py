"""The engine seam against llama.cpp with a real model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from proto.errors import EngineTimedOut, PromptTooLong
from services.runtime.engine import (
    ChatCall,
    ChatMessage,
    EngineClient,
    EngineLimits,
    EngineStream,
    Grammar,
)
from skelgraph.local.engine import EngineOptions
from skelgraph.local.ports import free_port
from skelgraph.local.process import Child

pytestmark = pytest.mark.engine

CONTEXT_TOKENS = 512
WORDS = " ".join(f"word{number}" for number in range(40))


@pytest.fixture(scope="module")
def engine_url(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running engine with two slots."""
    port = free_port()
    options = EngineOptions(
        model=small_model, port=port, slots=2, context_tokens_per_slot=CONTEXT_TOKENS, threads=1
    )
    child = Child(options.process_spec("engine"), tmp_path_factory.mktemp("engine") / "engine.log")
    child.launch()
    try:
        child.wait_ready()
        yield f"http://127.0.0.1:{port}"
    finally:
        child.kill()


@pytest.fixture
async def client(engine_url: str) -> AsyncIterator[EngineClient]:
    client = EngineClient(f"{engine_url}/v1")
    yield client
    await client.close()


def ask(text: str, *, max_tokens: int = 16, **more: Any) -> ChatCall:
    return ChatCall((ChatMessage("user", text),), max_tokens=max_tokens, **more)


async def read(stream: EngineStream) -> str:
    async with stream:
        return "".join([chunk.text async for chunk in stream])


async def test_it_is_found_and_it_streams(client: EngineClient) -> None:
    await client.check()
    stream = client.stream(ask("Name a colour."))
    assert await read(stream)
    assert (await client.dialect()).name == "llamacpp"
    assert stream.completion.usage.generated_tokens > 0
    assert stream.completion.model.startswith("smollm2")


async def test_the_limit_of_tokens_is_kept_and_told(client: EngineClient) -> None:
    stream = client.stream(ask("Count to a hundred.", max_tokens=5))
    await read(stream)
    assert stream.completion.finish_reason == "length"
    assert stream.completion.usage.generated_tokens == 5


async def test_the_grammar_is_kept(client: EngineClient) -> None:
    grammar = Grammar(gbnf='root ::= "node " [0-9] [0-9] "!"', regex="node [0-9][0-9]!")
    stream = client.stream(ask("Say something nice.", grammar=grammar))
    assert re.fullmatch(grammar.regex, await read(stream))
    assert stream.completion.finish_reason == "stop"


async def test_a_grammar_that_it_refuses_is_left_out_and_remembered(client: EngineClient) -> None:
    bad, good = Grammar("root ::= (", ""), Grammar('root ::= "yes"', "yes")
    assert await read(client.stream(ask("Hi", grammar=bad)))
    assert not client.takes(bad)
    assert await read(client.stream(ask("Hi", grammar=good))) == "yes"


async def test_a_prompt_sent_again_is_in_the_cache(client: EngineClient) -> None:
    call = ask(f"Repeat: {WORDS}", max_tokens=2)
    await read(client.stream(call))
    await read(again := client.stream(call))
    usage = again.completion.usage
    assert usage.cached_tokens > usage.prompt_tokens / 2


async def test_a_prompt_that_does_not_fit_is_told_apart(client: EngineClient) -> None:
    with pytest.raises(PromptTooLong, match=str(CONTEXT_TOKENS)):
        await read(client.stream(ask("word " * 2 * CONTEXT_TOKENS)))


async def test_leaving_frees_the_slot_within_1_s(client: EngineClient) -> None:
    # While it decodes; during a prefill llama.cpp looks up from its work only between batches.
    async with client.stream(ask("Count from 1 to 1000.", max_tokens=400)) as stream:
        await anext(stream)
        assert await busy_slots(client.url) == 1
    async with asyncio.timeout(1), aclosing(busy(client.url)) as looks:
        async for slots in looks:
            if slots == 0:
                break


async def test_the_gauges_of_the_table_are_its_own(client: EngineClient) -> None:
    async with client.wire.http() as http:
        told = (await http.get(f"{client.url}/metrics")).text
    gauges = (await client.dialect()).gauges
    assert f"\n{gauges.queued} " in told
    assert f"\n{gauges.running} " in told


async def test_a_time_limit_that_passes_in_its_prefill_frees_the_slot(engine_url: str) -> None:
    hurried = EngineClient(engine_url, limits=EngineLimits(first_token_s=0.05))
    with pytest.raises(EngineTimedOut):
        await read(hurried.stream(ask(f"Sum up: {WORDS}", max_tokens=400)))
    await hurried.close()
    # During a prefill llama.cpp looks up from its work only between batches.
    async with asyncio.timeout(30), aclosing(busy(engine_url)) as looks:
        async for slots in looks:
            if slots == 0:
                break


async def test_streams_at_once_are_whole_and_counted_apart(client: EngineClient) -> None:
    streams = [client.stream(ask(f"Count from {n}.", max_tokens=n)) for n in range(2, 8)]
    await asyncio.gather(*(read(stream) for stream in streams))
    tokens = [stream.completion.usage.generated_tokens for stream in streams]
    assert tokens == list(range(2, 8))


async def busy(url: str) -> AsyncGenerator[int, None]:
    """Look at the slots again and again; they can only be asked."""
    while True:
        yield await busy_slots(url)
        await asyncio.sleep(0.02)


async def busy_slots(url: str) -> int:
    async with httpx2.AsyncClient(trust_env=False) as http:
        slots = (await http.get(f"{url}/slots")).json()
    return sum(slot["is_processing"] for slot in slots)
