"""Who writes the plan: the large model, the small one, or the small one's draft amended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proto.codec import encode
from proto.messages import NodePlanned, PlanCompleted, StopWork
from proto.names import Pool, Subjects
from tests.conftest import Runtime
from tests.facts import accepted, planned
from tests.processes import Services, facts, planned_nodes, submit, until_fact
from tests.scripted_engine import Cut, Finish, Say, ScriptedEngine, Step, Wait

PLAN = """graph
1. First point | easy
2. Second point | hard
3. Second again | easy
4. Conclusion | hard long needs 1,2
end"""
NOWHERE = "http://127.0.0.1:9"
NEVER = Wait(3600.0)


def saying(text: str) -> list[Step]:
    return [Say(text), Finish()]


class Site:
    """A planner between an engine of each pool."""

    def __init__(self, runtime: Runtime, services: Services, stack: AsyncExitStack) -> None:
        self.runtime = runtime
        self.services = services
        self._stack = stack

    async def engines(
        self, small: Iterable[Step], large: Iterable[Step]
    ) -> tuple[ScriptedEngine, ScriptedEngine]:
        small, large = list(small), list(large)
        one = await self._stack.enter_async_context(ScriptedEngine(lambda _: small))
        other = await self._stack.enter_async_context(ScriptedEngine(lambda _: large))
        return one, other

    async def plan(self, small: str, large: str, pool: str | None = "draft") -> PlanCompleted:
        await self.services.start("planner", small_urls=small, large_urls=large)
        await submit(self.runtime, "r1", planner_pool=pool)
        return await self.completed()

    async def completed(self) -> PlanCompleted:
        (plan,) = await until_fact(self.runtime, "r1", PlanCompleted)
        assert isinstance(plan, PlanCompleted)
        return plan


@pytest.fixture
async def site(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        yield Site(runtime, Services(stack, runtime, tmp_path / "logs"), stack)


async def test_the_small_model_writes_the_plan_where_it_is_asked_to(site: Site) -> None:
    small, large = await site.engines(saying(PLAN), saying("ok"))
    plan = await site.plan(small.url, large.url, "small")
    assert (plan.written_by, plan.nodes) == ("small", (1, 2, 3, 4))
    assert (plan.endpoint, len(large.calls)) == (small.url, 0)


async def test_without_a_wish_the_planners_own_setting_counts(site: Site) -> None:
    small, large = await site.engines(saying(PLAN), saying("never asked"))
    await site.services.start(
        "planner", small_urls=small.url, large_urls=large.url, planner_pool="small"
    )
    await submit(site.runtime, "r1")
    assert (await site.completed()).written_by == "small"


@pytest.mark.parametrize(
    ("amendment", "mode", "nodes"),
    [
        ("drop 1,3\n5. Cost | easy short needs 2\nend", "sgd", (1, 2, 4, 5)),
        ("direct", "direct", (0,)),
    ],
)
async def test_the_large_model_amends_the_draft(
    site: Site, amendment: str, mode: str, nodes: tuple[int, ...]
) -> None:
    small, large = await site.engines(saying(PLAN), saying(amendment))
    plan = await site.plan(small.url, large.url)
    assert (plan.written_by, plan.mode, plan.nodes) == ("draft", mode, nodes)
    assert [call.pool for call in plan.calls] == [Pool.SMALL, Pool.LARGE]
    assert plan.plan_ms == pytest.approx(sum(call.engine_ms for call in plan.calls))
    assert plan.usage.generated_tokens == sum(c.usage.generated_tokens for c in plan.calls)
    for line in PLAN.splitlines()[1:-1]:
        assert line in str(large.calls[0].body["messages"])


async def test_drafted_nodes_are_published_before_the_amendment(site: Site) -> None:
    go_on = asyncio.Event()
    small, large = await site.engines(saying(PLAN), [Wait(go_on), *saying("drop 3")])
    await site.services.start("planner", small_urls=small.url, large_urls=large.url)
    await submit(site.runtime, "r1", planner_pool="draft")
    await (await large.call()).waiting.wait()
    assert len(await until_fact(site.runtime, "r1", NodePlanned, 4)) == 4
    go_on.set()
    assert (await site.completed()).nodes == (1, 2, 4)


@pytest.mark.parametrize(
    ("large", "error"),
    [
        ([Say("dro"), Cut()], "engine_cut_off"),
        ([NEVER], "engine_timed_out"),
    ],
)
async def test_where_the_amendment_fails_or_is_late_the_draft_stands(
    site: Site, large: list[Step], error: str
) -> None:
    one, other = await site.engines(saying(PLAN), large)
    await site.services.start(
        "planner", small_urls=one.url, large_urls=other.url, amend_timeout_s="0.5"
    )
    await submit(site.runtime, "r1", planner_pool="draft")
    plan = await site.completed()
    assert (plan.written_by, plan.nodes, plan.reason) == ("small", (1, 2, 3, 4), "planned")
    assert [call.error for call in plan.calls] == ["", error]


async def test_a_draft_that_collapses_is_not_amended(site: Site) -> None:
    small, large = await site.engines(saying("direct"), saying("ok"))
    plan = await site.plan(small.url, large.url)
    assert (plan.written_by, plan.mode, len(large.calls)) == ("small", "direct", 0)


@pytest.mark.parametrize("small", [NOWHERE, ""])
async def test_without_a_small_engine_the_large_model_writes_the_plan(
    site: Site, small: str
) -> None:
    _, large = await site.engines([], saying(PLAN))
    plan = await site.plan(small, large.url)
    assert (plan.written_by, plan.nodes) == ("large", (1, 2, 3, 4))


async def test_a_planner_that_takes_over_a_draft_finishes_and_amends_it(site: Site) -> None:
    await site.runtime.events.append(accepted(at=2e9, planner_pool="draft"))
    for node in (1, 2, 3):
        await site.runtime.events.append(planned(node))
    rest = "4. Conclusion | hard long needs 1,2\nend"
    small, large = await site.engines(saying(rest), saying("drop 2,3"))
    plan = await site.plan(small.url, large.url)
    assert (plan.written_by, plan.nodes) == ("draft", (1, 2, 4))
    assert len(planned_nodes(await facts(site.runtime, "r1"))) == 4


async def test_an_amendment_is_left_when_the_request_has_ended(site: Site) -> None:
    small, large = await site.engines(saying(PLAN), [NEVER])
    await site.services.start("planner", small_urls=small.url, large_urls=large.url)
    await submit(site.runtime, "r1", planner_pool="draft")
    call = await large.call()
    await call.waiting.wait()
    await site.runtime.connection.publish(Subjects.stop("r1"), encode(StopWork(request="r1")))
    async with asyncio.timeout(2):
        await call.left.wait()
