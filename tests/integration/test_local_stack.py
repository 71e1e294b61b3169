"""The supervisor with real processes: a real nats-server, and tiny HTTP servers as services."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from skelgraph.local import state
from skelgraph.local.config import PoolConfig, StackConfig
from skelgraph.local.errors import PortTaken, ProcessDied, StackRunning, UnknownModel
from skelgraph.local.events import StackEvent, StackStep
from skelgraph.local.models import ensure_model
from skelgraph.local.services import ServiceSpec
from skelgraph.local.stack import LocalStack
from tests import waiting

MARK = "SKELGRAPH_TEST_MARK"
SERVER = """
import http.server, os, signal
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
    def log_message(self, *args): pass
if os.environ.get("STUBBORN"): signal.signal(signal.SIGTERM, signal.SIG_IGN)
address = ("127.0.0.1", int(os.environ["SKELGRAPH_HEALTH_PORT"]))
http.server.HTTPServer(address, Page).serve_forever()
"""
SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from tests.integration.test_local_stack import make_stack
async def main():
    stack = make_stack(Path(sys.argv[1]), lambda event: None)
    await stack.start()
    await stack.wait_failed()
asyncio.run(main())
"""


def service(name: str = "page", code: str = SERVER, **env: str) -> ServiceSpec:
    return ServiceSpec(name, (sys.executable, "-c", code), env, stop_timeout_s=0.5)


async def provision(nats_url: str) -> None:
    assert nats_url.startswith("nats://127.0.0.1:")


def make_config(folder: Path, **more: object) -> StackConfig:
    pool = PoolConfig(model="", urls=("http://127.0.0.1:1",))
    options = {"large": pool, "small": pool, "state_dir": folder, "env": {MARK: str(folder)}}
    return StackConfig(**{**options, **more})  # type: ignore[arg-type]


def make_stack(
    folder: Path, report: Callable[[StackEvent], None], *specs: ServiceSpec, **more: object
) -> LocalStack:
    return LocalStack(
        make_config(folder, **more),
        report,
        provision=provision,
        service_specs=specs or (service("one"), service("two")),
    )


def processes_of(folder: Path) -> list[int]:
    """Return the processes that a stack of that folder left: services by mark, NATS by config."""
    needle, found = str(folder).encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if needle in told and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


until = partial(waiting.until, limit_s=10)


class Heard(list[StackEvent]):
    def steps(self, part: str) -> list[StackStep]:
        return [event.step for event in self if event.part == part]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    left = processes_of(tmp_path)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert left == []


@contextlib.asynccontextmanager
async def running(stack: LocalStack) -> AsyncIterator[state.StackState]:
    started = await stack.start()
    try:
        yield started
    finally:
        await stack.stop()


async def test_it_is_found_while_it_runs_and_not_after(folder: Path, heard: Heard) -> None:
    async with running(make_stack(folder, heard.append)) as started:
        assert state.find_running(folder) == started
        assert started.pid == os.getpid()
        assert set(started.health_ports) == {"one", "two"}
        assert started.engine_urls["large"] == ["http://127.0.0.1:1"]
    assert state.find_running(folder) is None
    for part in ("nats-server", "one", "two"):
        assert heard.steps(part) == [
            StackStep.STARTING,
            StackStep.READY,
            StackStep.STOPPING,
            StackStep.STOPPED,
        ]


async def test_services_stop_before_nats(folder: Path, heard: Heard) -> None:
    async with running(make_stack(folder, heard.append)):
        pass
    stopped = [event.part for event in heard if event.step == StackStep.STOPPED]
    assert stopped[-1] == "nats-server"


async def test_a_second_stack_is_told_of_the_first(folder: Path, heard: Heard) -> None:
    async with running(make_stack(folder, heard.append)) as started:
        with pytest.raises(StackRunning, match=f"pid {os.getpid()} at {started.nats_url}"):
            await make_stack(folder, heard.append).start()
        assert state.find_running(folder) == started


async def test_the_next_stack_keeps_what_nats_stored(folder: Path, heard: Heard) -> None:
    for _ in range(2):
        async with running(make_stack(folder, heard.append)):
            pass
    assert (folder / "nats" / "jetstream").is_dir()
    assert (folder / "logs.before" / "one.log").is_file()


async def test_a_service_that_dies_early_is_told_with_its_last_lines(
    folder: Path, heard: Heard
) -> None:
    broken = service("broken", "import sys; sys.exit('no such queue')")
    with pytest.raises(ProcessDied, match=r"broken ended with status 1.*\n  no such queue"):
        await make_stack(folder, heard.append, service(), broken).start()
    assert processes_of(folder) == []


async def test_a_service_killed_later_comes_back(folder: Path, heard: Heard) -> None:
    async with running(make_stack(folder, heard.append, service())) as started:
        before = set(processes_of(folder))
        os.kill(_pid_of(SERVER, folder), signal.SIGKILL)
        await until(lambda: heard.steps("page").count(StackStep.READY) == 2)
        assert set(processes_of(folder)) != before
        assert started == state.find_running(folder)
    assert StackStep.DIED in heard.steps("page")


async def test_nats_killed_comes_back_on_its_port(folder: Path, heard: Heard) -> None:
    async with running(make_stack(folder, heard.append)):
        os.kill(_pid_of("nats-server", folder), signal.SIGKILL)
        await until(lambda: heard.steps("nats-server").count(StackStep.READY) == 2)


def _pid_of(part: str, folder: Path) -> int:
    (pid,) = [
        pid
        for pid in processes_of(folder)
        if part.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return pid


async def test_what_keeps_ending_makes_the_stack_fail(folder: Path, heard: Heard) -> None:
    once = "import os, sys\nif os.path.exists(os.environ['ONCE']): sys.exit('again')\n"
    mortal = service("mortal", once + SERVER, ONCE=str(folder / "once"))
    async with running(stack := make_stack(folder, heard.append, mortal)):
        (folder / "once").touch()
        os.kill(_pid_of("ONCE", folder), signal.SIGKILL)
        error = await asyncio.wait_for(stack.wait_failed(), 20)
    assert "mortal ended with status 1" in str(error)


async def test_a_service_that_will_not_stop_is_killed(folder: Path, heard: Heard) -> None:
    async with running(make_stack(folder, heard.append, service(STUBBORN="1"))):
        pass
    assert heard.steps("page")[-1] == StackStep.KILLED


async def test_a_taken_port_leaves_nothing_running(folder: Path, heard: Heard) -> None:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)):
            await make_stack(folder, heard.append, nats_port=port).start()
    assert state.find_running(folder) is None


async def test_an_unknown_model_is_told_before_anything_starts(folder: Path, heard: Heard) -> None:
    with pytest.raises(UnknownModel, match="gpt-9"):
        await make_stack(folder, heard.append, large=PoolConfig(model="gpt-9")).start()
    assert heard == []


async def test_a_start_that_is_cancelled_leaves_nothing_running(folder: Path, heard: Heard) -> None:
    never = service("never", "import time; time.sleep(60)")
    start = asyncio.create_task(make_stack(folder, heard.append, never).start())
    await until(lambda: heard.steps("never") == [StackStep.STARTING])
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert processes_of(folder) == []


async def test_kill_9_of_the_supervisor_leaves_no_process(folder: Path) -> None:
    supervisor = await asyncio.create_subprocess_exec(sys.executable, "-c", SUPERVISOR, str(folder))
    try:
        await until(lambda: state.find_running(folder) is not None)
        assert len(processes_of(folder)) == 4
    finally:
        supervisor.kill()
        await supervisor.wait()
    await until(lambda: processes_of(folder) == [], limit_s=3.0)
    assert state.read(folder) is not None
    assert state.find_running(folder) is None


@pytest.mark.engine
async def test_engines_run_on_the_model_that_was_asked_for(folder: Path, heard: Heard) -> None:
    pool = PoolConfig(model=str(ensure_model("smollm2-135m")), slots=1, threads=1)
    started_s = time.monotonic()
    async with running(make_stack(folder, heard.append, service(), large=pool, small=pool)) as up:
        assert up.engine_urls["large"] != up.engine_urls["small"]
    assert heard.steps("engine-large")[-1] == StackStep.STOPPED
    assert time.monotonic() - started_s < 30
