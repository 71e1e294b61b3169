"""The spans that nobody but the owner of a request can tell: the request, its nodes, the assembly.

They are told when the end of the request is known, from its facts alone. So a successor that is
handed the same end tells the same spans, under the same ids: one root, whoever was killed.
"""

from __future__ import annotations

from proto.messages import AnswerAssembled, End, RequestFailed
from proto.names import DIRECT_NODE
from services.assembler.folded import Key
from services.assembler.graph import Graph
from services.runtime import tracing
from services.runtime.span import Attribute, Span
from services.runtime.trace_ids import Trace


def tell(end: End, ended_at: float, headers: dict[str, str], graph: Graph | None) -> None:
    """Report the spans of a request that has ended, if its trace is recorded.

    Args:
        end: how it ended.
        ended_at: when NATS stored that, in seconds since the epoch.
        headers: of the end.
        graph: of the request; None if it is not known here, because it ended before it was
            accepted, or before this process came.
    """
    trace = tracing.trace_of(end.request, headers)
    if trace is None:
        return
    _request(trace, end, ended_at, graph).end(ended_at)
    if graph is None:
        return
    for node in sorted(graph.planned.keys() | graph.decoded.keys() | graph.failures.keys()):
        _node(trace, graph, node, ended_at)
    if isinstance(end, AnswerAssembled):
        known = [at for (kind, _, _), at in graph.stored_at.items() if kind != "end"]
        assembly = Span(trace, "assembly", parent=trace.root, start_at=max(known, default=ended_at))
        assembly.end(ended_at)


def _request(trace: Trace, end: End, ended_at: float, graph: Graph | None) -> Span:
    root = Span(
        trace,
        "request",
        parent=trace.caller,
        span_id=trace.root,
        start_at=_submitted_at(end, ended_at, graph),
        kind="consumer",
    )
    root.put({"gen_ai.operation.name": "invoke_workflow", "gen_ai.agent.name": "skelgraph"})
    if graph and graph.accepted:
        root.note(asked_mode=graph.accepted.submitted.mode)
    if isinstance(end, RequestFailed):
        root.fail(end.error.code)
    else:
        root.note(mode=end.mode, nodes=len(end.nodes), reason=end.plan.reason)
    if isinstance(end, AnswerAssembled):
        root.put(_figures(end))
    return root


def _figures(end: AnswerAssembled) -> dict[str, Attribute]:
    timings = end.timings
    return {
        "gen_ai.usage.input_tokens": end.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": end.usage.generated_tokens,
        "gen_ai.usage.cache_read.input_tokens": end.usage.cached_tokens,
        "skelgraph.fallback": end.fallback,
        "skelgraph.critical_path": [str(node) for node in timings.critical_path],
        "skelgraph.critical_engine_ms": timings.critical_engine_ms,
        "skelgraph.critical_slot_wait_ms": timings.critical_slot_wait_ms,
        "skelgraph.critical_retry_ms": timings.critical_retry_ms,
        "skelgraph.overhead_ms": timings.overhead_ms,
    }


def _submitted_at(end: End, ended_at: float, graph: Graph | None) -> float:
    if graph and graph.accepted:
        return graph.accepted.submitted_at
    if isinstance(end, AnswerAssembled):
        return ended_at - end.timings.wall_ms / 1000
    return ended_at


def _node(trace: Trace, graph: Graph, node: int, ended_at: float) -> None:
    """Report a node, from the moment at which all that it needs is known to its text."""
    spec = graph.spec(node)
    decoded, failures = graph.decoded.get(node), graph.failures.get(node, {})
    span = Span(
        trace,
        "node",
        parent=trace.root,
        span_id=trace.node(node),
        start_at=_due_at(graph, node, ended_at),
        links=[trace.node(need) for need in (spec.needs if spec else ())],
    )
    span.note(node=node, difficulty=spec.difficulty if spec else None, failures=len(failures))
    if decoded:
        span.note(attempt=decoded.attempt, pool=decoded.pool)
    elif graph.is_dead(node):
        span.fail(failures[max(failures)].error.code)
    else:
        span.note(left=True)
    span.end(graph.stored_at.get(("decoded", node, 0), ended_at))


def _due_at(graph: Graph, node: int, ended_at: float) -> float:
    """Return when the last of the facts for which a node waits was stored."""
    spec = graph.spec(node)
    keys: list[Key] = [("accepted", 0, 0), ("planned", node, 0)]
    keys += [("decoded", need, 0) for need in (spec.needs if spec else ())]
    if node == DIRECT_NODE:
        keys += _deaths(graph) if graph.falls_back else [("plan", 0, 0)]
    return max((graph.stored_at[key] for key in keys if key in graph.stored_at), default=ended_at)


def _deaths(graph: Graph) -> list[Key]:
    """Return the first death of a node: what the direct answer stands in for."""
    deaths: list[Key] = [
        ("failed", node, max(failures))
        for node, failures in graph.failures.items()
        if graph.is_dead(node)
    ]
    return sorted(deaths, key=lambda key: graph.stored_at[key])[:1]
