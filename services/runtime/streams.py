"""The streams and durable consumers as they must be, and how they are made so.

Made by one hand (`skelgraph provision`, a set-up job), not by the services: those
wait until they find them. Making them again changes what differs and nothing else.
"""

from __future__ import annotations

from typing import Final

import structlog
from pydantic import BaseModel, ConfigDict, Field

from proto.errors import NotProvisioned, SkelgraphError
from proto.names import (
    PIN_GROUP,
    PLANNER_CONSUMER,
    STREAM_SUBJECTS,
    Band,
    Pool,
    Stream,
    node_consumer,
    node_consumer_filter,
    partition_consumer,
    partition_consumer_filter,
)
from services.runtime.connection import ApiError, Connection, Json

log = structlog.get_logger()

PARTITIONS_KEY: Final = "skelgraph.partitions"
#: A partition whose assembler is silent for this long goes to another one.
PIN_TIMEOUT_S: Final = 2.0
_NS: Final = 1_000_000_000
_STREAM_NOT_FOUND: Final = 10059


class StreamLimits(BaseModel):
    """Bounds of the streams."""

    model_config = ConfigDict(frozen=True)

    partitions: int = 8
    replicas: int = 1
    ack_wait_s: float = 10
    max_queued_requests: int = Field(1000, description="more are refused with `busy`")
    max_queued_nodes: int = 100_000
    max_stream_bytes: int = Field(512 * 1024**2, description="of each stream")
    events_max_age_s: float = Field(24 * 3600, description="how long facts can be replayed")
    dead_max_age_s: float = 30 * 24 * 3600
    max_message_bytes: int = 4 * 1024**2


def stream_config(stream: Stream, limits: StreamLimits) -> Json:
    """Return the configuration of `stream` as JetStream's API takes it."""
    config: Json = {
        "name": stream.value,
        "subjects": [STREAM_SUBJECTS[stream]],
        "storage": "file",
        "num_replicas": limits.replicas,
        "max_bytes": limits.max_stream_bytes,
        "max_msg_size": limits.max_message_bytes,
        "discard": "new",
        "duplicate_window": 120 * _NS,
        "allow_direct": True,
        "metadata": {PARTITIONS_KEY: str(limits.partitions)},
    }
    unique: Json = {"max_msgs_per_subject": 1, "discard_new_per_subject": True}
    match stream:
        case Stream.REQUESTS:
            queue: Json = {"retention": "workqueue", "max_msgs": limits.max_queued_requests}
            return config | unique | queue
        case Stream.NODES:
            return config | unique | {"retention": "workqueue", "max_msgs": limits.max_queued_nodes}
        case Stream.EVENTS:
            return config | {"retention": "limits", "max_age": int(limits.events_max_age_s * _NS)}
        case Stream.DEAD:
            return config | {"retention": "limits", "max_age": int(limits.dead_max_age_s * _NS)}


def consumer_configs(limits: StreamLimits) -> list[tuple[Stream, Json]]:
    """Return the durable consumers, each with its stream."""
    found = [
        (Stream.REQUESTS, _consumer(PLANNER_CONSUMER, STREAM_SUBJECTS[Stream.REQUESTS], limits))
    ]
    for pool in Pool:
        for band in Band:
            name, subjects = node_consumer(pool, band), node_consumer_filter(pool, band)
            found.append((Stream.NODES, _consumer(name, subjects, limits)))
    for partition in range(limits.partitions):
        name, subjects = partition_consumer(partition), partition_consumer_filter(partition)
        pinned: Json = {
            "priority_policy": "pinned_client",
            "priority_groups": [PIN_GROUP],
            "priority_timeout": int(PIN_TIMEOUT_S * _NS),
        }
        found.append((Stream.EVENTS, _consumer(name, subjects, limits) | pinned))
    return found


def _consumer(name: str, subjects: str, limits: StreamLimits) -> Json:
    return {
        "durable_name": name,
        "filter_subject": subjects,
        "ack_policy": "explicit",
        "ack_wait": int(limits.ack_wait_s * _NS),
        "deliver_policy": "all",
        "replay_policy": "instant",
        # Attempts are facts, not deliveries; and open requests are held un-acked by design.
        "max_deliver": -1,
        "max_ack_pending": -1,
        "num_replicas": limits.replicas,
    }


async def provision(connection: Connection, limits: StreamLimits) -> None:
    """Make the streams and consumers, or change them to `limits`.

    Raises:
        QueueUnavailable: NATS does not answer.
        SkelgraphError: JetStream refuses; says what it said.
    """
    for stream in Stream:
        await _make_stream(connection, stream, stream_config(stream, limits))
    for stream, config in consumer_configs(limits):
        await _make_consumer(connection, stream, config)
    log.info("provisioned", streams=len(Stream), partitions=limits.partitions)


async def check_provisioned(connection: Connection, partitions: int) -> None:
    """Return if the streams are there and have the same partitions as we.

    Raises:
        NotProvisioned: a stream is missing, or was made for another number of partitions.
        QueueUnavailable: NATS does not answer.
    """
    try:
        info = await connection.api(f"STREAM.INFO.{Stream.EVENTS}")
        await connection.api(f"CONSUMER.INFO.{Stream.EVENTS}.{partition_consumer(partitions - 1)}")
    except ApiError as error:
        raise NotProvisioned(str(error)) from error
    config = info.get("config")
    metadata = config.get("metadata", {}) if isinstance(config, dict) else {}
    made_for = metadata.get(PARTITIONS_KEY)
    if made_for != str(partitions):
        raise NotProvisioned(
            f"the event log has {made_for} partitions, SKELGRAPH_PARTITIONS is {partitions}"
        )


async def _make_stream(connection: Connection, stream: Stream, config: Json) -> None:
    try:
        try:
            await connection.api(f"STREAM.UPDATE.{stream}", config)
        except ApiError as error:
            if error.err_code != _STREAM_NOT_FOUND:
                raise
            await connection.api(f"STREAM.CREATE.{stream}", config)
    except ApiError as error:
        raise SkelgraphError(f"stream {stream}: {error}") from error


async def _make_consumer(connection: Connection, stream: Stream, config: Json) -> None:
    name, subjects = config["durable_name"], config["filter_subject"]
    body: Json = {"stream_name": stream.value, "config": config | {"name": name}}
    try:
        await connection.api(f"CONSUMER.CREATE.{stream}.{name}.{subjects}", body)
    except ApiError as error:
        raise SkelgraphError(f"consumer {name} of {stream}: {error}") from error
