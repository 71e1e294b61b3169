"""The streams and durable consumers as they must be, and how they are made so.

Made by one hand (`skelgraph provision`, a set-up job), not by the services: those
wait until they find them. Making them again changes what differs and nothing else.
"""

from __future__ import annotations

from typing import Final, Literal

import structlog
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from proto.errors import NotProvisioned, SkelgraphError
from proto.messages import MAX_DEADLINE_S
from proto.names import (
    ANY_FACT,
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
from services.runtime.connection import STREAM_NOT_FOUND, ApiError, Connection, Json
from services.runtime.settings import ENV_PREFIX

log = structlog.get_logger()

PARTITIONS_KEY: Final = "skelgraph.partitions"
#: A partition whose assembler is silent for this long goes to another one.
PIN_TIMEOUT_S: Final = 2.0
_NS: Final = 1_000_000_000


class StreamLimits(BaseSettings):
    """Bounds of the streams, for whoever provisions them; from the environment too."""

    model_config = SettingsConfigDict(frozen=True, env_prefix=ENV_PREFIX, extra="ignore")

    partitions: int = Field(8, ge=1, le=256, description="partitions of the event log")
    replicas: int = Field(1, ge=1, le=5, description="copies of each stream")
    ack_wait_s: float = Field(
        10, ge=0.5, le=600, description="seconds after which a silent worker's message comes back"
    )
    max_queued_requests: int = Field(
        1000, ge=1, description="requests that may wait for a planner; more are refused with `busy`"
    )
    max_queued_nodes: int = Field(100_000, ge=1, description="nodes that may be queued or running")
    queue_max_bytes: int = Field(
        256 * 1024**2, ge=1024, description="bytes of each queue and of the dead letters"
    )
    events_max_bytes: int = Field(
        2 * 1024**3,
        ge=1024,
        description="bytes of the event log; new requests are refused before it is full",
    )
    events_max_age_s: float = Field(
        48 * 3600,
        ge=MAX_DEADLINE_S + 3600,
        description="seconds for which facts can be replayed; more than any deadline",
    )
    dead_max_age_s: float = Field(
        30 * 24 * 3600, gt=0, description="seconds for which dead letters are kept"
    )
    max_message_bytes: int = Field(4 * 1024**2, ge=1024, description="bytes of one message")
    storage: Literal["file", "memory"] = Field(
        "file",
        description="where the streams are kept; memory: all is lost with the server, for tests",
    )


def stream_config(stream: Stream, limits: StreamLimits) -> Json:
    """Return the configuration of `stream` as JetStream's API takes it."""
    config: Json = {
        "name": stream.value,
        "subjects": [STREAM_SUBJECTS[stream]],
        "storage": limits.storage,
        "num_replicas": limits.replicas,
        "max_bytes": limits.queue_max_bytes,
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
            age = {"retention": "limits", "max_age": int(limits.events_max_age_s * _NS)}
            said: Json = {"src": STREAM_SUBJECTS[stream], "dest": ANY_FACT}
            return config | age | {"max_bytes": limits.events_max_bytes, "republish": said}
        case Stream.DEAD:
            # A request must be able to end: the oldest letters make room, never a wait.
            age = {"retention": "limits", "max_age": int(limits.dead_max_age_s * _NS)}
            return config | age | {"discard": "old"}


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


async def check_provisioned(
    connection: Connection, partitions: int, ack_wait_s: float | None = None
) -> None:
    """Return if the streams are there and have the same partitions and ack wait as we.

    Raises:
        NotProvisioned: a stream is missing, or was made for another number of partitions.
        QueueUnavailable: NATS does not answer.
    """
    try:
        info = await connection.api(f"STREAM.INFO.{Stream.EVENTS}")
        consumer = await connection.api(
            f"CONSUMER.INFO.{Stream.EVENTS}.{partition_consumer(partitions - 1)}"
        )
    except ApiError as error:
        raise NotProvisioned(str(error)) from error
    config = info.get("config")
    metadata = config.get("metadata", {}) if isinstance(config, dict) else {}
    made_for = metadata.get(PARTITIONS_KEY)
    if made_for != str(partitions):
        raise NotProvisioned(
            f"the event log has {made_for} partitions, SKELGRAPH_PARTITIONS is {partitions}"
        )
    made = consumer.get("config")
    waits_s = made.get("ack_wait", 0) / _NS if isinstance(made, dict) else 0
    if ack_wait_s is not None and waits_s != ack_wait_s:
        raise NotProvisioned(
            f"the consumers wait {waits_s:g} s for acks, SKELGRAPH_ACK_WAIT_S is {ack_wait_s:g}"
        )


async def _make_stream(connection: Connection, stream: Stream, config: Json) -> None:
    try:
        try:
            await connection.api(f"STREAM.UPDATE.{stream}", config)
        except ApiError as error:
            if error.err_code != STREAM_NOT_FOUND:
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
