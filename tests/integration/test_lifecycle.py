"""A service process says what it is, obeys signals, and ends with a code that says how."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proto.names import PLANNER_CONSUMER, Stream
from services.runtime.streams import StreamLimits, provision
from skelgraph.local import ports
from skelgraph.local.nats import NatsServer
from tests.conftest import ACK_WAIT_S, PARTITIONS, Runtime
from tests.processes import Services

ALL = ["planner", "worker", "assembler"]
ENGINE = "http://127.0.0.1:9"


async def until(reached: Callable[[], bool], limit_s: float = 20) -> None:
    """Return when `reached` holds; it looks at another process, which tells no event."""
    async with asyncio.timeout(limit_s):
        while not await asyncio.to_thread(reached):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def run(service: str, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"services.{service}", *argv],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | env,
        check=False,
    )


def get(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture
async def services(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        yield Services(
            stack,
            runtime,
            tmp_path / "logs",
            large_urls=ENGINE,
            small_urls=ENGINE,
            log_format="json",
        )


@pytest.mark.parametrize("service", ALL)
def test_help_lists_each_setting_with_its_variable_unit_and_default(service: str) -> None:
    done = run(service, "--help", COLUMNS="200")
    assert done.returncode == 0
    for said in ("--ack-wait-s", "[SKELGRAPH_ACK_WAIT_S]", "seconds", "(default: 10)"):
        assert said in done.stdout


@pytest.mark.parametrize("service", ALL)
@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"SKELGRAPH_ACK_WAIT_S": "soon"}, "SKELGRAPH_ACK_WAIT_S"),
        ({"SKELGRAPH_PARTITIONS": "0"}, "SKELGRAPH_PARTITIONS"),
    ],
)
def test_a_bad_setting_is_named_and_ends_the_process(
    service: str, env: dict[str, str], named: str
) -> None:
    done = run(service, **env)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("service", ["planner", "worker"])
def test_a_service_without_engines_says_which_variable_is_missing(service: str) -> None:
    done = run(service, SKELGRAPH_LARGE_URLS="")
    assert done.returncode == 2
    assert "SKELGRAPH_LARGE_URLS" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_processes_never_have_one_name_though_host_and_process_id_are_the_same() -> None:
    code = (
        "import os; os.getpid = lambda: 1\n"
        "from services.runtime.lifecycle import replica_of; print(replica_of('planner'))"
    )
    argv = [sys.executable, "-c", code]
    names = {subprocess.run(argv, capture_output=True, check=True).stdout for _ in range(2)}
    assert len(names) == 2


def test_a_health_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("assembler", "--health-port", str(port))
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("service", ALL)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_service_ends_at_a_signal_with_0(
    services: Services, service: str, signum: signal.Signals
) -> None:
    child = await services.start(service)
    child.signal(signum)
    async with asyncio.timeout(5):
        await child.ended()
    assert "ended with status 0" in child.obituary()


async def test_health_and_metrics_are_served(services: Services) -> None:
    child = await services.start("worker")
    status, body = await asyncio.to_thread(get, child.spec.port, "/readyz")
    assert status == 200
    assert json.loads(body) == dict.fromkeys(("nats", "provisioned", "consumers", "serving"), True)
    status, body = await asyncio.to_thread(get, child.spec.port, "/metrics")
    assert status == 200
    assert b'skelgraph_slots{kind="node"} 4.0' in body


async def test_without_nats_a_service_is_alive_but_not_ready_and_comes_back(
    runtime: Runtime, services: Services
) -> None:
    child = await services.start("assembler")
    await asyncio.to_thread(runtime.server.kill)
    await until(lambda: get(child.spec.port, "/readyz")[0] == 503)
    assert (await asyncio.to_thread(get, child.spec.port, "/livez"))[0] == 200
    runtime.server.launch()
    async with asyncio.timeout(10):
        await child.ready()


async def test_a_service_started_before_nats_waits_for_it_and_for_the_streams(
    tmp_path: Path, services: Services
) -> None:
    port = ports.free_port()
    child = services.launch("assembler", nats_url=f"nats://127.0.0.1:{port}")
    async with NatsServer(tmp_path / "late", port=port) as server:
        await until(lambda: ports.http_status(child.spec.port, "/readyz") == 503)
        await until(lambda: "waiting_for_streams" in "".join(child.tail()))
        assert server.alive
        child.signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            await child.ended()


# nats-py drops the stream of a try to connect that timed out without closing it.
@pytest.mark.filterwarnings("ignore:.*StreamWriter.__del__:pytest.PytestUnraisableExceptionWarning")
async def test_a_frozen_server_is_noticed_and_the_connection_recovers(
    runtime: Runtime, services: Services
) -> None:
    child = await services.start("assembler")
    runtime.server.signal(signal.SIGSTOP)
    await until(lambda: get(child.spec.port, "/readyz")[0] == 503, limit_s=25)
    runtime.server.signal(signal.SIGCONT)
    async with asyncio.timeout(15):
        await child.ready()


async def test_logs_are_one_json_object_a_line(services: Services) -> None:
    child = await services.start("assembler")
    lines = [json.loads(line) for line in child.tail()]
    assert {"service", "event", "level", "timestamp"} <= lines[-1].keys()
    assert lines[-1]["event"] == "serving"


async def test_who_has_lost_a_consumer_is_not_ready_until_it_is_there_again(
    runtime: Runtime, services: Services
) -> None:
    child = await services.start("planner")

    def ready() -> int:
        return get(child.spec.port, "/readyz")[0]

    await runtime.connection.api(f"CONSUMER.DELETE.{Stream.REQUESTS}.{PLANNER_CONSUMER}")
    await until(lambda: ready() == 503)
    await provision(runtime.connection, StreamLimits(partitions=PARTITIONS, ack_wait_s=ACK_WAIT_S))
    await until(lambda: ready() == 200)
    assert child.alive
