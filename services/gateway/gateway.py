"""What the handlers share: submit, find, follow and cancel a request for a caller."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

import structlog

from proto.errors import NotConfirmed, QueueUnavailable, SkelgraphError, UnknownRequest
from proto.messages import CancelOutcome, RequestFailed, SubmitRequest
from proto.names import new_request_id
from services.gateway.accounts import Accounts
from services.gateway.errors import IdempotencyKeyReused
from services.gateway.following import Follower
from services.gateway.idempotency import GENERATIONS, request_id
from services.gateway.keys import Caller, Keys
from services.runtime.client import Client, RequestState

log = structlog.get_logger()

#: How long a cancel is tried again while NATS or the assemblers are away.
CANCEL_FOR_S: Final = 60.0
_CANCEL_PAUSE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may do to this process.

    Args:
        body_bytes: largest body.
        body_timeout_s: how long a body may take to come.
        write_timeout_s: how long a client may take nothing of a stream.
        keep_alive_s: how often a silent stream says that it is there.
        streams: event streams that the owner of a key may have open.
    """

    body_bytes: int
    body_timeout_s: float
    write_timeout_s: float
    keep_alive_s: float
    streams: int


@dataclass(frozen=True, slots=True)
class Found:
    """A request of the caller's, with what is stored of it."""

    state: RequestState
    submitted: SubmitRequest


@dataclass(frozen=True, slots=True)
class Claim:
    """The request that a call means.

    Args:
        request: its id.
        new: it is not stored yet.
        repeatable: the caller can ask for it again, by its idempotency key.
    """

    request: str
    new: bool
    repeatable: bool = False


class Gateway:
    """Requests of callers, over the queue.

    Args:
        client: submits, cancels, reads.
        follower: follows.
        accounts: what each owner has in flight, has used and has asked.
        keys: who may ask.
        limits: what a client may do to this process.
    """

    def __init__(
        self, client: Client, follower: Follower, accounts: Accounts, keys: Keys, limits: Limits
    ) -> None:
        self.client = client
        self.follower = follower
        self.accounts = accounts
        self.keys = keys
        self.limits = limits
        self._cancelling: dict[str, asyncio.Task[None]] = {}

    async def claim(
        self,
        caller: Caller,
        submitted: SubmitRequest,
        idempotency_key: str | None,
        terms: str = "",
    ) -> Claim:
        """Return which request a call means, and count it if it is a new one.

        Args:
            caller: who asks.
            submitted: what for.
            idempotency_key: as the client sent it.
            terms: what else tells a repetition from another call under the same key.

        Raises:
            InvalidRequest: the idempotency key is not valid.
            IdempotencyKeyReused: it stands for another body.
            TooManyRequests: the caller has as many open as it may.
            TokensPerMinute: the caller has used up its tokens.
            QueueUnavailable: NATS does not answer.
        """
        if idempotency_key is None:
            return self._admit(caller, submitted, new_request_id())
        for generation in range(GENERATIONS):
            request = request_id(caller.owner, idempotency_key, generation, terms)
            await self._cancel_ended(request)
            try:
                found = await self.find(caller, request)
            except UnknownRequest:
                return self._admit(caller, submitted, request, repeatable=True)
            if found.submitted != submitted:
                raise IdempotencyKeyReused(field="Idempotency-Key")
            if not isinstance(found.state.end, RequestFailed):
                return Claim(request, new=False, repeatable=True)
        return Claim(request, new=False, repeatable=True)

    def _admit(
        self, caller: Caller, submitted: SubmitRequest, request: str, *, repeatable: bool = False
    ) -> Claim:
        now = time.time()
        self.accounts.admit(caller, request, now, now + submitted.deadline_s)
        return Claim(request, new=True, repeatable=repeatable)

    async def _cancel_ended(self, request: str) -> None:
        """Return when a request that is being cancelled here has ended: nobody may join it."""
        if task := self._cancelling.get(request):
            await asyncio.wait([task])

    async def submit(self, claim: Claim, submitted: SubmitRequest, trace: str | None) -> None:
        """Store a new request for a planner; one that is stored is left alone.

        Raises:
            RequestTooLarge: nothing was sent.
            Busy: the queue is full.
            QueueUnavailable: NATS did not store it in time.
        """
        if not claim.new:
            return
        try:
            await self.client.submit(submitted, claim.request, traceparent=trace)
        except SkelgraphError as error:
            self.accounts.withdraw(claim.request)
            if isinstance(error, NotConfirmed) and not claim.repeatable:  # it may be stored yet
                self.cancel_soon(claim.request, "its caller does not know of it")
            raise
        except asyncio.CancelledError:  # it may have been stored
            self.cancel_soon(claim.request, "the client has gone")
            raise

    async def find(self, caller: Caller, request: str) -> Found:
        """Return a request of the caller's.

        Raises:
            UnknownRequest: there is none of that id, or it is somebody else's.
            InvalidRequest: the id is not valid.
            QueueUnavailable: NATS does not answer.
        """
        state, submitted = await self.client.find(request)
        if submitted is None or submitted.owner != caller.owner:
            raise UnknownRequest(f"{request} was never asked, or so long ago that it is gone")
        return Found(state, submitted)

    async def cancel(self, caller: Caller, request: str, reason: str) -> CancelOutcome:
        """Cancel a request of the caller's; returns when its end is stored.

        Raises:
            UnknownRequest: there is none of that id, or it is somebody else's.
            InvalidRequest: the id is not valid.
            QueueUnavailable: NATS or the assemblers do not answer.
        """
        await self.find(caller, request)
        return await self.client.cancel(request, reason)

    def cancel_soon(self, request: str, reason: str) -> None:
        """Cancel a request that nobody waits for any more, and try again where that fails."""
        if request in self._cancelling:
            return
        task = asyncio.create_task(self._until_cancelled(request, reason), name=f"cancel {request}")
        self._cancelling[request] = task
        task.add_done_callback(lambda done: self._cancelled(request, done))

    async def settled(self) -> None:
        """Return when no cancel is under way."""
        if self._cancelling:
            await asyncio.wait(self._cancelling.values())

    async def _until_cancelled(self, request: str, reason: str) -> None:
        give_up = time.monotonic() + CANCEL_FOR_S
        while True:
            try:
                outcome = await self.client.cancel(request, reason)
            except QueueUnavailable as error:
                if time.monotonic() > give_up:
                    log.error("cancel_given_up", request=request, error=error.message)  # noqa: TRY400
                    return
                await asyncio.sleep(_CANCEL_PAUSE_S)
            else:
                log.info("request_cancelled", request=request, outcome=outcome.outcome)
                return

    def _cancelled(self, request: str, task: asyncio.Task[None]) -> None:
        del self._cancelling[request]
        if not task.cancelled() and (error := task.exception()):
            log.error("cancel_failed", task=task.get_name(), exc_info=error)
