"""Each credential of `skelgraph auth init` tried on each subject and API of a real server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from docs.matrix import ATTEMPTS, TENANTS, USERS, Attempt
from services.runtime.connection import Connection
from services.runtime.credentials import Access
from skelgraph.auth.book import Book
from skelgraph.auth.permissions import SERVICES
from skelgraph.local.nats import NatsServer

_DENIED = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]+)\"", re.I)
_END = "matrix.end"


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    made = Book(tmp_path_factory.mktemp("auth"))
    made.init("mutual", ["127.0.0.1"])
    for tenant in TENANTS:
        made.add_tenant(tenant[1:])
    return made


@pytest.fixture(scope="module")
def server(book: Book, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(tmp_path_factory.mktemp("store"), book=book) as running:
        yield running


class Tried(Connection):
    """A connection that notes what the server refuses."""

    def __init__(self, url: str, access: Access) -> None:
        super().__init__([url], name="matrix", access=access)
        self.denied: set[tuple[str, str]] = set()
        self._at_end = asyncio.Event()

    async def all_said(self) -> None:
        """Return when the server has said what it thinks of all that was sent."""
        # It works through a connection's lines in order; this one is refused to everybody.
        await self.nc.publish(_END)
        async with asyncio.timeout(10):
            await self._at_end.wait()

    async def _error(self, error: Exception) -> None:
        if found := _DENIED.search(str(error)):
            self.denied.add(("publish" if found[1] == "publish" else "subscribe", found[2]))
            if found[2] == _END:
                self._at_end.set()


@pytest.fixture
async def tries(book: Book, server: NatsServer) -> AsyncIterator[dict[str, Tried]]:
    async with AsyncExitStack() as stack:
        found: dict[str, Tried] = {}
        for user in USERS:
            connection = Tried(server.url, book.access(user))
            await stack.enter_async_context(connection)
            found[user] = connection
            await connection.open(timeout_s=10)
        yield found


async def attempted(connection: Tried, attempt: Attempt) -> None:
    if attempt.verb == "publish":
        # Nobody listens, nothing is stored: there are no streams. The server checks all the same.
        await connection.nc.publish(attempt.subject, b"{}", reply=connection.new_inbox())
    else:
        await connection.nc.subscribe(attempt.subject)


async def test_every_credential_may_do_what_is_written_and_nothing_else(
    tries: dict[str, Tried],
) -> None:
    wrong = []
    for user, connection in tries.items():
        for attempt in ATTEMPTS:
            await attempted(connection, attempt)
        await connection.all_said()
        for attempt in ATTEMPTS:
            # nats-py says what the server said in small letters.
            refused = (attempt.verb, attempt.subject.lower()) in connection.denied
            if refused == (user in attempt.allowed):
                wrong.append(f"{user}: {attempt.what} was {'refused' if refused else 'allowed'}")
        assert connection.is_connected
    assert not wrong, "\n".join(wrong)


def test_every_user_is_tried(book: Book) -> None:
    assert set(USERS) == {*SERVICES, "system", *TENANTS}
