"""What is known of one request: a fold of its facts. Pure: no clock, no I/O.

Folding a fact twice changes nothing, and the end is the same in whatever order the facts come. A
fold costs as much as the node has dependants.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from proto.messages import (
    Fact,
    NodeDecoded,
    NodeFailed,
    NodePlanned,
    NodeSpec,
    NodeText,
    PlanCompleted,
    RequestAccepted,
)
from proto.names import DIRECT_NODE, is_joint, joint_before
from services.assembler.expected import Expected
from services.assembler.joints import head, joined
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
class Folded:
    """The facts of one request, and what they say of each node and of the answer.

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

    def attempt(self, node: int) -> int:
        """Return which attempt at `node` is the next, or under way."""
        return len(self.failures.get(node, ())) + 1

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

    def _is_settled(self, joint: int) -> bool:
        """Whether nothing more is to come of a joint: one try, and none where none is of use."""
        if joint in self.decoded or joint in self.failures:
            return True
        after = self.decoded.get(self._joints.meets[joint][1])
        return after is not None and head(after.text) is None
