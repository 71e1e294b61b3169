"""Reading messages of a stream without a consumer: JetStream's direct get (NATS ADR-31)."""

from __future__ import annotations

import asyncio
from typing import Final

import nats.errors
import orjson
from nats.aio.msg import Msg

from proto.errors import QueueUnavailable
from proto.names import Stream
from services.runtime.connection import Connection, Json

READ_TIMEOUT_S: Final = 2.0


async def get_last(connection: Connection, stream: Stream, subject: str) -> Msg | None:
    """Return the last message of `stream` under `subject`, None if there is none.

    Raises:
        QueueUnavailable: NATS does not answer.
    """
    asked = f"$JS.API.DIRECT.GET.{stream}.{subject}"
    try:
        reply = await connection.request(asked, timeout_s=READ_TIMEOUT_S)
    except (nats.errors.Error, TimeoutError) as error:
        raise QueueUnavailable(f"{subject}: {str(error) or 'no answer'}") from error
    return None if (reply.headers or {}).get("Status") else reply


async def direct_get(connection: Connection, stream: Stream, query: Json) -> tuple[list[Msg], Msg]:
    """Return the messages of `stream` that `query` asks for, and the message that ends them.

    Args:
        connection: an open connection.
        stream: a stream that allows direct gets.
        query: a batch: `multi_last`, or `batch` with `next_by_subj`.

    Raises:
        QueueUnavailable: no complete answer.
    """
    nc = connection.nc
    inbox = nc.new_inbox()
    subscription = await nc.subscribe(inbox)
    try:
        await nc.publish(f"$JS.API.DIRECT.GET.{stream}", orjson.dumps(query), reply=inbox)
        messages: list[Msg] = []
        while True:
            async with asyncio.timeout(READ_TIMEOUT_S):  # as in `Connection.request`
                message = await subscription.next_msg(timeout=None)
            status = (message.headers or {}).get("Status")
            if status is None:
                messages.append(message)
            elif status in {"204", "404"}:
                return messages, message
            else:
                raise QueueUnavailable(f"{stream}: status {status}")
    except (nats.errors.Error, TimeoutError) as error:
        raise QueueUnavailable(f"{stream}: {str(error) or 'no answer'}") from error
    finally:
        await subscription.unsubscribe()
