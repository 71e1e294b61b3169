"""Chat completions, as any client of OpenAI's API makes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx2
import pytest

from proto.messages import JOINT
from tests.gateway.site import Site, chat, complete, endless, streamed, text_of
from tests.scripted_engine import LOREM, Fail, Finish, Say, Step, Wait, writer
from tests.scripted_steps import Json

pytestmark = pytest.mark.asyncio(loop_scope="package")

ANSWER = JOINT.join([LOREM.strip()] * 4)


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
    site.engine.script = writer(token_s=0.02)  # longer than workers gather tokens for
    *chunks, end, usage = await streamed(site, stream_options={"include_usage": True})
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert text_of(chunks) == ANSWER
    assert len(chunks) > 20, "it flows"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert end["choices"][0]["finish_reason"] == "stop"
    assert end["skelgraph"]["mode"] == "sgd"
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_polished_answer_has_each_part_fitted_to_the_one_before(
    site: Site, stream: bool
) -> None:
    sentence = LOREM.partition(".")[0] + "."
    fitted = "Then again, l" + sentence[1:]
    plain, joint = writer(token_s=0.002), writer(token_s=0.002, text=fitted)

    def script(request: Json) -> Iterable[Step] | AsyncIterator[Step]:
        rules: str = request["messages"][0]["content"]
        return (joint if rules.startswith("Two writers") else plain)(request)

    site.engine.script = script
    if stream:
        text = text_of(await streamed(site, skelgraph={"polish": True}))
    else:
        body = await complete(site, skelgraph={"polish": True})
        text = body["choices"][0]["message"]["content"]
    part = LOREM.strip()
    assert text == JOINT.join([part, *[part.replace(sentence, fitted, 1)] * 3])


async def test_the_conversation_reaches_the_engine_as_it_was_held(site: Site) -> None:
    messages = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello to you.", "refusal": None, "tool_calls": None},
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Why "}]},
        {"role": "user", "content": [{"type": "text", "text": "not?"}]},
    ]
    await complete(site, model="skelgraph-direct", messages=messages, temperature=0.5, seed=7)
    (call,) = site.engine.calls
    assert [(one["role"], one["content"]) for one in call.body["messages"]] == [
        ("system", "Be brief."),
        ("user", "Hello."),
        ("assistant", "Hello to you."),
        ("user", "Why \n\nnot?"),
    ]
    assert (call.body["temperature"], call.body["seed"]) == (0.5, 7)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_text_ends_the_answer_and_the_rest_is_cancelled(
    site: Site, stream: bool
) -> None:
    async def steps(_: Json) -> AsyncIterator[Step]:
        for word in ("One ", "two EN", "D three "):
            yield Say(word)
            yield Wait(0.02)
        if stream:
            yield Wait(60)
        yield Finish()

    site.engine.script = steps
    asked: dict[str, object] = {"model": "skelgraph-direct", "stop": "END", "max_tokens": 500}
    if stream:
        got = await streamed(site, **asked)
        assert text_of(got) == "One two "
        assert got[-1]["choices"][0]["finish_reason"] == "stop"
        assert got[-1]["skelgraph"]["cut_off"]
        async with asyncio.timeout(1):
            await site.engine.calls[0].left.wait()
    else:
        choice = (await complete(site, **asked))["choices"][0]
        assert choice["message"]["content"] == "One two "


@pytest.mark.parametrize("stream", [False, True])
async def test_the_limit_of_tokens_is_one_of_the_whole_answer(site: Site, stream: bool) -> None:
    if stream:
        got = await streamed(site, max_completion_tokens=30)
        text, reason = text_of(got), got[-1]["choices"][0]["finish_reason"]
    else:
        choice = (await complete(site, max_tokens=30))["choices"][0]
        text, reason = choice["message"]["content"], choice["finish_reason"]
    assert reason == "length"
    assert 20 <= len(text.split()) <= 32, text  # here a token is a word


@pytest.mark.parametrize(
    ("asked", "status", "code", "param"),
    [
        ({"model": "gpt-4"}, 404, "model_not_found", "model"),
        ({"tools": [{"type": "function"}]}, 400, "unsupported_parameter", "tools"),
        ({"functions": [{}]}, 400, "unsupported_parameter", "functions"),
        ({"n": 2}, 400, "unsupported_parameter", "n"),
        ({"logprobs": True}, 400, "unsupported_parameter", "logprobs"),
        ({"response_format": {"type": "json_object"}}, 400, "unsupported_parameter", None),
        ({"surprise": 1}, 400, "unknown_parameter", "surprise"),
        ({"temperature": "hot"}, 400, "invalid_request", "temperature"),
        ({"messages": []}, 400, "invalid_request", "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "invalid_request", None),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "invalid_request", "messages"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            400,
            "unsupported_parameter",
            "messages.0.role",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "unsupported_parameter",
            "messages.0.content",
        ),
        (
            {"messages": [{"role": "user", "content": "x" * 600_000}]},
            413,
            "request_too_large",
            None,
        ),
    ],
)
async def test_what_is_not_supported_is_refused_by_name(
    site: Site, asked: dict[str, object], status: int, code: str, param: str | None
) -> None:
    async with site.http() as http:
        response = await http.post("/v1/chat/completions", json=chat() | asked)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert param is None or error["param"] == param
    assert error["message"]
    assert error["type"] == "invalid_request_error"


async def test_parameters_at_the_value_that_changes_nothing_are_taken(site: Site) -> None:
    neutral = {
        "n": 1,
        "tools": [],
        "logprobs": False,
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "response_format": {"type": "text"},
        "user": "me",
        "top_logprobs": None,
        "service_tier": "auto",
    }
    await complete(site, model="skelgraph-direct", **neutral)


async def test_a_request_without_an_answer_says_why_in_openais_form(site: Site) -> None:
    site.engine.script = lambda _: [Fail(400, b'{"error":"bad prompt"}')]
    asked = chat(model="skelgraph-direct", skelgraph={"on_failure": "fail"})
    async with site.http() as http:
        response = await http.post("/v1/chat/completions", json=asked)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "node_gave_up")
    assert response.headers["x-request-id"]
    got = await streamed(site, model="skelgraph-direct", skelgraph={"on_failure": "fail"})
    assert got[-1]["error"]["code"] == "node_gave_up"


# --- leaving cancels ---


@pytest.mark.parametrize(
    ("model", "words", "stream"),
    [
        ("skelgraph-direct", 3, True),
        ("skelgraph-direct", 3, False),
        ("skelgraph-direct", 0, True),
        ("skelgraph-sgd", 0, True),  # while it is being planned
    ],
)
async def test_who_closes_the_connection_closes_the_engines_within_a_second(
    site: Site, model: str, words: int, stream: bool
) -> None:
    site.engine.script = endless(words)
    async with site.http() as http:
        asked = chat(model=model, stream=stream, max_tokens=500)
        asking = asyncio.create_task(drain(http, asked))
        call = await site.engine.call(1)
        await call.waiting.wait()
        asking.cancel()
        await asyncio.wait([asking])
    started = time.monotonic()
    async with asyncio.timeout(5):
        await call.left.wait()
    assert time.monotonic() - started < 1


async def drain(http: httpx2.AsyncClient, asked: dict[str, object]) -> None:
    async with http.stream("POST", "/v1/chat/completions", json=asked) as response:
        await response.aread()
