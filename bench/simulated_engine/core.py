"""What all families share: the batch in time, permits, streams, faults."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from bench.simulated_engine.author import Author
from bench.simulated_engine.batching import Batch
from bench.simulated_engine.counts import Counts
from bench.simulated_engine.jobs import Ask, Job, compose
from bench.simulated_engine.options import Options
from bench.simulated_engine.pace import Flow, Pace
from bench.simulated_engine.sequences import TGI, VLLM


class Overloaded(Exception):
    """More requests than the engine takes."""


class Core:
    """The engine behind the routes.

    Args:
        options: all that can be chosen.
    """

    def __init__(self, options: Options) -> None:
        policy = TGI if options.family == "tgi" else VLLM
        self.options = options
        self.batch = Batch(
            options.profile, replace(policy, caches=options.prefix_cache), options.seed
        )
        self.pace = Pace(self.batch, options.time_scale)
        self.pace.slow = options.slow
        self.author = Author(options.seed, options.lengths, options.recorded)
        self.faults = options.faults
        self.counts = Counts()
        self.in_flight = 0
        self.healthy = True

    @contextmanager
    def permit(self, limit: int | None) -> Iterator[None]:
        """Count a request within the block.

        Raises:
            Overloaded: there are `limit` already.
        """
        if limit is not None and self.in_flight >= limit:
            raise Overloaded
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def compose(self, ask: Ask) -> Job:
        """Return the reply to `ask`; nothing is computed yet."""
        return compose(ask, self.author)

    async def run(self) -> None:
        """Let time pass, and send signs of life where the family does, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.pace.run(), name="pace")
            if self.options.family == "tgi":
                tasks.create_task(self._keep_alive(), name="keep alive")

    def begin(self, job: Job) -> Flow:
        """Put the reply in the queue.

        Raises:
            ValueError: there could never be room for it.
        """
        return self.pace.submit(job.sequence)

    def over(self, flow: Flow, job: Job) -> None:
        """Forget a reply, complete or not."""
        self.pace.drop(flow)
        self.counts.over(job, self.batch.now_s)

    async def _keep_alive(self) -> None:
        time = asyncio.get_running_loop().time
        quiet_s = self.options.keep_alive_s * self.options.time_scale
        while True:
            await asyncio.sleep(min(1.0, quiet_s / 10))
            now_s = time()
            for flow in self.pace.flows:
                if now_s - flow.quiet_since_s >= quiet_s:
                    flow.quiet_since_s = now_s
                    flow.nudge()
