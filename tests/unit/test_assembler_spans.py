"""The spans of a request follow from its facts, whoever tells them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proto.errors import Cancelled
from proto.messages import End, ErrorInfo, RequestFailed
from services.assembler.answer import end_of
from services.assembler.graph import Graph
from services.assembler.spans import tell
from services.runtime import tracing
from services.runtime.span import Span
from tests.facts import accepted, decoded, failed, plan, planned, story
from tests.unit.test_tracing import Recorder

HEADERS: dict[str, str] = {}


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    tracing.use(recorder)
    yield recorder
    tracing.use(None)


def folded(*facts: object) -> tuple[Graph, float]:
    """The graph of the facts, one a second, and the time of the last one."""
    graph, at = Graph("r1"), 0.0
    for fact, at in story(*facts):  # type: ignore[arg-type]
        graph.fold(fact, at)
    return graph, at


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


def test_a_node_begins_when_all_that_it_needs_is_there(recorder: Recorder) -> None:
    facts = accepted(), planned(1), planned(2, needs=(1,)), plan((1, 2)), decoded(1), decoded(2)
    graph, at = folded(*facts)
    end = end_of(graph, at)
    assert end
    tell(end, at + 0.5, HEADERS, graph)
    (root,) = named(recorder.spans, "request")
    assert (root.start_at, root.end_at, root.parent) == (1000.0, at + 0.5, 0)
    first, second = named(recorder.spans, "node")
    assert (first.start_at, first.end_at) == (1002.0, 1005.0)
    assert (second.start_at, second.end_at, second.links) == (1005.0, 1006.0, (first.span_id,))
    (assembly,) = named(recorder.spans, "assembly")
    assert (assembly.start_at, assembly.end_at) == (at, at + 0.5)


def test_a_successor_tells_the_same_spans(recorder: Recorder) -> None:
    graph, at = folded(accepted(), planned(1), plan((1,)), decoded(1))
    end = end_of(graph, at)
    assert end
    tell(end, at, HEADERS, graph)
    told, recorder.spans = recorder.spans, []
    tell(end, at, HEADERS, folded(accepted(), planned(1), plan((1,)), decoded(1))[0])
    request, node, _ = recorder.spans
    assert [(one.span_id, one.start_at, one.end_at) for one in (request, node)] == [
        (one.span_id, one.start_at, one.end_at) for one in told[:2]
    ]


def test_a_node_that_died_is_an_error_and_the_direct_answer_begins_then(recorder: Recorder) -> None:
    facts = accepted(), planned(1), plan((1,)), failed(1, retryable=False), decoded(0)
    graph, at = folded(*facts)
    end = end_of(graph, at)
    assert end
    tell(end, at, HEADERS, graph)
    direct, dead = named(recorder.spans, "node")
    assert (dead.error, dead.attributes["skelgraph.failures"]) == ("engine_rejected", 1)
    assert direct.start_at == 1004.0


def test_a_request_that_ended_before_it_was_accepted_has_a_root_all_the_same(
    recorder: Recorder,
) -> None:
    end: End = RequestFailed(request="r1", error=ErrorInfo.of(Cancelled("CANARY")))
    tell(end, 1234.0, HEADERS, None)
    (root,) = recorder.spans
    assert (root.name, root.start_at, root.error) == ("request", 1234.0, "cancelled")
    assert "CANARY" not in str(root.attributes)
