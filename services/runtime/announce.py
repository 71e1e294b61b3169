"""Who answers commands, by the NATS services protocol (NATS ADR-32): PING, INFO and STATS.

nats-py's `micro` is not used: it flushes with a timeout (ADR 0005), answers one request of an
endpoint at a time, drops messages beyond its limit, and puts the text of any exception, and the
asker's own headers, into replies (ADR 0029).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from typing import Final

import orjson
from nats.aio.msg import Msg

from proto.channels import Message
from proto.names import PREFIX, SERVICE_NAME, may_take_replies, schema_urn
from services.runtime.connection import Connection, Json
from services.runtime.responder import Endpoint, Responder

DESCRIPTION: Final = "One prompt becomes a graph of nodes that are decoded in parallel."
_TYPE: Final = "io.nats.micro.v1"


class Announcer:
    """Tells whoever asks that this process answers commands, which, and how often it did.

    Args:
        connection: an open connection.
        responder: what answers.
        replica: names this process.
    """

    def __init__(self, connection: Connection, responder: Responder, replica: str) -> None:
        self._connection = connection
        self._responder = responder
        self._id = secrets.token_hex(11)
        self._started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._replica = replica

    async def open(self) -> None:
        """Answer from now on."""
        for verb, describe in (("PING", dict), ("INFO", self._info), ("STATS", self._stats)):
            reply = partial(self._reply, f"{_TYPE}.{verb.lower()}_response", describe)
            for subject in ("", f".{SERVICE_NAME}", f".{SERVICE_NAME}.{self._id}"):
                await self._connection.subscribe(f"$SRV.{verb}{subject}", reply)

    async def _reply(self, kind: str, describe: Callable[[], Json], message: Msg) -> None:
        if may_take_replies(message.reply):
            said = {"type": kind, **self._identity(), **describe()}
            await self._connection.publish(message.reply, orjson.dumps(said))

    def _identity(self) -> Json:
        about = {"contract": PREFIX, "replica": self._replica}
        version = metadata.version("skelgraph")
        return {"name": SERVICE_NAME, "id": self._id, "version": version, "metadata": about}

    def _info(self) -> Json:
        endpoints = [_named(one) | {"metadata": _about(one)} for one in self._responder.endpoints]
        return {"description": DESCRIPTION, "endpoints": endpoints}

    def _stats(self) -> Json:
        endpoints = [_named(one) | _counts(one) for one in self._responder.endpoints]
        return {"started": self._started_at, "endpoints": endpoints}


def _named(endpoint: Endpoint) -> Json:
    return {
        "name": endpoint.channel.name,
        "subject": endpoint.subject,
        "queue_group": endpoint.channel.queue or "",
    }


def _about(endpoint: Endpoint) -> dict[str, str]:
    channel = endpoint.channel
    return {
        "summary": channel.summary,
        "request_schema": _urns(channel.messages),
        "response_schema": _urns(channel.replies),
    }


def _urns(messages: tuple[Message, ...]) -> str:
    return " ".join(schema_urn(message.__name__) for message in messages)


def _counts(endpoint: Endpoint) -> Json:
    return {
        "num_requests": endpoint.requests,
        "num_errors": endpoint.errors,
        "last_error": endpoint.last_error,
        "processing_time": endpoint.took_ns,
        "average_processing_time": endpoint.took_ns // max(1, endpoint.requests),
    }
