"""Chat completions over the whole product, as any client of OpenAI's API makes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proto.messages import JOINT
from tests.conftest import Runtime
from tests.gateway import Site, chat, events, running_site
from tests.scripted_engine import LOREM

ANSWER = JOINT.join([LOREM.strip()] * 4)


@pytest.fixture
async def site(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(runtime, tmp_path) as site:
        yield site


async def test_an_answer_comes_whole_with_its_usage_and_where_its_time_went(site: Site) -> None:
    async with site.http() as http:
        response = await http.post("/v1/chat/completions", json=chat())
        body: dict[str, Any] = response.json()
    assert response.status_code == 200, body
    (choice,) = body["choices"]
    assert choice["message"]["content"] == ANSWER
    assert choice["finish_reason"] == "stop"
    nodes = body["skelgraph"]["nodes"]
    assert [node["id"] for node in nodes] == [1, 2, 3, 4]
    generated = sum(node["usage"]["generated_tokens"] for node in nodes)
    assert body["usage"]["completion_tokens"] > generated  # the plan has tokens too
    assert body["skelgraph"]["timings"]["critical_path"][-1] == 4
    assert response.headers["x-skelgraph-mode"] == "sgd"
    assert response.headers["x-skelgraph-nodes"] == "4"
    assert float(response.headers["x-skelgraph-overhead-ms"]) >= 0
    assert body["id"] == f"chatcmpl-{response.headers['x-request-id']}"


async def test_a_stream_is_the_same_text_in_order_and_ends_as_openais_does(site: Site) -> None:
    asked = chat(stream=True, stream_options={"include_usage": True})
    async with (
        site.http() as http,
        http.stream("POST", "/v1/chat/completions", json=asked) as response,
    ):
        got: list[dict[str, Any]] = [one.data async for one in events(response)]
    *chunks, end, usage = got
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == ANSWER
    assert len(chunks) > 20, "it flows"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert end["choices"][0]["finish_reason"] == "stop"
    assert end["skelgraph"]["mode"] == "sgd"
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] > 0
