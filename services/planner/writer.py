"""Who writes a plan, and how often it is tried: the calls to the engines of both pools."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final, Protocol

import structlog
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential

from proto.errors import EngineError, EngineTimedOut, PlanRejected
from proto.messages import PlanCall, PlannerPool, Usage
from proto.names import Pool
from services.planner.amend import AmendmentReader, amendment_call
from services.planner.draft import Draft
from services.planner.parser import PlanItem, PlanLimits
from services.planner.prompts import plan_call
from services.planner.reading import PlanReader
from services.runtime.calls import ChatCall, Completion, Engines, EngineStream
from services.runtime.context import fitted

log = structlog.get_logger()

#: Tries at the planning call, with these pauses between them; then the answer is direct.
PLAN_TRIES: Final = 3
PAUSE_S: Final = 0.2
PAUSE_MAX_S: Final = 2.0
#: Chunks after the plan's end that are waited for, for the sake of the usage at their end.
MAX_FURTHER_CHUNKS: Final = 8


class Reader(Protocol):
    """What makes plan items of an engine's reply."""

    def feed(self, text: str) -> list[PlanItem]:
        """Return what `text` completes."""

    def close(self) -> list[PlanItem]:
        """Return what the end of the reply completes."""


class PlanWriter:
    """Has plans written.

    Args:
        engines: of the pools; the large one's at least.
        pool: who writes where the request does not say it.
        amend_timeout_s: how long the large pool may take to amend a draft.
        context_tokens: prompt and reply that the engines take together.
    """

    def __init__(
        self,
        engines: Mapping[Pool, Engines],
        pool: PlannerPool,
        amend_timeout_s: float,
        context_tokens: int,
    ) -> None:
        self._engines = engines
        self._pool = pool
        self._amend_timeout_s = amend_timeout_s
        self._context_tokens = context_tokens

    async def write(self, draft: Draft) -> None:
        """Have the plan of `draft` written, or the rest of it.

        Raises:
            EngineError: no engine wrote one.
            PlanContested: another planner goes on with this plan.
        """
        author = draft.accepted.submitted.planner_pool or self._pool
        if author == "large" or Pool.SMALL not in self._engines:
            await self._until_written(draft, Pool.LARGE)
            return
        try:
            await self._until_written(draft, Pool.SMALL)
        except EngineError as error:
            log.warning("small_plan_given_up", code=error.code, error=error.message)
            await self._until_written(draft, Pool.LARGE)
            return
        if author == "draft" and draft.completed().mode != "direct":
            await self._amend(draft)

    async def _until_written(self, draft: Draft, pool: Pool) -> None:
        tries = AsyncRetrying(
            retry=retry_if_exception(_is_retryable),
            stop=stop_after_attempt(PLAN_TRIES),
            wait=wait_exponential(PAUSE_S, max=PAUSE_MAX_S),
            reraise=True,
        )
        avoid: str | None = None
        async for one in tries:
            with one:
                try:
                    await self._write(draft, pool, avoid)
                except EngineError as error:
                    avoid = draft.calls[-1].endpoint
                    log.warning("planning_failed", code=error.code, error=error.message)
                    raise
        draft.written_by = pool.value

    async def _write(self, draft: Draft, pool: Pool, avoid: str | None) -> None:
        """Ask an engine for the plan, or for the rest of it, and publish it line by line."""
        submitted = draft.accepted.submitted
        call = plan_call(
            submitted.question,
            mode=submitted.mode,
            max_nodes=submitted.max_nodes,
            context=fitted(submitted.context, submitted.question, self._context_tokens),
            done_lines=tuple(draft.lines),
            constrained="grammar" not in submitted.without,
        )
        try:
            limits = PlanLimits(max_nodes=submitted.max_nodes)
            reader = PlanReader(limits, done=tuple(draft.lines))
            draft.written = reader.written
            await self._ask(draft, pool, call, reader, avoid)
        except PlanRejected as error:
            log.warning("plan_rejected", error=error.message)
            draft.ending = "unparsable"

    async def _amend(self, draft: Draft) -> None:
        """Have the large pool amend the draft; where it does not, in time, the draft stands."""
        submitted, ending = draft.accepted.submitted, draft.ending
        reader = AmendmentReader(draft.lines, submitted.max_nodes)
        draft.written = reader.written
        call = amendment_call(
            submitted.question,
            tuple(draft.lines),
            mode=submitted.mode,
            max_nodes=submitted.max_nodes,
            context=fitted(submitted.context, submitted.question, self._context_tokens),
            constrained="grammar" not in submitted.without,
        )
        draft.ending = "cut_off"
        try:
            async with asyncio.timeout(self._amend_timeout_s):
                await self._ask(draft, Pool.LARGE, call, reader, None)
        except (EngineError, PlanRejected, TimeoutError) as error:
            log.warning("draft_not_amended", error=str(error) or "late")
            draft.ending = ending
            return
        draft.written_by = "draft"
        draft.drops = reader.drops
        if reader.verdict == "direct":
            draft.shape = "direct"
        log.info("draft_amended", verdict=reader.verdict, drops=sorted(reader.drops))

    async def _ask(
        self, draft: Draft, pool: Pool, call: ChatCall, reader: Reader, avoid: str | None
    ) -> None:
        """Send a call, publish what is read of its reply, and note what it took."""
        request = draft.accepted.request
        stream = self._engines[pool].stream(call, key=request, avoid=avoid, headers=draft.headers)
        before_ms, started = draft.plan_ms, time.monotonic()
        completion: Completion | None = None
        error = EngineTimedOut.code
        try:
            async with stream:
                completion = await _read(stream, reader, draft, started - before_ms / 1000)
            error = ""
        except (EngineError, PlanRejected) as failure:
            error = failure.code
            raise
        finally:
            asked = PlanCall(
                pool=pool,
                model=completion.model if completion else "",
                endpoint=stream.endpoint,  # it may have gone elsewhere before its first token
                engine_ms=_ms_since(started),
                usage=completion.usage if completion else Usage(),
                error=error,
            )
            draft.calls.append(asked)


async def _read(stream: EngineStream, reader: Reader, draft: Draft, began: float) -> Completion:
    """Take the plan as it is written; what a model writes on after its end is cut short.

    Return how the reply ended.
    """
    further = 0
    async for chunk in stream:
        draft.take(reader.feed(chunk.text), _ms_since(began))
        further += draft.ending == "complete"
        if further > MAX_FURTHER_CHUNKS:
            return stream.so_far()
    draft.take(reader.close(), _ms_since(began))
    return stream.completion


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, EngineError) and error.retryable


def _ms_since(started: float) -> float:
    return (time.monotonic() - started) * 1000
