"""What tests stand on: a real nats-server, the runtime over it, real models."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from services.runtime import logs
from services.runtime.connection import Connection
from services.runtime.credentials import Access
from services.runtime.facts import EventLog
from services.runtime.publisher import DurablePublisher
from services.runtime.streams import StreamLimits, provision
from skelgraph.local.models import ensure_model
from skelgraph.local.nats import NatsServer

_GENERATED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("searching", _GENERATED)
#: On CI the same examples each time, so that a failure is of the change that is tested.
settings.register_profile("steady", _GENERATED, derandomize=True)
settings.load_profile("steady" if os.environ.get("CI") else "searching")

#: Short, so that what a dead process held comes back while the test waits.
ACK_WAIT_S = 1.5
PARTITIONS = 2


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, where nobody can overlook it."""
    lines = not_tested(terminalreporter.stats.get("skipped", []))
    if lines:
        terminalreporter.section("NOT TESTED on this machine", sep="!", red=True, bold=True)
        terminalreporter.line("\n".join(lines))


def not_tested(skipped: Iterable[pytest.TestReport]) -> list[str]:
    """Return a line for each reason for which tests were skipped."""
    reasons = Counter(
        one.longrepr[2].removeprefix("Skipped: ")
        for one in skipped
        if isinstance(one.longrepr, tuple)
    )
    return [f"{reason} (tests: {count})" for reason, count in reasons.items()]


@dataclass
class Runtime:
    """An open connection to a provisioned server, and what services make of it."""

    server: NatsServer
    connection: Connection
    publisher: DurablePublisher
    events: EventLog


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command runs in this process: it leaves no logger that writes where its output went."""
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A nats-server of the test's own; may be killed and restarted."""
    async with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def runtime(nats_server: NatsServer) -> AsyncIterator[Runtime]:
    """The runtime over a provisioned server."""
    async with AsyncExitStack() as stack:
        yield await open_runtime(stack, nats_server)


@pytest.fixture
async def another(nats_server: NatsServer, runtime: Runtime) -> AsyncIterator[Runtime]:
    """A second process' view of the same server."""
    async with AsyncExitStack() as stack:
        yield await open_runtime(stack, nats_server)


async def open_runtime(
    stack: AsyncExitStack,
    server: NatsServer,
    change: Callable[[StreamLimits], StreamLimits] = lambda limits: limits,
    access: Access | None = None,
) -> Runtime:
    """Connect, provision, and open a publisher; `stack` closes it all."""
    connection = Connection([server.url], name="test", access=access)
    await connection.open(timeout_s=5)
    stack.push_async_callback(connection.close)
    limits = change(StreamLimits(partitions=PARTITIONS, ack_wait_s=ACK_WAIT_S))
    await provision(connection, limits)
    publisher = DurablePublisher(connection)
    await publisher.open()
    return Runtime(
        server, connection, publisher, EventLog(connection, publisher, limits.partitions)
    )


@pytest.fixture(scope="session")
def small_model() -> Path:
    """SmolLM2-135M as a GGUF file; fetched once."""
    return ensure_model("smollm2-135m")
