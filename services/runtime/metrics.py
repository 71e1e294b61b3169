"""All metrics of all services, in Prometheus form.

Labels are bounded: pools, modes, error codes, kinds, the endpoints of a pool (removed when they
leave it); never ids or texts.
"""

from __future__ import annotations

import functools
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_DECODING_S: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
#: From what two services on one machine take to what makes people leave.
_QUEUE_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, *_DECODING_S)

REQUESTS_ENDED: Final = Counter(
    "skelgraph_requests_ended_total",
    "Requests by end: `answered`, `skeleton`, or the code of the error",
    ["end"],
)
REQUESTS_REFUSED: Final = Counter(
    "skelgraph_requests_refused_total",
    "Requests that a planner did not take up: `busy`, or not valid",
    ["code"],
)
ANSWER_S: Final = Histogram(
    "skelgraph_answer_seconds", "From stored request to answer", ["mode"], buckets=_DECODING_S
)
FIRST_ORDERED_S: Final = Histogram(
    "skelgraph_first_ordered_token_seconds",
    "From stored request to the first token of the answer's first node",
    ["mode"],
    buckets=_DECODING_S,
)
OVERHEAD_S: Final = Histogram(
    "skelgraph_overhead_seconds",
    "Wall time that neither engines, nor waiting for a slot, nor failed attempts explain",
    buckets=_QUEUE_S,
)
REQUEST_QUEUED_S: Final = Histogram(
    "skelgraph_request_queued_seconds",
    "From stored request to a planner that takes it",
    buckets=_QUEUE_S,
)
PLAN_S: Final = Histogram(
    "skelgraph_plan_seconds", "Engine time of plans", ["mode"], buckets=_DECODING_S
)
PLANNED_NODES: Final = Histogram(
    "skelgraph_planned_nodes",
    "Nodes a plan",
    ["mode"],
    buckets=(1, 2, 3, 4, 5, 6, 8, 12, 16, 32, 64),
)
PLANS: Final = Counter(
    "skelgraph_plans_total",
    "Plans by mode and reason: `forced`, `gate`, `planned`, `few_nodes`, `chain`; direct because "
    "the planning failed: `unparsable` (no plan, or one copied out of the prompt), `cut_off`, "
    "`no_planner`",
    ["mode", "reason"],
)
NODE_QUEUED_S: Final = Histogram(
    "skelgraph_node_queued_seconds", "From release to engine call", ["pool"], buckets=_QUEUE_S
)
NODE_FIRST_TOKEN_S: Final = Histogram(
    "skelgraph_node_first_token_seconds",
    "From engine call to first token",
    ["pool"],
    buckets=_DECODING_S,
)
NODE_DECODE_S: Final = Histogram(
    "skelgraph_node_decode_seconds",
    "Engine time of a node",
    ["pool", "difficulty"],
    buckets=_DECODING_S,
)
TOKENS: Final = Counter(
    "skelgraph_tokens_total",
    "Tokens by pool (or `planner`) and kind: `prompt`, `cached` (those of them that were in a "
    "prefix cache), `generated`",
    ["pool", "kind"],
)
NODE_FAILURES: Final = Counter(
    "skelgraph_node_failures_total", "Failed attempts by pool and error code", ["pool", "code"]
)
NODES_RELEASED: Final = Counter(
    "skelgraph_nodes_released_total",
    "Nodes handed to a pool: `first`, `retry`, or `escalation` to the large pool",
    ["pool", "kind"],
)
NODES_HELD: Final = Gauge(
    "skelgraph_nodes_held", "Ready nodes that this process holds back for want of slots", ["pool"]
)
POOL_SLACK: Final = Gauge(
    "skelgraph_pool_slack",
    "Slots of a pool less the nodes handed over to it, as this process sees it; NaN if not known",
    ["pool"],
)
PARTITIONS: Final = Gauge(
    "skelgraph_partitions",
    "Partitions of the event log at this assembler: `owned`, or `asked` for beside them",
    ["kind"],
)
PARTITIONS_GIVEN: Final = Counter(
    "skelgraph_partitions_given_total", "Partitions that this assembler gave up to others"
)
DEAD_LETTERS: Final = Counter("skelgraph_dead_letters_total", "Nodes that failed for good")
FALLBACKS: Final = Counter(
    "skelgraph_fallbacks_total", "Direct answers that stand in for one of which a node died"
)
IN_FLIGHT: Final = Gauge(
    "skelgraph_in_flight",
    "What this process holds: `node`, `request` (being planned), `open_request_<partition>`",
    ["kind"],
)
SLOTS: Final = Gauge("skelgraph_slots", "Work that this process takes at once", ["kind"])
ENDPOINT_IN_FLIGHT: Final = Gauge(
    "skelgraph_endpoint_in_flight", "Streams that this process has open at an engine", ["endpoint"]
)
ENDPOINT_HEALTHY: Final = Gauge(
    "skelgraph_endpoint_healthy",
    "Whether this process sends an engine streams (1), or leaves it out (0)",
    ["endpoint"],
)
EJECTIONS: Final = Counter(
    "skelgraph_endpoint_ejections_total",
    "Engines left out for a time: `unavailable`, `failures`, `silent`, `slow`",
    ["reason"],
)
REFUSALS: Final = Counter(
    "skelgraph_engine_refusals_total", "Calls refused by an engine's overload"
)
FAILOVERS: Final = Counter(
    "skelgraph_engine_failovers_total",
    "Calls sent to another engine before their first token, by error code",
    ["code"],
)
HEDGES: Final = Counter(
    "skelgraph_engine_hedges_total", "Second attempts at late calls, by result", ["result"]
)
HTTP_REQUESTS: Final = Counter(
    "skelgraph_http_requests_total",
    "HTTP requests by operation and status",
    ["operation", "status"],
)
FIRST_TEXT_S: Final = Histogram(
    "skelgraph_http_first_text_seconds",
    "From a streamed chat completion's arrival to its first text",
    buckets=_DECODING_S,
)


def count_node(
    pool: str, difficulty: str, *, queued_s: float, first_token_s: float, decode_s: float
) -> None:
    """Count a decoded node."""
    queued, first_token, decode = _of_nodes(pool, difficulty)
    queued.observe(queued_s)
    first_token.observe(first_token_s)
    decode.observe(decode_s)


def count_tokens(pool: str, prompt: int, cached: int, generated: int) -> None:
    """Count the tokens of one engine call."""
    for counter, tokens in zip(_of_tokens(pool), (prompt, cached, generated), strict=True):
        if tokens:
            counter.inc(tokens)


def count_release(pool: str, kind: str) -> None:
    """Count a node that was handed to a pool."""
    _of_releases(pool, kind).inc()


# A look-up by labels costs as much as counting does; these are counted for each node.


@functools.cache
def _of_releases(pool: str, kind: str) -> Counter:
    return NODES_RELEASED.labels(pool, kind)


@functools.cache
def _of_nodes(pool: str, difficulty: str) -> tuple[Histogram, Histogram, Histogram]:
    decode = NODE_DECODE_S.labels(pool, difficulty)
    return NODE_QUEUED_S.labels(pool), NODE_FIRST_TOKEN_S.labels(pool), decode


@functools.cache
def _of_tokens(pool: str) -> tuple[Counter, ...]:
    return tuple(TOKENS.labels(pool, kind) for kind in ("prompt", "cached", "generated"))
