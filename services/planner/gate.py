"""What becomes of a plan once it is over: pure decisions, and a graph's depth and width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from proto.messages import Mode, NodeSpec, ResolvedMode
from proto.names import DIRECT_NODE
from services.planner.parser import ShapeKind

Reason = Literal["forced", "gate", "planned", "few_nodes", "chain", "unparsable", "cut_off"]
Ending = Literal["complete", "cut_off", "unparsable"]

#: A plan with fewer nodes saves less than its own tokens cost.
MIN_NODES: Final = 3
#: A graph may have two levels, points and what joins them, and more only if they are not more than
#: half of its nodes: else it is nearly a chain, and one node after the other is decoded.
MAX_DEPTH: Final = 2
MAX_DEPTH_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Decision:
    """How a request is answered.

    Args:
        mode: the method that the answer comes from.
        reason: why, as `PlanCompleted` says it.
        nodes: ids of the answer's nodes in plan order; `(0,)` is the direct answer.
    """

    mode: ResolvedMode
    reason: Reason
    nodes: tuple[int, ...]


def decide(
    mode: Mode,
    shape: ShapeKind | None,
    nodes: Sequence[NodeSpec],
    ending: Ending = "complete",
) -> Decision:
    """Return how to answer, given what the client asked for and how the plan turned out.

    `auto` goes direct by the gate's word, and collapses plans of fewer than `MIN_NODES`
    nodes and near-chains. In forced `sgd` and `sot` the client's wish wins: short plans,
    chains and cut-off plans are kept; only an unparsable plan or one without any node is
    answered directly. Forced `direct` needs no plan.

    Args:
        mode: as the client asked.
        shape: the gate's word; None if the plan did not get that far.
        nodes: the plan's whole lines, with the needs as the model wrote them: content that
            it took for a chain is not cut up, whatever is left of its needs.
        ending: `complete` with its end line, `cut_off` before it, `unparsable` when a line
            was refused: then nothing of the plan is trusted.
    """
    if mode == "direct":
        return _direct("forced")
    if ending == "unparsable" or shape is None:
        return _direct("unparsable")
    if mode == "auto":
        return _gated(shape, nodes, ending)
    return _forced(mode, nodes, ending)


def _gated(shape: ShapeKind, nodes: Sequence[NodeSpec], ending: Ending) -> Decision:
    if shape == "direct":
        return _direct("gate")
    if len(nodes) < MIN_NODES:
        return _direct("cut_off" if ending == "cut_off" else "few_nodes")
    if is_near_chain(nodes):
        return _direct("chain")
    return Decision("sgd", "cut_off" if ending == "cut_off" else "planned", _ids(nodes))


def _forced(mode: Literal["sot", "sgd"], nodes: Sequence[NodeSpec], ending: Ending) -> Decision:
    if not nodes:
        return _direct("cut_off" if ending == "cut_off" else "few_nodes")
    return Decision(mode, "cut_off" if ending == "cut_off" else "forced", _ids(nodes))


def without_needs(node: NodeSpec) -> NodeSpec:
    """Return `node` as mode `sot` has it: depending on nothing."""
    return node.model_copy(update={"needs": ()})


def is_near_chain(nodes: Sequence[NodeSpec]) -> bool:
    """Say whether so little could run at the same time that a graph is of no use."""
    allowed = max(min(MAX_DEPTH, len(nodes) - 1), MAX_DEPTH_SHARE * len(nodes))
    return depth(nodes) > allowed


def depth(nodes: Sequence[NodeSpec]) -> int:
    """Return the number of nodes on the longest path of dependencies."""
    return max(levels(nodes).values(), default=0)


def width(nodes: Sequence[NodeSpec]) -> int:
    """Return the most nodes that lie on one level: what can run at the same time."""
    return max(Counter(levels(nodes).values()).values(), default=0)


def levels(nodes: Sequence[NodeSpec]) -> Mapping[int, int]:
    """Return each node's level by id: 1 without needs, else one more than its deepest need.

    Needs on nodes that are not among `nodes` are as good as decoded.
    """
    found: dict[int, int] = {}
    for node in nodes:
        found[node.id] = 1 + max((found.get(need, 0) for need in node.needs), default=0)
    return found


def _ids(nodes: Sequence[NodeSpec]) -> tuple[int, ...]:
    return tuple(node.id for node in nodes)


def _direct(reason: Reason) -> Decision:
    return Decision("direct", reason, (DIRECT_NODE,))
