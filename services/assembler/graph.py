"""The graph of one request: a fold of its facts, and what follows from them.

Pure: no clock, no I/O. Folding a fact twice changes nothing, and the end is the same
in whatever order the facts come. A fold costs as much as the node has dependants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from proto.messages import (
    DecodeNode,
    ErrorInfo,
    Fact,
    FailedAttempt,
    NodeDecoded,
    NodeFailed,
    NodePlanned,
    NodeSpec,
    NodeText,
    PlanCompleted,
    RequestAccepted,
    ResolvedMode,
    SubmitRequest,
)
from proto.names import DIRECT_NODE, Band, Pool, is_joint, joint_before
from services.assembler.expected import Expected
from services.assembler.joints import head, joined, tail
from services.assembler.plan_joints import PlanJoints

#: A fact's place in a request: its kind, and node and attempt where it has them.
Key = tuple[str, int, int]

DIRECT_SPEC: Final = NodeSpec(id=DIRECT_NODE, summary="", difficulty="hard")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a failed node is tried again.

    The first retry is at once (on another endpoint, where there is one); the later ones
    wait `backoff_s`, doubled each time. After `escalate_after` failures in the small pool
    the node goes to the large one.
    """

    max_attempts: int = 4
    escalate_after: int = 2
    backoff_s: float = 0.5

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after `failures` failures."""
        return self.backoff_s * float(2 ** (failures - 2)) if failures > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Release:
    """Work for a pool, after `delay_s`; `escalated` if its last attempt was in another one."""

    work: DecodeNode
    band: Band
    delay_s: float = 0.0
    escalated: bool = False


@dataclass(frozen=True, slots=True)
class Dead:
    """A node that failed for good."""

    work: DecodeNode
    history: tuple[FailedAttempt, ...]
    submitted: SubmitRequest

    @property
    def error(self) -> ErrorInfo:
        """Why its last attempt failed."""
        return self.history[-1].error


def key_of(fact: Fact) -> Key:
    """Return the place of `fact` in its request; the first fact of a place holds it."""
    match fact:
        case NodePlanned():
            return ("planned", fact.node.id, 0)
        case NodeDecoded():
            return ("decoded", fact.node, 0)
        case NodeFailed():
            return ("failed", fact.node, fact.attempt)
        case RequestAccepted():
            return ("accepted", 0, 0)
        case PlanCompleted():
            return ("plan", 0, 0)
        case _:
            return ("end", 0, 0)


@dataclass
class Graph:
    """The facts of one request, and the state that follows from them.

    Args:
        request: the request's id.
        policy: how failed nodes are retried.
    """

    request: str
    policy: RetryPolicy = RetryPolicy()
    accepted: RequestAccepted | None = None
    plan: PlanCompleted | None = None
    planned: dict[int, NodePlanned] = field(default_factory=dict)
    decoded: dict[int, NodeDecoded] = field(default_factory=dict)
    failures: dict[int, dict[int, NodeFailed]] = field(default_factory=dict)
    #: When each fact was stored, in seconds since the epoch.
    stored_at: dict[Key, float] = field(default_factory=dict)
    ended: bool = False
    _missing: dict[int, int] = field(default_factory=dict)  # node → needs not decoded yet
    _dependants: dict[int, list[int]] = field(default_factory=dict)
    _candidates: list[int] = field(default_factory=list)  # nodes to look at again
    _released: set[tuple[int, int]] = field(default_factory=set)
    _used: frozenset[int] = frozenset()  # nodes of the plan, once that is complete
    _awaited: set[int] = field(default_factory=set)  # those of them without line or text
    _superfluous: set[int] = field(default_factory=set)
    _lines: tuple[str, ...] | None = None
    _buried: set[int] = field(default_factory=set)
    _joints: PlanJoints = field(default_factory=PlanJoints)
    _expected: Expected = field(default_factory=Expected)

    def fold(self, fact: Fact, stored_at: float) -> bool:
        """Take `fact` in; return False if its place was taken already."""
        key = key_of(fact)
        if key in self.stored_at:
            return False
        self.stored_at[key] = stored_at
        match fact:
            case RequestAccepted():
                self.accepted = fact
                self._expected.limited(fact.submitted.sampling.max_tokens)
                self._candidates.extend(self.planned)
                self._candidates.append(DIRECT_NODE)
            case NodePlanned():
                self._fold_planned(fact)
            case PlanCompleted():
                self._fold_plan(fact)
            case NodeDecoded():
                self._fold_decoded(fact)
            case NodeFailed():
                self.failures.setdefault(fact.node, {})[fact.attempt] = fact
                self._candidates.append(fact.node)
                self._look_at_joints(fact.node)
            case _:
                self.ended = True
        return True

    def _fold_plan(self, fact: PlanCompleted) -> None:
        self.plan = fact
        self._used = frozenset(fact.nodes)
        self._awaited = {node for node in self._used if not self._is_whole(node)}
        self._superfluous = {node for node, _ in self._released if self._is_superfluous(node)}
        self._candidates.extend([DIRECT_NODE, *self.planned])
        self._joints = PlanJoints(fact.nodes if fact.polish else ())
        for joint in self._joints.meets:
            self._look_at_joints(joint)

    def _fold_planned(self, fact: NodePlanned) -> None:
        node = fact.node
        self.planned[node.id] = fact
        self._lines = None
        self._expected.planned(node)
        self._note_whole(node.id)
        missing = [need for need in set(node.needs) if need not in self.decoded]
        self._missing[node.id] = len(missing)
        for need in missing:
            self._dependants.setdefault(need, []).append(node.id)
        self._candidates.append(node.id)
        self._look_at_joints(node.id)

    def _fold_decoded(self, fact: NodeDecoded) -> None:
        self.decoded[fact.node] = fact
        self._expected.decoded(fact.node)
        self._superfluous.discard(fact.node)
        self._note_whole(fact.node)
        if fact.node in self.failures:  # taken for dead, and done after all: no fallback
            self._candidates.extend([*self.planned, *self._joints.open])
        for dependant in self._dependants.pop(fact.node, ()):
            self._missing[dependant] -= 1
            self._candidates.append(dependant)
        self._look_at_joints(fact.node)

    def _look_at_joints(self, node: int) -> None:
        """Take note of what a fact of `node` means to its joints; `node` may be one."""
        for joint in self._joints.open_at(node):
            if self._is_settled(joint):
                self._joints.open.discard(joint)
            else:
                self._candidates.append(joint)

    def _is_whole(self, node: int) -> bool:
        return node in self.decoded and self.spec(node) is not None

    def _note_whole(self, node: int) -> None:
        if self._is_whole(node):
            self._awaited.discard(node)

    def _is_superfluous(self, node: int) -> bool:
        used = node in self._used or node == DIRECT_NODE or is_joint(node)
        return not used and node not in self.decoded

    # --- what it is scheduled by ------------------------------------------------------

    @property
    def owner(self) -> str:
        """Whose request it is."""
        return self.accepted.submitted.owner if self.accepted else ""

    @property
    def submitted_at(self) -> float:
        """When the request came, in seconds since the epoch."""
        return self.accepted.submitted_at if self.accepted else 0.0

    @property
    def left_tokens(self) -> int:
        """Expected tokens of the nodes that are known and not done."""
        is_direct = self.answer_nodes == (DIRECT_NODE,)
        return self._expected.direct if is_direct else self._expected.left

    def path_tokens(self, node: int) -> int:
        """Expected tokens from `node` down the longest path of those that need it."""
        path = self._expected.path(node)
        if path is not None:
            return path
        spec = None if node == DIRECT_NODE else self.spec(node)
        return self._expected.of(spec) if spec else self._expected.direct

    def lengthened(self) -> set[int]:
        """Return the nodes whose path has grown since the last call, once one was asked for."""
        return self._expected.lengthened()

    # --- what follows ---------------------------------------------------------------

    def due(self) -> list[int]:
        """Return the nodes of which an attempt has become due since the last call."""
        if self.accepted is None or self.ended or self.accepted.submitted.dry_run:
            return []
        due = [node for node in self._take_candidates() if self._is_new(node)]
        self._released.update((node, self.attempt(node)) for node in due)
        return due

    def release(self, node: int, held_ms: float = 0.0) -> Release | None:
        """Return the work of a node that was due and held so long; None if it is of no more use."""
        if self.ended or not self._is_due(node):
            return None
        attempt = self.attempt(node)
        work = self._work(node, attempt, held_ms)
        # By what never changes, so that two owners cannot queue the same attempt in two bands.
        urgent = attempt > 1 or bool(work.node.needs) or node == DIRECT_NODE or is_joint(node)
        band = Band.URGENT if urgent else Band.NORMAL
        last = self._last_failure(node)
        escalated = last is not None and last.pool is not work.pool
        return Release(work, band, self.policy.delay_s(attempt - 1), escalated)

    def releases(self) -> list[Release]:
        """Return the work that has become due since the last call."""
        return [release for node in self.due() if (release := self.release(node))]

    def attempt(self, node: int) -> int:
        """Return which attempt at `node` is the next, or under way."""
        return len(self.failures.get(node, ())) + 1

    def pool(self, node: int) -> Pool:
        """Return where the next attempt at `node` goes."""
        return self._pool(self.spec(node) or DIRECT_SPEC)

    def under_way(self) -> list[int]:
        """Return the nodes whose attempt was due and has no result."""
        return [
            node
            for node, attempt in self._released
            if node not in self.decoded and attempt == self.attempt(node) and not self.is_dead(node)
        ]

    def deaths(self, only: int | None = None) -> list[Dead]:
        """Return the nodes that have died since the last call, or only this one if it has."""
        if self.accepted is None:
            return []
        looked_at = self.failures if only is None else self.failures.keys() & {only}
        dead = [node for node in looked_at if self._may_be_buried(node)]
        self._buried.update(dead)
        return [self._death(node) for node in dead]

    def note_queued(self, node: int, attempt: int) -> None:
        """Say that this work is in the queue already (found there after a take-over)."""
        self._released.add((node, attempt))
        if self.plan and self._is_superfluous(node):
            self._superfluous.add(node)

    def superfluous(self) -> list[int]:
        """Return released nodes whose text is of no more use, because the plan collapsed."""
        return sorted(self._superfluous)

    @property
    def answer_nodes(self) -> tuple[int, ...] | None:
        """The nodes that make up the answer, in plan order; None while that is open."""
        if self.falls_back:
            return (DIRECT_NODE,)
        return self.plan.nodes if self.plan else None

    @property
    def is_complete(self) -> bool:
        """Whether each node of the answer has its text, and each joint is settled."""
        return self.is_written and (self.falls_back or not self._joints.open)

    @property
    def is_polishing(self) -> bool:
        """Whether nothing but joints may be missing: the answer can be had as it is."""
        return bool(self.joints) and self.is_written

    @property
    def joints(self) -> dict[int, tuple[int, int]]:
        """The joints that may be polished, each with the nodes that meet there."""
        return {} if not self._joints.meets or self.falls_back else self._joints.meets

    def text_of(self, node: int, before: int | None) -> str:
        """Return the text of a decoded node as it stands after the node `before`."""
        text, reply = self.decoded[node].text, self.decoded.get(joint_before(node))
        if before is None or reply is None or joint_before(node) not in self.joints:
            return text
        return joined(self.decoded[before].text, text, reply.text, reply.finish_reason)

    @property
    def is_written(self) -> bool:
        """Whether each node of the answer has its text."""
        if self.falls_back:
            return self._is_whole(DIRECT_NODE)
        return self.plan is not None and not self._awaited

    @property
    def falls_back(self) -> bool:
        """Whether a node failed for good and the request wants a direct answer instead."""
        return (
            bool(self.failures)
            and self.accepted is not None
            and self.accepted.submitted.on_failure == "direct"
            and any(self._counts(node) and self.is_dead(node) for node in self.failures)
        )

    @property
    def fatal(self) -> NodeFailed | None:
        """The failure that leaves the request without an answer, once its siblings are done."""
        if not self.failures:
            return None
        if self.is_dead(DIRECT_NODE):
            return self._last_failure(DIRECT_NODE)
        if self.falls_back or self.plan is None:
            return None
        dead = [node for node in self.plan.nodes if self.is_dead(node)]
        if not dead or any(self._may_finish(node) for node in self.plan.nodes):
            return None
        return self._last_failure(dead[0])

    def is_dead(self, node: int) -> bool:
        """Whether `node` failed for good."""
        failures = self.failures.get(node)
        if not failures or node in self.decoded:
            return False
        return len(failures) >= self.policy.max_attempts or not all(
            failure.error.retryable for failure in failures.values()
        )

    def spec(self, node: int) -> NodeSpec | None:
        """Return the node's specification, if it is known."""
        if node == DIRECT_NODE:
            return DIRECT_SPEC
        if is_joint(node):
            return NodeSpec(id=node, summary="", difficulty="easy")
        planned = self.planned.get(node)
        return planned.node if planned else None

    def lines(self) -> tuple[str, ...]:
        """Return the plan as far as it is known, as the model wrote it."""
        if self._lines is None:
            self._lines = tuple(self.planned[node].line for node in sorted(self.planned))
        return self._lines

    def texts(self, nodes: tuple[int, ...]) -> tuple[NodeText, ...]:
        """Return the texts of those of `nodes` that are decoded, in that order."""
        return tuple(
            NodeText(
                id=node,
                summary=spec.summary,
                text=self.decoded[node].text,
                budget_tokens=spec.budget_tokens,
            )
            for node in nodes
            if node in self.decoded and (spec := self.spec(node))
        )

    def _counts(self, node: int) -> bool:
        return not is_joint(node) and (self.plan is None or node in self._used)

    def _may_be_buried(self, node: int) -> bool:
        """Whether `node` has died unseen; a joint that fails is not made up for, nor missed."""
        return self.is_dead(node) and node not in self._buried and not is_joint(node)

    def _is_settled(self, joint: int) -> bool:
        """Whether nothing more is to come of a joint: one try, and none where none is of use."""
        if joint in self.decoded or joint in self.failures:
            return True
        after = self.decoded.get(self._joints.meets[joint][1])
        return after is not None and head(after.text) is None

    def _may_finish(self, node: int) -> bool:
        """Whether `node` is running or will run: not done, not dead, nothing above it dead."""
        spec = self.spec(node)
        if node in self.decoded or self.is_dead(node):
            return False
        return spec is None or all(
            need in self.decoded or self._may_finish(need) for need in spec.needs
        )

    def _take_candidates(self) -> Iterator[int]:
        candidates, self._candidates = dict.fromkeys(self._candidates), []
        if self.falls_back:
            candidates.setdefault(DIRECT_NODE)
        yield from candidates

    def _is_new(self, node: int) -> bool:
        return self._is_due(node) and (node, self.attempt(node)) not in self._released

    def _is_due(self, node: int) -> bool:
        if node in self.decoded or self.is_dead(node):
            return False
        if node == DIRECT_NODE:
            return self.answer_nodes == (DIRECT_NODE,)
        if is_joint(node):
            meet = set(self.joints.get(node, ()))
            there = meet <= self.decoded.keys() and meet <= self.planned.keys()
            return bool(meet) and there and node in self._joints.open
        if self.falls_back or not self._counts(node) or self._waits_for_the_plan:
            return False
        return self._missing.get(node) == 0

    @property
    def _waits_for_the_plan(self) -> bool:
        without = self.accepted.submitted.without if self.accepted else ()
        return self.plan is None and "pipelining" in without

    def _work(self, node: int, attempt: int, held_ms: float = 0.0) -> DecodeNode:
        spec = self.spec(node)
        if self.accepted is None or spec is None:
            raise ValueError(f"node {node} of {self.request} is not planned yet")
        if is_joint(node):
            return self._joint_work(self.accepted, spec, held_ms)
        last = self._last_failure(node)
        return DecodeNode(
            request=self.request,
            node=spec,
            attempt=attempt,
            pool=self._pool(spec),
            mode="direct" if node == DIRECT_NODE else self._mode(),
            question=self.accepted.submitted.question,
            context=self.accepted.submitted.context,
            skeleton=self.lines() if node != DIRECT_NODE else (),
            predecessors=self.texts(tuple(sorted(set(spec.needs)))),
            sampling=self.accepted.submitted.sampling,
            deadline_at=self.accepted.deadline_at,
            avoid_endpoint=last.endpoint or None if last else None,
            without=self.accepted.submitted.without,
            held_ms=held_ms,
        )

    def _joint_work(self, accepted: RequestAccepted, spec: NodeSpec, held_ms: float) -> DecodeNode:
        before, after = self.texts(self.joints[spec.id])
        meet = (
            before.model_copy(update={"text": tail(before.text)}),
            after.model_copy(update={"text": head(after.text) or ""}),
        )
        return DecodeNode(
            request=self.request,
            node=spec,
            attempt=1,
            pool=Pool.SMALL,
            mode=self._mode(),
            question=accepted.submitted.question,
            predecessors=meet,
            deadline_at=accepted.deadline_at,
            held_ms=held_ms,
        )

    def _mode(self) -> ResolvedMode:
        return "sot" if self.accepted and self.accepted.submitted.mode == "sot" else "sgd"

    def _pool(self, spec: NodeSpec) -> Pool:
        if is_joint(spec.id):
            return Pool.SMALL
        if self.accepted is None or spec.difficulty == "hard":
            return Pool.LARGE
        submitted = self.accepted.submitted
        if not submitted.adaptive or submitted.mode == "sot":
            return Pool.LARGE
        failures = self.failures.get(spec.id, {}).values()
        small = sum(failure.pool is Pool.SMALL for failure in failures)
        return Pool.LARGE if small >= self.policy.escalate_after else Pool.SMALL

    def _last_failure(self, node: int) -> NodeFailed | None:
        failures = self.failures.get(node)
        return failures[max(failures)] if failures else None

    def _death(self, node: int) -> Dead:
        if self.accepted is None or node not in self.failures:
            raise ValueError(f"node {node} of {self.request} has not failed")
        history = tuple(self._attempt(self.failures[node][n]) for n in sorted(self.failures[node]))
        work = self._work(node, history[-1].attempt)
        return Dead(work, history, self.accepted.submitted)

    def _attempt(self, failed: NodeFailed) -> FailedAttempt:
        return FailedAttempt(
            attempt=failed.attempt,
            pool=failed.pool,
            endpoint=failed.endpoint,
            worker=failed.worker,
            error=failed.error,
            failed_at=self.stored_at[key_of(failed)],
        )
