"""The commands that assemblers answer, whatever partition they concern."""

from __future__ import annotations

import asyncio
from typing import Final

from nats.aio.msg import Msg
from pydantic import BaseModel

from proto import names
from proto.codec import decode, encode
from proto.errors import Cancelled, InvalidRequest, SkelgraphError
from proto.messages import (
    CancelOutcome,
    CancelRequest,
    DropLetter,
    ErrorInfo,
    ListLetters,
    RequestFailed,
    RequeueLetter,
    ShowLetter,
)
from proto.names import check_request_id, request_of
from services.assembler.ledger import Ledger
from services.assembler.letters import Letters

#: Commands on dead letters that an assembler works on at once.
MOST_LETTER_COMMANDS: Final = 4


class Commands:
    """Answers `CancelRequest`, for any partition.

    Args:
        ledger: stores the end.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def cancel(self, message: Msg) -> bytes:
        """Store that the request is cancelled, tell everybody, and return the reply."""
        request = request_of(message.subject)
        try:
            check_request_id(request)
            command = decode(CancelRequest, message.data or b"{}")
            return encode(await self._cancel(request, command.reason))
        except SkelgraphError as error:
            return encode(ErrorInfo.of(error))

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

    async def handle(self, message: Msg) -> bytes:
        """Do what is asked and return the reply: an `ErrorInfo` if it cannot be done."""
        try:
            async with self._room:
                return encode(await self._answer(message.subject, message.data or b"{}"))
        except SkelgraphError as error:
            return encode(ErrorInfo.of(error))

    async def _answer(self, subject: str, data: bytes) -> BaseModel:
        match subject:
            case names.LIST_LETTERS:
                return await self._letters.page(decode(ListLetters, data))
            case names.SHOW_LETTER:
                return await self._letters.show(decode(ShowLetter, data))
            case names.REQUEUE_LETTER:
                return await self._letters.requeue(decode(RequeueLetter, data))
            case names.DROP_LETTER:
                return await self._letters.drop(decode(DropLetter, data))
            case _:
                raise InvalidRequest("list, show, requeue and drop are known", field="subject")
