"""The commands that assemblers answer, whatever partition they concern."""

from __future__ import annotations

from nats.aio.msg import Msg

from proto.codec import decode, encode
from proto.errors import Cancelled, SkelgraphError
from proto.messages import CancelOutcome, CancelRequest, ErrorInfo, RequestFailed
from proto.names import check_request_id, request_of
from services.assembler.ledger import Ledger


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
