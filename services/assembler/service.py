"""The commands that assemblers answer, whatever partition they concern."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from nats.aio.msg import Msg
from pydantic import BaseModel

from proto.codec import decode, encode
from proto.errors import Cancelled, InvalidRequest, UnknownRequest
from proto.messages import (
    CancelOutcome,
    CancelRequest,
    DropLetter,
    ErrorInfo,
    ListLetters,
    RequestFailed,
    RequeueLetter,
    Sent,
    ShowLetter,
)
from proto.names import check_request_id, request_of, split_tenant
from services.assembler.ledger import Ledger
from services.assembler.letters import Letters
from services.runtime.client import Client

C = TypeVar("C", bound=Sent)

#: Commands on dead letters that an assembler works on at once.
MOST_LETTER_COMMANDS: Final = 4


class Commands:
    """Answers `CancelRequest`, for any partition.

    Args:
        ledger: stores the end.
        client: tells whose a request is.
    """

    def __init__(self, ledger: Ledger, client: Client) -> None:
        self._ledger = ledger
        self._client = client

    async def cancel(self, message: Msg) -> bytes:
        """Store that the request is cancelled, tell everybody, and return the reply."""
        owner, subject = split_tenant(message.subject)
        request = check_request_id(request_of(subject))
        command = decode(CancelRequest, message.data or b"{}")
        if owner and not await self._is_of(owner, request):
            return encode(CancelOutcome(request=request, outcome="unknown"))
        return encode(await self._cancel(request, command.reason))

    async def _is_of(self, owner: str, request: str) -> bool:
        try:
            _, submitted = await self._client.find(request)
        except (UnknownRequest, InvalidRequest):
            return False
        return submitted is not None and submitted.owner == owner

    async def _cancel(self, request: str, reason: str) -> CancelOutcome:
        if not await self._is_known(request):
            return CancelOutcome(request=request, outcome="unknown")
        failed = RequestFailed(request=request, error=ErrorInfo.of(Cancelled(reason)))
        if await self._ledger.end(failed, {}):
            await self._ledger.stop(request)
        elif not await self._was_cancelled(request):
            return CancelOutcome(request=request, outcome="already_ended")
        return CancelOutcome(request=request, outcome="cancelled")

    async def _was_cancelled(self, request: str) -> bool:
        """Whether it ended by an earlier cancel: to ask twice is as good as once."""
        facts = [stored.fact for stored in await self._ledger.events.read(request)]
        ends = [fact for fact in facts if isinstance(fact, RequestFailed)]
        return any(end.error.code == Cancelled.code for end in ends)

    async def _is_known(self, request: str) -> bool:
        # The queue before the facts: a planner stores a fact before it leaves the queue.
        queued = await self._ledger.is_queued(request)
        return queued or await self._ledger.events.knows(request)


class LetterCommands:
    """Answers the commands on dead letters, a few at once: a page is read from megabytes.

    Args:
        ledger: what an assembler reads and stores with.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._letters = Letters(ledger)
        self._room = asyncio.Semaphore(MOST_LETTER_COMMANDS)

    async def list(self, message: Msg) -> bytes:
        """Return a page of letters."""
        return await self._done(ListLetters, self._letters.page, message)

    async def show(self, message: Msg) -> bytes:
        """Return one letter."""
        return await self._done(ShowLetter, self._letters.show, message)

    async def requeue(self, message: Msg) -> bytes:
        """Do the request of a letter again, and return under which id."""
        return await self._done(RequeueLetter, self._letters.requeue, message)

    async def drop(self, message: Msg) -> bytes:
        """Remove a letter, and return what came of it."""
        return await self._done(DropLetter, self._letters.drop, message)

    async def _done(
        self, kind: type[C], act: Callable[[C], Awaitable[BaseModel]], message: Msg
    ) -> bytes:
        async with self._room:
            return encode(await act(decode(kind, message.data or b"{}")))
