"""The critical path explains the wall time; what it does not explain is overhead."""

from __future__ import annotations

import pytest

from proto.messages import Fact
from proto.names import DIRECT_NODE
from services.assembler.graph import Graph
from services.assembler.timings import critical_path, first_token_s, timings
from tests.facts import REQUEST, accepted, decoded, failed, plan, planned


def told(*facts: tuple[float, Fact]) -> Graph:
    """Facts with the seconds after submission at which they were stored."""
    graph = Graph(REQUEST)
    for second, fact in facts:
        graph.fold(fact, 1000.0 + second)
    return graph


def test_the_path_goes_back_through_the_need_that_was_done_last() -> None:
    graph = told(
        (0.0, accepted()),
        (0.1, planned(1)),
        (0.2, planned(2)),
        (0.3, planned(3, [1, 2])),
        (0.5, plan([1, 2, 3])),
        (1.1, decoded(1, decode_ms=1000)),
        (2.2, decoded(2, decode_ms=2000)),
        (3.2, decoded(3, decode_ms=990)),
    )
    path = critical_path(graph, (1, 2, 3))
    assert path.nodes == (2, 3)
    assert path.engine_ms == pytest.approx(100 + 2000 + 990)


def test_a_node_planned_after_its_needs_were_done_waited_for_the_plan() -> None:
    graph = told(
        (0.0, accepted()),
        (0.1, planned(1)),
        (0.3, decoded(1, decode_ms=200)),
        (5.0, planned(2, [1], planned_ms=4900)),
        (5.1, plan([1, 2])),
        (6.0, decoded(2, decode_ms=1000)),
    )
    path = critical_path(graph, (1, 2))
    assert path.nodes == (2,)
    assert path.engine_ms == pytest.approx(4900 + 1000)


def test_a_plan_that_ends_after_the_last_node_is_the_whole_path() -> None:
    graph = told(
        (0.0, accepted()), (0.1, planned(1)), (1.0, decoded(1)), (3.0, plan([1], plan_ms=2950))
    )
    assert critical_path(graph, (1,)).engine_ms == 2950


def test_the_direct_answer_waited_for_the_whole_plan() -> None:
    graph = told(
        (0.0, accepted()),
        (0.5, plan([DIRECT_NODE], "direct", plan_ms=490)),
        (2.0, decoded(DIRECT_NODE, decode_ms=1480)),
    )
    path = critical_path(graph, (DIRECT_NODE,))
    assert (path.nodes, path.engine_ms) == ((DIRECT_NODE,), 490 + 1480)


def test_wall_time_is_engine_time_plus_slot_waits_plus_overhead() -> None:
    graph = told(
        (0.0, accepted()),
        (0.11, planned(1)),
        (0.5, plan([1])),
        (2.2, decoded(1, decode_ms=1500, slot_wait_ms=500)),
    )
    found = timings(graph, (1,), 1000.0 + 2.25)
    assert found.wall_ms == pytest.approx(2250)
    assert found.critical_engine_ms == pytest.approx(1600)
    assert found.critical_slot_wait_ms == pytest.approx(500)
    assert found.overhead_ms == pytest.approx(150)
    assert found.sequential_ms == pytest.approx(500 + 1500)


def test_failed_attempts_and_their_pauses_are_no_overhead() -> None:
    graph = told(
        (0.0, accepted()),
        (0.1, planned(1)),
        (0.2, plan([1])),
        (3.1, failed(1, 1)),
        (6.1, failed(1, 2)),
        (7.7, decoded(1, 3, decode_ms=1000)),
        (7.8, failed(1, 4)),  # of a worker that was taken for dead: it held up nobody
    )
    found = timings(graph, (1,), 1000.0 + 7.75)
    assert found.critical_retry_ms == pytest.approx(6000 + 500)
    assert found.critical_engine_ms == pytest.approx(100 + 1000)
    assert found.overhead_ms == pytest.approx(7750 - 6500 - 1100)


def test_a_need_is_waited_for_and_only_then_are_attempts_failed() -> None:
    graph = told(
        (0.0, accepted()),
        (0.1, planned(1)),
        (0.2, planned(2, [1])),
        (0.3, plan([1, 2])),
        (2.1, decoded(1, decode_ms=2000)),
        (4.1, failed(2, 1)),
        (5.1, decoded(2, 2, decode_ms=1000)),
    )
    found = timings(graph, (1, 2), 1000.0 + 5.1)
    assert found.critical_retry_ms == pytest.approx(2000)
    assert found.overhead_ms == pytest.approx(0, abs=1e-6)


def test_what_was_tried_before_a_direct_answer_stands_in_is_no_overhead() -> None:
    graph = told(
        (0.0, accepted(on_failure="direct")),
        (0.1, planned(1)),
        (0.2, plan([1], plan_ms=190)),
        (3.2, failed(1, 1, retryable=False)),
        (5.3, decoded(DIRECT_NODE, decode_ms=2000)),
    )
    found = timings(graph, (DIRECT_NODE,), 1000.0 + 5.3)
    assert found.critical_retry_ms == pytest.approx(3000)
    assert found.overhead_ms == pytest.approx(5300 - 190 - 2000 - 3000)


def test_the_answer_begins_with_the_first_token_of_its_first_node() -> None:
    graph = told(
        (0.0, accepted()),
        (0.1, planned(1)),
        (0.2, planned(2)),
        (0.3, plan([1, 2])),
        (0.9, decoded(2, decode_ms=500)),
        (2.0, decoded(1, decode_ms=1500)),
    )
    assert first_token_s(graph, (1, 2)) == pytest.approx(2.0 - 1.5 + 0.01)
    assert first_token_s(graph, ()) is None
    assert first_token_s(Graph(REQUEST), (1,)) is None
