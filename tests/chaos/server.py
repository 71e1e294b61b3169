"""What the NATS servers tell after a run: who is connected, who reads, the dead letters."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import urllib.request
from collections import Counter
from typing import Any, Final

from proto.codec import decode
from proto.messages import DeadLetter
from proto.names import Stream, partition_consumer
from services.runtime.connection import ApiError, Connection
from tests.chaos.stack import PARTITIONS, Nats, Stack

#: Connections of the harness itself: what sends the load, and what reads the facts.
OWN: Final = ("skelgraph-client", "chaos-tail")
_NO_MESSAGE: Final = 10037
_MARK: Final = re.compile(r"(?<=[0-9])-[0-9a-f]{4}$")


def expected_connections(stack: Stack) -> set[str]:
    """Return the names of the connections that there must be: of each living service, and ours."""
    host = socket.gethostname()
    alive = [(one.role, one.child.pid) for one in stack.services if one.alive]
    return {*OWN, *(f"{role}-{host}-{pid}" for role, pid in alive)}


async def connected(stack: Stack) -> dict[str, int]:
    """Return how many connections the servers have, by client's name."""
    pages = [one.child.monitor_url for one in stack.nats if isinstance(one.child, Nats)]
    names = await asyncio.gather(*(asyncio.to_thread(_names_at, page) for page in pages))
    return dict(Counter(name for at_one in names for name in at_one))


def _names_at(monitor_url: str) -> list[str]:
    with urllib.request.urlopen(f"{monitor_url}/connz?limit=4096", timeout=5) as reply:
        told: dict[str, Any] = json.load(reply)
    # Without the mark at the end by which a process differs from all of its host and id.
    return [
        _MARK.sub("", one.get("name", "")) or f"nameless, port {one['port']}"
        for one in told["connections"]
    ]


async def consumers_left(connection: Connection) -> list[str]:
    """Return the consumers of the event log but for those of its partitions."""
    told: Any = await connection.api(f"CONSUMER.NAMES.{Stream.EVENTS}", {"offset": 0})
    ours = {partition_consumer(number) for number in range(PARTITIONS)}
    return sorted(set(told["consumers"] or ()) - ours)


async def read_letters(connection: Connection) -> list[DeadLetter]:
    """Return all dead letters, read one by one from the stream itself."""
    letters: list[DeadLetter] = []
    after = 0
    while True:
        query = {"seq": after + 1, "next_by_subj": ">"}
        try:
            told: Any = await connection.api(f"STREAM.MSG.GET.{Stream.DEAD}", query)
        except ApiError as error:
            if error.err_code != _NO_MESSAGE:
                raise
            return letters
        after = told["message"]["seq"]
        letters.append(decode(DeadLetter, base64.b64decode(told["message"]["data"])))
