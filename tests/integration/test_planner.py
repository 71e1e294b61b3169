"""The planner as a process: what becomes of a request before its nodes are decoded."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proto.codec import encode
from proto.errors import Cancelled
from proto.messages import (
    ErrorInfo,
    NodePlanned,
    PlanCompleted,
    RequestAccepted,
    RequestFailed,
    StopWork,
)
from proto.names import Stream, Subjects
from services.planner.prompts import plan_call
from tests.conftest import Runtime
from tests.facts import accepted, planned
from tests.processes import Services, end_of, facts, planned_nodes, submit, until_fact
from tests.scripted_engine import (
    Cut,
    Fail,
    Finish,
    Say,
    Script,
    ScriptedEngine,
    Step,
    Wait,
)

PLAN = """graph
1. First point | easy
2. Second point | hard
3. Conclusion | hard | needs 1,2
end"""
#: As a small model copies it out of the prompt that it is sent.
COPY = plan_call("?", mode="auto", max_nodes=9).messages[4].content
NEVER = Wait(3600.0)


def in_turn(*replies: Iterable[Step]) -> Script:
    """One reply a call, the last one for all further calls."""
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def saying(text: str) -> list[Step]:
    return [Say(text), Finish()]


@pytest.fixture
async def services(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        yield Services(stack, runtime, tmp_path / "logs")


async def plan_of(runtime: Runtime, request: str = "r1") -> PlanCompleted:
    (plan,) = await until_fact(runtime, request, PlanCompleted)
    assert isinstance(plan, PlanCompleted)
    return plan


async def no_requests_queued(runtime: Runtime) -> None:
    async with asyncio.timeout(10):
        while True:
            info = await runtime.connection.api(f"STREAM.INFO.{Stream.REQUESTS}")
            state = info["state"]
            assert isinstance(state, dict)
            if not state["messages"]:
                return
            await asyncio.sleep(0.02)


async def test_each_node_is_published_while_the_plan_is_still_written(
    runtime: Runtime, services: Services
) -> None:
    go_on = asyncio.Event()
    steps: list[Step] = [
        Say("graph\n1. First po"),
        Say("int | easy\n2. Sec"),
        Wait(go_on),
        Say(PLAN[40:]),
    ]
    async with ScriptedEngine(in_turn(steps)) as engine:
        await services.start("planner", large_urls=engine.url)
        await submit(runtime, "r1", mode="sgd")
        (first,) = planned_nodes(await until_fact(runtime, "r1", NodePlanned))
        assert (first.node.id, first.line) == (1, "1. First point | easy")
        assert not [fact for fact in await facts(runtime, "r1") if isinstance(fact, PlanCompleted)]
        go_on.set()


async def test_the_plan_says_how_it_came_about(runtime: Runtime, services: Services) -> None:
    async with ScriptedEngine(in_turn(saying(PLAN))) as engine:
        await services.start("planner", large_urls=engine.url)
        await submit(runtime, "r1")
        plan = await plan_of(runtime)
    assert (plan.mode, plan.reason, plan.nodes) == ("sgd", "planned", (1, 2, 3))
    assert plan.endpoint == engine.url
    assert plan.usage.generated_tokens > 0
    kinds = [fact.type for fact in await facts(runtime, "r1")]
    assert kinds == ["RequestAccepted", *["NodePlanned"] * 3, "PlanCompleted"]
    await no_requests_queued(runtime)


@pytest.mark.parametrize(
    ("reply", "asked", "mode", "reason"),
    [
        ("direct\n", {}, "direct", "gate"),
        ("Sure! Here is my plan for you.\n", {}, "direct", "unparsable"),
        ("graph\n1. A point | easy | needs 2\n2. B | easy\nend", {}, "direct", "unparsable"),
        ("graph\n1. A point | easy | needs 7\nend", {}, "direct", "unparsable"),
        (COPY, {}, "direct", "unparsable"),
        (COPY, {"mode": "sgd"}, "direct", "unparsable"),
        ("graph\n1. A point | easy\n2. B point | ha", {}, "direct", "cut_off"),
        ("graph\n1. A point | easy\n2. B point | hard\nend", {}, "direct", "few_nodes"),
        (
            "graph\n1. A | easy\n2. B | easy | needs 1\n3. C | easy | needs 2\nend",
            {},
            "direct",
            "chain",
        ),
        (PLAN, {"mode": "sot"}, "sot", "forced"),
        (PLAN, {"mode": "sgd"}, "sgd", "forced"),
        ("never asked", {"mode": "direct"}, "direct", "forced"),
    ],
)
async def test_every_plan_ends_in_a_decision(
    runtime: Runtime,
    services: Services,
    reply: str,
    asked: dict[str, object],
    mode: str,
    reason: str,
) -> None:
    async with ScriptedEngine(in_turn(saying(reply))) as engine:
        await services.start("planner", large_urls=engine.url)
        await submit(runtime, "r1", **asked)
        plan = await plan_of(runtime)
    assert (plan.mode, plan.reason) == (mode, reason)
    assert plan.nodes == ((0,) if mode == "direct" else (1, 2, 3))
    if mode == "sot":
        assert all(not node.node.needs for node in planned_nodes(await facts(runtime, "r1")))


async def test_needs_and_grammar_can_be_left_out_for_comparisons(
    runtime: Runtime, services: Services
) -> None:
    async with ScriptedEngine(in_turn(saying(PLAN)), dialect="llamacpp") as engine:
        await services.start("planner", large_urls=engine.url)
        await submit(runtime, "r1", mode="sgd")
        await plan_of(runtime)
        await submit(runtime, "r2", mode="sgd", without=["needs", "grammar"])
        await plan_of(runtime, "r2")
        assert ["grammar" in call.body for call in engine.calls] == [True, False]
    needs = [[n.node.needs for n in planned_nodes(await facts(runtime, r))] for r in ("r1", "r2")]
    assert needs == [[(), (), (1, 2)], [(), (), ()]]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b'{"question":""}', "invalid_request", "question"),
        (b'{"question":"  "}', "invalid_request", "question"),
        (b'{"question":"x","mode":"zen"}', "invalid_request", "mode"),
        (b'{"question":"x","max_nodes":"5"}', "invalid_request", "max_nodes"),
        (b'{"question":"x","sampling":{"top_k":1}}', "invalid_request", "sampling.top_k"),
        (b'{"question":"x","without":["thought"]}', "invalid_request", "without.0"),
        (b"\xff\x00garbage", "invalid_request", None),
        (b'{"question":"' + b"x" * 600_000 + b'"}', "request_too_large", None),
    ],
)
async def test_a_bad_request_ends_at_once_with_the_field_named(
    runtime: Runtime, services: Services, body: bytes, code: str, field: str | None
) -> None:
    await services.start("planner", large_urls="http://127.0.0.1:9")
    await runtime.publisher.publish(Subjects.request("r1"), body)
    end = await end_of(runtime, "r1")
    assert isinstance(end, RequestFailed)
    assert (end.error.code, end.error.field) == (code, field)
    await no_requests_queued(runtime)


async def test_a_request_id_that_cannot_be_stored_is_dropped_not_tried_for_ever(
    runtime: Runtime, services: Services
) -> None:
    await services.start("planner", large_urls="http://127.0.0.1:9")
    await runtime.publisher.publish(Subjects.request("a$b"), b'{"question":"x"}')
    await no_requests_queued(runtime)


async def test_a_request_cancelled_while_it_was_queued_is_not_planned(
    runtime: Runtime, services: Services
) -> None:
    await submit(runtime, "r1")
    await runtime.events.append(RequestFailed(request="r1", error=ErrorInfo.of(Cancelled())))
    async with ScriptedEngine(in_turn(saying(PLAN))) as engine:
        await services.start("planner", large_urls=engine.url)
        await no_requests_queued(runtime)
        assert not engine.calls


async def test_a_gap_in_what_an_earlier_planner_stored_is_planned_anew(
    runtime: Runtime, services: Services
) -> None:
    await runtime.events.append(accepted(at=2e9, mode="sgd"))
    await runtime.events.append(planned(1))
    await runtime.events.append(planned(3))
    rest = saying("2. Second point | hard\nend")
    async with ScriptedEngine(in_turn(rest)) as engine:
        await services.start("planner", large_urls=engine.url)
        await submit(runtime, "r1", mode="sgd")
        assert (await plan_of(runtime)).nodes == (1, 2)


async def test_what_a_model_writes_after_the_plan_is_not_waited_for(
    runtime: Runtime, services: Services
) -> None:
    rambling: list[Step] = [Say(PLAN + "\n"), *[Say("And another thing. ")] * 20, NEVER]
    async with ScriptedEngine(in_turn(rambling)) as engine:
        await services.start("planner", large_urls=engine.url)
        await submit(runtime, "r1")
        assert (await plan_of(runtime)).nodes == (1, 2, 3)


async def test_the_same_request_twice_is_planned_once(runtime: Runtime, services: Services) -> None:
    async with ScriptedEngine(in_turn(saying(PLAN))) as engine:
        await services.start("planner", large_urls=engine.url)
        await submit(runtime, "r1")
        await plan_of(runtime)
        await no_requests_queued(runtime)
        await submit(runtime, "r1", question="Another one?")
        await no_requests_queued(runtime)
        assert len(engine.calls) == 1
    assert len(await facts(runtime, "r1")) == 5


async def test_a_planner_that_takes_over_goes_on_after_the_published_lines(
    runtime: Runtime, services: Services
) -> None:
    begun: list[Step] = [Say("graph\n1. First point | easy\n2. Half a li"), NEVER]
    rest = saying("2. Second point | hard\n3. Conclusion | hard | needs 1,2\nend")
    async with ScriptedEngine(in_turn(begun, rest)) as engine:
        first = await services.start("planner", large_urls=engine.url)
        await submit(runtime, "r1")
        await until_fact(runtime, "r1", NodePlanned)
        await services.start("planner", large_urls=engine.url)
        first.kill()
        plan = await plan_of(runtime)
        assert "1. First point | easy" in str(engine.calls[-1].body["messages"])
    assert plan.nodes == (1, 2, 3)
    lines = [node.line for node in planned_nodes(await facts(runtime, "r1"))]
    assert lines[1] == "2. Second point | hard"


async def test_a_stopping_planner_finishes_its_plan(runtime: Runtime, services: Services) -> None:
    go_on = asyncio.Event()
    steps: list[Step] = [
        Say("graph\n1. First point | easy\n"),
        Wait(go_on),
        Say(PLAN[28:]),
        Finish(),
    ]
    async with ScriptedEngine(in_turn(steps)) as engine:
        child = await services.start("planner", large_urls=engine.url)
        await submit(runtime, "r1")
        await until_fact(runtime, "r1", NodePlanned)
        child.signal(signal.SIGTERM)
        go_on.set()
        assert (await plan_of(runtime)).nodes == (1, 2, 3)
        async with asyncio.timeout(10):
            await child.ended()
        assert len(engine.calls) == 1


async def test_a_failing_engine_is_tried_again_and_the_plan_goes_on(
    runtime: Runtime, services: Services
) -> None:
    cut: list[Step] = [Say("graph\n1. First point | easy\n"), Cut()]
    rest = saying("2. Second point | hard\n3. Conclusion | hard | needs 1,2\nend")
    async with ScriptedEngine(in_turn(cut, rest)) as engine:
        await services.start("planner", large_urls=engine.url)
        await submit(runtime, "r1")
        plan = await plan_of(runtime)
    assert (plan.reason, plan.nodes) == ("planned", (1, 2, 3))


async def test_without_an_engine_the_answer_is_direct(runtime: Runtime, services: Services) -> None:
    await services.start("planner", large_urls="http://127.0.0.1:9")
    await submit(runtime, "r1")
    plan = await plan_of(runtime)
    assert (plan.mode, plan.reason, plan.nodes) == ("direct", "no_planner", (0,))


async def test_a_prompt_that_the_engine_refuses_fails_with_its_reason(
    runtime: Runtime, services: Services
) -> None:
    body = b'{"error":{"code":400,"type":"exceed_context_size_error","message":"too long"}}'
    async with ScriptedEngine(in_turn([Fail(400, body)]), dialect="llamacpp") as engine:
        await services.start("planner", large_urls=engine.url)
        await submit(runtime, "r1")
        end = await end_of(runtime, "r1")
    assert isinstance(end, RequestFailed)
    assert end.error.code == "prompt_too_long"


async def test_planning_stops_and_leaves_the_engine_when_the_request_has_ended(
    runtime: Runtime, services: Services
) -> None:
    async with ScriptedEngine(in_turn([Say("graph\n"), NEVER])) as engine:
        await services.start("planner", large_urls=engine.url)
        await submit(runtime, "r1")
        call = await engine.call()
        await call.waiting.wait()
        await runtime.connection.publish(Subjects.stop("r1"), encode(StopWork(request="r1")))
        async with asyncio.timeout(1):
            await call.left.wait()
    await no_requests_queued(runtime)


async def test_planning_stops_although_the_word_of_the_end_was_lost(
    runtime: Runtime, services: Services
) -> None:
    async with ScriptedEngine(in_turn([Say("graph\n"), NEVER])) as engine:
        await services.start("planner", large_urls=engine.url)
        await submit(runtime, "r1")
        call = await engine.call()
        await runtime.events.append(RequestFailed(request="r1", error=ErrorInfo.of(Cancelled())))
        async with asyncio.timeout(5):
            await call.left.wait()


async def test_a_planner_finds_a_request_accepted_but_not_planned(
    runtime: Runtime, services: Services
) -> None:
    await runtime.events.append(accepted(at=2e9))
    await runtime.events.append(planned(1))
    rest = saying("2. Second point | hard\n3. Third point | easy\nend")
    async with ScriptedEngine(in_turn(rest)) as engine:
        await services.start("planner", large_urls=engine.url)
        await submit(runtime, "r1")
        assert (await plan_of(runtime)).nodes == (1, 2, 3)
    (taken_up,) = [f for f in await facts(runtime, "r1") if isinstance(f, RequestAccepted)]
    assert taken_up.submitted_at == 2e9
