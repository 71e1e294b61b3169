"""The commands that assemblers answer, whatever partition they concern."""

from __future__ import annotations

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


class Commands:
    """Answers `CancelRequest`, for any partition.

    Args:
        ledger: stores the end.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def cancel(self, message: Msg) -> None:
        """Store that the request is cancelled, tell everybody, and reply."""
        request = request_of(message.subject)
        try:
            check_request_id(request)
            command = decode(CancelRequest, message.data or b"{}")
            reply = encode(await self._cancel(request, command.reason))
        except SkelgraphError as error:
            reply = encode(ErrorInfo.of(error))
        if message.reply:
            await self._ledger.connection.publish(message.reply, reply)

    async def _cancel(self, request: str, reason: str) -> CancelOutcome:
        if not await self._is_known(request):
            return CancelOutcome(request=request, outcome="unknown")
        failed = RequestFailed(request=request, error=ErrorInfo.of(Cancelled(reason)))
        if not await self._ledger.end(failed, {}):
            return CancelOutcome(request=request, outcome="already_ended")
        await self._ledger.stop(request)
        return CancelOutcome(request=request, outcome="cancelled")

    async def _is_known(self, request: str) -> bool:
        return bool(await self._ledger.events.read(request)) or await self._ledger.is_queued(
            request
        )


class LetterCommands:
    """Answers the commands on dead letters, one after another.

    Args:
        ledger: what an assembler reads and stores with.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._connection = ledger.connection
        self._letters = Letters(ledger)

    async def handle(self, message: Msg) -> None:
        """Do what is asked and reply, with an `ErrorInfo` if it cannot be done."""
        try:
            reply = encode(await self._answer(message.subject, message.data or b"{}"))
        except SkelgraphError as error:
            reply = encode(ErrorInfo.of(error))
        if message.reply:
            await self._connection.publish(message.reply, reply)

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
