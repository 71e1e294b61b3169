"""NATS restarts and gateways end while clients wait."""

from __future__ import annotations

import asyncio
from signal import SIGTERM
from typing import Any

import pytest

from tests.gateway.site import Site, chat, events, follow, in_two_parts, text_of

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_stream_goes_on_through_a_restart_of_nats(site: Site) -> None:
    going_on = asyncio.Event()
    site.engine.script = in_two_parts(going_on)
    body = chat(model="skelgraph-direct", stream=True, max_tokens=500)
    async with (
        site.http() as http,
        http.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        got: list[dict[str, Any]] = []
        async for one in events(response):
            got.append(one.data)
            if text_of(got) == "Before." and not going_on.is_set():
                await asyncio.to_thread(site.runtime.server.restart)
                going_on.set()
    assert text_of(got) == "Before. After."
    assert got[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_gateway_that_is_stopped_lets_answers_end_and_hands_events_over(
    site: Site,
) -> None:
    gateway, url = await site.another_gateway(drain_s="20")
    going_on = asyncio.Event()
    site.engine.script = in_two_parts(going_on)
    async with site.http(url=url) as http:
        asked = chat(model="skelgraph-direct", max_tokens=500)
        asking = asyncio.create_task(http.post("/v1/chat/completions", json=asked))
        submitted = await http.post("/v1/requests", json={"question": "Why?", "mode": "direct"})
        following = asyncio.create_task(follow(http, submitted.json()["id"]))
        await (await site.engine.call(2)).waiting.wait()
        gateway.signal(SIGTERM)
        broken_off = await following
        assert broken_off[-1].name != "answer_assembled"
        going_on.set()
        answer = (await asking).json()["choices"][0]["message"]["content"]
        assert answer == "Before. After."
        await gateway.ended()
    async with site.http() as http:
        last = [one.ident for one in broken_off if one.ident][-1]
        rest = await follow(http, submitted.json()["id"], **{"Last-Event-ID": str(last)})
    assert rest[-1].name == "answer_assembled"
