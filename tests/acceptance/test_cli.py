"""The command line as a person and as a program use it: at a terminal, and through pipes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path

import orjson
import pytest
from nats.aio.msg import Msg

from proto.codec import FACT, decode, encode
from proto.errors import Cancelled, NodeGaveUp
from proto.messages import (
    AnswerAssembled,
    CancelOutcome,
    ErrorInfo,
    Fact,
    NodeSpec,
    Preview,
    RequestAccepted,
    RequestFailed,
    SkeletonDrafted,
    SubmitRequest,
)
from proto.names import ANY_CANCEL, STREAM_SUBJECTS, Stream, Subjects, request_of
from services.runtime.streams import StreamLimits, provision
from tests.conftest import Runtime
from tests.terminal import Terminal
from tests.unit.test_order import REQUEST, answered, completed, decoded, planned, started, tokens

PROGRAM = [sys.executable, "-m", "skelgraph"]
TEXTS = {1: "One sentence. And another.", 2: "The second part."}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The environment of a fresh user at a good terminal."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "SKELGRAPH_STATE_DIR": str(tmp_path / "state"),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
    }


def run(
    env: dict[str, str], *argv: str, stdin: bytes = b"", timeout_s: float = 30
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PROGRAM, *argv], env=env, input=stdin, capture_output=True, timeout=timeout_s, check=False
    )


def error_line(done: subprocess.CompletedProcess[bytes]) -> str:
    assert b"Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.decode().splitlines() if line.startswith("error: ")]
    return line


# --- help and wrong use ---------------------------------------------------------------


def test_without_arguments_it_teaches(env: dict[str, str]) -> None:
    done = run(env)
    assert done.returncode == 0
    for command in ("demo", "up", "ask", "plan", "watch", "cancel", "status", "provision"):
        assert command in done.stdout.decode()


@pytest.mark.parametrize("command", ["ask", "plan", "up", "watch", "cancel", "demo", "provision"])
def test_each_command_explains_itself_and_its_exit_codes(env: dict[str, str], command: str) -> None:
    done = run(env, command, "--help")
    assert done.returncode == 0
    assert b"Exit codes: 0 answered" in done.stdout


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["ask", ""], "(question): it is empty (invalid_request)"),
        (["ask", "@missing.txt"], "missing.txt: No such file or directory"),
        (["ask", "why?", "--temperature", "9"], "(sampling.temperature)"),
        (["ask", "why?", "--deadline", "-1"], "(deadline_s)"),
        (["ask", "why?", "--large-url", "ftp://x"], "(large-url)"),
        (["ask", "why?", "--large-model", "no-such"], "no-such"),
        (["ask", "x" * 100_001], "at most 100000 characters"),
        (["plan", "why?", "--json", "--mermaid"], "exclude each other"),
        (["watch", "a.b", "--nats-url", "nats://127.0.0.1:9"], "(request)"),
    ],
)
def test_wrong_use_is_one_line_that_names_the_field(
    env: dict[str, str], argv: list[str], said: str
) -> None:
    done = run(env, *argv)
    assert said in error_line(done)
    assert done.returncode == 2


def test_an_unknown_mode_is_refused_with_the_known_ones(env: dict[str, str]) -> None:
    done = run(env, "ask", "why?", "--mode", "wild")
    assert done.returncode == 2
    assert b"'sot'" in done.stderr


def test_a_prompt_of_ten_megabytes_is_refused_before_anything_starts(env: dict[str, str]) -> None:
    done = run(env, "ask", "-", stdin=b"x" * 10_000_000)
    assert "(request_too_large)" in error_line(done)
    assert done.returncode == 2
    assert not Path(env["SKELGRAPH_STATE_DIR"]).exists()


def test_a_question_that_is_no_text_is_refused(env: dict[str, str]) -> None:
    assert "UTF-8" in error_line(run(env, "ask", "-", stdin=b"\xff\xfe"))


@pytest.mark.parametrize("argv", [["watch", "abc"], ["cancel", "abc"], ["status"], ["provision"]])
def test_where_nothing_runs_it_says_what_to_start(env: dict[str, str], argv: list[str]) -> None:
    done = run(env, *argv)
    assert "skelgraph up" in error_line(done)
    assert done.returncode == 3


def test_a_server_that_does_not_answer_is_code_3(env: dict[str, str]) -> None:
    env["SKELGRAPH_NATS_URL"] = "nats://127.0.0.1:9"
    done = run(env, "ask", "why?")
    assert "nats://127.0.0.1:9" in error_line(done)
    assert done.returncode == 3


# --- against a NATS server whose services are played by the test ------------------------


Play = Callable[[str], Coroutine[object, object, None]]


class Services:
    """Plays the services: tells a story for each request, and answers cancels."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.cancelled: list[str] = []
        self.asked: list[tuple[str, SubmitRequest]] = []
        self._playing: list[asyncio.Task[None]] = []

    async def open(self, play: Play | None = None) -> None:
        async def heard(message: Msg) -> None:
            request = request_of(message.subject)
            self.asked.append((request, decode(SubmitRequest, message.data)))
            if play:
                self._playing.append(asyncio.create_task(play(request)))

        await self.runtime.connection.subscribe(STREAM_SUBJECTS[Stream.REQUESTS], heard)
        await self.runtime.connection.subscribe(ANY_CANCEL, self._cancel)
        await self.runtime.connection.api("INFO")  # now the server knows of both

    async def facts(self, request: str, *facts: Fact) -> None:
        for fact in facts:
            await self.runtime.events.append(fact.model_copy(update={"request": request}))

    async def preview(self, request: str, preview: Preview) -> None:
        mine = preview.model_copy(update={"request": request})
        await self.runtime.connection.publish(Subjects.live(request, preview.node), encode(mine))

    async def accept(self, request: str) -> None:
        submitted = self.asked[-1][1] if self.asked else SubmitRequest(question="why?")
        fact = RequestAccepted(
            request=request, submitted=submitted, submitted_at=1.0, deadline_at=600.0
        )
        await self.facts(request, fact)

    async def _cancel(self, message: Msg) -> None:
        request = request_of(message.subject)
        self.cancelled.append(request)
        error = ErrorInfo.of(Cancelled("by the test"))
        await self.facts(request, RequestFailed(request=request, error=error))
        outcome = CancelOutcome(request=request, outcome="cancelled")
        await self.runtime.connection.publish(message.reply, encode(outcome))


@pytest.fixture
def services(runtime: Runtime, env: dict[str, str]) -> Services:
    env["SKELGRAPH_NATS_URL"] = runtime.server.url
    return Services(runtime)


async def answer(services: Services, request: str) -> None:
    await services.accept(request)
    await services.facts(request, planned(1), planned(2, 1), completed(1, 2))
    facts = [decoded(node, text) for node, text in TEXTS.items()]
    await services.facts(request, *reversed(facts), answered(TEXTS))


async def arun(env: dict[str, str], *argv: str) -> subprocess.CompletedProcess[bytes]:
    return await asyncio.to_thread(run, env, *argv)


async def test_a_pipe_gets_the_answer_exactly_and_stderr_the_transitions(
    services: Services, env: dict[str, str]
) -> None:
    await services.open(lambda request: answer(services, request))
    done = await arun(env, "ask", "why?", "--mode", "sgd", "--seed", "7")
    assert done.returncode == 0
    assert done.stdout.decode() == answered(TEXTS).text + "\n"
    said = done.stderr.decode()
    assert "#1 done" in said
    assert said.splitlines()[-1].startswith("answered in 1.0 s · 2 nodes on 1 pool")
    ((_, request),) = services.asked
    assert (request.question, request.mode, request.sampling.seed) == ("why?", "sgd", 7)


async def test_how_it_is_to_be_planned_and_joined_is_asked_as_it_was_said(
    services: Services, env: dict[str, str]
) -> None:
    await services.open(lambda request: answer(services, request))
    done = await arun(env, "ask", "why?", "--polish", "--planner-pool", "draft", "--no-adaptive")
    assert done.returncode == 0
    ((_, request),) = services.asked
    assert (request.polish, request.planner_pool, request.adaptive) == (True, "draft", False)


async def test_json_on_stdout_is_the_answer_with_its_timings(
    services: Services, env: dict[str, str]
) -> None:
    await services.open(lambda request: answer(services, request))
    done = await arun(env, "ask", "why?", "--json", "--progress", "quiet")
    end = AnswerAssembled.model_validate_json(done.stdout)
    assert (end.text, end.timings.wall_ms) == (answered(TEXTS).text, 1000)
    assert done.stderr == b""


async def test_json_progress_is_the_messages_themselves(
    services: Services, env: dict[str, str]
) -> None:
    await services.open(lambda request: answer(services, request))
    done = await arun(env, "ask", "why?", "--progress", "json")
    facts = [FACT.validate_json(line) for line in done.stderr.splitlines()]
    assert [fact.type for fact in facts][-1] == "AnswerAssembled"
    assert len(facts) == 7


async def test_a_failed_request_is_code_1_and_says_why(
    services: Services, env: dict[str, str]
) -> None:
    async def fail(request: str) -> None:
        await services.accept(request)
        error = ErrorInfo.of(NodeGaveUp("node 2, 4 attempts"))
        await services.facts(request, RequestFailed(request=request, error=error))

    await services.open(fail)
    done = await arun(env, "ask", "why?")
    assert error_line(done).endswith("node 2, 4 attempts (node_gave_up)")
    assert (done.returncode, done.stdout) == (1, b"")


async def test_a_full_queue_is_code_4(services: Services, env: dict[str, str]) -> None:
    limits = StreamLimits(partitions=2, max_queued_requests=1)
    await provision(services.runtime.connection, limits)
    await services.runtime.publisher.publish(Subjects.request("x"), b"{}")
    done = await arun(env, "ask", "why?")
    assert "try again in" in error_line(done)
    assert done.returncode == 4


async def test_the_skeleton_comes_as_tree_mermaid_and_json(
    services: Services, env: dict[str, str]
) -> None:
    nodes = (NodeSpec(id=1, summary="First"), NodeSpec(id=2, summary="Then", needs=(1,)))
    drafted = SkeletonDrafted(
        request=REQUEST, mode="sgd", nodes=nodes, lines=(), plan=completed(1, 2)
    )
    await services.facts(REQUEST, planned(1), planned(2, 1), completed(1, 2), drafted)
    await services.open(lambda request: services.facts(request, drafted))
    tree = await arun(env, "plan", "why?")
    assert "└── 1 First" in tree.stdout.decode()
    assert "    └── 2 Then" in tree.stdout.decode()
    mermaid = await arun(env, "plan", "why?", "--mermaid")
    assert "n1 --> n2" in mermaid.stdout.decode()
    as_json = await arun(env, "plan", "why?", "--json")
    assert SkeletonDrafted.model_validate_json(as_json.stdout).nodes == nodes
    assert all(request.dry_run for _, request in services.asked)


async def test_watching_an_ended_request_replays_it_into_a_file_too(
    services: Services, env: dict[str, str], tmp_path: Path
) -> None:
    await answer(services, REQUEST)
    piped = await arun(env, "watch", REQUEST)
    assert piped.stdout.decode() == answered(TEXTS).text + "\n"
    with (tmp_path / "answer.txt").open("wb") as file:
        await asyncio.to_thread(
            subprocess.run, [*PROGRAM, "watch", REQUEST], env=env, stdout=file, check=True
        )
    assert (tmp_path / "answer.txt").read_text() == answered(TEXTS).text + "\n"


async def test_an_unknown_request_is_said(services: Services, env: dict[str, str]) -> None:
    done = await arun(env, "watch", "nobody")
    assert error_line(done).endswith("(unknown_request)")
    assert done.returncode == 1


async def test_cancel_without_an_assembler_is_said(services: Services, env: dict[str, str]) -> None:
    done = await arun(env, "cancel", REQUEST)
    assert "no assembler is running" in error_line(done)
    assert done.returncode == 3


async def test_cancel_says_what_became_of_it(services: Services, env: dict[str, str]) -> None:
    await services.open()
    done = await arun(env, "cancel", REQUEST)
    assert (done.returncode, done.stdout) == (0, f"request {REQUEST}: cancelled\n".encode())


async def test_provision_and_status_work_on_a_bare_server(
    services: Services, env: dict[str, str]
) -> None:
    for stream in Stream:
        await services.runtime.connection.api(f"STREAM.DELETE.{stream}")
    assert (await arun(env, "status")).returncode == 3
    assert "(not_provisioned)" in error_line(await arun(env, "ask", "why?"))
    assert (await arun(env, "provision", "--partitions", "2")).returncode == 0
    done = await arun(env, "status", "--json")
    found = orjson.loads(done.stdout)
    assert {stream["name"] for stream in found["streams"]} == set(Stream)
    assert found["consumers"][0] == {"name": "planner", "queued": 0, "running": 0}
    assert found["pools"][0] == {"name": "large", "slots": None, "handed_over": 0, "held": 0}


async def test_a_reader_that_leaves_cancels_the_request(
    services: Services, env: dict[str, str]
) -> None:
    async def endless(request: str) -> None:
        await services.facts(request, completed(*range(1, 100)))
        for node in range(1, 100):
            await services.facts(request, decoded(node, "x" * 5000))

    await services.open(endless)
    command = " ".join([*PROGRAM, "ask", "why?", "|", "head", "-c", "10"])
    shell = ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"]
    done = await asyncio.to_thread(
        subprocess.run, shell, env=env, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 141
    assert b"Traceback" not in done.stderr
    assert services.cancelled == [services.asked[0][0]]


# --- at a terminal ----------------------------------------------------------------------


@pytest.fixture
def open_terminal(env: dict[str, str]) -> Iterator[Callable[..., Terminal]]:
    """Opens terminals, and closes them at the end."""
    terminals: list[Terminal] = []

    def open_one(*argv: str, program: Sequence[str] = PROGRAM, columns: int = 80) -> Terminal:
        terminals.append(Terminal([*program, *argv], env, columns=columns))
        return terminals[-1]

    yield open_one
    for terminal in terminals:
        terminal.__exit__()


def is_on(*parts: str) -> Callable[[str], bool]:
    return lambda text: all(part in text for part in parts)


async def test_the_picture_lives_below_the_answer_that_streams_in_order(
    services: Services, open_terminal: Callable[..., Terminal]
) -> None:
    asked = asyncio.Event()

    async def note(_: str) -> None:
        asked.set()

    await services.open(note)
    terminal = open_terminal("ask", "why?")
    await asyncio.wait_for(asked.wait(), 20)
    ((request, _),) = services.asked
    await asyncio.to_thread(terminal.until, is_on("◌ waiting for a planner"))

    await services.accept(request)
    await services.facts(request, planned(1), planned(2, 1))
    await services.preview(request, started(1))
    screen = await asyncio.to_thread(terminal.until, is_on("planning… 2 lines", "1 running"))
    assert "○ part 2" in screen
    assert "← 1" in screen

    await services.facts(request, completed(1, 2))
    await services.preview(request, tokens(1, 0, "One sentence. And"))
    screen = await asyncio.to_thread(terminal.until, is_on("One sentence."))
    assert "And" not in screen  # may still be cut off
    assert screen.index("One sentence.") < screen.index(f"run {request}")
    assert "0/2 nodes" in screen

    facts = [decoded(node, text) for node, text in TEXTS.items()]
    await services.facts(request, *facts, answered(TEXTS))
    assert await asyncio.to_thread(terminal.wait) == 0
    text = terminal.text
    assert text.startswith(answered(TEXTS).text)
    assert "2/2 nodes" in text
    assert "answered in 1.0 s · 2 nodes on 1 pool · critical path plan → 1" in text
    assert text.count("One sentence.") == 1


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False)],
)
async def test_no_color_is_honoured(
    services: Services,
    env: dict[str, str],
    open_terminal: Callable[..., Terminal],
    variables: dict[str, str],
    coloured: bool,
) -> None:
    await answer(services, REQUEST)
    env |= variables
    terminal = open_terminal("watch", REQUEST)
    assert await asyncio.to_thread(terminal.wait) == 0
    assert (b"\x1b[32m" in terminal.raw) is coloured


async def test_a_dumb_terminal_gets_plain_ascii_lines(
    services: Services, env: dict[str, str], open_terminal: Callable[..., Terminal]
) -> None:
    await answer(services, REQUEST)
    env["TERM"] = "dumb"
    terminal = open_terminal("watch", REQUEST)
    assert await asyncio.to_thread(terminal.wait) == 0
    assert b"\x1b" not in terminal.raw
    assert b"plan done" in terminal.raw


async def test_ctrl_c_cancels_the_question_and_says_so(
    services: Services, open_terminal: Callable[..., Terminal]
) -> None:
    await services.open(services.accept)
    terminal = open_terminal("ask", "why?")
    await asyncio.to_thread(terminal.until, is_on("planning…"))
    terminal.interrupt()
    assert await asyncio.to_thread(terminal.wait) == 130
    assert services.cancelled == [services.asked[0][0]]
    assert f"request {services.cancelled[0]}: cancelled" in terminal.text
    assert "Traceback" not in terminal.text


async def test_ctrl_c_while_watching_only_detaches(
    services: Services, open_terminal: Callable[..., Terminal]
) -> None:
    await services.open()
    await services.accept(REQUEST)
    terminal = open_terminal("watch", REQUEST)
    await asyncio.to_thread(terminal.until, is_on("planning…"))
    terminal.interrupt()
    assert await asyncio.to_thread(terminal.wait) == 130
    assert "stopped watching" in terminal.text
    assert services.cancelled == []


async def test_a_second_ctrl_c_ends_at_once(
    services: Services, open_terminal: Callable[..., Terminal]
) -> None:
    async def deaf(_: Msg) -> None:
        """Hear a cancel and never reply."""

    await services.runtime.connection.subscribe(ANY_CANCEL, deaf)
    await services.accept(REQUEST)
    terminal = open_terminal("ask", "why?")
    await asyncio.to_thread(terminal.until, is_on("waiting for a planner"))
    terminal.interrupt()
    await asyncio.to_thread(terminal.until, is_on("Ctrl-C again"))
    terminal.interrupt()
    assert await asyncio.to_thread(terminal.wait, 3) == 130
    assert "ended at once" in terminal.text


# --- the whole stack --------------------------------------------------------------------

SMALL_ANSWER = ("--mode", "sgd", "--max-tokens", "24", "--max-nodes", "4")


def stack_options(small_model: Path) -> list[str]:
    return ["--large-model", str(small_model), "--small-model", str(small_model)]


def processes_of(state_dir: str) -> list[str]:
    """Command lines of the running processes that have something to do with a state folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environ = (folder / "environ").read_bytes()
            argv = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if state_dir.encode() in environ + argv and folder.name != str(os.getpid()):
            found.append(argv.replace(b"\0", b" ").decode())
    return found


@pytest.mark.engine
@pytest.mark.timeout(180)
def test_a_question_on_a_fresh_machine_is_answered_and_leaves_no_process(
    env: dict[str, str], small_model: Path
) -> None:
    argv = ["ask", "How do I choose a bicycle?", *SMALL_ANSWER, *stack_options(small_model)]
    done = run(env, *argv, "--json", timeout_s=150)
    assert done.returncode == 0, done.stderr.decode()
    end = AnswerAssembled.model_validate_json(done.stdout)
    assert end.text.strip()
    assert b"stopped" in done.stderr.splitlines()[-1]
    assert processes_of(env["SKELGRAPH_STATE_DIR"]) == []


@pytest.mark.engine
@pytest.mark.timeout(180)
def test_a_stack_that_is_up_serves_other_terminals_until_ctrl_c(
    env: dict[str, str], small_model: Path, open_terminal: Callable[..., Terminal]
) -> None:
    up = open_terminal("up", *stack_options(small_model), columns=120)
    up.until(is_on("everything runs"), 90)
    status = orjson.loads(run(env, "status", "--json").stdout)
    assert all(status["services"].values())
    assert all(status["engines"].values())
    asking = open_terminal("ask", "How do I choose a bicycle?", *SMALL_ANSWER)
    assert asking.wait(90) == 0
    assert "answered in" in asking.text
    second = run(env, "up")
    assert "(stack_running)" in error_line(second)
    up.interrupt()
    assert up.wait(30) == 0
    assert "stopped" in up.text
    assert processes_of(env["SKELGRAPH_STATE_DIR"]) == []


@pytest.mark.engine
@pytest.mark.timeout(180)
def test_ctrl_c_while_it_starts_leaves_no_process(
    env: dict[str, str], small_model: Path, open_terminal: Callable[..., Terminal]
) -> None:
    terminal = open_terminal("up", *stack_options(small_model))
    terminal.until(is_on("engine-large"))
    terminal.interrupt()
    assert terminal.wait(30) == 130
    assert processes_of(env["SKELGRAPH_STATE_DIR"]) == []
