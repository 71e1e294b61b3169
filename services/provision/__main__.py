"""`python -m services.provision`: make the streams and consumers, or bring them up to date; end.

For deployments: what a set-up job runs, with no more than the services' own packages. A person
at a terminal has `skelgraph provision`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import structlog
from pydantic import Field

from proto.errors import SkelgraphError
from services.runtime import logs
from services.runtime.connection import Connection
from services.runtime.settings import ServiceSettings
from services.runtime.streams import StreamLimits, provision

log = structlog.get_logger()

#: A cluster that is being formed refuses streams until it has a leader and enough members.
PAUSE_S: Final = 1.0


class ProvisionSettings(ServiceSettings, StreamLimits):
    """Makes the streams and consumers, or changes them to these bounds, and ends."""

    model_config = ServiceSettings.model_config

    provision_timeout_s: float = Field(
        120, gt=0, description="seconds for which NATS may be absent or refuse"
    )


async def make(settings: ProvisionSettings) -> int:
    """Provision within the time limit; return the exit code."""
    limits = StreamLimits(**{name: getattr(settings, name) for name in StreamLimits.model_fields})
    connection = Connection(settings.servers(), name="provision", access=settings.access())
    refusal = "NATS did not answer"
    try:
        async with asyncio.timeout(settings.provision_timeout_s):
            await connection.open()
            while refusal := await _refusal(connection, limits):  # noqa: ASYNC110 - a remote state
                await asyncio.sleep(PAUSE_S)
    except TimeoutError:
        log.error("not_provisioned", error=refusal)  # noqa: TRY400 - it says why
        return 1
    finally:
        await connection.close()
    return 0


async def _refusal(connection: Connection, limits: StreamLimits) -> str:
    """Try once; return why it failed, or nothing."""
    try:
        await provision(connection, limits)
    except SkelgraphError as error:
        log.warning("provision_refused", error=error.message)
        return error.message
    return ""


def main() -> int:
    """Provision and return the exit code: 1 if it could not be done in time."""
    settings = ProvisionSettings.load()
    logs.configure(settings.log_level, settings.log_format, service="provision")
    return asyncio.run(make(settings))


if __name__ == "__main__":
    sys.exit(main())
