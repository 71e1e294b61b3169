"""What becomes of a plan: the client's wish, the gate's word, collapse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.messages import Mode, NodeSpec
from services.planner.gate import (
    Decision,
    Ending,
    decide,
    depth,
    is_near_chain,
    levels,
    width,
    without_needs,
)
from services.planner.parser import ShapeKind


def graph(*needs: tuple[int, ...]) -> tuple[NodeSpec, ...]:
    """Return a graph by the needs of node 1, 2, …"""
    return tuple(
        NodeSpec(id=number, summary=f"Point {number}", needs=need)
        for number, need in enumerate(needs, start=1)
    )


WIDE = graph((), (), (), (1, 2, 3))
CHAIN = graph((), (1,), (2,), (3,))
SHORT = graph((), ())


@pytest.mark.parametrize(
    ("mode", "shape", "nodes", "ending", "expected"),
    [
        ("auto", "graph", WIDE, "complete", Decision("sgd", "planned", (1, 2, 3, 4))),
        ("auto", "list", WIDE, "complete", Decision("sgd", "planned", (1, 2, 3, 4))),
        ("auto", "direct", (), "complete", Decision("direct", "gate", (0,))),
        ("auto", "graph", SHORT, "complete", Decision("direct", "few_nodes", (0,))),
        ("auto", "graph", CHAIN, "complete", Decision("direct", "chain", (0,))),
        ("auto", "graph", WIDE, "cut_off", Decision("sgd", "cut_off", (1, 2, 3, 4))),
        ("auto", "graph", SHORT, "cut_off", Decision("direct", "cut_off", (0,))),
        ("auto", "graph", WIDE, "unparsable", Decision("direct", "unparsable", (0,))),
        ("auto", None, (), "unparsable", Decision("direct", "unparsable", (0,))),
        ("sgd", "graph", WIDE, "complete", Decision("sgd", "forced", (1, 2, 3, 4))),
        ("sgd", "graph", CHAIN, "complete", Decision("sgd", "forced", (1, 2, 3, 4))),
        ("sgd", "graph", SHORT, "complete", Decision("sgd", "forced", (1, 2))),
        ("sgd", "graph", SHORT, "cut_off", Decision("sgd", "cut_off", (1, 2))),
        ("sgd", "graph", (), "cut_off", Decision("direct", "cut_off", (0,))),
        ("sgd", "graph", (), "complete", Decision("direct", "few_nodes", (0,))),
        ("sgd", "direct", (), "complete", Decision("direct", "few_nodes", (0,))),
        ("sgd", "graph", WIDE, "unparsable", Decision("direct", "unparsable", (0,))),
        ("sot", "list", WIDE, "complete", Decision("sot", "forced", (1, 2, 3, 4))),
        ("sot", "list", SHORT, "complete", Decision("sot", "forced", (1, 2))),
        ("direct", None, (), "complete", Decision("direct", "forced", (0,))),
    ],
)
def test_how_a_request_is_answered(
    mode: Mode,
    shape: ShapeKind | None,
    nodes: tuple[NodeSpec, ...],
    ending: Ending,
    expected: Decision,
) -> None:
    assert decide(mode, shape, nodes, ending) == expected


def test_what_counts_as_nearly_a_chain() -> None:
    assert is_near_chain(graph((), (1,), (2,)))
    assert is_near_chain(graph((), (1,), (1, 2), (2, 3)))
    assert is_near_chain(graph((), (1,), (2,), ()))
    assert is_near_chain(graph((), (1,), (2,), (3,), ()))
    assert is_near_chain(graph((), (1,), (2,), (3,), (4,), ()))
    assert not is_near_chain(graph((), (), (1, 2)))
    assert not is_near_chain(graph((), (), (1,), (2,), (3,), ()))
    assert is_near_chain(graph((), (1,)))


def test_depth_and_width_of_a_diamond() -> None:
    diamond = graph((), (1,), (1,), (2, 3))
    assert levels(diamond) == {1: 1, 2: 2, 3: 2, 4: 3}
    assert (depth(diamond), width(diamond)) == (3, 2)
    assert (depth(()), width(())) == (0, 0)


def test_mode_sot_depends_on_nothing() -> None:
    assert without_needs(WIDE[3]) == WIDE[3].model_copy(update={"needs": ()})


@st.composite
def graphs(draw: st.DrawFn) -> tuple[NodeSpec, ...]:
    size = draw(st.integers(0, 10))
    earlier = [st.sets(st.integers(1, max(k, 1))) for k in range(size)]
    return graph(*(tuple(sorted(draw(earlier[k]))) if k else () for k in range(size)))


@given(graphs(), st.sampled_from(["auto", "sot", "sgd"]), st.sampled_from(["complete", "cut_off"]))
def test_an_answer_is_never_empty_and_never_mixes_direct_with_nodes(
    nodes: tuple[NodeSpec, ...], mode: Mode, ending: Ending
) -> None:
    decision = decide(mode, "graph", nodes, ending)
    assert decision.nodes == ((0,) if decision.mode == "direct" else tuple(n.id for n in nodes))
    assert decision.nodes


@given(graphs())
def test_depth_times_width_covers_the_graph(nodes: tuple[NodeSpec, ...]) -> None:
    assert depth(nodes) * width(nodes) >= len(nodes)
    assert depth(nodes) <= len(nodes)
    assert width(nodes) <= len(nodes)
