"""All services run unchanged on simulated engines, and replay a recorded plan."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest

from proto.messages import AnswerAssembled
from tests.conftest import Runtime
from tests.processes import Services, end_of, submit
from tests.simulated import Simulated, simulated_engines

PLAN: Final = """graph
1. Light and air | easy short
2. Short waves scatter more | hard medium
3. Why not violet | hard short needs 2
4. Sunsets | easy short
end"""
#: A planning call ends in the question; so do no other calls of this request.
RECORDED: Final = {"match": "Why is the sky blue?\n\n(first line: graph)", "reply": PLAN}


@pytest.fixture
async def engines(runtime: Runtime, tmp_path: Path) -> AsyncIterator[list[Simulated]]:
    """TGI as the large pool and vLLM as the small one, and all services over them."""
    replies = tmp_path / "replies.jsonl"
    replies.write_text(json.dumps(RECORDED))
    flags = ("--replies", str(replies), "--time-scale", "0.05")
    async with AsyncExitStack() as stack:
        large, small = stack.enter_context(
            simulated_engines(
                (*flags, "--dialect", "tgi", "--profile", "llama-70b-4xh100"),
                (*flags, "--dialect", "vllm", "--profile", "llama-8b-1xh100"),
            )
        )
        services = Services(
            stack, runtime, tmp_path / "logs", large_urls=large.url, small_urls=small.url
        )
        started = (
            services.start("planner"),
            services.start("worker", "--pool", "large"),
            services.start("worker", "--pool", "small"),
            services.start("assembler"),
        )
        await asyncio.gather(*started)
        yield [large, small]


async def test_recorded_and_made_up_plans_become_answers(
    engines: list[Simulated], runtime: Runtime
) -> None:
    names = [f"q{number}" for number in range(6)]
    await submit(runtime, "r1", mode="sgd")
    for name in names:
        await submit(runtime, name, question=f"What is {name} about?")
    answer = await end_of(runtime, "r1", limit_s=30)
    assert isinstance(answer, AnswerAssembled), answer
    assert [report.node.summary for report in answer.nodes] == [
        "Light and air", "Short waves scatter more", "Why not violet", "Sunsets",
    ]  # fmt: skip
    ends = [await end_of(runtime, name, limit_s=30) for name in names]
    assert all(isinstance(end, AnswerAssembled) for end in ends), ends
    told = [engine.control() for engine in engines]
    assert all(one["requests"] for one in told)
    assert not any(one["in_flight"] for one in told)
