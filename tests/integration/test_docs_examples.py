"""The examples of docs/integrate.md are run as they stand, against the services as processes."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from proto.names import Header, Subjects
from skelgraph.local.nats import NatsServer
from tests.conftest import Runtime, open_runtime
from tests.processes import Services
from tests.scripted_engine import ScriptedEngine, writer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
GUIDE = ROOT / "docs" / "integrate.md"
QUESTION = "Why is the sky blue?"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    """All services over a scripted engine, once for these tests."""
    folder = tmp_path_factory.mktemp("examples")
    async with NatsServer(folder / "nats") as server, AsyncExitStack() as stack:
        runtime = await open_runtime(stack, server)
        engine = await stack.enter_async_context(ScriptedEngine(writer(token_s=0.002)))
        urls = {"large_urls": engine.url, "small_urls": engine.url}
        started = Services(stack, runtime, folder / "logs", **urls)
        children = [
            started.launch(*argv)
            for argv in (
                ("assembler",),
                ("planner",),
                ("worker", "--pool", "large"),
                ("worker", "--pool", "small"),
            )
        ]
        for child in children:
            await child.ready()
        yield runtime


async def ran(runtime: Runtime, *argv: str, path: str = "") -> str:
    """Run an example and return what it printed."""
    env = {**os.environ, "SKELGRAPH_NATS_URL": runtime.server.url}
    env["PATH"] = f"{path}:{env['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=EXAMPLES, env=env, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_the_python_examples_do_what_the_guide_says(services: Runtime) -> None:
    async def python(*argv: str) -> str:
        return await ran(services, sys.executable, *argv)

    # Somebody who guesses the id of a request cannot keep it out of the queue.
    await services.connection.nc.request(
        Subjects.request("theirs"), b"{}", headers={Header.MSG_ID: "mine"}
    )
    answer, followed, cancelled = await asyncio.gather(
        python("ask.py", QUESTION),
        python("follow.py", QUESTION, "mine"),
        python("cancel.py", QUESTION),
    )
    assert len(answer.strip()) > 20
    facts = re.findall(r"^(\d+) (\w+)", followed, re.MULTILINE)
    assert (facts[0][1], facts[-1][1]) == ("RequestAccepted", "AnswerAssembled")
    assert re.search(r"live so far: [1-9]", followed)
    assert re.fullmatch(r"\w+ cancelled RequestFailed {.*\"cancelled\".*}\n", cancelled)
    replayed, rest = await asyncio.gather(
        python("replay.py", "mine"), python("replay.py", "mine", facts[1][0])
    )
    assert re.findall(r"^(\d+) (\w+)", replayed, re.MULTILINE) == facts
    assert re.findall(r"^(\d+) (\w+)", rest, re.MULTILINE) == facts[2:]
    # The same once more, under the same id: what is stored is shown again.
    assert re.findall(r"^(\d+) (\w+)", await python("follow.py", QUESTION, "mine"), re.M) == facts
    assert (await python("ask.py", " ")).startswith("invalid_request: ")


async def test_the_commands_of_nats_do_what_the_guide_says(
    services: Runtime, tmp_path: Path
) -> None:
    nats = tmp_path / "nats"
    nats.write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" -m tests.nats_cli "$@"\n')
    nats.chmod(0o755)
    printed = (await ran(services, "sh", "cli.sh", QUESTION, path=str(tmp_path))).splitlines()
    assert printed[0].startswith("skelgraph ")
    kinds = [re.findall(r'"type":"(\w+)"', line)[0] for line in printed[1:]]
    assert kinds[:2] == ["AnswerAssembled", "RequestAccepted"]
    ends = {"cancelled": "RequestFailed", "already_ended": "AnswerAssembled"}
    outcome = re.findall(r'"outcome":"(\w+)"', printed[-2])[0]  # engines may be faster than we
    assert kinds[5:] == ["RequestCreated", "CancelOutcome", ends[outcome]]


async def test_the_javascript_example_does_what_the_guide_says(services: Runtime) -> None:
    if not shutil.which("node") or not (EXAMPLES / "node_modules").exists():
        pytest.skip("no node, or not `npm install --no-save --prefix docs/examples` before")
    printed = (await ran(services, "node", "client.mjs", QUESTION)).splitlines()
    assert re.match(r"skelgraph \d+\.\d+\.\d+ submit answer await cancel ", printed[0])
    assert re.fullmatch(r"\d+ RequestAccepted", printed[1])
    assert any(line.startswith("AnswerAssembled ") for line in printed)
    assert any(line.startswith("request_id_taken: ") for line in printed)
    assert "outcome: 'cancelled'" in "".join(printed[-5:])


# --- the text of the guide ----------------------------------------------------------------


def shown(text: str) -> list[tuple[str, str]]:
    """The pieces of code in the guide that stand in a file: the file's name, and the code."""
    return re.findall(r"<!-- from (\S+) -->\n```\w+\n(.*?)```", text, re.DOTALL)


async def test_the_guide_shows_the_examples_as_they_are_run() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    pieces = shown(text)
    for name, code in pieces:
        assert code in (EXAMPLES / name).read_text(encoding="utf-8"), name
    examples = {path.name for path in EXAMPLES.glob("*.*") if path.suffix in {".py", ".mjs", ".sh"}}
    assert {name for name, _ in pieces} == examples


async def test_the_readme_shows_the_first_example_as_it_is_run() -> None:
    code = (EXAMPLES / "ask.py").read_text(encoding="utf-8")
    piece = code[code.index("async def ask") : code.index("\n\n\nif __name__")]
    assert piece in (ROOT / "README.md").read_text(encoding="utf-8")
