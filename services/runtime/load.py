"""How full the streams are, and how many requests are open: what NATS says of the load."""

from __future__ import annotations

from dataclasses import dataclass

from proto.errors import NotProvisioned
from proto.names import Stream
from services.runtime.connection import ApiError, Connection, Json


@dataclass(frozen=True, slots=True)
class Load:
    """The load at one moment.

    Args:
        open_requests: accepted and not ended. The `accepted` event of each is held un-acked
            by its assembler; events that no assembler has taken yet count as well, so that
            a service without assemblers does not look idle.
        events_share: how full the event log is, `0 … 1`.
        nodes_share: how full the queue of nodes is, `0 … 1`, by messages or by bytes.
    """

    open_requests: int = 0
    events_share: float = 0.0
    nodes_share: float = 0.0


async def read_load(connection: Connection) -> Load:
    """Ask NATS for the load.

    Raises:
        NotProvisioned: a stream is missing.
        QueueUnavailable: NATS does not answer.
    """
    try:
        return Load(
            open_requests=await _open_requests(connection),
            events_share=_share(await connection.api(f"STREAM.INFO.{Stream.EVENTS}")),
            nodes_share=_share(await connection.api(f"STREAM.INFO.{Stream.NODES}")),
        )
    except ApiError as error:
        raise NotProvisioned(str(error)) from error


async def _open_requests(connection: Connection) -> int:
    # At most 256 partitions, and the API lists 256 consumers at once.
    answer = await connection.api(f"CONSUMER.LIST.{Stream.EVENTS}", {"offset": 0})
    consumers = answer.get("consumers")
    listed = consumers if isinstance(consumers, list) else []
    return sum(
        int(one["num_ack_pending"]) + int(one["num_pending"])
        for one in listed
        if one["name"].startswith("assembler-")
    )


def _share(info: Json) -> float:
    config, state = info.get("config"), info.get("state")
    if not isinstance(config, dict) or not isinstance(state, dict):
        return 0.0
    pairs = ((state["bytes"], config["max_bytes"]), (state["messages"], config["max_msgs"]))
    return max((have / most for have, most in pairs if most > 0), default=0.0)
