"""The end of a request, as it follows from its graph."""

from __future__ import annotations

from proto.errors import NodeGaveUp, PlanRejected
from proto.messages import (
    JOINT,
    AnswerAssembled,
    End,
    ErrorInfo,
    JointReport,
    NodeReport,
    PlanCompleted,
    RequestFailed,
    SkeletonDrafted,
    Usage,
)
from proto.names import DIRECT_NODE
from services.assembler.graph import Graph
from services.assembler.joints import head
from services.assembler.timings import timings


def end_of(graph: Graph, now: float) -> End | None:
    """Return the end that follows from `graph` at `now`, or None if it is still open."""
    if graph.accepted is None or graph.ended:
        return None
    if graph.accepted.submitted.dry_run:
        return _skeleton(graph)
    if graph.is_complete:
        return answer(graph, now)
    fatal = graph.fatal
    if fatal is None:
        return None
    attempts = len(graph.failures[fatal.node])
    gave_up = NodeGaveUp(f"node {fatal.node}, {attempts} attempts, the last: {fatal.error.message}")
    return failure(graph, ErrorInfo.of(gave_up))


def failure(graph: Graph, error: ErrorInfo) -> RequestFailed:
    """Return the end of a request that has no answer because of `error`."""
    nodes = graph.plan.nodes if graph.plan else tuple(sorted(graph.planned))
    return RequestFailed(request=graph.request, error=error, partial=graph.texts(nodes))


def _skeleton(graph: Graph) -> End | None:
    plan = graph.plan
    if plan is None:
        return None
    if plan.reason == "no_planner":
        return failure(graph, ErrorInfo.of(PlanRejected("no engine of the large pool answered")))
    nodes = tuple(spec for node in plan.nodes if (spec := graph.spec(node)))
    return SkeletonDrafted(
        request=graph.request, mode=plan.mode, nodes=nodes, lines=graph.lines(), plan=plan
    )


def answer(graph: Graph, now: float) -> AnswerAssembled:
    """Return the answer of a graph whose nodes are all decoded, with the joints as they are."""
    nodes = graph.answer_nodes or ()
    plan = graph.plan or _no_plan(graph)
    text, reports = _join(graph, nodes)
    joints = _joint_reports(graph)
    usages = [*(report.usage for report in reports), *(joint.usage for joint in joints)]
    usage = sum(usages, plan.usage)
    return AnswerAssembled(
        request=graph.request,
        mode="direct" if nodes == (DIRECT_NODE,) else plan.mode,
        text=text,
        nodes=reports,
        plan=plan,
        usage=usage,
        timings=timings(graph, nodes, now),
        fallback=graph.falls_back,
        joints=joints,
    )


def _no_plan(graph: Graph) -> PlanCompleted:
    """A fallback can be done before the plan is."""
    return PlanCompleted(
        request=graph.request,
        mode="direct",
        reason="no_planner",
        nodes=(DIRECT_NODE,),
        usage=Usage(),
    )


def _join(graph: Graph, nodes: tuple[int, ...]) -> tuple[str, tuple[NodeReport, ...]]:
    """Put the texts together in plan order and say where each stands."""
    parts: list[str] = []
    reports: list[NodeReport] = []
    offset = 0
    for before, node in zip((None, *nodes), nodes, strict=False):
        text = graph.text_of(node, before)
        reports.append(_report(graph, node, offset, offset + len(text)))
        parts.append(text)
        offset += len(text) + len(JOINT)
    return JOINT.join(parts), tuple(reports)


def _joint_reports(graph: Graph) -> tuple[JointReport, ...]:
    return tuple(_joint_report(graph, *ids) for ids in graph.joints.items())


def _joint_report(graph: Graph, joint: int, meet: tuple[int, int]) -> JointReport:
    before, node = meet
    reply = graph.decoded.get(joint)
    if reply is None:
        tried = graph.failures.get(joint) is not None
        untouched = head(graph.decoded[node].text) is None
        return JointReport(
            node=node, outcome="failed" if tried else "kept" if untouched else "late"
        )
    changed = graph.text_of(node, before) != graph.decoded[node].text
    return JointReport(
        node=node,
        outcome="polished" if changed else "kept",
        pool=reply.pool,
        model=reply.model,
        endpoint=reply.endpoint,
        decode_ms=reply.decode_ms,
        usage=reply.usage,
    )


def _report(graph: Graph, node: int, start: int, end: int) -> NodeReport:
    decoded, spec = graph.decoded[node], graph.spec(node)
    if spec is None:
        raise ValueError(f"node {node} of {graph.request} is not planned")
    return NodeReport(
        node=spec,
        pool=decoded.pool,
        model=decoded.model,
        endpoint=decoded.endpoint,
        attempt=decoded.attempt,
        finish_reason=decoded.finish_reason,
        queued_ms=decoded.queued_ms,
        slot_wait_ms=decoded.slot_wait_ms,
        first_token_ms=decoded.first_token_ms,
        decode_ms=decoded.decode_ms,
        usage=decoded.usage,
        start=start,
        end=end,
    )
