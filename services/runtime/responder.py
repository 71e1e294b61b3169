"""Answering commands on core NATS: several at once, in a bounded number, each task held.

Who answers can be found by the NATS services protocol (`services.runtime.announce`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from proto.channels import Channel
from proto.codec import encode
from proto.errors import Busy, MessageTooLarge, SkelgraphError
from proto.messages import ErrorInfo
from proto.names import Header, may_take_replies, of_tenant, split_tenant
from services.runtime.connection import Connection
from services.runtime.room import FULL_RETRY_S, Room

log = structlog.get_logger()

Handler = Callable[[Msg], Awaitable[bytes]]

#: Commands of one kind answered at once, and that wait for their turn; further ones are refused.
MOST: Final = 64
MOST_QUEUED: Final = 1000
#: An error in a header is one line of at most this size.
MAX_ERROR_CHARS: Final = 300


class Endpoint:
    """What is answered on one subject, and how that went so far.

    Args:
        channel: the command.
        subject: where it is heard.
        handler: returns the reply, or raises a `SkelgraphError`.
        most: how many are answered at once.
    """

    def __init__(self, channel: Channel, subject: str, handler: Handler, most: int) -> None:
        self.channel = channel
        self.subject = subject
        self.handler = handler
        self.turns = asyncio.Semaphore(most)
        self.room = Room(most + MOST_QUEUED)
        self.requests = 0
        self.errors = 0
        self.last_error = ""
        self.took_ns = 0

    async def reply(self, message: Msg) -> tuple[bytes, dict[str, str] | None]:
        """Return the reply's body and headers, whatever happens."""
        started_ns = time.perf_counter_ns()
        self.requests += 1
        try:
            return await self.handler(message), None
        except SkelgraphError as error:
            return self._failed(error)
        except Exception:  # a defect; what somebody sends must not end a process that others need
            log.exception("command_failed", subject=message.subject)
            return self._failed(SkelgraphError())
        finally:
            self.took_ns += time.perf_counter_ns() - started_ns

    def full(self) -> tuple[bytes, dict[str, str]]:
        """Return the reply to a command that there is no place for."""
        self.requests += 1
        return self._failed(Busy(f"{self.room.taken} wait here", retry_after_s=FULL_RETRY_S))

    def _failed(self, error: SkelgraphError) -> tuple[bytes, dict[str, str]]:
        self.errors += 1
        self.last_error = error.code
        return error_reply(error)


class Responder:
    """Calls handlers for commands, so that a slow answer keeps no other waiting.

    Args:
        connection: an open connection.
    """

    def __init__(self, connection: Connection) -> None:
        self.endpoints: list[Endpoint] = []
        self._connection = connection
        self._subscriptions: list[Subscription] = []
        self._answering: set[asyncio.Task[None]] = set()

    async def answer(
        self, channel: Channel, handler: Handler, *, most: int = MOST, tenants: bool = False
    ) -> None:
        """Answer the commands of `channel` with what `handler` returns, from now on.

        Args:
            channel: names the subject and the queue group.
            handler: returns the reply, or raises a `SkelgraphError`.
            most: how many are answered at once.
            tenants: answer those that arrive from tenants' accounts too.
        """
        subjects = [channel.pattern, *([of_tenant(channel.pattern)] if tenants else [])]
        for subject in subjects:
            endpoint = Endpoint(channel, subject, handler, most)
            self.endpoints.append(endpoint)
            self._subscriptions.append(
                await self._connection.subscribe(
                    subject, partial(self._heard, endpoint), queue=channel.queue or ""
                )
            )

    async def close(self, limit_s: float) -> None:
        """Take no more commands, and return when those at hand are answered, or after `limit_s`."""
        await _unsubscribe(self._subscriptions)
        if self._answering:
            await asyncio.wait(self._answering, timeout=limit_s)

    async def _heard(self, endpoint: Endpoint, message: Msg) -> None:
        if message.reply and not may_take_replies(message.reply):
            log.warning("command_refused", subject=message.subject, reply=message.reply)
            return
        owner, _ = split_tenant(message.subject)
        if not endpoint.room.take(owner):
            await self._reply(message, *endpoint.full())
            return
        task = asyncio.create_task(self._answer(endpoint, message), name=message.subject)
        self._answering.add(task)
        task.add_done_callback(partial(self._answered, endpoint, owner))

    async def _answer(self, endpoint: Endpoint, message: Msg) -> None:
        async with endpoint.turns:
            data, headers = await endpoint.reply(message)
        if len(data) > self._connection.max_payload_bytes:
            data, headers = error_reply(MessageTooLarge(f"the reply has {len(data)} bytes"))
        await self._reply(message, data, headers)

    async def _reply(self, message: Msg, data: bytes, headers: dict[str, str] | None) -> None:
        if message.reply:
            await self._connection.publish(message.reply, data, headers=headers)

    def _answered(self, endpoint: Endpoint, owner: str, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        endpoint.room.leave(owner)
        if not task.cancelled() and (error := task.exception()):
            log.error("reply_failed", subject=task.get_name(), exc_info=error)


def error_reply(error: SkelgraphError) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers that say what is wrong."""
    # A field's name is the caller's text: no control character may end the header's line.
    said = "".join(char if char.isprintable() else " " for char in error.message)
    headers = {
        Header.SERVICE_ERROR.value: said[:MAX_ERROR_CHARS],
        Header.SERVICE_ERROR_CODE.value: error.code,
    }
    return encode(ErrorInfo.of(error)), headers


async def _unsubscribe(subscriptions: Sequence[Subscription]) -> None:
    for subscription in subscriptions:
        try:
            await subscription.unsubscribe()
        except nats.errors.Error as error:  # the connection may be gone
            log.info("unsubscribe_failed", subject=subscription.subject, error=str(error))
