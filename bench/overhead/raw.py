"""Pulling and publishing with nats-py and nothing else: what the floor is made of.

One inbox for all acks of publishes, one for each consumer, pulls for as much as there is room for.
No repeats, no resumption after a restart, no marks, no validation: a loop that only goes well.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable
from typing import Final

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

EXPIRES_S: Final = 30


class RawPublisher:
    """Publishes and waits for JetStream's ack."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._prefix = nc.new_inbox()
        self._ids = itertools.count()
        self._waiting: dict[str, asyncio.Future[None]] = {}

    async def open(self) -> None:
        """Subscribe to the acks."""
        await self._nc.subscribe(f"{self._prefix}.*", cb=self._acked, pending_msgs_limit=0)

    async def publish(self, subject: str, data: bytes) -> None:
        """Return when `data` is stored."""
        inbox = f"{self._prefix}.{next(self._ids)}"
        acked = self._waiting[inbox] = asyncio.get_running_loop().create_future()
        headers = {"Nats-Msg-Id": secrets.token_hex(11)}
        await self._nc.publish(subject, data, reply=inbox, headers=headers)
        await acked

    async def _acked(self, message: Msg) -> None:
        answer = orjson.loads(message.data)
        waiting = self._waiting.pop(message.subject)
        if "error" in answer:
            waiting.set_exception(RuntimeError(answer["error"]))
        else:
            waiting.set_result(None)


class RawConsumer:
    """Keeps messages of a durable consumer asked for.

    Args:
        nc: an open connection.
        stream: the stream.
        name: the consumer.
        credit: how many messages are asked for at once.
        on_message: called with each.
    """

    def __init__(
        self, nc: Client, stream: str, name: str, credit: int, on_message: Callable[[Msg], None]
    ) -> None:
        self._nc = nc
        self._api = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        self._inbox = nc.new_inbox()
        self._credit = credit
        self._due = 0
        self._on_message = on_message

    async def open(self) -> None:
        """Ask for the first messages."""
        await self._nc.subscribe(self._inbox, cb=self._received, pending_msgs_limit=0)
        await self._ask()

    async def _ask(self) -> None:
        missing, self._due = self._credit - self._due, self._credit
        query = {"batch": missing, "expires": EXPIRES_S * 1_000_000_000}
        await self._nc.publish(self._api, orjson.dumps(query), reply=self._inbox)

    async def _received(self, message: Msg) -> None:
        if message.headers and "Status" in message.headers:
            left = int(message.headers.get("Nats-Pending-Messages", 0))
            self._due -= left
        else:
            self._due -= 1
            self._on_message(message)
        if self._due <= self._credit // 2:
            await self._ask()
