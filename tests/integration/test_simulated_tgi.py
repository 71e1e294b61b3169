"""The simulated engine speaks TGI's wire, traps included."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from bench.simulated_engine.author import LengthLaw, Recorded
from bench.simulated_engine.profiles import NO_OP, PROFILES
from tests.simulated import client_of as engine

Json = dict[str, Any]
#: A step a hundredth of a second, one sequence at a time.
SLOW = replace(NO_OP, weights_s=0.01, max_batch=1)
CHAT: Json = {"messages": [{"role": "user", "content": "Why?"}], "model": "tgi"}


def events(text: str) -> list[Json | str]:
    """The events of a stream; every line of it is one, a comment or empty."""
    found: list[Json | str] = []
    for line in text.split("\n"):
        assert line in {"", ":"} or line.startswith("data: ")
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            found.append(data if data == "[DONE]" else json.loads(data))
    return found


async def streamed(client: httpx2.AsyncClient, path: str, body: Json) -> list[Json | str]:
    reply = await client.post(path, json=body)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/event-stream"
    return events(reply.text)


# --- chat ---


async def test_chat_streams_tokens_then_usage_then_done() -> None:
    async with engine(recorded=[Recorded("Why", "OK!")]) as client:
        body = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
        *chunks, usage, done = await streamed(client, "/v1/chat/completions", body)
    assert done == "[DONE]"
    choices = [chunk["choices"][0] for chunk in chunks if isinstance(chunk, dict)]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": text} for text in ("OK", "!", "")
    ]
    assert [choice["finish_reason"] for choice in choices] == [None, None, "stop"]
    assert isinstance(usage, dict)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("more", "reason"),
    [({"max_tokens": 2}, "length"), ({"stop": [" two"]}, "stop_sequence"), ({}, "stop")],
)
async def test_finish_reasons_of_chats(more: Json, reason: str) -> None:
    async with engine(recorded=[Recorded("Why", "one two three")]) as client:
        whole = (await client.post("/v1/chat/completions", json=CHAT | more)).json()
        stream = await streamed(client, "/v1/chat/completions", CHAT | more | {"stream": True})
    assert whole["choices"][0]["finish_reason"] == reason
    last = stream[-2]
    assert isinstance(last, dict)
    assert last["choices"][0]["finish_reason"] == reason
    assert whole["usage"]["total_tokens"] == sum(list(whole["usage"].values())[:2])


async def test_any_model_but_tgi_is_taken_for_an_adapter_and_echoed() -> None:
    async with engine(model="base") as client:
        echoed = [
            (await client.post("/v1/chat/completions", json=CHAT | {"model": name})).json()["model"]
            for name in ("tgi", "my-lora")
        ]
    assert echoed == ["base", "my-lora"]


async def test_whole_answers_tell_times_and_tokens_in_headers_and_streams_do_not() -> None:
    async with engine(profile=PROFILES["llama-8b-1xh100"], time_scale=0.1) as client:
        whole = await client.post("/v1/chat/completions", json=CHAT | {"max_tokens": 5})
        stream = await client.post(
            "/v1/chat/completions", json=CHAT | {"max_tokens": 5, "stream": True}
        )
    assert whole.headers["x-generated-tokens"] == "5"
    assert 5 * 6 <= int(whole.headers["x-inference-time"]) <= 5 * 9
    assert int(whole.headers["x-prompt-tokens"]) == whole.json()["usage"]["prompt_tokens"]
    assert "x-total-time" not in stream.headers
    assert stream.headers["x-compute-type"] == "gpu+optimized"


# --- native ---


async def test_native_streams_tell_the_text_and_details_in_the_last_event_only() -> None:
    body = {"inputs": "Why?", "parameters": {"details": True, "seed": 7}}
    async with engine(recorded=[Recorded("Why", "OK!")]) as client:
        got = await streamed(client, "/generate_stream", body)
    chunks = [event for event in got if isinstance(event, dict)]
    assert [event["index"] for event in chunks] == [1, 2, 3]
    assert [event["token"]["special"] for event in chunks] == [False, False, True]
    assert [event["generated_text"] for event in chunks] == [None, None, "OK!"]
    assert chunks[-1]["details"] == {
        "finish_reason": "eos_token", "generated_tokens": 3, "seed": 7, "input_length": 2,
    }  # fmt: skip


async def test_the_bare_url_answers_with_a_list_and_the_full_text() -> None:
    async with engine(recorded=[Recorded("Why", "OK!")]) as client:
        whole = (await client.post("/", json={"inputs": "Why?"})).json()
        bare = {"inputs": "Why?", "parameters": {"return_full_text": False}}
        short = (await client.post("/", json=bare)).json()
        stream = await streamed(client, "/", {"inputs": "Why?", "stream": True})
    assert [whole, short] == [[{"generated_text": "Why?OK!"}], [{"generated_text": "OK!"}]]
    last = stream[-1]
    assert isinstance(last, dict)
    assert last["generated_text"] == "Why?OK!"


async def test_many_prompts_stream_by_index_with_a_usage_each() -> None:
    body = {"prompt": ["a", "b", "c"], "max_tokens": 3, "stream": True}
    async with engine() as client:
        got = await streamed(client, "/v1/completions", body)
    chunks = [event for event in got if isinstance(event, dict)]
    for index in range(3):
        own = [one for one in chunks if one["choices"][0]["index"] == index]
        assert [one["choices"][0]["finish_reason"] for one in own] == ["", "", "length"]
        assert [one["usage"] is None for one in own] == [True, True, False]


# --- refusals ---

TOO_MANY = {"stop": ["a", "b", "c", "d", "e"]}
INVALID: list[tuple[Json, str]] = [
    ({"top_p": 1.0}, "`top_p` must be > 0.0 and < 1.0"),
    (TOO_MANY, "`stop` supports up to 4 stop sequences. Given: 5"),
    ({"temperature": 0}, "`temperature` must be strictly positive"),
    ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
    (
        {"max_new_tokens": 99},
        # Goes on with what was given.
        "`inputs` tokens + `max_new_tokens` must be <= 50. Given: 2 `inputs` tokens and 99",
    ),
    ({"grammar": {"type": "regex", "value": "("}}, "grammar is not valid: "),
    (
        {"grammar": {"type": "json", "value": {"type": "object"}}},
        "grammar is not valid: Grammar must have a 'properties' field",
    ),
    ({"best_of": 3, "do_sample": True}, "`best_of` must be > 0 and <= 2. Given: 3"),
]


@pytest.mark.parametrize(("parameters", "message"), INVALID)
async def test_invalid_requests_get_tgis_message(parameters: Json, message: str) -> None:
    profile = replace(NO_OP, max_total_tokens=50, max_input_tokens=40)
    body = {"inputs": "Why?", "parameters": parameters}
    async with engine(profile=profile) as client:
        whole = await client.post("/generate", json=body)
        stream = await streamed(client, "/generate_stream", body)
    assert whole.status_code == 422
    assert whole.json()["error_type"] == "validation"
    assert whole.json()["error"].startswith(f"Input validation error: {message}")
    if "best_of" not in parameters:
        assert stream == [whole.json()]


async def test_streams_take_no_best_of_and_no_prefill_details() -> None:
    async with engine() as client:
        for name, value in (("best_of", 2), ("decoder_input_details", True)):
            body = {"inputs": "Why?", "parameters": {name: value, "do_sample": True}}
            (event,) = await streamed(client, "/generate_stream", body)
            assert isinstance(event, dict)
            assert "is not supported when streaming tokens" in event["error"]


async def test_long_prompts_are_refused_and_a_huge_limit_is_not() -> None:
    profile = replace(NO_OP, max_total_tokens=3000, max_input_tokens=40)
    async with engine(profile=profile, lengths=LengthLaw(20, 0)) as client:
        long = await client.post("/generate", json={"inputs": "x " * 50})
        huge = {"inputs": "Why?", "parameters": {"max_new_tokens": 100_000}}
        taken = await client.post("/generate", json=huge)
    assert long.json()["error"].endswith("`inputs` must have less than 40 tokens. Given: 51")
    assert taken.status_code == 200


async def test_on_chats_zero_temperature_is_greedy_and_top_p_of_one_is_refused() -> None:
    async with engine() as client:
        greedy = await client.post("/v1/chat/completions", json=CHAT | {"temperature": 0})
        refused = await client.post("/v1/chat/completions", json=CHAT | {"top_p": 1.0})
        stream = await streamed(
            client, "/v1/chat/completions", CHAT | {"top_p": 1.0, "stream": True}
        )
    assert greedy.status_code == 200
    assert refused.status_code == 422
    message = refused.json()["error"]
    assert stream == [{"error": {"message": message, "http_status_code": 422}}, "[DONE]"]


async def test_grammar_and_tools_exclude_each_other_even_if_there_are_no_tools() -> None:
    body = CHAT | {"tools": [], "response_format": {"type": "regex", "value": "a"}}
    async with engine() as client:
        reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 422
    assert reply.json() == {
        "error": "Tool error: Grammar and tools are mutually exclusive",
        "error_type": "tool_error",
    }


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"messages": 1}', "application/json", 422),
        (b'{"model": "tgi"}', "application/json", 422),
        (b"{}", "text/plain", 415),
        (b" " * 2_000_001, "application/json", 413),
    ],
)
async def test_unreadable_bodies_get_plain_text(
    content: bytes, content_type: str, status: int
) -> None:
    async with engine() as client:
        reply = await client.post(
            "/v1/chat/completions", content=content, headers={"content-type": content_type}
        )
    assert reply.status_code == status
    assert reply.headers["content-type"].startswith("text/plain")


async def test_the_key_guards_generation_only_and_its_refusal_is_empty() -> None:
    async with engine(api_key="Secret") as client:
        refused = await client.post("/v1/chat/completions", json=CHAT)
        taken = await client.post(
            "/v1/chat/completions", json=CHAT, headers={"authorization": "bearer secret"}
        )
        open_routes = [(await client.get(path)).status_code for path in ("/info", "/v1/models")]
    assert (refused.status_code, refused.content) == (401, b"")
    assert taken.status_code == 200
    assert open_routes == [200, 200]


async def test_beyond_the_permits_it_is_overloaded_at_once() -> None:
    async with engine(profile=SLOW, max_concurrent_requests=1) as client:
        running = asyncio.create_task(
            client.post("/generate", json={"inputs": "a", "parameters": {"max_new_tokens": 50}})
        )
        while not (await client.get("/control")).json()["in_flight"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        whole = await client.post("/v1/chat/completions", json=CHAT)
        chat = await streamed(client, "/v1/chat/completions", CHAT | {"stream": True})
        native = await streamed(client, "/generate_stream", {"inputs": "Why?"})
        assert (await running).status_code == 200
    said = {"error": "Model is overloaded", "error_type": "overloaded"}
    assert (whole.status_code, whole.json()) == (429, said)
    assert "retry-after" not in whole.headers
    assert native == [said]
    error = {"message": "Model is overloaded", "http_status_code": 422}
    assert chat == [{"error": error}, "[DONE]"]
