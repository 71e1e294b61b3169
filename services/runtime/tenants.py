"""A client with a tenant's credentials: the same as any, by what NATS lends to a tenant.

A tenant reads each fact by its subject, where NATS sees that it is of the tenant's own requests
(ADR 0027).
"""

from __future__ import annotations

from proto.errors import InvalidRequest
from proto.messages import NodePlanned
from proto.names import DIRECT_NODE, PREFIX, Stream, Subjects, new_request_id, tenant_of
from services.runtime.client import Client
from services.runtime.connection import Connection
from services.runtime.direct import get_last
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

    async def check(self) -> None:
        """Return; what streams there are a tenant may not ask."""

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


class TenantClient(Client):
    """Speaks to the services with a tenant's credentials.

    Args:
        connection: an open connection.
        publisher: an open publisher on it.
    """

    def __init__(self, connection: Connection, publisher: DurablePublisher) -> None:
        super().__init__(connection, publisher)
        self._tenant = connection.tenant
        self._events = TenantLog(connection, publisher, partitions=1)

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
