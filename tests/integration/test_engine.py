"""What the engine seam promises, against an engine that does as it is told, over real HTTP."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from huggingface_hub import AsyncInferenceClient

from proto.errors import (
    EngineCutOff,
    EngineError,
    EngineOverloaded,
    EngineRejected,
    EngineTimedOut,
    EngineUnavailable,
    PromptTooLong,
)
from proto.messages import Usage
from services.runtime.dialects import LLAMACPP, TGI, Dialect
from services.runtime.engine import ChatCall, ChatMessage, EngineClient, EngineLimits, EngineStream
from tests.scripted_engine import (
    Begin,
    Cut,
    Fail,
    FailInBand,
    Family,
    Finish,
    Garbage,
    KeepAlive,
    Say,
    Script,
    ScriptedEngine,
    Step,
    Think,
    Wait,
)

PROMPT = "A prompt that must never show up in an error"
CALL = ChatCall((ChatMessage("user", PROMPT),), max_tokens=16)
NEVER = Wait(3600.0)


def script(*steps: Step) -> Script:
    return lambda _: list(steps)


@asynccontextmanager
async def client_of(
    engine: ScriptedEngine, *, dialect: Dialect | None = TGI, **kwargs: Any
) -> AsyncIterator[EngineClient]:
    client = EngineClient(engine.url, dialect=dialect, **kwargs)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def pair(
    play: Script, *, family: Family = "tgi", **kwargs: Any
) -> AsyncIterator[tuple[ScriptedEngine, EngineClient]]:
    """An engine that plays, and a client of it."""
    engine = ScriptedEngine(play, dialect=family)
    async with engine, client_of(engine, **kwargs) as client:
        yield engine, client


async def read(stream: EngineStream) -> str:
    async with stream:
        return "".join([chunk.text async for chunk in stream])


async def error_of(*steps: Step, limits: EngineLimits | None = None) -> EngineError:
    async with ScriptedEngine(script(*steps)) as engine, client_of(engine, limits=limits) as client:
        with pytest.raises(EngineError) as caught:
            await read(client.stream(CALL))
        await within_1_s(engine.idle())
    assert PROMPT[:16] not in caught.value.message
    assert len(caught.value.detail) < 300
    return caught.value


async def within_1_s(event: Any) -> None:
    async with asyncio.timeout(1):
        await event


# --- a reply --------------------------------------------------------------------------


async def test_text_end_and_usage_come_out() -> None:
    steps = (Say("Hello"), Say(" you"), Finish("length", cached_tokens=3))
    async with ScriptedEngine(script(*steps)) as engine, client_of(engine) as client:
        stream = client.stream(CALL)
        assert await read(stream) == "Hello you"
    assert stream.completion.finish_reason == "length"
    assert stream.completion.usage == Usage(prompt_tokens=10, cached_tokens=3, generated_tokens=2)
    assert stream.completion.endpoint == engine.url
    assert stream.first_token_ms is not None


@pytest.mark.parametrize("reason", ["stop", "eos_token", "stop_sequence"])
async def test_every_kind_of_stop_is_stop(reason: str) -> None:
    async with pair(script(Say("x"), Finish(reason))) as (_, client):
        stream = client.stream(CALL)
        assert await read(stream) == "x"
    assert stream.completion.finish_reason == "stop"


async def test_usage_left_out_by_the_engine_is_zero() -> None:
    async with pair(script(Say("x"), Finish(usage={}))) as (_, client):
        stream = client.stream(CALL)
        assert await read(stream) == "x"
    assert stream.completion.usage == Usage()


async def test_what_breaks_after_the_end_does_not_cost_the_text() -> None:
    async with pair(script(Say("whole"), Finish(done=b""), Cut())) as (_, client):
        stream = client.stream(CALL)
        assert await read(stream) == "whole"
    assert stream.completion.finish_reason == "stop"


async def test_completion_is_not_to_be_had_before_the_end() -> None:
    async with pair(script(Say("x"), NEVER)) as (_, client), client.stream(CALL) as stream:
        await anext(stream)
        with pytest.raises(RuntimeError):
            _ = stream.completion


async def test_a_stream_that_is_not_entered_cannot_be_read() -> None:
    async with ScriptedEngine(script()) as engine, client_of(engine) as client:
        with pytest.raises(RuntimeError, match="async with"):
            await anext(client.stream(CALL))


# --- leaving --------------------------------------------------------------------------

WINDOWS = {
    "before the headers": (NEVER,),
    "before the first token": (Begin(), NEVER),
    "in the middle": (Say("one"), Say("two"), NEVER),
}


@pytest.mark.parametrize("window", WINDOWS)
async def test_cancel_is_seen_by_the_engine_within_1_s(window: str) -> None:
    async with ScriptedEngine(script(*WINDOWS[window])) as engine, client_of(engine) as client:
        task = asyncio.create_task(read(client.stream(CALL)), name="reader")
        call = await engine.call()
        await within_1_s(call.waiting.wait())
        task.cancel()
        await within_1_s(call.left.wait())
        await within_1_s(engine.idle())
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_break_is_seen_though_something_still_holds_the_parts_of_the_stream() -> None:
    async with pair(script(Say("one"), NEVER)) as (engine, client):
        async with client.stream(CALL) as stream:
            held = (stream._hub, stream._events)  # as a traceback might
            async for _ in stream:
                break
        await within_1_s((await engine.call()).left.wait())
        assert all(held)


async def test_a_stream_never_iterated_is_closed() -> None:
    async with ScriptedEngine(script(Begin(), NEVER)) as engine, client_of(engine) as client:
        async with client.stream(CALL) as stream:
            held = (stream._hub, stream._events)
        await within_1_s((await engine.call()).left.wait())
        assert all(held)


async def test_an_error_in_the_body_closes_the_stream() -> None:
    async with ScriptedEngine(script(Say("one"), NEVER)) as engine, client_of(engine) as client:
        with pytest.raises(KeyError):
            await fail_within(client.stream(CALL))
        await within_1_s((await engine.call()).left.wait())


async def fail_within(stream: EngineStream) -> None:
    async with stream:
        await anext(stream)
        raise KeyError


async def test_many_streams_leave_nothing_behind() -> None:
    steps = (Say("a"), Finish())
    async with ScriptedEngine(script(*steps)) as engine, client_of(engine) as client:
        await asyncio.gather(*(read(client.stream(CALL)) for _ in range(20)))
        await settled(engine)
        before = len(gc.get_objects())
        for _ in range(10):
            await asyncio.gather(*(read(client.stream(CALL)) for _ in range(20)))
        engine.calls.clear()
        await settled(engine)
        assert len(gc.get_objects()) - before < 500
        assert engine.open_connections == 0
        assert len(asyncio.all_tasks()) == 1


async def settled(engine: ScriptedEngine) -> None:
    await engine.idle()
    engine.calls.clear()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    await within_1_s(asyncio.gather(*rest))
    gc.collect()


async def test_two_hundred_streams_at_once_do_not_wait_for_each_other() -> None:
    gate = asyncio.Event()
    steps = (Wait(gate), Say("a"), Finish())
    limits = EngineLimits(connect_s=30)  # both ends are in this process
    async with ScriptedEngine(script(*steps)) as engine, client_of(engine, limits=limits) as client:
        readers = [asyncio.create_task(read(client.stream(CALL))) for _ in range(200)]
        await engine.call(200)
        gate.set()
        assert await asyncio.gather(*readers) == ["a"] * 200


async def test_closing_the_client_breaks_off_its_streams_and_takes_no_more() -> None:
    async with ScriptedEngine(script(Say("one"), NEVER)) as engine, client_of(engine) as client:
        async with client.stream(CALL) as stream:
            await anext(stream)
            await client.close()
            with pytest.raises(EngineCutOff):
                await anext(stream)
        with pytest.raises(EngineUnavailable):
            await read(client.stream(CALL))


# --- limits ---------------------------------------------------------------------------


def trickle(*first: Step) -> Script:
    async def steps(_: object) -> AsyncIterator[Step]:
        for step in first:
            yield step
        while True:
            yield Wait(0.02)
            yield KeepAlive()

    return steps


@pytest.mark.parametrize(
    ("begin", "limits", "words"),
    [
        (lambda _: [NEVER], EngineLimits(first_token_s=0.1), "no text in 0.1 s"),
        (trickle(), EngineLimits(first_token_s=0.1), "no text in 0.1 s"),
        (trickle(Say("a")), EngineLimits(between_tokens_s=0.1), "no more text in 0.1 s"),
        (trickle(Say("a")), EngineLimits(total_s=0.1), "not done in 0.1 s"),
    ],
    ids=["before the headers", "before the first token", "between tokens", "in total"],
)
async def test_keep_alives_do_not_extend_a_limit(
    begin: Script, limits: EngineLimits, words: str
) -> None:
    async with ScriptedEngine(begin) as engine, client_of(engine, limits=limits) as client:
        began = time.monotonic()
        with pytest.raises(EngineTimedOut, match=words):
            await read(client.stream(CALL))
        assert time.monotonic() - began < 1
        await within_1_s(engine.idle())


async def test_a_model_that_reasons_is_alive() -> None:
    async def steps(_: object) -> AsyncIterator[Step]:
        for _number in range(10):
            yield Wait(0.05)
            yield Think("hm")
        yield Say("so")
        yield Finish()

    limits = EngineLimits(first_token_s=0.3, between_tokens_s=0.3)
    async with ScriptedEngine(steps) as engine, client_of(engine, limits=limits) as client:
        assert await read(client.stream(CALL)) == "so"


async def test_a_host_that_takes_no_connection_times_out() -> None:
    with socket.socket() as deaf, socket.socket() as filler:
        deaf.bind(("127.0.0.1", 0))
        # Nobody accepts: once the queue is full, Linux leaves further connections unanswered.
        deaf.listen(0)
        filler.connect(deaf.getsockname())
        limits = EngineLimits(connect_s=0.1)
        client = EngineClient(
            f"http://127.0.0.1:{deaf.getsockname()[1]}", dialect=TGI, limits=limits
        )
        with pytest.raises(EngineTimedOut, match="no connection"):
            await read(client.stream(CALL))
        await client.close()


# --- errors ---------------------------------------------------------------------------


async def test_nobody_listens() -> None:
    async with ScriptedEngine(script()) as engine:
        url = engine.url
    client = EngineClient(url)
    with pytest.raises(EngineUnavailable):
        await read(client.stream(CALL))
    with pytest.raises(EngineUnavailable):
        await client.check()
    await client.close()


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ((Cut(),), EngineUnavailable),
        ((Begin(), Cut()), EngineCutOff),
        ((Say("a"), Cut()), EngineCutOff),
        ((Say("a"),), EngineCutOff),
        ((Begin(),), EngineCutOff),
        ((Say("a"), Garbage(b"data: [DONE]\n\n")), EngineCutOff),
        ((Say("a"), Finish("abort")), EngineCutOff),
        ((Garbage(b"data: {not json\n\n"),), EngineError),
        ((Garbage(b"data: [1, 2]\n\n"),), EngineError),
        ((Garbage(b'data: {"choices": 7}\n\n'),), EngineError),
        ((Garbage(b'data: {"choices": [{"delta": {"content": 7}}]}\n\n'),), EngineError),
        ((Garbage(b"data: " + b"[" * 100_000 + b"\n\n"),), EngineError),
        ((Fail(200, b"<html>log in</html>", "text/html"),), EngineError),
        ((Fail(200, b'{"choices": []}'),), EngineError),
        ((Fail(307, headers=(("location", "http://127.0.0.1:9/x"),)),), EngineRejected),
    ],
)
async def test_a_broken_reply(steps: tuple[Step, ...], kind: type[EngineError]) -> None:
    assert type(await error_of(*steps)) is kind


@pytest.mark.parametrize("chunked", [False, True], ids=["with length", "chunked"])
@pytest.mark.parametrize(
    ("status", "content_type", "body", "kind", "words"),
    [
        (429, "application/json", b'{"error":"Model is overloaded","error_type":"overloaded"}',
         EngineOverloaded, "Model is overloaded"),
        (422, "application/json", (b'{"error":"Input validation error: `inputs` must have less '
         b'than 4095 tokens. Given: 5000","error_type":"validation"}'), PromptTooLong, "4095"),
        (400, "application/json", (b'{"error":{"code":400,"message":"request (3031 tokens) exceeds '
         b'the available context size (1024 tokens), try increasing it",'
         b'"type":"exceed_context_size_error"}}'), PromptTooLong, "3031"),
        (400, "application/json", (b'{"object":"error","message":"This model\'s maximum context '
         b'length is 8192 tokens","type":"BadRequestError","code":400}'), PromptTooLong, "8192"),
        (422, "text/plain", b"Failed to deserialize the JSON body into the target type",
         EngineRejected, "Failed to deserialize"),
        (401, "text/plain", b"", EngineRejected, "HTTP 401"),
        (424, "application/json", b'{"error":"CUDA","error_type":"generation"}',
         EngineError, "CUDA"),
        (500, "text/html", b"<html><h1>nginx</h1></html>", EngineError, "an HTML page"),
        (503, "application/json", b'{"error":{"message":"Loading model","code":503}}',
         EngineUnavailable, "Loading model"),
        (502, "text/plain", b"\xff\xfe\x00 bad", EngineUnavailable, "HTTP 502"),
    ],
)  # fmt: skip
async def test_an_error_answer_is_told_apart_and_told(
    status: int, content_type: str, body: bytes, kind: type[EngineError], words: str, chunked: bool
) -> None:
    error = await error_of(Fail(status, body, content_type, chunked=chunked))
    assert type(error) is kind
    assert words in error.message


async def test_retry_after_is_passed_on() -> None:
    error = await error_of(Fail(429, headers=(("Retry-After", "7"),)))
    assert error.retry_after_s == 7


async def test_a_prompt_in_an_error_is_withheld() -> None:
    echo = json.dumps({"detail": [{"input": PROMPT}], "message": f"bad value: {PROMPT}"})
    error = await error_of(Fail(400, echo.encode()))
    assert "quotes the prompt" in error.message


async def test_an_endless_error_is_cut() -> None:
    error = await error_of(Fail(500, b"x" * 3_000_000, "text/plain"))
    assert len(error.detail) < 300


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ({"error": {"message": "Model is overloaded", "http_status_code": 422}}, EngineOverloaded),
        ({"error": "Model is overloaded", "error_type": "overloaded"}, EngineOverloaded),
        ({"error": {"message": "Request failed during generation: CUDA", "http_status_code": 422}},
         EngineError),
        ({"error": {"message": "Input validation error: `inputs` tokens + `max_new_tokens` must be "
                    "<= 4096", "http_status_code": 422}}, PromptTooLong),
        ({"error": {"message": "Input validation error: `top_p` must be > 0.0 and < 1.0",
                    "http_status_code": 422}}, EngineRejected),
        ({"error": {"message": f"no {PROMPT}"}}, EngineError),
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [(), (Say("a"),)], ids=["at once", "after text"])
async def test_an_error_inside_the_stream(
    payload: object, kind: type[EngineError], before: tuple[Step, ...]
) -> None:
    assert type(await error_of(*before, FailInBand(payload))) is kind


# --- what is sent ---------------------------------------------------------------------


async def sent_by(call: ChatCall = CALL, **kwargs: Any) -> Any:
    async with ScriptedEngine(script(Say("a"), Finish())) as engine:
        async with client_of(engine, **kwargs) as client:
            await read(client.stream(call, headers={"traceparent": "00-1-2-01"}))
        return engine.calls[0]


async def test_a_token_in_the_environment_is_never_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "authorization" not in (await sent_by()).headers
    call = await sent_by(api_key="mine")
    assert call.headers["authorization"] == "Bearer mine"


async def test_proxies_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert (await sent_by(dialect=None)).body["max_tokens"] == 16


async def test_offline_mode_does_not_keep_us_from_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert (await sent_by()).body["stream"] is True


async def test_each_call_has_headers_of_its_own() -> None:
    async with ScriptedEngine(script(Finish())) as engine, client_of(engine) as client:
        for parent in ("00-a-b-01", "00-c-d-01"):
            await read(client.stream(CALL, headers={"traceparent": parent}))
    assert [call.headers["traceparent"] for call in engine.calls] == ["00-a-b-01", "00-c-d-01"]


async def test_a_configured_model_is_sent_and_reported() -> None:
    async with pair(script(Finish()), model="my-adapter") as (engine, client):
        await read(stream := client.stream(CALL))
    assert engine.calls[0].body["model"] == stream.completion.model == "my-adapter"


async def test_the_same_hub_library_still_works_for_others_in_the_process() -> None:
    async with ScriptedEngine(script(Say("a"), Finish())) as engine, client_of(engine) as ours:
        await read(ours.stream(CALL))
        async with AsyncInferenceClient(base_url=engine.url, api_key="-") as theirs:
            events = await theirs.chat_completion([{"role": "user", "content": "x"}], stream=True)
            assert "".join([e.choices[0].delta.content or "" async for e in events]) == "a"


# --- finding out ----------------------------------------------------------------------


@pytest.mark.parametrize("family", ["tgi", "vllm", "sglang", "llamacpp", "plain"])
async def test_the_dialect_is_found(family: Family) -> None:
    async with pair(script(Finish()), family=family, dialect=None) as (engine, client):
        await read(stream := client.stream(CALL))
        assert (await client.dialect()).name == family
    assert engine.calls[0].body["model"] == {"tgi": "tgi", "llamacpp": "default"}.get(
        family, "scripted/model"
    )
    assert stream.completion.model in {"scripted/model", "model"}


async def test_concurrent_first_calls_probe_once() -> None:
    async with pair(script(Finish()), family="llamacpp", dialect=None) as (engine, client):
        await asyncio.gather(*(read(client.stream(CALL)) for _ in range(10)))
        assert engine.asked == ["/info", "/props"]


async def test_a_failed_probe_is_not_remembered() -> None:
    async with pair(script(Finish()), family="llamacpp", dialect=None) as (engine, client):
        engine.loading = True
        with pytest.raises(EngineUnavailable):
            await read(client.stream(CALL))
        engine.loading = False
        await read(client.stream(CALL))
        assert (await client.dialect()).name == LLAMACPP.name


async def test_check_tells_health() -> None:
    async with ScriptedEngine(script()) as engine, client_of(engine, dialect=None) as client:
        await client.check()
        engine.healthy = False
        with pytest.raises(EngineUnavailable, match="503"):
            await client.check()


async def test_leaving_is_seen_on_uvloop_too() -> None:
    async def leave() -> None:
        async with ScriptedEngine(script(Say("one"), NEVER)) as engine, client_of(engine) as client:
            async with client.stream(CALL) as stream:
                await anext(stream)
            await within_1_s((await engine.call()).left.wait())

    await asyncio.to_thread(uvloop.run, leave())
