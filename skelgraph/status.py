"""What runs and what waits: streams, consumers, services and engines of a deployment."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

import httpx2
from rich.table import Table

from proto.errors import NotProvisioned
from proto.names import PLANNER_CONSUMER, Band, Pool, Stream, node_consumer
from services.runtime.connection import ApiError, Connection, Json
from services.runtime.pool_load import ANNOUNCE_EVERY_S, LoadBoard, PoolLoad, listen, loads
from skelgraph.local.state import StackState

CHECK_TIMEOUT_S: Final = 2.0
#: All processes have told their load by then.
SAID_WITHIN_S: Final = 1.1 * ANNOUNCE_EVERY_S


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """How much a stream holds."""

    name: str
    messages: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """What waits for a kind of service and what it works on."""

    name: str
    queued: int
    running: int


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """What a pool's workers decode at once, and what assemblers have for it; None: untold."""

    name: str
    slots: int | None
    handed_over: int
    held: int


@dataclass(frozen=True, slots=True)
class Status:
    """A deployment at one moment."""

    nats_url: str
    streams: tuple[StreamStatus, ...]
    consumers: tuple[ConsumerStatus, ...]
    pools: tuple[PoolStatus, ...] = ()
    #: Service → whether it is ready; only known of a stack on this machine.
    services: Mapping[str, bool] = field(default_factory=dict)
    #: Engine's address → whether it is healthy; known likewise.
    engines: Mapping[str, bool] = field(default_factory=dict)

    def as_json(self) -> Mapping[str, object]:
        """Return plain values."""
        return asdict(self)

    @property
    def is_healthy(self) -> bool:
        """Whether all that is known of runs."""
        return all(self.services.values()) and all(self.engines.values())


async def look(connection: Connection, state: StackState | None, nats_url: str) -> Status:
    """Ask the parts how they are.

    Raises:
        NotProvisioned: a stream or consumer is missing.
        QueueUnavailable: NATS does not answer.
    """
    board = LoadBoard()
    await listen(connection, board)
    said_at = asyncio.get_running_loop().time() + SAID_WITHIN_S
    queues = [(Stream.REQUESTS, PLANNER_CONSUMER)]
    queues += [(Stream.NODES, node_consumer(pool, band)) for pool in Pool for band in Band]
    try:
        streams = [await _stream(connection, stream) for stream in Stream]
        consumers = [await _consumer(connection, *queue) for queue in queues]
    except ApiError as error:
        raise NotProvisioned(str(error)) from error
    health = await _health(state) if state else ({}, {})
    await asyncio.sleep(max(0.0, said_at - asyncio.get_running_loop().time()))
    pools = tuple(_pool(pool, load) for pool, load in loads(board).items())
    return Status(nats_url, tuple(streams), tuple(consumers), pools, *health)


def table(status: Status) -> list[Table]:
    """Return the status for eyes."""
    streams = _grid("stream", "messages", "size")
    for stream in status.streams:
        streams.add_row(stream.name, str(stream.messages), f"{stream.size_bytes / 1e6:.1f} MB")
    consumers = _grid("queue", "queued", "running")
    for consumer in status.consumers:
        consumers.add_row(consumer.name, str(consumer.queued), str(consumer.running))
    pools = _grid("pool", "slots", "handed over", "held")
    for pool in status.pools:
        slots = "?" if pool.slots is None else str(pool.slots)
        pools.add_row(pool.name, slots, str(pool.handed_over), str(pool.held))
    tables = [streams, consumers, pools]
    if status.services:
        parts = _grid("part", "state")
        for name, is_well in {**status.services, **status.engines}.items():
            parts.add_row(name, "ready" if is_well else "NOT READY")
        tables.append(parts)
    return tables


async def _stream(connection: Connection, stream: Stream) -> StreamStatus:
    state = _part(await connection.api(f"STREAM.INFO.{stream}"), "state")
    return StreamStatus(stream.value, _number(state, "messages"), _number(state, "bytes"))


async def _consumer(connection: Connection, stream: Stream, name: str) -> ConsumerStatus:
    info = await connection.api(f"CONSUMER.INFO.{stream}.{name}")
    label = name if stream is Stream.REQUESTS else f"nodes {name}"
    return ConsumerStatus(label, _number(info, "num_pending"), _number(info, "num_ack_pending"))


def _pool(pool: Pool, load: PoolLoad) -> PoolStatus:
    return PoolStatus(pool.value, load.slots, load.released, load.held)


async def _health(state: StackState) -> tuple[dict[str, bool], dict[str, bool]]:
    services = {
        name: f"http://127.0.0.1:{port}/readyz" for name, port in state.health_ports.items()
    }
    engines = {
        f"{pool} {url}": f"{url.rstrip('/')}/health"
        for pool, urls in state.engine_urls.items()
        for url in urls
    }
    async with httpx2.AsyncClient(timeout=CHECK_TIMEOUT_S, trust_env=False) as http:
        answers = await asyncio.gather(
            *(_is_well(http, url) for url in (*services.values(), *engines.values()))
        )
    return (
        dict(zip(services, answers, strict=False)),
        dict(zip(engines, answers[len(services) :], strict=True)),
    )


async def _is_well(http: httpx2.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).status_code == httpx2.codes.OK
    except httpx2.HTTPError:
        return False


def _grid(*names: str) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(names):
        grid.add_column(name, justify="left" if place == 0 else "right")
    return grid


def _part(info: Json, name: str) -> Json:
    part = info.get(name)
    return part if isinstance(part, dict) else {}


def _number(info: Json, name: str) -> int:
    value = info.get(name)
    return value if isinstance(value, int) else 0
