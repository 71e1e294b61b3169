"""Answering requests on core NATS: several at once, in a bounded number, each task held."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from nats.aio.msg import Msg

from proto.codec import encode
from proto.errors import SkelgraphError
from proto.messages import ErrorInfo
from services.runtime.connection import Connection

log = structlog.get_logger()

#: Requests answered at once; further ones wait in the subscription.
MOST: Final = 64


class Responder:
    """Calls handlers for requests, so that a slow answer keeps no other waiting.

    Args:
        connection: an open connection.
        queue: the group of which one member answers each request.
    """

    def __init__(self, connection: Connection, queue: str) -> None:
        self._connection = connection
        self._queue = queue
        self._room = asyncio.Semaphore(MOST)
        self._answering: set[asyncio.Task[None]] = set()

    async def answer(self, subject: str, handler: Callable[[Msg], Awaitable[bytes]]) -> None:
        """Answer requests on `subject` with what `handler` returns, from now on."""

        async def heard(message: Msg) -> None:
            await self._room.acquire()
            task = asyncio.create_task(self._answer(message, handler), name=message.subject)
            self._answering.add(task)
            task.add_done_callback(self._answered)

        await self._connection.subscribe(subject, heard, queue=self._queue)

    async def settle(self, limit_s: float) -> None:
        """Return when what is being answered is answered, or after `limit_s`."""
        if self._answering:
            await asyncio.wait(self._answering, timeout=limit_s)

    async def _answer(self, message: Msg, handler: Callable[[Msg], Awaitable[bytes]]) -> None:
        try:
            reply = await handler(message)
        except Exception:  # a defect; what somebody sends must not end a process that others need
            log.exception("command_failed", subject=message.subject)
            reply = encode(ErrorInfo.of(SkelgraphError()))
        if message.reply:
            await self._connection.publish(message.reply, reply)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        self._room.release()
        if not task.cancelled() and (error := task.exception()):
            log.error("reply_failed", subject=task.get_name(), exc_info=error)
