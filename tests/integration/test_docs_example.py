"""The example that the docs show is run as it stands."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proto.codec import decode
from proto.errors import EngineUnavailable
from proto.messages import (
    AnswerAssembled,
    End,
    ErrorInfo,
    PlanCompleted,
    RequestAccepted,
    RequestFailed,
    SubmitRequest,
    Timings,
    Usage,
)
from proto.names import PLANNER_CONSUMER, Stream, request_of
from services.runtime.pull import ConsumerPull, Delivery
from tests.conftest import Runtime

EXAMPLE = Path(__file__).parents[2] / "docs" / "ask.py"


def answered(request: str) -> AnswerAssembled:
    plan = PlanCompleted(request=request, mode="direct", reason="gate", nodes=(0,))
    timings = Timings(
        wall_ms=1,
        plan_ms=0,
        critical_path=(0,),
        critical_engine_ms=1,
        critical_slot_wait_ms=0,
        overhead_ms=0,
        sequential_ms=1,
    )
    return AnswerAssembled(
        request=request,
        mode="direct",
        text="forty-two",
        nodes=(),
        plan=plan,
        usage=Usage(),
        timings=timings,
    )


def failed(request: str) -> RequestFailed:
    return RequestFailed(request=request, error=ErrorInfo.of(EngineUnavailable()))


@pytest.mark.parametrize(
    ("end_of", "printed"),
    [(answered, "forty-two\n"), (failed, f"{EngineUnavailable().message}\n")],
)
async def test_example_asks_and_prints_the_end(
    runtime: Runtime, end_of: Callable[[str], End], printed: str
) -> None:
    async with _asking(runtime, "what is it?") as (process, delivery):
        request = request_of(delivery.subject)
        submitted = decode(SubmitRequest, delivery.data)
        assert submitted == SubmitRequest(question="what is it?")
        at = delivery.stored_at
        accepted = RequestAccepted(
            request=request, submitted=submitted, submitted_at=at, deadline_at=at + 600
        )
        for fact in (accepted, end_of(request)):
            assert await runtime.events.append(fact)
        out, err = await process.communicate()
    assert out.decode() == printed
    assert err.decode().splitlines()[0] == "RequestAccepted"
    assert process.returncode == 0


@asynccontextmanager
async def _asking(runtime: Runtime, question: str) -> AsyncIterator[tuple[Process, Delivery]]:
    """Run the example, and hand out what it submits, as a planner gets it."""
    submitted: asyncio.Queue[Delivery] = asyncio.Queue()
    pull = ConsumerPull(runtime.connection, Stream.REQUESTS, PLANNER_CONSUMER, submitted.put_nowait)
    await pull.start()
    pull.want(1)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE),
        question,
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "SKELGRAPH_NATS_URL": runtime.server.url},
    )
    try:
        yield process, await submitted.get()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await pull.stop()


def test_readme_shows_the_example_as_it_is_run() -> None:
    code = EXAMPLE.read_text(encoding="utf-8")
    shown = code[code.index("async def ask") : code.index("\n\n\nif __name__")]
    assert shown in (EXAMPLE.parents[1] / "README.md").read_text(encoding="utf-8")
