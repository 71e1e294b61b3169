"""The examples of docs/integrate.md are run as they stand, against the services as processes."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from proto.names import Header, Subjects
from skelgraph.auth.book import Book
from skelgraph.local.nats import NatsServer
from skelgraph.local.services import shown
from tests.conftest import Runtime, open_runtime
from tests.processes import Services
from tests.scripted_engine import ScriptedEngine, writer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
GUIDE = ROOT / "docs" / "integrate.md"
QUESTION = "Why is the sky blue?"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the examples are run: the server's connection of ours, and their environment."""

    runtime: Runtime
    env: Mapping[str, str]

    @property
    def tenant(self) -> str:
        """What ids begin with; empty without credentials."""
        return self.env.get("SKELGRAPH_ID_PREFIX", "")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["open", "acme"])
async def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    """All services over a scripted engine, once for these tests: a server that lets everybody do
    all, then one with mutual TLS on which the examples are the tenant acme.
    """
    folder = tmp_path_factory.mktemp("examples")
    book = None
    if request.param == "acme":
        book = Book(folder / "keys")
        book.init("mutual", ["127.0.0.1"])
        book.add_tenant("acme")
    async with NatsServer(folder / "nats", book=book) as server, AsyncExitStack() as stack:
        access = book.access("provision") if book else None
        runtime = await open_runtime(stack, server, access=access)
        await start_services(stack, runtime, folder / "logs", book)
        env = {"SKELGRAPH_NATS_URL": server.url}
        if book:
            env |= {**shown(book.access("@acme")), "SKELGRAPH_ID_PREFIX": "@acme."}
        yield Place(runtime, env)


async def start_services(
    stack: AsyncExitStack, runtime: Runtime, logs: Path, book: Book | None
) -> None:
    """Start each service, as its own user if there is a book."""
    engine = await stack.enter_async_context(ScriptedEngine(writer(token_s=0.002)))
    started = Services(stack, runtime, logs, large_urls=engine.url, small_urls=engine.url)
    children = []
    for argv in (
        ("assembler",),
        ("planner",),
        ("worker", "--pool", "large"),
        ("worker", "--pool", "small"),
    ):
        if book:
            started.environment |= shown(book.access(argv[0]))
        children.append(started.launch(*argv))
    for child in children:
        await child.ready()


async def ran(place: Place, *argv: str, path: str = "") -> str:
    """Run an example and return what it printed."""
    code, out, err = await ended({**place.env, "PATH": f"{path}:{os.environ['PATH']}"}, *argv)
    assert code == 0, err
    return out


async def ended(env: Mapping[str, str], *argv: str) -> tuple[int | None, str, str]:
    """Run an example; return its exit code, what it printed, and what it said of errors."""
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=EXAMPLES, env={**os.environ, **env}, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def python(place: Place, *argv: str) -> str:
    return await ran(place, sys.executable, *argv)


def told(printed: str) -> list[tuple[str, str]]:
    """The facts among what an example printed: where each stands, and its type."""
    return re.findall(r"^(\d+) (\w+)", printed, re.MULTILINE)


async def test_the_python_examples_ask_and_cancel(place: Place) -> None:
    answer, refused, cancelled = await asyncio.gather(
        python(place, "ask.py", QUESTION),
        python(place, "ask.py", " "),
        python(place, "cancel.py", QUESTION),
    )
    assert len(answer.strip()) > 20
    assert refused.startswith("invalid_request: ")
    ended = r"\S+ cancelled RequestFailed {.*\"cancelled\".*}\n"
    assert re.fullmatch(re.escape(place.tenant) + ended, cancelled)


async def test_the_python_examples_follow_and_replay(place: Place) -> None:
    follow, request = "tenant.py" if place.tenant else "follow.py", f"{place.tenant}mine"
    if not place.tenant:  # who guesses a request's id cannot keep it out of the queue
        taken = {Header.MSG_ID.value: request}
        await place.runtime.connection.nc.request(Subjects.request("theirs"), b"{}", headers=taken)
    followed = await python(place, follow, QUESTION, request)
    facts = told(followed)
    assert (facts[0][1], facts[-1][1]) == ("RequestAccepted", "AnswerAssembled")
    assert len(followed.splitlines()[-1]) > 20
    # The same once more, under the same id: what is stored is shown again.
    again = python(place, follow, QUESTION, request)
    if place.tenant:
        assert told(await again) == facts
        return
    assert re.search(r"live so far: [1-9]", followed)
    replayed, rest, once_more = await asyncio.gather(
        python(place, "replay.py", request), python(place, "replay.py", request, facts[1][0]), again
    )
    assert [told(one) for one in (replayed, rest, once_more)] == [facts, facts[2:], facts]


async def test_what_goes_wrong_is_said_in_a_line(tmp_path: Path) -> None:
    async with NatsServer(tmp_path / "nats") as server, AsyncExitStack() as stack:
        await open_runtime(stack, server)
        env = {"SKELGRAPH_NATS_URL": server.url}
        asked, replayed = await asyncio.gather(
            ended(env, sys.executable, "ask.py", QUESTION),
            ended(env, sys.executable, "replay.py", "unknown"),
        )
    assert asked == (1, "", "nobody answers there: no assembler runs\n")
    assert replayed == (1, "", "nothing is stored of unknown after 0\n")


async def test_an_example_whose_reader_has_gone_ends_without_a_word() -> None:
    code = "from connecting import run\nasync def example(): print('x' * 9999)\nrun(example())"
    nobody, pipe = os.pipe()
    os.close(nobody)
    argv = (sys.executable, "-c", code)
    run = partial(subprocess.run, argv, cwd=EXAMPLES, stdout=pipe, stderr=PIPE, check=False)
    done = await asyncio.to_thread(run)
    os.close(pipe)
    assert not done.stderr
    assert done.returncode == 0


async def test_the_commands_of_nats_do_what_the_guide_says(place: Place, tmp_path: Path) -> None:
    nats = tmp_path / "nats"
    nats.write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" -m tests.nats_cli "$@"\n')
    nats.chmod(0o755)
    printed = (await ran(place, "sh", "cli.sh", QUESTION, path=str(tmp_path))).splitlines()
    if not place.tenant:
        assert printed.pop(0).startswith("skelgraph ")
    kinds = [re.findall(r'"type":"(\w+)"', line)[0] for line in printed]
    assert kinds[:2] == ["AnswerAssembled", "RequestAccepted"]
    ends = {"cancelled": "RequestFailed", "already_ended": "AnswerAssembled"}
    outcome = re.findall(r'"outcome":"(\w+)"', printed[-2])[0]  # engines may be faster than we
    assert kinds[-3:] == ["RequestCreated", "CancelOutcome", ends[outcome]]


async def test_the_javascript_example_does_what_the_guide_says(place: Place) -> None:
    if not shutil.which("node") or not (EXAMPLES / "node_modules").exists():
        pytest.skip("docs/examples/client.mjs: `make examples` says why")
    printed = (await ran(place, "node", "client.mjs", QUESTION)).splitlines()
    if not place.tenant:
        services = printed.pop(0)
        assert re.match(r"skelgraph \d+\.\d+\.\d+ submit answer await cancel ", services)
    assert re.fullmatch(r"\d+ RequestAccepted", printed[0])
    assert any(line.startswith("AnswerAssembled ") for line in printed)
    assert any(line.startswith("request_id_taken: ") for line in printed)
    assert "outcome: 'cancelled'" in "".join(printed[-5:])


# --- the text of the guide ----------------------------------------------------------------


def pieces_of(text: str) -> list[tuple[str, str]]:
    """The pieces of code in the guide that stand in a file: the file's name, and the code."""
    return re.findall(r"<!-- from (\S+) -->\n```\w+\n(.*?)```", text, re.DOTALL)


async def test_the_guide_shows_the_examples_as_they_are_run() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    pieces = pieces_of(text)
    for name, code in pieces:
        assert code in (EXAMPLES / name).read_text(encoding="utf-8"), name
    examples = {path.name for path in EXAMPLES.glob("*.*") if path.suffix in {".py", ".mjs", ".sh"}}
    assert {name for name, _ in pieces} == examples - {"install.sh"}


async def test_the_readme_shows_the_first_example_as_it_is_run() -> None:
    code = (EXAMPLES / "ask.py").read_text(encoding="utf-8")
    piece = code[code.index("async def ask") : code.index("\n\n\nasync def main")]
    assert piece in (ROOT / "README.md").read_text(encoding="utf-8")
