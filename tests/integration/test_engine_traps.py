"""The traps of TGI and of huggingface_hub against the simulated engine; see docs/engine.md."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bench.simulated_engine.faults import Faults, Kind
from bench.simulated_engine.options import FAMILIES, Family, Options
from bench.simulated_engine.profiles import NO_OP
from bench.simulated_engine.server import serving
from proto.errors import (
    EngineCutOff,
    EngineError,
    EngineOverloaded,
    EngineRejected,
    EngineTimedOut,
    PromptTooLong,
)
from services.runtime.calls import ChatCall, ChatMessage, EngineLimits, EngineStream
from services.runtime.engine import EngineClient
from tests.simulated import simulated_engine

QUESTION = "Why is the sky blue, and why is it red in the evening? " * 4


def ask(text: str = QUESTION, *, max_tokens: int = 8, **more: Any) -> ChatCall:
    return ChatCall((ChatMessage("user", text),), max_tokens=max_tokens, **more)


async def read(stream: EngineStream) -> str:
    async with stream:
        return "".join([chunk.text async for chunk in stream])


@asynccontextmanager
async def client_of(
    family: Family = "tgi",
    *,
    api_key: str | None = None,
    limits: EngineLimits | None = None,
    **options: Any,
) -> AsyncIterator[EngineClient]:
    async with serving(Options(family=family, **options)) as url:
        client = EngineClient(url, api_key=api_key, limits=limits)
        try:
            yield client
        finally:
            await client.close()


@pytest.mark.parametrize("family", FAMILIES)
async def test_every_family_is_found_and_read_with_its_usage(family: Family) -> None:
    async with client_of(family, model="some/model") as client:
        await client.check()
        stream = client.stream(ask())
        assert await read(stream)
        done = stream.completion
        assert (await client.dialect()).name == family
        assert (done.finish_reason, done.model) == ("length", "some/model")
        assert done.usage.generated_tokens == 8
        assert done.usage.prompt_tokens > 16


@pytest.mark.parametrize("family", [one for one in FAMILIES if one != "tgi"])
async def test_cached_tokens_are_told_where_the_engine_tells_them(family: Family) -> None:
    async with client_of(family) as client:
        await read(client.stream(ask()))
        await read(again := client.stream(ask()))
        usage = again.completion.usage
        assert usage.cached_tokens >= 16
        assert usage.cached_tokens <= usage.prompt_tokens


@pytest.mark.parametrize("family", ["tgi", "vllm"])
async def test_the_gauges_of_the_table_are_those_of_the_engine(family: Family) -> None:
    async with client_of(family) as client:
        await read(client.stream(ask()))
        async with client.wire.http() as http:
            told = (await http.get(f"{client.url}/metrics")).text
        gauges = dataclasses.asdict((await client.dialect()).gauges).values()
        assert [name for name in gauges if name and f"\n{name}" not in told] == []


async def test_what_tgi_would_refuse_is_not_sent() -> None:
    call = ask(top_p=1.0, temperature=0.0, stop=tuple("12345"), repetition_penalty=1.1)
    async with client_of() as client:
        assert await read(client.stream(call))


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_prompt_that_does_not_fit_is_told_apart(family: Family) -> None:
    small = dataclasses.replace(NO_OP, max_input_tokens=50, max_total_tokens=64)
    async with client_of(family, profile=small) as client:
        with pytest.raises(PromptTooLong):
            await read(client.stream(ask("word " * 500)))
        assert await read(client.stream(ask("Why?")))


async def test_overload_is_told_apart_from_failure() -> None:
    slow = dataclasses.replace(NO_OP, overhead_s=0.05)
    async with client_of(profile=slow, max_concurrent_requests=1) as client:
        first = client.stream(ask(max_tokens=200))
        async with first:
            await anext(first)
            with pytest.raises(EngineOverloaded):
                await read(client.stream(ask()))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        ("refuse", (EngineOverloaded,)),
        ("error", (EngineError,)),
        ("in_band", (EngineError,)),
        ("garbage", (EngineError,)),
        ("cut", (EngineCutOff,)),
        ("cut_mid", (EngineCutOff,)),
        ("hang", (EngineTimedOut,)),
        ("keep_alive", (EngineTimedOut,)),
        ("hang_mid", (EngineTimedOut,)),
    ],
)
async def test_every_fault_comes_out_as_its_type(
    family: Family, fault: Kind, kinds: tuple[type[EngineError], ...]
) -> None:
    limit_s = 0.5 if fault in ("hang", "keep_alive", "hang_mid") else 10
    limits = EngineLimits(first_token_s=limit_s, between_tokens_s=limit_s)
    faults = Faults(fault, after_tokens=3)
    async with client_of(family, limits=limits, faults=faults, keep_alive_s=0.05) as client:
        with pytest.raises(EngineError) as caught:
            await read(client.stream(ask(max_tokens=20)))
        assert type(caught.value) in kinds


async def test_a_key_is_sent_and_a_wrong_one_is_refused() -> None:
    async with serving(Options(api_key="right")) as url:
        for key, taken in (("right", True), ("wrong", False), (None, False)):
            client = EngineClient(url, api_key=key)
            if taken:
                assert await read(client.stream(ask()))
            else:
                with pytest.raises(EngineRejected, match="401"):
                    await read(client.stream(ask()))
            await client.close()


@pytest.mark.parametrize("tokens", [0, 3], ids=["before the first token", "in the middle"])
async def test_leaving_is_seen_by_the_engine_within_1_s(tokens: int) -> None:
    slow = dataclasses.replace(NO_OP, overhead_s=0.05 if tokens else 30.0)
    async with client_of(profile=slow) as client:
        task = asyncio.create_task(_read_some(client, tokens), name="reader")
        await _until_in_flight(client.url, 1)
        if tokens:
            await task
        else:
            task.cancel()
        async with asyncio.timeout(1):
            await _until_in_flight(client.url, 0)


async def _read_some(client: EngineClient, tokens: int) -> None:
    async with client.stream(ask(max_tokens=400)) as stream:
        for _ in range(max(tokens, 1)):
            await anext(stream)


async def _until_in_flight(url: str, streams: int) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http, asyncio.timeout(5):
        # The engine's own count can only be asked for.
        while (await http.get(f"{url}/control")).json()["in_flight"] != streams:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "streams",
    [1_000, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(600)])],
)
async def test_streams_leave_neither_memory_nor_connections_behind(streams: int) -> None:
    with simulated_engine("--profile", "no-op") as engine:
        client = EngineClient(engine.url, limits=EngineLimits(connect_s=30))
        short = ask("Why?", max_tokens=2)

        async def some(number: int) -> None:
            for _ in range(number // 20):
                await asyncio.gather(*(read(client.stream(short)) for _ in range(20)))
            if rest := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(rest)
            gc.collect()

        await some(streams)
        objects, files, resident_mib = len(gc.get_objects()), _descriptors(), _resident_mib()
        await some(streams)
        # Two equal rounds: the second leaves nothing that the first has not left already. A stream
        # is some 50 objects, and those of the last 20 may be there until the loop has closed them.
        async with asyncio.timeout(20):
            while len(gc.get_objects()) - objects >= streams:  # no signal
                await asyncio.sleep(0.1)
                gc.collect()
        assert _descriptors() <= files + 20  # of the last streams, which are being closed
        assert _resident_mib() - resident_mib < 16
        await client.close()
