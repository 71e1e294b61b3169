"""Opens a client: that of a tenant, if the credentials are one's."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from services.runtime.client import Client
from services.runtime.connection import Connection
from services.runtime.credentials import Access
from services.runtime.publisher import DurablePublisher
from services.runtime.tenants import TenantClient


@contextlib.asynccontextmanager
async def open_client(
    servers: Sequence[str], *, access: Access | None = None, timeout_s: float = 5.0
) -> AsyncIterator[Client]:
    """Connect, and disconnect at the end.

    Raises:
        QueueUnavailable: no server answered within `timeout_s`.
        ValueError: a file that `access` names holds something else.
    """
    async with Connection(servers, name="skelgraph-client", access=access) as connection:
        await connection.open(timeout_s=timeout_s)
        publisher = DurablePublisher(connection)
        await publisher.open()
        kind = TenantClient if connection.tenant else Client
        yield kind(connection, publisher)
