"""Reaches the services: those named, those that run on this machine, or a stack of one's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from proto.errors import InvalidRequest, QueueUnavailable, SkelgraphError
from services.runtime.client import Client
from services.runtime.connection import Connection
from services.runtime.credentials import Access
from services.runtime.opening import open_client
from services.runtime.streams import StreamLimits, provision
from skelgraph.answering import AnyClient
from skelgraph.auth.book import Book
from skelgraph.local.config import StackConfig
from skelgraph.local.stack import LocalStack, Provision
from skelgraph.local.state import StackState, find_running
from skelgraph.progress import Kind
from skelgraph.remote import RemoteClient, open_remote
from skelgraph.startup import Startup

CONNECT_TIMEOUT_S: Final = 5.0


class NothingRuns(QueueUnavailable):
    """Nothing is running here; start it with `skelgraph up`, or name a server by --nats-url."""

    code = "nothing_running"


@dataclass(frozen=True, slots=True)
class Where:
    """What to speak to.

    Args:
        nats_url: servers named by flag or environment, separated by commas; the stack of
            this machine if None.
        url: address of a gateway to speak to instead; `key` is its API key.
        access: what is shown to them.
        stack: what to start where nothing runs.
        progress: how the start is shown.
        engines_given: whether `stack` was chosen by flags, so that it matters to the user.
    """

    nats_url: str | None
    access: Access
    stack: StackConfig
    progress: Kind
    engines_given: bool = False
    url: str | None = None
    key: str | None = None


class Session:
    """A client, and the stack that was started for it, if one was."""

    def __init__(self, client: AnyClient, stack: LocalStack | None) -> None:
        self.client = client
        self._stack = stack

    @property
    def over_nats(self) -> Client:
        """The client, where it must be one that speaks NATS.

        Raises:
            InvalidRequest: it speaks to a gateway.
        """
        if isinstance(self.client, RemoteClient):
            raise InvalidRequest("a gateway cannot do this; name NATS servers", field="url")
        return self.client

    async def failed(self) -> SkelgraphError:
        """Wait until what we stand on is gone for good, and return why."""
        if self._stack:
            return await self._stack.wait_failed()
        if isinstance(self.client, RemoteClient):
            await asyncio.Event().wait()  # it says so itself, where it is used
        else:
            await self.client.connection.closed.wait()
        return QueueUnavailable("the connection was closed for good")


@contextlib.asynccontextmanager
async def reach(where: Where, *, may_start: bool) -> AsyncIterator[Session]:
    """Connect to what runs, or start a stack and stop it at the end.

    Raises:
        NothingRuns: nothing runs here and nothing may be started.
        QueueUnavailable: NATS does not answer.
        NotProvisioned: the streams are missing.
        LocalStackError: the stack cannot be started.
    """
    if where.url:
        async with open_remote(where.url, where.key) as remote:
            yield Session(remote, None)
        return
    running = None if where.nats_url else _running(where)
    url = where.nats_url or (running.nats_url if running else None)
    if url is None and not may_start:
        raise NothingRuns
    if url is None:
        async with _own_stack(where) as session:
            yield session
    else:
        access = running.access(where.access) if running else where.access
        async with _client(url, access) as client:
            yield Session(client, None)


@contextlib.asynccontextmanager
async def started(where: Where) -> AsyncIterator[tuple[LocalStack, StackState, Startup]]:
    """Start a stack, and stop it at the end.

    Raises:
        LocalStackError: it cannot be started.
    """
    startup = Startup(where.progress)
    stack = LocalStack(where.stack, startup.report, provision=_provision(where.stack))
    try:
        with startup:
            state = await stack.start()
        yield stack, state, startup
    finally:
        startup.say("stopping everything (Ctrl-C again ends at once)")
        try:
            await stack.stop()
        finally:
            startup.say(startup.stopped())


async def provision_at(
    nats_url: str, limits: StreamLimits | None = None, *, access: Access | None = None
) -> None:
    """Make the streams on the server at `nats_url`.

    Raises:
        QueueUnavailable: NATS does not answer.
    """
    connection = Connection(nats_url.split(","), name="skelgraph-provision", access=access)
    async with connection:
        await connection.open(timeout_s=CONNECT_TIMEOUT_S)
        await provision(connection, limits or StreamLimits())


def _provision(stack: StackConfig) -> Provision:
    access = Book(stack.auth_dir).access("provision") if stack.auth_dir else None
    return partial(provision_at, access=access)


@contextlib.asynccontextmanager
async def _own_stack(where: Where) -> AsyncIterator[Session]:
    async with (
        started(where) as (stack, state, _),
        _client(state.nats_url, state.access(where.access)) as client,
    ):
        yield Session(client, stack)


@contextlib.asynccontextmanager
async def _client(url: str, access: Access) -> AsyncIterator[Client]:
    servers = [server.strip() for server in url.split(",") if server.strip()]
    async with open_client(servers, access=access, timeout_s=CONNECT_TIMEOUT_S) as client:
        await client.check()
        yield client


def _running(where: Where) -> StackState | None:
    state = find_running(where.stack.state_dir)
    if state and where.engines_given:
        note = "note: a stack runs already; the options for engines have no effect on it"
        Startup(where.progress).say(note)
    return state


async def first_failure(session: Session, work: asyncio.Task[int]) -> int:
    """Return what `work` returns, unless what it stands on fails before.

    Raises:
        SkelgraphError: why it failed.
    """
    failing = asyncio.create_task(session.failed(), name="failure of the stack")
    try:
        await asyncio.wait([work, failing], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise failing.result()
        return work.result()
    finally:
        for task in (work, failing):
            task.cancel()
        await asyncio.wait([work, failing])
