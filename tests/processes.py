"""The services as processes of their own, as they run in production, for tests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from proto.messages import Fact, NodeDecoded, NodePlanned, SubmitRequest
from proto.names import Stream, Subjects
from services.runtime.marks import Marks
from services.runtime.pull import ConsumerPull, Delivery
from skelgraph.local import ports
from skelgraph.local.process import Child, ProcessSpec
from tests.conftest import ACK_WAIT_S, PARTITIONS, Runtime


class Services:
    """Starts services against one nats-server; they end with the stack.

    Args:
        stack: ends what is started.
        runtime: the server.
        logs: folder of the log files.
        settings: of all services, as environment variables without their prefix.
    """

    def __init__(
        self, stack: AsyncExitStack, runtime: Runtime, logs: Path, **settings: str
    ) -> None:
        self._stack = stack
        self._logs = logs
        #: Variables of all services.
        self.environment = {
            "SKELGRAPH_NATS_URL": runtime.server.url,
            "SKELGRAPH_PARTITIONS": str(PARTITIONS),
            "SKELGRAPH_ACK_WAIT_S": str(ACK_WAIT_S),
            "SKELGRAPH_DRAIN_S": "5",
            "SKELGRAPH_BACKOFF_S": "0.1",
            "SKELGRAPH_LOG_FORMAT": "console",
            "SKELGRAPH_LOG_LEVEL": "debug",
            **self._named(settings),
        }
        self._count = 0

    async def start(self, service: str, *argv: str, **settings: str) -> Child:
        """Start `service` and return it when it is ready."""
        child = self.launch(service, *argv, **settings)
        await child.ready()
        return child

    def launch(self, service: str, *argv: str, **settings: str) -> Child:
        """Start `service` and do not wait for it."""
        self._count += 1
        port = ports.free_port()
        spec = ProcessSpec(
            name=service,
            argv=(sys.executable, "-m", f"services.{service}", *argv),
            env={**self.environment, **self._named(settings), "SKELGRAPH_HEALTH_PORT": str(port)},
            port=port,
            ready_path="/readyz",
        )
        child = Child(spec, self._logs / f"{service}-{self._count}.log")
        self._stack.callback(child.kill)
        child.launch()
        return child

    @staticmethod
    def _named(settings: Mapping[str, str]) -> dict[str, str]:
        return {f"SKELGRAPH_{name.upper()}": value for name, value in settings.items()}


class Inbox:
    """All that durable consumers deliver; the test acks what it wants."""

    def __init__(self, runtime: Runtime, stream: Stream, *consumers: str) -> None:
        self.got: list[Delivery] = []
        self._changed = asyncio.Event()
        self._marks = Marks(ACK_WAIT_S)
        self._marking: asyncio.Task[None] | None = None
        self._pulls = [
            ConsumerPull(runtime.connection, stream, consumer, self._received)
            for consumer in consumers
        ]

    async def __aenter__(self) -> Inbox:
        self._marking = asyncio.create_task(self._marks.run())
        for pull in self._pulls:
            await pull.start()
            pull.want(64)
        return self

    async def __aexit__(self, *_: object) -> None:
        for pull in self._pulls:
            await pull.stop()
        if self._marking:
            self._marking.cancel()

    async def wait_for(self, count: int, limit_s: float = 15) -> list[Delivery]:
        """Return when `count` deliveries have come."""
        async with asyncio.timeout(limit_s):
            while len(self.got) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.got

    def _received(self, delivery: Delivery) -> None:
        self.got.append(delivery)
        self._marks.hold(delivery)
        self._changed.set()


async def submit(runtime: Runtime, request: str, **asked: object) -> None:
    """Submit a request as a client does."""
    submitted = SubmitRequest.model_validate({"question": "Why is the sky blue?", **asked})
    await runtime.publisher.publish(Subjects.request(request), submitted.model_dump_json().encode())


async def end_of(runtime: Runtime, request: str, limit_s: float = 20) -> Fact:
    """Return the end of `request` when it is there."""
    async with asyncio.timeout(limit_s):
        while not await runtime.events.has_ended(request):  # noqa: ASYNC110  # a remote state
            await asyncio.sleep(0.02)
    return (await runtime.events.read(request))[-1].fact


async def facts(runtime: Runtime, request: str) -> list[Fact]:
    """Return the facts of `request` so far."""
    return [stored.fact for stored in await runtime.events.read(request)]


async def until_fact(
    runtime: Runtime, request: str, kind: type[Fact], count: int = 1, limit_s: float = 20
) -> list[Fact]:
    """Return the facts of one kind when there are `count` of them."""
    async with asyncio.timeout(limit_s):
        while True:
            found = [fact for fact in await facts(runtime, request) if isinstance(fact, kind)]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.02)


def planned_nodes(told: list[Fact]) -> list[NodePlanned]:
    """The planned nodes among facts."""
    return [fact for fact in told if isinstance(fact, NodePlanned)]


def decoded_nodes(told: list[Fact]) -> list[NodeDecoded]:
    """The decoded nodes among facts."""
    return [fact for fact in told if isinstance(fact, NodeDecoded)]
