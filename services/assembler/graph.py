"""What follows from the facts of one request: work, in its order, dead letters, the end. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from proto.messages import (
    DecodeNode,
    ErrorInfo,
    FailedAttempt,
    NodeFailed,
    NodeSpec,
    RequestAccepted,
    ResolvedMode,
    SubmitRequest,
)
from proto.names import DIRECT_NODE, Band, Pool, is_joint
from services.assembler.folded import DIRECT_SPEC, Folded, key_of
from services.assembler.joints import head, tail


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


class Graph(Folded):
    """The facts of one request, and the state that follows from them."""

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
        """Return the work of a node that was due and held so long; None if it is of no use now.

        Then it may become due again: who was taken for dead may be decoded after all.
        """
        attempt = self.attempt(node)
        if self.ended or not self._is_due(node):
            self._released.discard((node, attempt))
            return None
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

    def _may_be_buried(self, node: int) -> bool:
        """Whether `node` has died unseen; a joint that fails is not made up for, nor missed."""
        return self.is_dead(node) and node not in self._buried and not is_joint(node)

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
