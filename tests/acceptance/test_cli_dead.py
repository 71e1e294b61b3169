"""`skelgraph dead` as an operator uses it, with the assembler as a process of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest

from proto.messages import Fact, LetterShown, LetterSummary, RequestAccepted, RequestFailed
from proto.names import requeued_id
from services.runtime.clock import ServerClock
from tests.acceptance.test_cli import PROGRAM, arun, error_line, is_on, run
from tests.conftest import Runtime
from tests.facts import accepted, decoded, failed, plan, planned
from tests.processes import Services, end_of, facts, submit
from tests.scripted_engine import Fail, Finish, Say, ScriptedEngine, Step
from tests.scripted_steps import Json
from tests.terminal import Terminal

NEW = requeued_id("r1")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "SKELGRAPH_STATE_DIR": str(tmp_path / "state"),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
    }


@pytest.fixture
async def services(
    runtime: Runtime, env: dict[str, str], tmp_path: Path
) -> AsyncIterator[Services]:
    env["SKELGRAPH_NATS_URL"] = runtime.server.url
    async with AsyncExitStack() as stack:
        services = Services(stack, runtime, tmp_path / "logs")
        await services.start("assembler")
        yield services


async def fall_back(runtime: Runtime, *requests: str) -> None:
    """Requests that lost node 1 and were answered directly."""
    clock = ServerClock()
    await clock.sync(runtime.connection)
    for request in requests:
        told: list[Fact] = [
            accepted(request, at=clock.now()),
            planned(1, request=request),
            plan([1], request=request),
            failed(1, retryable=False, request=request),
            decoded(0, request=request, text="Direct."),
        ]
        for fact in told:
            await runtime.events.append(fact)
        await end_of(runtime, request)


def test_each_command_explains_itself(env: dict[str, str]) -> None:
    done = run(env, "dead", "--help")
    assert done.returncode == 0
    for command in ("list", "show", "requeue", "drop", "Exit codes: 0 answered"):
        assert command in done.stdout.decode()


@pytest.mark.parametrize("argv", [["list"], ["drop", "r1/1", "--yes"]])
def test_where_nothing_runs_it_says_what_to_start(env: dict[str, str], argv: list[str]) -> None:
    done = run(env, "dead", *argv)
    assert "skelgraph up" in error_line(done)
    assert done.returncode == 3


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["show", "r1"], "(id): 'r1' is not REQUEST/NODE"),
        (["requeue", "--all", "--follow"], "exactly one ID"),
        (["list", "--since", "soon"], "(since)"),
    ],
)
def test_wrong_use_is_one_line(env: dict[str, str], argv: list[str], said: str) -> None:
    env["SKELGRAPH_NATS_URL"] = "nats://127.0.0.1:9"
    done = run(env, "dead", *argv)
    assert said in error_line(done)
    assert done.returncode == 2


async def test_an_operator_looks_requeues_and_drops(
    runtime: Runtime, services: Services, env: dict[str, str]
) -> None:
    empty = await arun(env, "dead", "list")
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, b"", b"no dead letters\n")

    await fall_back(runtime, "r1", "r2", "r3")
    head, *rows = (await arun(env, "dead", "list")).stdout.decode().splitlines()
    assert head.split() == ["letter", "died", "attempts", "pool", "code", "message"]
    assert [row.split()[0] for row in rows] == ["r1/1", "r2/1", "r3/1"]
    assert rows[0].endswith("engine_rejected  The engine refused the call: no")
    as_json = await arun(env, "dead", "list", "--json", "--code", "engine_rejected", "--limit", "2")
    summaries = [LetterSummary.model_validate_json(line) for line in as_json.stdout.splitlines()]
    assert [one.request for one in summaries] == ["r1", "r2"]
    assert b"--limit shows more" in as_json.stderr

    shown = (await arun(env, "dead", "show", "r1/1")).stdout.decode()
    assert "request   answered directly instead" in shown
    assert "engine_rejected: The engine refused the call: no" in shown
    assert "Why?" not in shown
    assert "Why?" in (await arun(env, "dead", "show", "r1/1", "--text")).stdout.decode()
    whole = await arun(env, "dead", "show", "r1/1", "--json", "--text")
    assert LetterShown.model_validate_json(whole.stdout).letter.work.question == "Why?"

    done = await arun(env, "dead", "requeue", "r1/1")
    assert (done.returncode, done.stdout) == (0, f"{NEW}\n".encode())
    assert done.stderr == f"r1/1: requeued as {NEW}\n".encode()
    again = await arun(env, "dead", "requeue", "r1/1", "nobody/1")
    assert again.stdout == f"{NEW}\n".encode()
    assert b"already requeued" in again.stderr
    assert "nobody/1" in error_line(again)
    assert again.returncode == 1

    everything = await arun(env, "dead", "requeue", "--all", "--request", "r2")
    assert everything.stdout == f"{requeued_id('r2')}\n".encode()
    unsure = await arun(env, "dead", "drop", "--all")
    assert "--yes" in error_line(unsure)
    assert unsure.returncode == 2
    dropped = await arun(env, "dead", "drop", "--all", "--yes")
    assert (dropped.returncode, dropped.stdout) == (0, b"r3/1: dropped\n")
    gone = await arun(env, "dead", "drop", "r3/1")
    assert (gone.returncode, gone.stdout) == (0, b"r3/1: was not there\n")
    assert (await arun(env, "dead", "list", "--json")).stdout == b""


async def test_with_the_cause_mended_a_requeued_request_is_followed_to_its_answer(
    runtime: Runtime, services: Services, env: dict[str, str]
) -> None:
    mended = asyncio.Event()

    def script(_: Json) -> list[Step]:
        return [Say("Blue."), Finish()] if mended.is_set() else [Fail(400, b'{"error": "no"}')]

    async with ScriptedEngine(script) as engine:
        urls = {"large_urls": engine.url}
        await services.start("planner", **urls)
        await services.start("worker", "--pool", "large", **urls)
        await submit(runtime, "r1", mode="direct")
        end = await end_of(runtime, "r1")
        assert isinstance(end, RequestFailed)
        mended.set()
        done = await arun(env, "dead", "requeue", "r1/0", "--follow")
    assert (done.returncode, done.stdout) == (0, b"Blue.\n")
    assert f"requeued as {NEW}" in done.stderr.decode()
    told = await facts(runtime, NEW)
    assert isinstance(told[0], RequestAccepted)
    assert told[0].submitted.requeued_from == "r1"
    assert await end_of(runtime, "r1") == end


async def test_without_an_assembler_it_says_so(runtime: Runtime, env: dict[str, str]) -> None:
    env["SKELGRAPH_NATS_URL"] = runtime.server.url
    done = await arun(env, "dead", "list")
    assert "no assembler is running" in error_line(done)
    assert done.returncode == 3


async def test_at_a_terminal_dropping_asks_first(
    runtime: Runtime, services: Services, env: dict[str, str]
) -> None:
    await fall_back(runtime, "r1", "r2")
    question = is_on("Drop 2 dead letters for good? [y/N]")
    for answer, code, left in (("", 1, 2), ("y", 0, 0)):
        with Terminal([*PROGRAM, "dead", "drop", "--all"], env) as terminal:
            await asyncio.to_thread(terminal.until, question)
            terminal.enter(answer)
            assert await asyncio.to_thread(terminal.wait) == code
            assert ("nothing was dropped" in terminal.text) is bool(left)
        found = await arun(env, "dead", "list", "--json")
        assert len([orjson.loads(line) for line in found.stdout.splitlines()]) == left


async def test_ctrl_c_at_the_question_drops_nothing(
    runtime: Runtime, services: Services, env: dict[str, str]
) -> None:
    await fall_back(runtime, "r1")
    with Terminal([*PROGRAM, "dead", "drop", "r1/1"], env) as terminal:
        await asyncio.to_thread(terminal.until, is_on("Drop r1/1 for good?"))
        terminal.interrupt()
        assert await asyncio.to_thread(terminal.wait, 5) == 130
    assert (await arun(env, "dead", "list", "--json")).stdout.count(b"\n") == 1
