"""A request as its facts tell it, for one who looks at it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from proto.messages import (
    AnswerAssembled,
    NodeDecoded,
    NodeFailed,
    NodePlanned,
    NodeSpec,
    PlanCompleted,
    RequestAccepted,
    RequestFailed,
    SkeletonDrafted,
    SubmitRequest,
)
from proto.names import DIRECT_NODE
from services.gateway.accounts import state_after
from services.gateway.bodies import AttemptError, NodeState, NodeView, OpenState, RequestError
from services.gateway.bodies import RequestView as View
from services.runtime.client import RequestState
from services.runtime.facts import StoredFact

Ending = AnswerAssembled | SkeletonDrafted | RequestFailed


@dataclass
class _Told:
    """The facts of a request by what they are about."""

    accepted: RequestAccepted | None = None
    plan: PlanCompleted | None = None
    end: Ending | None = None
    ended_at: float | None = None
    planned: dict[int, tuple[NodePlanned, float]] = field(default_factory=dict)
    decoded: dict[int, tuple[NodeDecoded, float]] = field(default_factory=dict)
    failed: dict[int, list[NodeFailed]] = field(default_factory=dict)

    def fold(self, stored: StoredFact) -> None:
        match stored.fact:
            case RequestAccepted() as fact:
                self.accepted = fact
            case NodePlanned() as fact:
                self.planned[fact.node.id] = (fact, stored.stored_at)
            case PlanCompleted() as fact:
                self.plan = fact
            case NodeDecoded() as fact:
                self.decoded[fact.node] = (fact, stored.stored_at)
            case NodeFailed() as fact:
                self.failed.setdefault(fact.node, []).append(fact)
            case AnswerAssembled() | SkeletonDrafted() | RequestFailed() as fact:
                self.end, self.ended_at = fact, stored.stored_at


def view(state: RequestState, submitted: SubmitRequest) -> View:
    """Return the request as it stands.

    Args:
        state: what is stored of it.
        submitted: what was asked.
    """
    told = _Told()
    for stored in state.facts:
        told.fold(stored)
    end, accepted = told.end, told.accepted
    answer = end if isinstance(end, AnswerAssembled) else None
    return View(
        id=state.request,
        state=_state(told),
        question=submitted.question,
        asked_mode=submitted.mode,
        mode=answer.mode if answer else told.plan.mode if told.plan else None,
        dry_run=submitted.dry_run,
        max_nodes=submitted.max_nodes,
        submitted_at=accepted.submitted_at if accepted else None,
        deadline_at=accepted.deadline_at if accepted else None,
        ended_at=told.ended_at,
        plan=told.plan,
        nodes=tuple(_node(told, node) for node in _nodes(told)),
        answer=answer.text if answer else None,
        fallback=bool(answer and answer.fallback),
        usage=answer.usage if answer else None,
        timings=answer.timings if answer else None,
        error=_error(end),
        last_event=state.last_seq,
    )


def _error(end: Ending | None) -> RequestError | None:
    if not isinstance(end, RequestFailed):
        return None
    return RequestError(code=end.error.code, message=end.error.message)


def _state(told: _Told) -> OpenState:
    if told.end:
        ended = state_after(told.end)
        return "failed" if ended == "open" else ended
    if told.accepted is None:
        return "queued"
    return "decoding" if told.plan else "planning"


def _nodes(told: _Told) -> list[int]:
    known = {*told.planned, *told.decoded, *told.failed}
    if told.plan and DIRECT_NODE in told.plan.nodes:
        known.add(DIRECT_NODE)
    return sorted(known)


def _node(told: _Told, node: int) -> NodeView:
    planned, decoded = told.planned.get(node), told.decoded.get(node)
    errors = told.failed.get(node, [])
    spec = planned[0].node if planned else NodeSpec(id=node, summary="")
    found: dict[str, object] = {}
    if planned:
        found |= {"line": planned[0].line, "planned_ms": planned[0].planned_ms}
        found["planned_at"] = planned[1]
    if decoded:
        found |= decoded[0].model_dump(include=NodeView.model_fields.keys() - {"node"})
        found["decoded_at"] = decoded[1]
    return NodeView.model_validate(
        {
            **found,
            "node": spec,
            "state": _node_state(told, spec),
            "attempts": len(errors) + bool(decoded),
            "errors": tuple(
                AttemptError(attempt=e.attempt, code=e.error.code, message=e.error.message)
                for e in errors
            ),
        }
    )


def _node_state(told: _Told, spec: NodeSpec) -> NodeState:
    if spec.id in told.decoded:
        return "decoded"
    if told.end:
        return "failed" if spec.id in told.failed else "cancelled"
    if told.plan and spec.id not in told.plan.nodes:
        return "cancelled" if spec.id != DIRECT_NODE else "ready"
    return "ready" if all(need in told.decoded for need in spec.needs) else "waiting"
