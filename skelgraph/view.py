"""The graph of one request as a person watches it: a fold of facts and previews into rows.

Pure: no clock, no terminal. What a node is doing is derived from all that is known of it,
so that the order in which previews and facts arrive does not matter. Instants are seconds
since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from proto.messages import (
    AnswerAssembled,
    Fact,
    NodeDecoded,
    NodeFailed,
    NodePlanned,
    NodeReleased,
    NodeReset,
    NodeSpec,
    NodeStarted,
    PlanCompleted,
    PlannerPool,
    Preview,
    RequestAccepted,
    RequestFailed,
    SkeletonDrafted,
    TokensDecoded,
)
from proto.names import DIRECT_NODE, Pool
from skelgraph.rows import NodeState, Picture, Row


@dataclass
class Node:
    """What is known of one node."""

    spec: NodeSpec | None = None
    released_at: float | None = None
    started_at: float | None = None
    attempt: int = 1
    pool: Pool | None = None
    tokens: int = 0
    counted_from: int = 0  # tokens that were there when we began to listen
    decoded: NodeDecoded | None = None
    decoded_at: float = 0.0
    failures: dict[int, NodeFailed] = field(default_factory=dict)

    @property
    def last_failure(self) -> NodeFailed | None:
        """The failure of its last failed attempt."""
        return self.failures[max(self.failures)] if self.failures else None


Ending = AnswerAssembled | SkeletonDrafted | RequestFailed


class Dag:
    """The fold.

    Args:
        request: the request's id.
        begun_at: when it was asked; replaced by what NATS says.
    """

    def __init__(self, request: str, begun_at: float) -> None:
        self.request = request
        self.begun_at = begun_at
        self.accepted: RequestAccepted | None = None
        self.accepted_at: float | None = None
        self.plan: PlanCompleted | None = None
        self.plan_at = 0.0
        self.end: Ending | None = None
        self.end_at = 0.0
        self.nodes: dict[int, Node] = {}

    def fold(self, event: Fact | Preview, at: float) -> None:
        """Take in `event`, which was stored or heard at `at`."""
        match event:
            case RequestAccepted():
                self.accepted, self.accepted_at = event, at
                self.begun_at = event.submitted_at
            case PlanCompleted():
                self.plan, self.plan_at = event, at
            case NodePlanned():
                self._node(event.node.id).spec = event.node
            case NodeDecoded():
                node = self._node(event.node)
                node.decoded, node.decoded_at = event, at
            case NodeFailed():
                self._fail(self._node(event.node), event)
            case AnswerAssembled() | SkeletonDrafted() | RequestFailed():
                self.end, self.end_at = event, at
            case _:
                self._fold_preview(self._node(event.node), event, at)

    def picture(self, now: float) -> Picture:
        """Return what is to be seen at `now`."""
        until = self.end_at if self.end else now
        rows = tuple(self._row(node, until) for node in sorted(self.nodes) if self._shown(node))
        return Picture(self.request, max(0.0, until - self.begun_at), self._plan_row(until), rows)

    def state(self, number: int) -> NodeState:
        """Return what a node is doing."""
        node = self.nodes[number]
        if self._is_unused(number):
            return NodeState.SKIPPED
        if node.decoded:
            return NodeState.DONE
        if self.end and not isinstance(self.end, SkeletonDrafted):
            return self._state_at_end(node)
        if node.failures and not all(one.error.retryable for one in node.failures.values()):
            return NodeState.FAILED
        if node.started_at is not None:
            return NodeState.RUNNING
        if node.failures:
            return NodeState.RETRY
        return self._state_before(number, node)

    def waits_for(self, number: int) -> tuple[int, ...]:
        """Return the nodes that a node needs and that are not done."""
        spec = self.nodes[number].spec
        needs = spec.needs if spec else ()
        return tuple(need for need in needs if not self._is_decoded(need))

    def _state_before(self, number: int, node: Node) -> NodeState:
        waits_for = self.waits_for(number)
        lost = {NodeState.FAILED, NodeState.SKIPPED}
        if any(need in self.nodes and self.state(need) in lost for need in waits_for):
            return NodeState.SKIPPED
        if node.released_at is not None:
            return NodeState.QUEUED
        dry = self.accepted is not None and self.accepted.submitted.dry_run
        is_due = not waits_for and (node.spec or number == DIRECT_NODE) and not dry
        return NodeState.QUEUED if is_due else NodeState.PENDING

    def _state_at_end(self, node: Node) -> NodeState:
        if node.failures and node.started_at is None:
            return NodeState.FAILED
        if isinstance(self.end, AnswerAssembled):
            return NodeState.SKIPPED
        return NodeState.CANCELLED

    def _is_unused(self, number: int) -> bool:
        if isinstance(self.end, AnswerAssembled):
            used = {report.node.id for report in self.end.nodes}
            return number not in used and not self.nodes[number].failures
        if self.plan is None:
            return False
        return number not in (*self.plan.nodes, DIRECT_NODE)

    def _is_decoded(self, number: int) -> bool:
        return number in self.nodes and self.nodes[number].decoded is not None

    def _shown(self, number: int) -> bool:
        node = self.nodes[number]
        # A preview may be faster than the fact that plans its node.
        return node.spec is not None or number == DIRECT_NODE

    def _node(self, number: int) -> Node:
        return self.nodes.setdefault(number, Node())

    def _fail(self, node: Node, failed: NodeFailed) -> None:
        node.failures.setdefault(failed.attempt, failed)
        if node.attempt <= failed.attempt:
            self._begin(node, failed.attempt + 1)

    def _begin(self, node: Node, attempt: int) -> None:
        node.attempt = attempt
        node.started_at = node.released_at = None
        node.tokens = node.counted_from = 0

    def _fold_preview(self, node: Node, event: Preview, at: float) -> None:
        if event.attempt < node.attempt:
            return
        if event.attempt > node.attempt:
            self._begin(node, event.attempt)
        match event:
            case NodeReleased():
                node.released_at, node.pool = at, event.pool
            case NodeStarted():
                self._begin(node, event.attempt)
                node.started_at, node.pool = at, event.pool
            case TokensDecoded():
                if node.started_at is None:
                    node.started_at, node.counted_from = at, event.tokens
                node.tokens = max(node.tokens, event.tokens)
            case NodeReset():
                self._begin(node, event.attempt + 1)

    def _row(self, number: int, now: float) -> Row:
        node, state = self.nodes[number], self.state(number)
        spec = node.spec or NodeSpec(id=number, summary="the whole answer")
        time_s, rate = _time_and_rate(node, state, now)
        return Row(
            label=str(number),
            summary=spec.summary,
            state=state,
            waits_for=self.waits_for(number),
            needs=spec.needs,
            pool=node.decoded.pool if node.decoded else node.pool,
            time_s=time_s,
            tokens=node.decoded.usage.generated_tokens if node.decoded else node.tokens,
            rate=rate,
            note=_note(node, state),
        )

    def _plan_row(self, now: float) -> Row:
        lines = sum(node.spec is not None for node in self.nodes.values())
        if self.plan:
            return _planned_row(self.plan)
        if self.end:
            return Row(label="plan", summary="no plan", state=NodeState.CANCELLED)
        if self.accepted_at is None:
            waited_s = max(0.0, now - self.begun_at)
            said = "waiting for a planner"
            return Row(label="plan", summary=said, state=NodeState.QUEUED, time_s=waited_s)
        return Row(
            label="plan",
            summary=f"planning… {lines} line{'' if lines == 1 else 's'}",
            state=NodeState.RUNNING,
            pool=_author(self.accepted.submitted.planner_pool if self.accepted else None),
            time_s=max(0.0, now - self.accepted_at),
        )


def _planned_row(plan: PlanCompleted) -> Row:
    return Row(
        label="plan",
        summary=f"{plan.mode} ({plan.why})",
        state=NodeState.DONE,
        pool=_author(plan.written_by) if plan.plan_ms else None,
        time_s=plan.plan_ms / 1000,
        tokens=plan.usage.generated_tokens,
    )


def _author(planner_pool: PlannerPool | None) -> Pool:
    return Pool.LARGE if planner_pool in {None, "large"} else Pool.SMALL


def _time_and_rate(node: Node, state: NodeState, now: float) -> tuple[float | None, float | None]:
    if node.decoded:
        return node.decoded.decode_ms / 1000, None
    if state is NodeState.RUNNING and node.started_at is not None:
        time_s = max(0.0, now - node.started_at)
        new_tokens = node.tokens - node.counted_from
        return time_s, new_tokens / time_s if time_s > 0 and new_tokens else None
    if state is NodeState.QUEUED and node.released_at is not None:
        return max(0.0, now - node.released_at), None
    return None, None


def _note(node: Node, state: NodeState) -> str:
    failure = node.last_failure
    attempt = f"try {node.attempt}" if node.attempt > 1 else ""
    if state is NodeState.FAILED and failure:
        return failure.error.code
    if state is NodeState.RETRY and failure:
        return f"{attempt}: {failure.error.code.removeprefix('engine_')}"
    if state is NodeState.DONE and node.decoded:
        return f"try {node.decoded.attempt}" if node.decoded.attempt > 1 else ""
    return attempt if state in {NodeState.RUNNING, NodeState.QUEUED} else ""
