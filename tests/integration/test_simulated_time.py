"""The simulated engine in time: signs of life, cancellation, scale."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from bench.simulated_engine.author import LengthLaw
from bench.simulated_engine.options import Options
from bench.simulated_engine.profiles import NO_OP, PROFILES, Profile
from bench.simulated_engine.server import serving
from tests.simulated import client_of as engine

#: A step a hundredth of a second, one sequence at a time.
SLOW = replace(NO_OP, weights_s=0.01, max_batch=1)
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Why?"}], "model": "tgi"}


async def test_silence_is_broken_by_comments_even_while_queued() -> None:
    async with engine(profile=SLOW, keep_alive_s=0.1) as client:
        long = {"inputs": "a", "parameters": {"max_new_tokens": 60}}
        running = asyncio.create_task(client.post("/generate", json=long))
        while not (await client.get("/control")).json()["in_flight"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        queued = await client.post("/v1/chat/completions", json=CHAT | {"stream": True})
        await running
    assert queued.text.startswith(":\n\n:\n\n")
    assert "data: [DONE]" in queued.text


async def test_vllm_sends_no_comments() -> None:
    async with engine(family="vllm", profile=SLOW, keep_alive_s=0.02, model="tgi") as client:
        reply = await client.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert "\n:" not in reply.text


@pytest.mark.parametrize("stream", [True, False])
async def test_closing_the_connection_ends_the_sequence_within_a_step(stream: bool) -> None:
    async with engine(profile=SLOW) as client:
        long = CHAT | {"max_tokens": 900, "stream": stream}
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=long))
        while not (await client.get("/control")).json()["running"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        asking.cancel()
        async with asyncio.timeout(2):
            while (await client.get("/control")).json()["running"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        metrics = (await client.get("/metrics")).text
    assert 'tgi_request_failure{err="dropped"} 1' in metrics


async def test_gauges_of_the_queue_are_absent_until_the_first_request() -> None:
    async with engine() as client:
        before = (await client.get("/metrics")).text
        await client.post("/generate", json={"inputs": "Why?"})
        after = (await client.get("/metrics")).text
    for name in ("tgi_queue_size", "tgi_batch_current_size"):
        assert name not in before
        assert f"{name} 0" in after


async def test_time_passes_as_the_profile_says_scaled() -> None:
    profile = PROFILES["llama-70b-4xa100"]
    loop = asyncio.get_running_loop()
    async with engine(profile=profile, time_scale=0.1, lengths=LengthLaw(999, 0)) as client:
        began = loop.time()
        await client.post("/v1/chat/completions", json=CHAT | {"max_tokens": 100})
        passed_s = loop.time() - began
    wanted_s = 0.1 * 100 * profile.step_s(1, 60)
    # Never faster; slower only as this machine is.
    assert wanted_s <= passed_s < 20 * wanted_s


class Breaking(Profile):
    """A timing model with a defect."""

    def step_s(self, tokens: int, context_tokens: int) -> float:
        raise ZeroDivisionError


async def _ask_until_it_breaks() -> None:
    dead = asyncio.Event()
    fields = {field.name: getattr(NO_OP, field.name) for field in dataclasses.fields(NO_OP)}
    async with (
        serving(Options(profile=Breaking(**fields)), when_dead=dead.set) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.post("/v1/chat/completions", json=CHAT)
        await dead.wait()


async def test_a_defect_of_the_engine_ends_its_streams_and_is_told() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await _ask_until_it_breaks()
    assert raised.group_contains(ZeroDivisionError)
