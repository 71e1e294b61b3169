"""taskiq on NATS: a pull broker on JetStream, results in NATS's object store, polled by the caller.

The pull broker, because with the push broker every client that only sends takes messages as well.
The address comes from the environment, as taskiq's own worker command takes no argument of ours.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from taskiq_nats import NATSObjectStoreResultBackend, PullBasedJetStreamBroker

from bench.overhead.peers.peer import NATS_URL_VARIABLE, TEXT, Where, by_tasks
from bench.overhead.peers.worker_process import worker_process
from bench.overhead.shapes import Shape

#: Seconds between two looks for a result: 0.2 by default, which would be all that is measured.
LOOK_EVERY_S: Final = 0.002
RESULT_TIMEOUT_S: Final = 100.0
_URL: Final = os.environ.get(NATS_URL_VARIABLE, "nats://127.0.0.1:4222")

broker: Any = PullBasedJetStreamBroker(_URL, stream_name="taskiq", pull_consume_batch=1)
broker = broker.with_result_backend(NATSObjectStoreResultBackend(_URL))


async def step(text: str) -> str:
    """Do nothing."""
    return text


_step: Any = broker.register_task(step, task_name="step")


class Taskiq:
    """Runs graphs by calls: a node's result is known when it is found in the store."""

    async def run(self, shape: Shape) -> list[float]:
        """Run one graph."""
        return await by_tasks(shape, self._call)

    async def _call(self, node: int) -> None:
        del node
        task = await _step.kiq(TEXT)
        await task.wait_result(check_interval=LOOK_EVERY_S, timeout=RESULT_TIMEOUT_S)


@asynccontextmanager
async def on_nats(where: Where) -> AsyncIterator[Taskiq]:
    """Give a taskiq with one worker process."""
    await broker.startup()
    argv = ("-m", "taskiq", "worker", "bench.overhead.peers.on_taskiq:broker", "--workers", "1")
    try:
        async with worker_process(where.folder, *argv, "--log-level", "WARNING"):
            yield Taskiq()
    finally:
        await broker.shutdown()
