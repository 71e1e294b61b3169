"""FastStream on NATS: work and results in streams, a worker process, no graph: we drive it.

`python -m bench.overhead.peers.on_faststream URL` is the worker.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import uvloop
from faststream.nats import JStream, NatsBroker, PullSub

from bench.overhead.peers.peer import TEXT, Where, by_tasks
from bench.overhead.peers.worker_process import worker_process
from bench.overhead.shapes import Shape

WORK: Final = JStream("FASTSTREAM_WORK", subjects=["faststream.work"])
RESULTS: Final = JStream("FASTSTREAM_RESULTS", subjects=["faststream.result"])
#: Messages that one process handles at once.
AT_ONCE: Final = 256
#: For an acknowledgement: a loaded machine must not end the run.
PATIENCE_S: Final = 30.0

Handler = Callable[[dict[str, object]], Awaitable[None]]


class FastStream:
    """Runs graphs over a broker; a node's result is known when its message comes."""

    def __init__(self, broker: Any) -> None:  # noqa: ANN401  # its package is not ours
        self._broker = broker
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        _take(broker, "faststream.result", RESULTS, self._result)

    async def run(self, shape: Shape) -> list[float]:
        """Run one graph."""
        return await by_tasks(shape, self._call)

    async def _call(self, node: int) -> None:
        del node
        number = next(self._numbers)
        known = self._waiting[number] = asyncio.get_running_loop().create_future()
        work = {"number": number, "text": TEXT}
        await self._broker.publish(work, "faststream.work", stream=WORK.name, timeout=PATIENCE_S)
        await known

    async def _result(self, message: dict[str, object]) -> None:
        number = message["number"]
        assert isinstance(number, int)
        self._waiting.pop(number).set_result(None)


def _take(broker: Any, subject: str, stream: Any, handler: Handler) -> None:  # noqa: ANN401
    """Pull, by a durable consumer: what FastStream's own warning recommends."""
    pull = PullSub(batch_size=AT_ONCE)
    settings = {"durable": "bench", "pull_sub": pull, "max_workers": AT_ONCE}
    broker.subscriber(subject, stream=stream, **settings)(handler)


@asynccontextmanager
async def on_nats(where: Where) -> AsyncIterator[FastStream]:
    """Give a FastStream with one worker process."""
    broker = NatsBroker(where.nats_url, logger=None)
    peer = FastStream(broker)
    async with broker:
        await broker.start()
        module = "bench.overhead.peers.on_faststream"
        async with worker_process(where.folder, "-m", module, where.nats_url, says=b"ready"):
            yield peer


async def work(url: str) -> None:
    """Answer each message until the process is killed."""
    broker = NatsBroker(url, logger=None)

    async def answer(message: dict[str, object]) -> None:
        await broker.publish(message, "faststream.result", stream=RESULTS.name, timeout=PATIENCE_S)

    _take(broker, "faststream.work", WORK, answer)
    async with broker:
        await broker.start()
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(work(sys.argv[1]))
