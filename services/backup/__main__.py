"""`python -m services.backup --action save --folder /backup/2026-11-24`: the streams to files."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Final, Literal

import structlog
from pydantic import Field

from proto.errors import SkelgraphError
from services.runtime import logs
from services.runtime.connection import Connection
from services.runtime.settings import ServiceSettings
from services.runtime.snapshots import forget_old, restore, save

log = structlog.get_logger()

OPEN_S: Final = 30.0


class BackupSettings(ServiceSettings):
    """Saves all streams to a new folder, or makes them from one where there are none yet."""

    action: Literal["save", "restore"] = Field(description="what to do")
    folder: Path = Field(
        description="where the files are, or shall be; %Y%m%d and the like become the time (UTC)"
    )
    keep: int | None = Field(
        None, ge=1, description="complete backups that stay beside a new one; none: all"
    )


async def run(settings: BackupSettings) -> int:
    """Do it; return the exit code."""
    connection = Connection(settings.servers(), name="backup", access=settings.access())
    try:
        await connection.open(timeout_s=OPEN_S)
        await _act(connection, settings)
    except SkelgraphError as error:
        log.error("backup_failed", code=error.code, error=error.message)  # noqa: TRY400 - typed
        return 1
    except OSError as error:
        log.error("backup_failed", code="file", error=str(error))  # noqa: TRY400 - says which
        return 1
    finally:
        await connection.close()
    return 0


async def _act(connection: Connection, settings: BackupSettings) -> None:
    if settings.action == "restore":
        await restore(connection, settings.folder)
        return
    folder = Path(time.strftime(str(settings.folder), time.gmtime()))
    await save(connection, folder)
    if settings.keep:
        await asyncio.to_thread(forget_old, folder.parent, settings.keep)


def main() -> int:
    """Save or restore; return the exit code: 1 if it failed."""
    settings = BackupSettings.load()
    logs.configure(settings.log_level, settings.log_format, service="backup")
    return asyncio.run(run(settings))


if __name__ == "__main__":
    sys.exit(main())
