"""From a request to its skeleton: each node is published when its line is complete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog

from proto.codec import decode_request
from proto.errors import (
    Busy,
    Cancelled,
    DeadlineExceeded,
    EngineError,
    EngineRejected,
    InvalidRequest,
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
)
from proto.names import DIRECT_NODE, Pool, check_request_id, request_of, requeued_id, tenant_of
from services.planner.admission import CROWDED_RETRY_S, Admission
from services.planner.draft import Draft
from services.planner.saturation import is_saturated
from services.planner.writer import PlanWriter
from services.runtime import metrics, tracing
from services.runtime.facts import EventLog
from services.runtime.pool_load import PoolLoad
from services.runtime.pull import Delivery
from services.runtime.stops import Stops
from services.runtime.work import MAX_DELIVERIES, Job

log = structlog.get_logger()


class Planner:
    """Plans requests.

    Args:
        events: where the skeletons go.
        writer: has the plans written.
        stops: ends planning that is of no more use.
        admission: refuses what is over capacity.
        loads: what each pool has and what waits for it.
    """

    def __init__(
        self,
        events: EventLog,
        writer: PlanWriter,
        stops: Stops,
        admission: Admission,
        loads: Callable[[], Mapping[Pool, PoolLoad]],
    ) -> None:
        self._events = events
        self._writer = writer
        self._stops = stops
        self._admission = admission
        self._loads = loads

    async def handle(self, job: Job) -> None:
        """Take a request up, plan it, and store that its plan is complete."""
        delivery = job.delivery
        request, headers = request_of(delivery.subject), delivery.trace
        metrics.REQUEST_QUEUED_S.observe(max(0.0, job.received_at - delivery.stored_at))
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
        # To wait is not to be worked on: who waits for long comes again now and then.
        if delivery.times > MAX_DELIVERIES and await self._events.knows(request):
            raise WorkerLost(f"{delivery.times} deliveries")
        # One that comes again may have been accepted, and then it is never refused; nor is one
        # that an operator requeued: it was accepted once, and its dead letters are gone.
        busy = self._admission.refusal() if delivery.times == 1 else None
        if busy and not await self._was_requeued(request, submitted):
            raise busy
        return submitted

    async def refuse(self, delivery: Delivery) -> None:
        """End the latest request of the owner that has the most of all who wait."""
        request = request_of(delivery.subject)
        if _may_name_facts(request):
            busy = Busy("too many requests of this owner wait", retry_after_s=CROWDED_RETRY_S)
            await self._turn_away(request, busy, delivery.trace)

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
        metrics.PLANS.labels(plan.mode, plan.reason).inc()
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
        if not draft.lines and is_saturated(draft.accepted.submitted, self._loads()):
            return _direct(draft, reason="gate", saturated=True)
        try:
            await self._writer.write(draft)
        except EngineRejected:
            raise
        except EngineError as error:
            log.warning("plan_given_up", code=error.code, error=error.message)
            return _direct(draft, reason="no_planner")
        return draft.completed()

    async def _refuse(self, request: str, error: SkelgraphError, headers: dict[str, str]) -> None:
        end = RequestFailed(request=request, error=ErrorInfo.of(error))
        tracing.current().fail(error.code)
        await self._events.append(end, headers=headers)
        log.warning("request_refused", code=error.code, error=error.message)


def owner_of(delivery: Delivery) -> str:
    """Return whose a request is; of one that is not valid nobody's."""
    try:
        return decode_request(request_of(delivery.subject), delivery.data).owner
    except (InvalidRequest, RequestTooLarge):
        return ""


def _direct(draft: Draft, **why: object) -> PlanCompleted:
    update = {"mode": "direct", "nodes": (DIRECT_NODE,), **why}
    plan: PlanCompleted = draft.completed().model_copy(update=update)
    return plan


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
