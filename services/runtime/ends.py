"""Waiting for a request's end, however that becomes known.

Whoever stores an end publishes it, and NATS hands what is published to those that listen on core
NATS too. That is the word to look into the event log; what stands there is the truth. Because
core NATS may lose a word, the log is looked at every few seconds as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import nats.errors
import structlog
from nats.aio.msg import Msg

from proto.errors import QueueUnavailable
from services.runtime.connection import Connection
from services.runtime.facts import EventLog

log = structlog.get_logger()

#: How often the log is looked at without a word.
LOOK_EVERY_S: Final = 10.0
#: After a word the end may not be stored yet, or the replica that is asked may lag behind.
SOON_S: Final = 0.02
SOON_TRIES: Final = 6


class Ends:
    """Hands out ends to those that wait for them.

    Args:
        connection: an open connection.
        events: the event log.
    """

    def __init__(self, connection: Connection, events: EventLog) -> None:
        self._connection = connection
        self._events = events
        self._words: set[asyncio.Event] = set()
        self._closed = False
        connection.on_reconnect(self._stir_all)

    async def wait(self, request: str, limit_s: float) -> bytes | None:
        """Return the end of `request` as it is stored; None after `limit_s`, or if we close."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s), self._listening(request) as word:
                return await self._until_ended(request, word)
        return None

    def close(self) -> None:
        """Let nobody wait any longer: this process ends."""
        self._closed = True
        self._stir_all()

    async def _until_ended(self, request: str, word: asyncio.Event) -> bytes | None:
        tries = SOON_TRIES  # the first look has no word
        while not self._closed:
            word.clear()
            if end := await self._look(request):
                return end
            if tries < SOON_TRIES:
                await asyncio.sleep(SOON_S * 2**tries)
                tries += 1
            elif await _comes(word):
                tries = 0
        return None

    async def _look(self, request: str) -> bytes | None:
        try:
            return await self._events.read_end(request)
        except QueueUnavailable as error:
            log.info("look_for_end_failed", request=request, error=error.message)
            return None

    @contextlib.asynccontextmanager
    async def _listening(self, request: str) -> AsyncIterator[asyncio.Event]:
        word = asyncio.Event()

        async def heard(_: Msg) -> None:
            word.set()

        subject = self._events.subjects.end(request)
        subscription = await self._connection.subscribe(subject, heard)
        self._words.add(word)
        try:
            yield word
        finally:
            self._words.discard(word)
            with contextlib.suppress(nats.errors.Error):  # the connection may be gone
                await subscription.unsubscribe()

    def _stir_all(self) -> None:
        for word in self._words:
            word.set()


async def _comes(word: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(LOOK_EVERY_S):
            await word.wait()
    except TimeoutError:
        return False
    return True
