"""A small evaluation from end to end: recorded, killed, gone on with, judged."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest

from bench.evaluate.judge import judge, judgements_of, left, looks, made_by
from bench.evaluate.judging import Judgement, outcomes, tally
from bench.evaluate.records import Records, records_of
from bench.evaluate.report import report
from bench.questions import read_questions
from bench.simulated_engine.options import Options
from bench.simulated_engine.server import serving
from proto.names import PREFIX, Stream
from services.runtime.engine import EngineClient
from tests.conftest import Runtime
from tests.processes import Services
from tests.simulated import Simulated, simulated_engine

QUESTIONS: Final = 3
METHODS: Final = ("direct", "sgd", "direct-long")


@pytest.fixture
async def engine(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Simulated]:
    """One simulated engine for both pools, and all services over it."""
    flags = ("--dialect", "vllm", "--profile", "llama-8b-1xh100", "--median-tokens", "40")
    async with AsyncExitStack() as stack:
        found = stack.enter_context(simulated_engine(*flags, "--time-scale", "0.6"))
        services = Services(
            stack, runtime, tmp_path / "logs", large_urls=found.url, small_urls=found.url
        )
        await asyncio.gather(
            services.start("planner"),
            services.start("worker", "--pool", "large"),
            services.start("worker", "--pool", "small"),
            services.start("assembler"),
        )
        yield found


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """A file of questions."""
    file = tmp_path / "questions.jsonl"
    lines = [
        {"question_id": n, "category": "generic", "turns": [f"What is {n} about?"]}
        for n in range(QUESTIONS)
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


async def recording(runtime: Runtime, folder: Path, questions: Path) -> Process:
    """Run the command."""
    argv = ["-m", "bench.evaluate", "record", str(folder), str(questions), "--concurrency", "2"]
    argv += ["--methods", ",".join(METHODS), "--nats-url", runtime.server.url]
    return await asyncio.create_subprocess_exec(sys.executable, *argv, stdout=DEVNULL, stderr=PIPE)


async def requests_taken(runtime: Runtime) -> int:
    """Return how many requests the services have ever accepted."""
    only: dict[str, object] = {"subjects_filter": f"{PREFIX}.event.*.*.accepted"}
    state = (await runtime.connection.api(f"STREAM.INFO.{Stream.EVENTS}", only))["state"]
    subjects = state.get("subjects") if isinstance(state, dict) else None
    return len(subjects or {})


async def test_a_killed_run_is_gone_on_with_and_asks_nothing_twice(
    engine: Simulated, runtime: Runtime, questions: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    lines = records_of(folder)
    killed = await recording(runtime, folder, questions)
    async with asyncio.timeout(30):
        while not lines.read():  # noqa: ASYNC110  # another process' file
            await asyncio.sleep(0.01)
    killed.kill()
    await killed.wait()
    assert len(lines.read()) < QUESTIONS * len(METHODS)
    with lines.path.open("ab") as file:
        file.write(b'{"question": "0", "cat')  # what a kill in the middle of a line leaves
    again = await recording(runtime, folder, questions)
    _, said = await again.communicate()
    assert again.returncode == 0, said.decode()
    made = lines.read()
    cells = sorted((record.method, record.question) for record in made)
    assert cells == sorted((method, str(n)) for method in METHODS for n in range(QUESTIONS))
    assert len({record.request for record in made}) == len(made) == await requests_taken(runtime)
    assert all(record.answer for record in made)
    assert sum(record.first_text_ms is not None for record in made) >= len(made) - 3
    assert all(record.plan for record in made if record.method == "sgd")
    assert "## `sgd` against `direct`" in report(Records(made), {})
    await judged(Records(made), folder, questions)


async def judged(records: Records, folder: Path, questions: Path) -> None:
    """Have an engine judge what was recorded, left half way and gone on with."""
    all_, lines = (
        looks(read_questions(questions), records, [("sgd", "direct")]),
        judgements_of(folder),
    )
    told: list[Judgement] = []
    async with serving(Options(family="vllm")) as url:
        client = EngineClient(url)
        for part in (all_[:3], left(all_, []), left(all_, lines.read())):
            known = lines.read()
            with lines.adding() as adder:
                await judge(client, left(part, known), adder, 2, told.append)
        await client.close()
    assert len(told) == len(lines.read()) == 2 * QUESTIONS
    (found,) = outcomes(lines.read(), records, ("sgd", "direct")).values()
    assert tally(found).judged == QUESTIONS
    (name,) = {one.judge for one in told}
    model, _, endpoint = name.partition(" at ")
    assert endpoint == client.url
    for same in (None, model):
        assert left(all_, made_by(lines.read(), client.url, same)) == []
    assert left(all_, made_by(lines.read(), client.url, "another")) == all_
