"""`python -m services.planner`: the service that turns requests into skeletons."""

from __future__ import annotations

import sys
from functools import partial
from typing import Final, Self

from pydantic import Field, model_validator

from proto.messages import PlannerPool
from proto.names import PLANNER_CONSUMER, Pool, Stream
from services.planner.admission import Admission, AdmissionLimits
from services.planner.service import Planner, owner_of
from services.planner.writer import PlanWriter
from services.runtime.ground import hear_stops, prepare
from services.runtime.lifecycle import Process, run
from services.runtime.load import read_load
from services.runtime.pool_load import LoadBoard, listen, loads
from services.runtime.pools import engine_pool
from services.runtime.settings import EngineSettings
from services.runtime.surplus import Turns
from services.runtime.work import WorkLoop

#: A request that has waited here for so long may be another planner's, which has come since.
KEEP_S: Final = 15.0


class PlannerSettings(EngineSettings):
    """Turns each request into a skeleton, line by line."""

    slots: int = Field(8, ge=1, le=4096, description="requests planned at once")
    plan_ahead: int = Field(
        250,
        ge=0,
        le=100_000,
        description="requests that are kept beyond the slots while many wait, so that their owners"
        " take turns; of more than these the latest of the owner with the most is refused with"
        " `busy`. 0: in the order in which they come, whosever they are",
    )
    max_open_requests: int = Field(
        5000,
        ge=1,
        description="requests that may be open at once in the whole deployment; further ones"
        " are refused with `busy`",
    )
    full_share: float = Field(
        0.9,
        gt=0,
        le=1,
        description="share of a stream's limit above which requests are refused with `busy`",
    )

    planner_pool: PlannerPool = Field(
        "large",
        description="whose model writes the plans: large; small; or draft, which the small pool"
        " writes and the large one amends while its first nodes decode; a request may say"
        " otherwise",
    )
    amend_timeout_s: float = Field(
        5, gt=0, le=600, description="seconds after which a draft stands as it is"
    )

    @model_validator(mode="after")
    def _has_engines(self) -> Self:
        self.urls(Pool.LARGE)
        if self.planner_pool != "large":
            self.urls(Pool.SMALL)
        return self

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The pools that have engines."""
        return (Pool.LARGE, Pool.SMALL) if self.small_urls else (Pool.LARGE,)


async def serve(process: Process) -> None:
    """Plan requests until the process is to stop."""
    settings = process.settings
    if not isinstance(settings, PlannerSettings):
        raise TypeError("the planner needs its own settings")
    connection = process.connection
    engines = {pool: engine_pool(settings, pool) for pool in settings.pools}
    ground = await prepare(process, settings)
    stops = await hear_stops(process, settings, ground)
    writer = PlanWriter(
        engines, settings.planner_pool, settings.amend_timeout_s, settings.context_tokens
    )
    limits = AdmissionLimits(settings.max_open_requests, settings.full_share)
    board = LoadBoard()
    await listen(connection, board)
    admission = Admission(partial(read_load, connection), limits)
    await admission.look()
    planner = Planner(ground.events, writer, stops, admission, partial(loads, board))
    turns = Turns(settings.plan_ahead, KEEP_S, owner_of, planner.refuse)
    loop = WorkLoop(
        connection,
        Stream.REQUESTS,
        [PLANNER_CONSUMER],
        settings.slots,
        planner.handle,
        ack_wait_s=settings.ack_wait_s,
        clock=ground.clock,
        kind="request",
        turns=turns if settings.plan_ahead else None,
    )
    process.spawn(admission.run(loop.hold_back), "look at the load")
    process.serving()
    try:
        await loop.run(process.stopping, drain_s=settings.drain_s)
    finally:
        for pool in engines.values():
            await pool.close()


def main() -> int:
    """Run the planner; return its exit code."""
    return run("planner", PlannerSettings.load(), serve)


if __name__ == "__main__":
    sys.exit(main())
