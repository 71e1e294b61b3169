"""From a request to its skeleton: each node is published when its line is complete."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import structlog
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential

from proto.codec import decode_request
from proto.errors import (
    Busy,
    Cancelled,
    DeadlineExceeded,
    EngineError,
    EngineRejected,
    InvalidRequest,
    PlanContested,
    PlanRejected,
    RequestTooLarge,
    SkelgraphError,
    WorkerLost,
)
from proto.messages import (
    AnswerAssembled,
    ErrorInfo,
    Fact,
    NodeFailed,
    NodePlanned,
    PlanCompleted,
    RequestAccepted,
    RequestFailed,
    SkeletonDrafted,
    SubmitRequest,
    Usage,
)
from proto.names import DIRECT_NODE, check_request_id, request_of, requeued_id, tenant_of
from services.planner.admission import Admission
from services.planner.gate import Ending, decide, without_needs
from services.planner.parser import PlanItem, PlanLimits, Planned, Shape, ShapeKind
from services.planner.prompts import plan_call
from services.planner.reading import PlanReader
from services.runtime import metrics, tracing
from services.runtime.calls import Engines, EngineStream
from services.runtime.facts import EventLog
from services.runtime.pull import Delivery
from services.runtime.stops import Stops
from services.runtime.work import MAX_DELIVERIES, Job

log = structlog.get_logger()

#: Tries at the planning call, with these pauses between them; then the answer is direct.
PLAN_TRIES: Final = 3
PAUSE_S: Final = 0.2
PAUSE_MAX_S: Final = 2.0
#: Chunks after the plan's end that are waited for, for the sake of the usage at their end.
MAX_FURTHER_CHUNKS: Final = 8


class Draft:
    """A plan as it comes about: its nodes are published while it is still being written.

    Args:
        events: where the nodes go.
        accepted: the request.
        headers: passed on with each fact.
        done: nodes that an earlier planner has published.
    """

    def __init__(
        self,
        events: EventLog,
        accepted: RequestAccepted,
        headers: dict[str, str],
        done: Sequence[NodePlanned],
    ) -> None:
        self.accepted = accepted
        self.headers = headers
        self.shape: ShapeKind | None = "graph" if done else None
        self.ending: Ending = "cut_off"
        self.nodes = [planned.node for planned in done]
        self.written = self.nodes[:]  # with the needs that the model gave them
        self.lines = [planned.line for planned in done]
        self.usage = Usage()
        self.model = self.endpoint = ""
        self.plan_ms = 0.0
        self._events = events
        self._storing: asyncio.Task[None] | None = None

    def take(self, items: Sequence[PlanItem], planned_ms: float) -> None:
        """Publish what is complete.

        Raises:
            PlanContested: another planner goes on with this plan; the model need not.
        """
        if self._storing and self._storing.done():
            self._storing.result()
        for item in items:
            if isinstance(item, Shape):
                self.shape = item.kind
            elif isinstance(item, Planned):
                self._publish(item, planned_ms)
            else:
                self.ending = "cut_off" if item.cut_off else "complete"

    async def stored(self) -> None:
        """Return when all published nodes are stored.

        Raises:
            PlanContested: another planner has published a node of ours before us.
        """
        if self._storing:
            await self._storing

    async def settled(self) -> None:
        """Return when nothing is being stored any more, whatever came of it."""
        if self._storing:
            await asyncio.gather(self._storing, return_exceptions=True)

    def completed(self) -> PlanCompleted:
        """Return the plan as it has ended."""
        decision = decide(self.accepted.submitted.mode, self.shape, self.written, self.ending)
        return PlanCompleted(
            request=self.accepted.request,
            mode=decision.mode,
            reason=decision.reason,
            nodes=decision.nodes,
            model=self.model,
            endpoint=self.endpoint,
            plan_ms=self.plan_ms,
            usage=self.usage,
        )

    def _publish(self, item: Planned, planned_ms: float) -> None:
        submitted = self.accepted.submitted
        alone = submitted.mode == "sot" or "needs" in submitted.without
        node = without_needs(item.node) if alone else item.node
        planned = NodePlanned(
            request=self.accepted.request, node=node, line=item.line, planned_ms=planned_ms
        )
        self.nodes.append(node)
        self.lines.append(item.line)
        name = f"planned {planned.request}/{node.id}"
        self._storing = asyncio.create_task(self._store(planned, self._storing), name=name)
        log.info("node_planned", node=node.id, needs=node.needs, difficulty=node.difficulty)

    async def _store(self, planned: NodePlanned, before: asyncio.Task[None] | None) -> None:
        """Store a node after the one before it: whoever takes over finds no gap."""
        if before:
            await before
        if not await self._events.append(planned, headers=self.headers):
            raise PlanContested(f"node {planned.node.id}")


class Planner:
    """Plans requests.

    Args:
        events: where the skeletons go.
        engines: the large pool's engines.
        stops: ends planning that is of no more use.
        admission: refuses what is over capacity.
    """

    def __init__(
        self, events: EventLog, engines: Engines, stops: Stops, admission: Admission
    ) -> None:
        self._events = events
        self._engines = engines
        self._stops = stops
        self._admission = admission

    async def handle(self, job: Job) -> None:
        """Take a request up, plan it, and store that its plan is complete."""
        delivery = job.delivery
        request, headers = request_of(delivery.subject), delivery.trace
        with (
            structlog.contextvars.bound_contextvars(request=request),
            tracing.handling("plan", job, request),
        ):
            if not _may_name_facts(request):
                return
            try:
                submitted = await self._admitted(request, delivery)
            except (InvalidRequest, RequestTooLarge, Busy, WorkerLost) as error:
                await self._turn_away(request, error, headers)
                return
            accepted = RequestAccepted(
                request=request,
                submitted=submitted,
                submitted_at=delivery.stored_at,
                deadline_at=delivery.stored_at + submitted.deadline_s,
            )
            await self._take_up(accepted, headers)

    async def _admitted(self, request: str, delivery: Delivery) -> SubmitRequest:
        submitted = decode_request(request, delivery.data)
        if delivery.times > MAX_DELIVERIES:
            raise WorkerLost(f"{delivery.times} deliveries")
        # One that comes again may have been accepted, and then it is never refused; nor is one
        # that an operator requeued: it was accepted once, and its dead letters are gone.
        busy = self._admission.refusal() if delivery.times == 1 else None
        if busy and not await self._was_requeued(request, submitted):
            raise busy
        return submitted

    async def _was_requeued(self, request: str, submitted: SubmitRequest) -> bool:
        """Whether a request that calls itself requeued is: the old one failed in a node, and ended.

        One request that failed lets one pass, under the one id that follows from the old one.
        Of a letter whose facts are no longer kept a tenant's word is not enough.
        """
        old = submitted.requeued_from
        if old is None or request != requeued_id(old):
            return False
        facts = [stored.fact for stored in await self._events.read(old)]
        if not facts:
            return not tenant_of(request)
        died = any(isinstance(fact, NodeFailed) for fact in facts)
        return died and any(isinstance(fact, AnswerAssembled | RequestFailed) for fact in facts)

    async def _turn_away(
        self, request: str, error: SkelgraphError, headers: dict[str, str]
    ) -> None:
        """End a request that is not taken up; one that is open under its id goes on."""
        if not isinstance(error, WorkerLost) and await self._events.knows(request):
            log.warning("duplicate_dropped", code=error.code, error=error.message)
            return
        metrics.REQUESTS_REFUSED.labels(error.code).inc()
        await self._refuse(request, error, headers)

    async def _take_up(self, accepted: RequestAccepted, headers: dict[str, str]) -> None:
        facts: list[Fact] = []
        if await self._events.append(accepted, headers=headers):
            self._admission.let_in()
            log.info("request_accepted", mode=accepted.submitted.mode)
            if await self._events.has_ended(accepted.request):
                log.info("request_ended_before")  # cancelled while it was queued
                return
        else:
            facts = [stored.fact for stored in await self._events.read(accepted.request)]
            accepted = next((f for f in facts if isinstance(f, RequestAccepted)), accepted)
        if any(_ends_planning(fact) for fact in facts):
            log.info("request_planned_before")
            return
        draft = Draft(self._events, accepted, headers, _without_gap(facts))
        try:
            await self._stops.run(
                self._plan(draft),
                request=accepted.request,
                node=None,
                deadline_at=accepted.deadline_at,
            )
        except (Cancelled, DeadlineExceeded) as error:
            log.info("planning_stopped", code=error.code)
        finally:
            await draft.settled()

    async def _plan(self, draft: Draft) -> None:
        try:
            plan = await self._written(draft)
        except EngineRejected as error:
            await self._refuse(draft.accepted.request, error, draft.headers)
            return
        await draft.stored()
        await self._events.append(plan, headers=draft.headers)
        tracing.current().note(mode=plan.mode, reason=plan.reason, nodes=len(plan.nodes))
        metrics.PLAN_S.labels(plan.mode).observe(plan.plan_ms / 1000)
        metrics.PLANNED_NODES.labels(plan.mode).observe(len(plan.nodes))
        metrics.count_tokens(
            "planner",
            plan.usage.prompt_tokens,
            plan.usage.cached_tokens,
            plan.usage.generated_tokens,
        )
        log.info(
            "plan_completed",
            mode=plan.mode,
            reason=plan.reason,
            nodes=len(plan.nodes),
            plan_ms=round(plan.plan_ms),
        )

    async def _written(self, draft: Draft) -> PlanCompleted:
        """Return the plan; without an engine that writes one the answer is direct."""
        if draft.accepted.submitted.mode == "direct":
            draft.ending = "complete"
            return draft.completed()
        try:
            await self._until_written(draft)
        except EngineRejected:
            raise
        except EngineError as error:
            log.warning("plan_given_up", code=error.code, error=error.message)
            direct: PlanCompleted = draft.completed().model_copy(
                update={"mode": "direct", "reason": "no_planner", "nodes": (DIRECT_NODE,)}
            )
            return direct
        return draft.completed()

    async def _until_written(self, draft: Draft) -> None:
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
                    await self._write(draft, avoid)
                except EngineError as error:
                    avoid = draft.endpoint
                    log.warning("planning_failed", code=error.code, error=error.message)
                    raise

    async def _write(self, draft: Draft, avoid: str | None) -> None:
        """Ask the engine for the plan, or for the rest of it, and publish it line by line."""
        submitted = draft.accepted.submitted
        call = plan_call(
            submitted.question,
            mode=submitted.mode,
            max_nodes=submitted.max_nodes,
            context=submitted.context,
            done_lines=tuple(draft.lines),
            constrained="grammar" not in submitted.without,
        )
        stream = self._engines.stream(
            call, key=draft.accepted.request, avoid=avoid, headers=draft.headers
        )
        draft.endpoint = stream.endpoint
        started = time.monotonic()
        try:
            limits = PlanLimits(max_nodes=submitted.max_nodes)
            reader = PlanReader(limits, done=tuple(draft.lines))
            draft.written = reader.written
            async with stream:
                await _read(stream, reader, draft, started)
        except PlanRejected as error:
            log.warning("plan_rejected", error=error.message)
            draft.ending = "unparsable"
        finally:
            draft.endpoint = stream.endpoint  # it may have gone elsewhere before its first token
            draft.plan_ms += _ms_since(started)

    async def _refuse(self, request: str, error: SkelgraphError, headers: dict[str, str]) -> None:
        end = RequestFailed(request=request, error=ErrorInfo.of(error))
        tracing.current().fail(error.code)
        await self._events.append(end, headers=headers)
        log.warning("request_refused", code=error.code, error=error.message)


async def _read(stream: EngineStream, reader: PlanReader, draft: Draft, started: float) -> None:
    """Take the plan as it is written; what a model writes on after its end is cut short."""
    further = 0
    async for chunk in stream:
        draft.take(reader.feed(chunk.text), _ms_since(started))
        further += draft.ending == "complete"
        if further > MAX_FURTHER_CHUNKS:
            return
    draft.take(reader.close(), _ms_since(started))
    draft.usage, draft.model = stream.completion.usage, stream.completion.model


def _without_gap(facts: Sequence[Fact]) -> list[NodePlanned]:
    """Return the planned nodes from the first, up to one that is missing."""
    planned = {fact.node.id: fact for fact in facts if isinstance(fact, NodePlanned)}
    done: list[NodePlanned] = []
    while following := planned.get(len(done) + 1):
        done.append(following)
    return done


def _may_name_facts(request: str) -> bool:
    """Whether `request` can be answered at all: no fact can be stored under a bad id."""
    try:
        check_request_id(request)
    except InvalidRequest as error:
        log.warning("request_dropped", code=error.code, error=error.message)
        return False
    return True


def _ends_planning(fact: Fact) -> bool:
    return isinstance(fact, PlanCompleted | AnswerAssembled | SkeletonDrafted | RequestFailed)


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, EngineError) and error.retryable


def _ms_since(started: float) -> float:
    return (time.monotonic() - started) * 1000
