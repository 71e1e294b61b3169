"""What is told of a request that has ended: figures, a line in the log, spans."""

from __future__ import annotations

import structlog

from proto.messages import AnswerAssembled, End, RequestFailed, SkeletonDrafted
from services.assembler.graph import Graph
from services.assembler.spans import tell
from services.assembler.timings import first_token_s
from services.runtime import metrics
from services.runtime.pull import Delivery

log = structlog.get_logger()


def report_end(end: End, delivery: Delivery, graph: Graph | None) -> None:
    """Count the end of a request, say it in the log, and tell its spans.

    Args:
        end: how it ended.
        delivery: of the end's event.
        graph: of the request; None if it is not known here.
    """
    tell(end, delivery.stored_at, delivery.headers, graph)
    match end:
        case AnswerAssembled():
            metrics.REQUESTS_ENDED.labels("answered").inc()
            _observe_first_token(end, graph)
            metrics.FALLBACKS.inc(end.fallback)
            metrics.ANSWER_S.labels(end.mode).observe(end.timings.wall_ms / 1000)
            metrics.OVERHEAD_S.observe(max(0.0, end.timings.overhead_ms) / 1000)
            log.info(
                "request_answered",
                request=end.request,
                mode=end.mode,
                nodes=len(end.nodes),
                wall_ms=round(end.timings.wall_ms),
                overhead_ms=round(end.timings.overhead_ms, 1),
            )
        case SkeletonDrafted():
            metrics.REQUESTS_ENDED.labels("skeleton").inc()
            log.info("skeleton_drafted", request=end.request, nodes=len(end.nodes))
        case RequestFailed():
            metrics.REQUESTS_ENDED.labels(end.error.code).inc()
            log.warning("request_failed", request=end.request, code=end.error.code)


def _observe_first_token(end: AnswerAssembled, graph: Graph | None) -> None:
    nodes = tuple(report.node.id for report in end.nodes)
    first_s = first_token_s(graph, nodes) if graph else None
    if first_s is not None:
        metrics.FIRST_ORDERED_S.labels(end.mode).observe(first_s)
