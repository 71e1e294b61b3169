"""Where the time of a request went: the critical path and what was not engine time on it.

The critical path is found backwards from the last node's end: what did its start wait
for: a node that it needs, or its own line of the plan? Instants are those at which NATS
stored the facts (one clock); durations are those that the processes measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from proto.messages import NodeDecoded, Timings
from proto.names import DIRECT_NODE
from services.assembler.graph import Graph


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """The chain of plan and nodes of which each waited for the one before."""

    nodes: tuple[int, ...]
    engine_ms: float
    slot_wait_ms: float
    retry_ms: float = 0.0
    polish_ms: float = 0.0


def critical_path(graph: Graph, nodes: tuple[int, ...]) -> CriticalPath:
    """Return the critical path of an answer made of `nodes`, all of which are decoded."""
    plan_end = graph.stored_at.get(("plan", 0, 0), 0.0)
    last, joint = _came_last(graph, nodes)
    polish_ms, slot_wait_ms = (joint.decode_ms, joint.slot_wait_ms) if joint else (0.0, 0.0)
    plan_ms = graph.plan.plan_ms if graph.plan else 0.0
    if plan_end > graph.stored_at["decoded", last, 0]:
        return CriticalPath((), plan_ms + polish_ms, slot_wait_ms, polish_ms=polish_ms)
    path, engine_ms = [last], polish_ms
    retry_ms = _retry_ms(graph, joint.node) if joint else 0.0
    while True:
        decoded = graph.decoded[path[-1]]
        engine_ms += decoded.decode_ms
        slot_wait_ms += decoded.slot_wait_ms
        retry_ms += _retry_ms(graph, path[-1])
        before = _waited_for(graph, path[-1])
        if before is None:
            break
        path.append(before)
    return CriticalPath(
        tuple(reversed(path)),
        engine_ms + _plan_share_ms(graph, path[-1]),
        slot_wait_ms,
        retry_ms,
        polish_ms,
    )


def timings(graph: Graph, nodes: tuple[int, ...], now: float) -> Timings:
    """Return the timings of an answer made of `nodes`, assembled at `now` (NATS's clock)."""
    path = critical_path(graph, nodes)
    plan_ms = graph.plan.plan_ms if graph.plan else 0.0
    submitted_at = graph.accepted.submitted_at if graph.accepted else now
    wall_ms = (now - submitted_at) * 1000
    joints = [joint for joint in graph.joints if joint in graph.decoded]
    return Timings(
        wall_ms=wall_ms,
        plan_ms=plan_ms,
        critical_path=path.nodes,
        critical_engine_ms=path.engine_ms,
        critical_slot_wait_ms=path.slot_wait_ms,
        critical_retry_ms=path.retry_ms,
        overhead_ms=wall_ms - path.engine_ms - path.slot_wait_ms - path.retry_ms,
        sequential_ms=plan_ms + sum(graph.decoded[node].decode_ms for node in (*nodes, *joints)),
        polish_ms=path.polish_ms,
    )


def first_token_s(graph: Graph, nodes: tuple[int, ...]) -> float | None:
    """Return the time from the request to the first token of its answer, in the answer's order."""
    first = graph.decoded.get(nodes[0]) if nodes else None
    if first is None or graph.accepted is None:
        return None
    after_ms = first.decode_ms - first.first_token_ms
    decoded_at = graph.stored_at["decoded", first.node, 0]
    return max(0.0, decoded_at - after_ms / 1000 - graph.accepted.submitted_at)


def _came_last(graph: Graph, nodes: tuple[int, ...]) -> tuple[int, NodeDecoded | None]:
    """Return the node that was decoded last; where a joint came after it, that joint and the
    node that it waited for."""

    def decoded_at(node: int) -> float:
        return graph.stored_at["decoded", node, 0]

    last = max(nodes, key=decoded_at)
    joint = max((one for one in graph.joints if one in graph.decoded), key=decoded_at, default=None)
    if joint is None or decoded_at(joint) < decoded_at(last):
        return last, None
    return max(graph.joints[joint], key=decoded_at), graph.decoded[joint]


def _waited_for(graph: Graph, node: int) -> int | None:
    """Return the needed node that was done last, unless the node's own line came later."""
    spec = graph.spec(node)
    if spec is None or not spec.needs:
        return None
    need = max(spec.needs, key=lambda need: graph.stored_at.get(("decoded", need, 0), 0.0))
    planned_at = graph.stored_at.get(("planned", node, 0), 0.0)
    return need if graph.stored_at.get(("decoded", need, 0), 0.0) > planned_at else None


def _retry_ms(graph: Graph, node: int) -> float:
    """Return the time from when `node` could start to when its last attempt could: that of failed
    attempts and the pauses after them; for the direct answer, of those that it stands in for."""
    decoded, failures = graph.decoded[node], graph.failures.get(node, {})
    before = [graph.stored_at["failed", node, n] for n in failures if n < decoded.attempt]
    again_at = max(before) + graph.policy.delay_s(len(before)) if before else 0.0
    if node == DIRECT_NODE:
        again_at = max(again_at, _fell_back_at(graph))
    started_at = graph.stored_at["decoded", node, 0] - decoded.decode_ms / 1000
    return max(0.0, min(again_at, started_at) - _ready_at(graph, node)) * 1000


def _fell_back_at(graph: Graph) -> float:
    """Return when the first node had failed for good, 0 if none has."""
    dead = [node for node in graph.failures if node != DIRECT_NODE and graph.is_dead(node)]
    ends = [max(graph.stored_at["failed", node, n] for n in graph.failures[node]) for node in dead]
    return min(ends, default=0.0)


def _ready_at(graph: Graph, node: int) -> float:
    """Return when all that `node` needs was stored."""
    if node == DIRECT_NODE:
        return graph.stored_at.get(("plan", 0, 0), 0.0)
    spec = graph.spec(node)
    needs = graph.joints.get(node) or (spec.needs if spec else ())
    keys = [("planned", node, 0), *(("decoded", need, 0) for need in needs)]
    return max(graph.stored_at.get(key, 0.0) for key in keys)


def _plan_share_ms(graph: Graph, first: int) -> float:
    """Return the engine time of the plan until the path's first node could start."""
    if first == DIRECT_NODE:
        return graph.plan.plan_ms if graph.plan else 0.0
    planned = graph.planned.get(first)
    return planned.planned_ms if planned else 0.0
