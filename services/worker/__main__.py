"""`python -m services.worker --pool small`: the service that decodes the nodes of a pool."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Self

from pydantic import Field, model_validator

from proto.messages import LoadAnnounced
from proto.names import Band, Pool, Stream, node_consumer
from services.runtime.calls import Engines
from services.runtime.ground import hear_stops, prepare
from services.runtime.lifecycle import Process, run
from services.runtime.pool_load import LoadAnnouncer
from services.runtime.pools import engine_pool
from services.runtime.settings import EngineSettings
from services.runtime.work import WorkLoop
from services.worker.service import Worker


class WorkerSettings(EngineSettings):
    """Decodes the nodes of one pool on the pool's engines."""

    pool: Pool = Field(Pool.LARGE, description="the pool whose nodes this worker decodes")
    slots: int = Field(4, ge=1, le=4096, description="nodes decoded at once")

    @model_validator(mode="after")
    def _has_engines(self) -> Self:
        self.urls(self.pool)
        return self


async def serve(
    process: Process, engines_of: Callable[[EngineSettings, Pool], Engines] = engine_pool
) -> None:
    """Decode nodes until the process is to stop.

    Args:
        process: this process.
        engines_of: makes the engines of a pool; they are closed in the end.
    """
    settings = process.settings
    if not isinstance(settings, WorkerSettings):
        raise TypeError("the worker needs its own settings")
    engines = engines_of(settings, settings.pool)
    loop = await _loop(process, settings, engines)
    announcer = LoadAnnouncer(process.connection, lambda: [_slots(process, settings)])
    process.spawn(announcer.run(), "announce the slots")
    process.serving()
    try:
        await loop.run(process.stopping, drain_s=settings.drain_s)
    finally:
        await engines.close()


async def _loop(process: Process, settings: WorkerSettings, engines: Engines) -> WorkLoop:
    """Return what takes the pool's nodes off their queue."""
    ground = await prepare(process, settings)
    stops = await hear_stops(process, settings, ground)
    worker = Worker(
        process.replica,
        process.connection,
        ground.events,
        engines,
        stops,
        ground.clock,
        settings.context_tokens,
    )
    return WorkLoop(
        process.connection,
        Stream.NODES,
        [node_consumer(settings.pool, band) for band in Band],
        settings.slots,
        worker.handle,
        ack_wait_s=settings.ack_wait_s,
        clock=ground.clock,
        kind="node",
    )


def _slots(process: Process, settings: WorkerSettings) -> LoadAnnounced:
    slots = 0 if process.stopping.is_set() else settings.slots
    return LoadAnnounced(source=process.replica, pool=settings.pool, slots=slots)


def main() -> int:
    """Run the worker; return its exit code."""
    settings = WorkerSettings.load()
    return run(f"worker-{settings.pool}", settings, serve)


if __name__ == "__main__":
    sys.exit(main())
