"""A client with a tenant's credentials: the same as any, by what NATS lends to a tenant.

A tenant may make no consumers: they would be named, placed and paid for by it in an account that
is not its own. It hears facts as the server says them once they are stored, and reads each one by
its subject, where NATS sees that it is of the tenant's own requests (ADR 0027).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import nats.errors
from nats.aio.msg import Msg

from proto.errors import InvalidRequest, QueueUnavailable
from proto.messages import NodePlanned
from proto.names import DIRECT_NODE, PREFIX, Stream, Subjects, new_request_id, tenant_of
from services.runtime.client import Client
from services.runtime.connection import Connection
from services.runtime.direct import READ_TIMEOUT_S
from services.runtime.fact_reader import CHECK_S
from services.runtime.facts import EventLog, StoredFact, stored_fact
from services.runtime.publisher import DurablePublisher


class TenantLog(EventLog):
    """What a tenant can read of the event log: the facts of its own requests, one by one."""

    async def read(self, request: str, *, up_to_seq: int = 0) -> list[StoredFact]:
        """Return all facts of `request` in the order in which they were stored.

        Raises:
            QueueUnavailable: NATS does not answer.
        """
        if await self._last(request, ">") is None:
            return []
        found = [await self._last(request, kind) for kind in ("accepted", "plan", "end")]
        nodes = [DIRECT_NODE, *await self._planned(request, found)]
        for node in nodes:
            found.append(await self._last(request, f"decoded.{node}"))
            await self._failures(request, node, found)
        return sorted(filter(None, found), key=lambda stored: stored.stream_seq)

    async def knows(self, request: str) -> bool:
        """Return whether any fact of `request` is stored; raises `QueueUnavailable`."""
        return await self._last(request, ">") is not None

    async def last_of(self, request: str) -> int:
        """Return the position of the last fact of `request`, 0 without one; raises as `read`."""
        stored = await self._last(request, ">")
        return stored.stream_seq if stored else 0

    async def _planned(self, request: str, found: list[StoredFact | None]) -> list[int]:
        nodes: list[int] = []
        while (one := await self._last(request, f"planned.{len(nodes) + 1}")) is not None:
            found.append(one)
            if isinstance(one.fact, NodePlanned):
                nodes.append(one.fact.node.id)
        return nodes

    async def _failures(self, request: str, node: int, found: list[StoredFact | None]) -> None:
        attempt = 1
        while (one := await self._last(request, f"failed.{node}.{attempt}")) is not None:
            found.append(one)
            attempt += 1

    async def _last(self, request: str, kind: str) -> StoredFact | None:
        # Which partition it is in a tenant need not know.
        subject = f"{PREFIX}.event.*.{request}.{kind}"
        message = await get_last(self._connection, Stream.EVENTS, subject)
        return stored_fact(message) if message else None


class TenantReader:
    """Hands every fact of a tenant's request to a callback, once.

    Args:
        connection: an open connection.
        log: reads facts.
        request: the request's id.
        on_fact: called with each fact; must not block.
    """

    def __init__(
        self,
        connection: Connection,
        log: TenantLog,
        request: str,
        on_fact: Callable[[StoredFact], None],
    ) -> None:
        self._connection = connection
        self._log = log
        self._request = request
        self._on_fact = on_fact
        self._seen: set[int] = set()
        self._early: list[StoredFact] | None = []
        self._stirred = asyncio.Event()

    async def run(self) -> None:
        """Read for ever."""
        subscription = await self._connection.subscribe(
            Subjects.said_of(self._request), self._heard
        )
        self._connection.on_reconnect(self._stirred.set)
        try:
            while True:
                await self._catch_up()
                await self._waited()
        finally:
            self._connection.forget(self._stirred.set)
            with contextlib.suppress(nats.errors.Error):  # the connection may be gone
                await subscription.unsubscribe()

    async def _heard(self, message: Msg) -> None:
        if stored := stored_fact(message):
            if self._early is None:
                self._hand_out(stored)
            else:
                self._early.append(stored)

    async def _catch_up(self) -> None:
        """Read what may have been said before we listened, or while nobody could hear."""
        self._early = self._early or []
        with contextlib.suppress(QueueUnavailable):  # it is tried again
            if await self._log.last_of(self._request) > max(self._seen, default=0):
                self._early += await self._log.read(self._request)
        early, self._early = self._early, None
        for stored in sorted(early, key=lambda one: one.stream_seq):
            self._hand_out(stored)

    async def _waited(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_S):
                await self._stirred.wait()
        self._stirred.clear()

    def _hand_out(self, stored: StoredFact) -> None:
        if stored.stream_seq not in self._seen:
            self._seen.add(stored.stream_seq)
            self._on_fact(stored)


class TenantClient(Client):
    """Speaks to the services with a tenant's credentials.

    Args:
        connection: an open connection.
        publisher: an open publisher on it.
    """

    def __init__(self, connection: Connection, publisher: DurablePublisher) -> None:
        super().__init__(connection, publisher)
        self._tenant = connection.tenant
        self._log = self._events = TenantLog(connection, publisher, partitions=1)

    async def check(self) -> None:
        """Return if requests can be taken.

        Raises:
            QueueUnavailable: NATS does not answer.
        """
        await self._is_queued(self.new_id())

    def new_id(self) -> str:
        """Return a fresh request id."""
        return new_request_id(self._tenant)

    def check_id(self, request_id: str) -> str:
        """Return `request_id` if it is of this tenant.

        Raises:
            InvalidRequest: it may not stand in a subject, or is not this tenant's.
        """
        super().check_id(request_id)
        if tenant_of(request_id) != self._tenant:
            begin = f"@{self._tenant}."
            raise InvalidRequest(f"ids of your requests begin with {begin!r}", field="request")
        return request_id

    async def _is_queued(self, request_id: str) -> bool:
        subject = Subjects.request(request_id)
        return await get_last(self.connection, Stream.REQUESTS, subject) is not None

    def _reader(self, request_id: str, on_fact: Callable[[StoredFact], None]) -> TenantReader:
        return TenantReader(self.connection, self._log, request_id, on_fact)


async def get_last(connection: Connection, stream: Stream, subject: str) -> Msg | None:
    """Return the last message of `stream` under `subject`, None if there is none.

    Raises:
        QueueUnavailable: NATS does not answer.
    """
    asked = f"$JS.API.DIRECT.GET.{stream}.{subject}"
    try:
        reply = await connection.request(asked, timeout_s=READ_TIMEOUT_S)
    except (nats.errors.Error, TimeoutError) as error:
        raise QueueUnavailable(f"{subject}: {str(error) or 'no answer'}") from error
    return None if (reply.headers or {}).get("Status") else reply
