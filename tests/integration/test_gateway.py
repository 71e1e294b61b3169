"""The gateway over the whole product, as its callers meet it. One site serves all tests here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from signal import SIGTERM
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from proto.messages import JOINT
from services.gateway.keys import entry, new_key
from tests.gateway import Sent, Site, chat, events, whole_site
from tests.scripted_engine import LOREM, Fail, Finish, Say, Script, Step, Wait, writer
from tests.scripted_steps import Json

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANSWER = JOINT.join([LOREM.strip()] * 4)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with whole_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest_asyncio.fixture(loop_scope="module")
async def site(whole: Site) -> Site:
    """The site with an engine that behaves."""
    whole.engine.script = writer(token_s=0.002)
    whole.engine.calls.clear()
    return whole


async def complete(site: Site, **asked: object) -> dict[str, Any]:
    async with site.http() as http:
        response = await http.post("/v1/chat/completions", json=chat(**asked))
        body: dict[str, Any] = response.json()
        assert response.status_code == 200, body
        return body


async def streamed(site: Site, **asked: object) -> list[dict[str, Any]]:
    body = chat(stream=True, **asked)
    async with (
        site.http() as http,
        http.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        assert response.status_code == 200
        return [one.data async for one in events(response)]


def text_of(chunks: list[dict[str, Any]]) -> str:
    deltas = (chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"])
    return "".join(delta.get("content", "") for delta in deltas)


def direct(steps: Callable[[Json], AsyncIterator[Step]]) -> Script:
    """An engine that does these steps whatever it is asked."""
    return steps


# --- chat completions -------------------------------------------------------------------


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
    *chunks, end, usage = await streamed(site, stream_options={"include_usage": True})
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert text_of(chunks) == ANSWER
    assert len(chunks) > 20, "it flows"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert end["choices"][0]["finish_reason"] == "stop"
    assert end["skelgraph"]["mode"] == "sgd"
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] > 0


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

    site.engine.script = direct(steps)
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
    got = await streamed(site, model="skelgraph-direct", skelgraph={"on_failure": "fail"})
    assert got[-1]["error"]["code"] == "node_gave_up"


# --- leaving cancels ----------------------------------------------------------------------


def endless(after: int) -> Script:
    """An engine that says so many words and then nothing, to any call."""

    async def steps(_: Json) -> AsyncIterator[Step]:
        for _word in range(after):
            yield Say("word. ")
        yield Wait(60)

    return steps


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


# --- idempotency ----------------------------------------------------------------------------


async def test_the_same_idempotency_key_means_the_same_answer(site: Site) -> None:
    headers = {"Idempotency-Key": "once"}
    async with site.http() as http:
        first = await http.post("/v1/chat/completions", json=chat(), headers=headers)
        calls = len(site.engine.calls)
        again = await http.post("/v1/chat/completions", json=chat(), headers=headers)
        other = await http.post("/v1/chat/completions", json=chat(seed=1), headers=headers)
    assert again.json()["choices"] == first.json()["choices"]
    assert again.headers["x-request-id"] == first.headers["x-request-id"]
    assert len(site.engine.calls) == calls
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")


async def test_a_key_whose_request_was_cancelled_asks_anew(site: Site) -> None:
    headers = {"Idempotency-Key": "cancelled"}
    async with site.http() as http:
        first = await http.post("/v1/requests", json={"question": "Why?"}, headers=headers)
        await http.delete(first.headers["location"])
        again = await http.post("/v1/requests", json={"question": "Why?"}, headers=headers)
    assert first.json()["id"] != again.json()["id"]


# --- Skelgraph's own API ----------------------------------------------------------------------


async def follow(http: httpx2.AsyncClient, request: str, **headers: str) -> list[Sent]:
    async with http.stream("GET", f"/v1/requests/{request}/events", headers=headers) as response:
        assert response.status_code == 200
        return [one async for one in events(response)]


async def test_all_events_of_a_request_come_in_order_and_can_be_resumed_elsewhere(
    site: Site,
) -> None:
    async with site.http() as http:
        submitted = await http.post("/v1/requests", json={"question": "Why?", "mode": "sgd"})
        assert submitted.status_code == 202
        request = submitted.json()["id"]
        got = await follow(http, request)
        view = (await http.get(f"/v1/requests/{request}")).json()
    facts = [one for one in got if one.ident is not None]
    names = [one.name for one in facts]
    assert names[0] == "request_accepted"
    assert names.count("node_planned") == names.count("node_decoded") == 4
    assert names[-1] == "answer_assembled"
    assert [one.ident for one in facts] == sorted(one.ident or 0 for one in facts)
    assert "tokens_decoded" in {one.name for one in got if one.ident is None}
    assert view["state"] == "answered"
    assert view["answer"] == facts[-1].data["text"]
    assert {node["state"] for node in view["nodes"]} == {"decoded"}
    assert view["last_event"] == facts[-1].ident

    _, url = await site.another_gateway()
    half = facts[len(facts) // 2]
    async with site.http(url=url) as http:
        rest = await follow(http, request, **{"Last-Event-ID": str(half.ident)})
        assert [one.data for one in rest] == [one.data for one in facts[len(facts) // 2 + 1 :]]
        seen = {"Last-Event-ID": str(facts[-1].ident)}
        done = await http.get(f"/v1/requests/{request}/events", headers=seen)
        listed = (await http.get("/v1/requests?limit=50")).json()["data"]
    assert done.status_code == 204
    (entry,) = [one for one in listed if one["id"] == request]
    assert (entry["state"], entry["question"]) == ("answered", "Why?")


async def test_a_request_can_be_looked_at_and_cancelled(site: Site) -> None:
    site.engine.script = endless(2)
    async with site.http() as http:
        submitted = await http.post("/v1/requests", json={"question": "Why?", "mode": "direct"})
        path = submitted.headers["location"]
        await (await site.engine.call(1)).waiting.wait()
        view = (await http.get(path)).json()
        assert (view["state"], view["nodes"][0]["state"]) == ("decoding", "ready")
        outcome = (await http.delete(path)).json()["outcome"]
        again = (await http.delete(path)).json()["outcome"]
        view = (await http.get(path)).json()
    assert (outcome, again) == ("cancelled", "already_ended")
    assert (view["state"], view["error"]["code"]) == ("cancelled", "cancelled")


async def test_a_skeleton_is_drafted_without_an_answer(site: Site) -> None:
    async with site.http() as http:
        response = await http.post("/v1/skeletons", json={"question": "Why?", "mode": "sgd"})
        body = response.json()
    assert response.status_code == 200, body
    assert [node["id"] for node in body["nodes"]] == [1, 2, 3, 4]
    assert len(site.engine.calls) == 1


async def test_what_is_not_there_is_404_and_a_bad_id_400(site: Site) -> None:
    async with site.http() as http:
        for method, path, status in [
            ("GET", "/v1/requests/nothing", 404),
            ("DELETE", "/v1/requests/nothing", 404),
            ("GET", "/v1/requests/nothing/events", 404),
            ("GET", "/v1/requests/a.b", 400),
            ("GET", "/v1/models/gpt-4", 404),
            ("GET", "/v1/nothing", 404),
            ("PUT", "/v1/requests", 405),
            ("GET", "/v1/requests?limit=no", 400),
        ]:
            response = await http.request(method, path)
            assert response.status_code == status, path
            assert response.json()["error"]["code"]


# --- keys and limits ------------------------------------------------------------------------


async def test_keys_part_owners_and_bound_what_each_may_ask(site: Site, tmp_path: Path) -> None:
    alice, bob, carol = new_key(), new_key(), new_key()
    file = tmp_path / "keys.toml"
    file.write_text(
        entry("alice", alice, {"max_in_flight": 1}) + entry("bob", bob, {"tokens_per_minute": 5})
    )
    (_, one), (_, two) = await asyncio.gather(
        site.another_gateway(keys_file=str(file)), site.another_gateway(keys_file=str(file))
    )
    site.engine.script = endless(1)
    ask = {"question": "Why?", "mode": "direct"}
    async with (
        site.http(alice, one) as as_alice,
        site.http(alice, two) as alice_elsewhere,
        site.http(bob, one) as as_bob,
        site.http(carol, one) as as_carol,
        site.http(None, one) as as_nobody,
    ):
        refused = await as_nobody.get("/v1/models")
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert (await as_carol.get("/v1/models")).status_code == 401

        path = (await as_alice.post("/v1/requests", json=ask)).headers["location"]
        for method, where in [("GET", ""), ("DELETE", ""), ("GET", "/events")]:
            assert (await as_bob.request(method, path + where)).status_code == 404
        assert (await as_bob.get("/v1/requests")).json()["data"] == []
        await (await site.engine.call(1)).waiting.wait()  # so it is accepted: known everywhere
        for http in (as_alice, alice_elsewhere):
            busy = await http.post("/v1/requests", json=ask)
            assert (busy.status_code, busy.json()["error"]["code"]) == (429, "too_many_requests")
            assert int(busy.headers["retry-after"]) >= 1
        shown = await alice_elsewhere.get(path)
        assert shown.status_code == 200
        assert shown.headers["x-ratelimit-remaining-requests"] == "0"
        assert (await alice_elsewhere.delete(path)).status_code == 200

        site.engine.script = writer(token_s=0.001)
        body = chat(model="skelgraph-direct")
        assert (await as_bob.post("/v1/chat/completions", json=body)).status_code == 200
        spent = await as_bob.post("/v1/chat/completions", json=body)
        assert (spent.status_code, spent.json()["error"]["code"]) == (429, "tokens_per_minute")
        assert 1 <= int(spent.headers["retry-after"]) <= 60

        file.write_text(entry("carol", carol, {}))
        async with asyncio.timeout(10):
            while (await as_carol.get("/v1/models")).status_code != 200:  # noqa: ASYNC110  # a file
                await asyncio.sleep(0.1)
        assert (await as_alice.get("/v1/models")).status_code == 401


# --- hostile clients ------------------------------------------------------------------------


async def test_slow_and_endless_heads_and_bodies_are_refused(site: Site) -> None:
    _, url = await site.another_gateway(head_timeout_s="0.5", body_timeout_s="0.5")
    port = int(url.rpartition(":")[2])

    async def said(*pieces: bytes) -> bytes:
        reader, writer_ = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer_.write(piece)
                await writer_.drain()
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer_.close()
        return answer

    post = b"POST /v1/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert b"408" in await said(b"GET / HTTP/1.1\r\nHost: local")
    assert b"408" in await said(b"")
    assert b"408" in await said(post + b"Content-Length: 50\r\n\r\n{")
    assert b"413" in await said(post + b"Content-Length: 5000000\r\n\r\n{")
    chunk = b"%x\r\n%b\r\n" % (65536, b"x" * 65536)
    assert b"413" in await said(post + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 10)
    assert b"431" in await said(b"GET / HTTP/1.1\r\n", *[b"X: " + b"y" * 9000 + b"\r\n"] * 5)


async def test_a_foreign_page_gets_nothing_from_a_gateway_without_keys(site: Site) -> None:
    async with site.http() as http:
        rebound = await http.get("/v1/models", headers={"Host": "evil.example"})
        plain = await http.post("/v1/requests", content=b'{"question":"Why?"}')
        preflight = await http.options(
            "/v1/requests",
            headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
        )
        models = await http.get("/v1/models", headers={"Origin": "http://evil.example"})
    assert (rebound.status_code, plain.status_code, preflight.status_code) == (403, 415, 405)
    assert "access-control-allow-origin" not in models.headers
    assert models.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in models.headers["content-security-policy"]
    assert models.headers["x-frame-options"] == "DENY"


# --- faults ------------------------------------------------------------------------------------


async def test_a_stream_goes_on_through_a_restart_of_nats(site: Site) -> None:
    going_on = asyncio.Event()

    async def steps(request: Json) -> AsyncIterator[Step]:
        yield Say("Before. ")
        yield Wait(going_on)
        yield Say("After.")
        yield Finish()

    site.engine.script = direct(steps)
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

    async def steps(request: Json) -> AsyncIterator[Step]:
        yield Say("Before. ")
        yield Wait(going_on)
        yield Say("After.")
        yield Finish()

    site.engine.script = direct(steps)
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
