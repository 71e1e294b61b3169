"""A process that stood still leaves what it held to those who have it now."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from proto.messages import AnswerAssembled, NodeFailed, SkeletonDrafted
from skelgraph.local.process import Child
from tests.conftest import ACK_WAIT_S, Runtime
from tests.processes import Services, end_of, facts, submit
from tests.scripted_engine import Finish, Say, Script, ScriptedEngine, Step, Wait

PLAN = "graph\n" + "".join(f"{n}. Point {n} of the matter | hard\n" for n in range(1, 9)) + "end"
#: A word to stop is looked for at a third of the ack wait; and a busy machine is slow.
MARGIN_S = 2.0


@pytest.fixture
async def services(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        yield Services(stack, runtime, tmp_path / "logs", between_tokens_timeout_s="1")


class Calls:
    """The times from which and to which an engine was at each call."""

    def __init__(self, texts: Callable[[Any], list[str]], pause_s: float) -> None:
        self.spans: list[list[float]] = []
        self._texts = texts
        self._pause_s = pause_s

    def script(self) -> Script:
        async def script(request: object) -> AsyncIterator[Step]:
            span = [time.monotonic(), float("inf")]
            self.spans.append(span)
            try:
                for text in self._texts(request):
                    yield Wait(self._pause_s)
                    yield Say(text)
                yield Finish()
            finally:
                span[1] = time.monotonic()

        return script

    def together_s(self, since: float) -> float:
        """How long after `since` any two calls went on side by side."""
        first, *others = sorted(self.spans)
        return max((min(first[1], end) - max(begin, since) for begin, end in others), default=0.0)


async def frozen_until_another_has_it(
    children: list[Child], engine: ScriptedEngine, began: str
) -> float:
    """Freeze who has begun, until another one calls the engine; return when it went on."""
    await engine.call(1)
    await asyncio.sleep(1.0)
    (frozen,) = [one for one in children if began in one.log_path.read_text()]
    frozen.signal(signal.SIGSTOP)
    await engine.call(2)
    frozen.signal(signal.SIGCONT)
    return time.monotonic()


async def test_a_worker_leaves_a_node_that_another_one_has(
    runtime: Runtime, services: Services
) -> None:
    calls = Calls(lambda _: [f"word{n} " for n in range(40)], 0.2)
    async with ScriptedEngine(calls.script()) as engine:
        urls = {"large_urls": engine.url, "slots": "1"}
        _, _, *workers = await asyncio.gather(
            services.start("assembler"),
            services.start("planner", **urls),
            *(services.start("worker", "--pool", "large", **urls) for _ in range(2)),
        )
        await submit(runtime, "r1", mode="direct")
        thawed_at = await frozen_until_another_has_it(workers, engine, "node_started")
        assert isinstance(await end_of(runtime, "r1", limit_s=30), AnswerAssembled)
        assert not [fact for fact in await facts(runtime, "r1") if isinstance(fact, NodeFailed)]
        assert len(calls.spans) == 2
        assert calls.together_s(thawed_at) < ACK_WAIT_S / 3 + MARGIN_S


def _rest_of_the_plan(request: Any) -> list[str]:
    told = re.search(r"Go on with line (\d+)", request["messages"][-1]["content"])
    lines = PLAN.splitlines()[int(told[1]) if told else 0 :]
    return re.findall(r"\s*\S+", "\n".join(lines))


async def test_a_planner_leaves_a_plan_that_another_one_writes(
    runtime: Runtime, services: Services
) -> None:
    calls = Calls(_rest_of_the_plan, 0.1)
    async with ScriptedEngine(calls.script()) as engine:
        _, *planners = await asyncio.gather(
            services.start("assembler"),
            *(services.start("planner", large_urls=engine.url) for _ in range(2)),
        )
        await submit(runtime, "r1", mode="sgd", dry_run=True)
        thawed_at = await frozen_until_another_has_it(planners, engine, "request_accepted")
        end = await end_of(runtime, "r1", limit_s=30)
        assert isinstance(end, SkeletonDrafted)
        assert len(end.nodes) == 8
        assert calls.together_s(thawed_at) < ACK_WAIT_S / 3 + MARGIN_S
