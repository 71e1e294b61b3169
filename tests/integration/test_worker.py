"""The worker as a process: one attempt at a node, its tokens, and how it ended."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proto.codec import decode_preview, encode
from proto.messages import (
    DecodeNode,
    NodeDecoded,
    NodeFailed,
    NodeReset,
    NodeSpec,
    NodeStarted,
    Preview,
    StopWork,
    TokensDecoded,
)
from proto.names import Band, Pool, Stream, Subjects
from tests.conftest import ACK_WAIT_S, Runtime
from tests.facts import decoded
from tests.processes import Services, until_fact
from tests.scripted_engine import (
    Cut,
    Fail,
    Finish,
    Garbage,
    KeepAlive,
    Say,
    ScriptedEngine,
    Step,
    Wait,
)

NEVER = Wait(3600.0)
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
async def services(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        yield Services(stack, runtime, tmp_path / "logs", first_token_timeout_s="2")


@pytest.fixture
async def previews(runtime: Runtime) -> list[Preview]:
    heard: list[Preview] = []

    async def hear(message: object) -> None:
        heard.append(decode_preview(message.data))  # type: ignore[attr-defined]

    await runtime.connection.subscribe(Subjects.live_of("r1"), hear)
    return heard


def work(node: int = 1, attempt: int = 1, deadline_at: float = 4e9) -> DecodeNode:
    return DecodeNode(
        request="r1",
        node=NodeSpec(id=node, summary="The colour of the sky"),
        attempt=attempt,
        pool=Pool.SMALL,
        mode="sgd",
        question="Why is the sky blue?",
        skeleton=("1. The colour of the sky | hard",),
        deadline_at=deadline_at,
    )


async def queue(runtime: Runtime, task: DecodeNode) -> None:
    subject = Subjects.node(task.pool, Band.NORMAL, "r1", task.node.id, task.attempt)
    await runtime.publisher.publish(subject, encode(task), headers={"traceparent": TRACE})


async def no_work_queued(runtime: Runtime) -> None:
    async with asyncio.timeout(10):
        while True:
            info = await runtime.connection.api(f"STREAM.INFO.{Stream.NODES}")
            state = info["state"]
            assert isinstance(state, dict)
            if not state["messages"]:
                return
            await asyncio.sleep(0.02)


async def result(runtime: Runtime, node: int = 1) -> NodeDecoded:
    (fact,) = await until_fact(runtime, "r1", NodeDecoded)
    assert isinstance(fact, NodeDecoded)
    assert fact.node == node
    return fact


async def test_tokens_are_heard_as_they_come_and_the_text_is_a_fact(
    runtime: Runtime, services: Services, previews: list[Preview]
) -> None:
    steps: list[Step] = [Say(" Because"), Say(" of"), Say(" scattering."), Finish()]
    async with ScriptedEngine(lambda _: steps) as engine:
        await services.start("worker", "--pool", "small", small_urls=engine.url)
        await queue(runtime, work())
        fact = await result(runtime)
        assert engine.calls[0].headers["traceparent"] == TRACE
    assert fact.text == "Because of scattering."
    assert (fact.pool, fact.endpoint, fact.finish_reason) == (Pool.SMALL, engine.url, "stop")
    assert 0 <= fact.first_token_ms <= fact.decode_ms
    assert fact.usage.generated_tokens > 0
    assert isinstance(previews[0], NodeStarted)
    tokens = [preview for preview in previews if isinstance(preview, TokensDecoded)]
    assert "".join(token.text for token in tokens) == fact.text
    lengths = [0, *(len(token.text) for token in tokens)]
    assert [token.offset for token in tokens] == list(itertools.accumulate(lengths))[:-1]
    assert tokens[0].text == "Because"  # at once; what follows within a moment comes together
    await no_work_queued(runtime)


async def test_what_a_model_writes_on_after_its_part_is_not_waited_for(
    runtime: Runtime, services: Services
) -> None:
    steps: list[Step] = [Say("Because."), Say("\n2. The sun | easy"), Say("\n"), NEVER]
    async with ScriptedEngine(lambda _: steps) as engine:
        await services.start("worker", "--pool", "small", small_urls=engine.url)
        lines = (*work().skeleton, "2. The sun | easy")
        await queue(runtime, work().model_copy(update={"skeleton": lines}))
        fact = await result(runtime)
        await (await engine.call()).left.wait()
    assert (fact.text, fact.finish_reason, fact.endpoint) == ("Because.", "stop", engine.url)
    assert (fact.usage.generated_tokens, bool(fact.model)) == (3, True)


@pytest.mark.parametrize(
    ("steps", "code", "retryable"),
    [
        ([Fail(429, b'{"error":"Model is overloaded"}')], "engine_overloaded", True),
        ([Fail(500, b"<html>oops</html>", "text/html")], "engine_failed", True),
        ([Fail(422, b"Failed to deserialize", "text/plain")], "engine_rejected", False),
        ([Say("Half a"), Cut()], "engine_cut_off", True),
        ([Say("Half a"), Garbage(b"data: {nonsense\n\n"), Finish()], "engine_failed", True),
        ([KeepAlive(), NEVER], "engine_timed_out", True),
        ([Finish()], "empty_text", True),
    ],
)
async def test_a_failed_attempt_is_a_fact_and_its_partial_text_is_void(
    runtime: Runtime,
    services: Services,
    previews: list[Preview],
    steps: list[Step],
    code: str,
    retryable: bool,
) -> None:
    async with ScriptedEngine(lambda _: steps) as engine:
        await services.start(
            "worker", "--pool", "small", small_urls=engine.url, overload_wait_s="0"
        )
        await queue(runtime, work(attempt=2))
        (fact,) = await until_fact(runtime, "r1", NodeFailed)
        await no_work_queued(runtime)
        assert len(engine.calls) == 1
    assert isinstance(fact, NodeFailed)
    assert (fact.attempt, fact.error.code, fact.error.retryable) == (2, code, retryable)
    assert isinstance(previews[-1], NodeReset)


async def test_an_engine_that_is_down_is_a_failed_attempt(
    runtime: Runtime, services: Services
) -> None:
    await services.start("worker", "--pool", "small", small_urls="http://127.0.0.1:9")
    await queue(runtime, work())
    (fact,) = await until_fact(runtime, "r1", NodeFailed)
    assert isinstance(fact, NodeFailed)
    assert fact.error.code == "engine_unavailable"


async def test_a_killed_workers_node_is_decoded_by_another(
    runtime: Runtime, services: Services
) -> None:
    replies: Iterator[list[Step]] = iter([[Say("Half a"), NEVER], [Say("Whole."), Finish()]])
    async with ScriptedEngine(lambda _: next(replies)) as engine:
        first = await services.start("worker", "--pool", "small", small_urls=engine.url)
        await queue(runtime, work())
        await (await engine.call()).waiting.wait()
        await services.start("worker", "--pool", "small", small_urls=engine.url)
        first.kill()
        fact = await result(runtime)
    assert fact.text == "Whole."


async def test_a_node_longer_than_the_ack_wait_is_decoded_once(
    runtime: Runtime, services: Services
) -> None:
    slow: list[Step] = [Wait(ACK_WAIT_S * 1.2), Say("Slow."), Finish()]
    async with ScriptedEngine(lambda _: slow) as engine:
        patient = {"small_urls": engine.url, "first_token_timeout_s": "20"}
        for _ in range(2):
            await services.start("worker", "--pool", "small", **patient)
        await queue(runtime, work())
        await result(runtime)
        await no_work_queued(runtime)
        assert len(engine.calls) == 1


async def test_a_result_stored_before_its_worker_died_is_not_decoded_again(
    runtime: Runtime, services: Services
) -> None:
    replies: Iterator[list[Step]] = iter([[Say("Half a"), NEVER], [Say("Never asked."), Finish()]])
    async with ScriptedEngine(lambda _: next(replies)) as engine:
        first = await services.start("worker", "--pool", "small", small_urls=engine.url)
        await queue(runtime, work())
        await (await engine.call()).waiting.wait()
        await runtime.events.append(decoded(1))
        first.kill()
        await services.start("worker", "--pool", "small", small_urls=engine.url)
        await no_work_queued(runtime)
        assert len(engine.calls) == 1


async def test_replayed_work_changes_no_result(runtime: Runtime, services: Services) -> None:
    replies: Iterator[list[Step]] = iter([[Say(text), Finish()] for text in ("First.", "Second.")])
    async with ScriptedEngine(lambda _: next(replies)) as engine:
        await services.start("worker", "--pool", "small", small_urls=engine.url)
        await queue(runtime, work())
        first = await result(runtime)
        await no_work_queued(runtime)
        # Byte for byte, by somebody who has heard it; the publisher would notice.
        subject = Subjects.node(Pool.SMALL, Band.NORMAL, "r1", 1, 1)
        await runtime.connection.publish(subject, encode(work()))
        await engine.call(2)
        await no_work_queued(runtime)
    assert await result(runtime) == first
    assert first.text == "First."


@pytest.mark.parametrize(
    "steps", [[NEVER], [KeepAlive(), NEVER], [Say("Some"), NEVER]], ids=["head", "first", "mid"]
)
async def test_a_stop_closes_the_engines_connection_within_a_second(
    runtime: Runtime, services: Services, steps: list[Step]
) -> None:
    async with ScriptedEngine(lambda _: steps) as engine:
        await services.start("worker", "--pool", "small", small_urls=engine.url)
        await queue(runtime, work())
        call = await engine.call()
        await call.waiting.wait()
        await runtime.connection.publish(Subjects.stop("r1"), encode(StopWork(request="r1")))
        async with asyncio.timeout(1):
            await call.left.wait()
    await no_work_queued(runtime)


async def test_a_stop_for_one_node_leaves_the_others_alone(
    runtime: Runtime, services: Services
) -> None:
    go_on = asyncio.Event()
    async with ScriptedEngine(lambda _: [Wait(go_on), Say("Text."), Finish()]) as engine:
        await services.start("worker", "--pool", "small", small_urls=engine.url)
        await queue(runtime, work(1))
        await queue(runtime, work(2))
        await (await engine.call(2)).waiting.wait()
        stop = StopWork(request="r1", nodes=(1,))
        await runtime.connection.publish(Subjects.stop("r1"), encode(stop))
        async with asyncio.timeout(5):
            await engine.calls[0].left.wait()
        go_on.set()
        await result(runtime, node=2)


async def test_a_node_past_its_deadline_is_left_at_once(
    runtime: Runtime, services: Services
) -> None:
    async with ScriptedEngine(lambda _: [NEVER]) as engine:
        await services.start("worker", "--pool", "small", small_urls=engine.url)
        await queue(runtime, work(deadline_at=1.0))
        await no_work_queued(runtime)
        assert engine.open_streams == 0


async def test_work_that_cannot_be_read_is_a_failed_attempt(
    runtime: Runtime, services: Services
) -> None:
    await services.start("worker", "--pool", "small", small_urls="http://127.0.0.1:9")
    await runtime.publisher.publish(Subjects.node(Pool.SMALL, Band.NORMAL, "r1", 7, 3), b"{]")
    (fact,) = await until_fact(runtime, "r1", NodeFailed)
    assert isinstance(fact, NodeFailed)
    assert (fact.node, fact.attempt, fact.error.code) == (7, 3, "malformed_message")
