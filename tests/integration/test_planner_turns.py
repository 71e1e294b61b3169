"""The planner as a process, while one owner asks for more than it can plan."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proto.errors import Busy
from proto.messages import PlanCompleted, RequestAccepted, RequestFailed
from tests.conftest import Runtime
from tests.processes import Services, end_of, facts, submit, until_fact
from tests.scripted_engine import Finish, Say, ScriptedEngine, Step, Wait

PLAN = "list\n1. First point | easy\n2. Second point | hard\n3. Third point | hard\nend"
#: A plan takes so long.
PLAN_S = 0.1


@pytest.fixture
async def services(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        yield Services(stack, runtime, tmp_path / "logs", slots="1")


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    script: list[Step] = [Wait(PLAN_S), Say(PLAN), Finish()]
    async with ScriptedEngine(lambda _: script) as engine:
        yield engine


async def accepted_at(runtime: Runtime, request: str) -> int:
    await until_fact(runtime, request, RequestAccepted)
    return (await runtime.events.read(request))[0].stream_seq


async def test_a_flood_delays_another_by_its_turn_and_is_refused_what_is_too_much(
    runtime: Runtime, services: Services, engine: ScriptedEngine
) -> None:
    """However many the flood has queued before: what runs, and one a turn."""
    flood = [f"flood{number}" for number in range(20)]
    for request in flood:
        await submit(runtime, request, owner="flood", mode="sgd")
    for number in range(2):
        await submit(runtime, f"light{number}", owner="light", mode="sgd")
    await services.start("planner", large_urls=engine.url, plan_ahead="12")
    await until_fact(runtime, "light1", PlanCompleted)
    light = await accepted_at(runtime, "light1")
    begun = {request for request in flood if await is_accepted(runtime, request)}
    before = [one for one in begun if await accepted_at(runtime, one) < light]
    assert len(before) <= 1 + 2
    end = await end_of(runtime, "flood19")
    assert isinstance(end, RequestFailed)
    assert (end.error.code, bool(end.error.retry_after_s)) == (Busy.code, True)


async def is_accepted(runtime: Runtime, request: str) -> bool:
    return any(isinstance(fact, RequestAccepted) for fact in await facts(runtime, request))
