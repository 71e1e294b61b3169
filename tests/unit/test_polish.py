"""Polishing in the graph: joints are work of their own, and no answer depends on them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.messages import AnswerAssembled, Fact
from proto.names import DIRECT_NODE, Band, Pool, is_joint, joint_before
from services.assembler.answer import answer, end_of
from services.assembler.graph import Graph
from services.assembler.timings import timings
from services.runtime.order import Grain, OrderedText
from tests.facts import REQUEST, accepted, decoded, failed, plan, planned, story

NOW = 2000.0
TEXTS = {
    1: "The first part has a sentence of its own.",
    2: "The second part has a sentence too. And more.",
    3: "- a list\n- of points",
    4: "The fourth part is about something else.",
}


def written(node: int) -> Fact:
    return decoded(node, text=TEXTS[node])


def reply(node: int, text: str | None = None) -> Fact:
    return decoded(joint_before(node), text=text or f"Then, {TEXTS[node].split('. ')[0]}.")


def facts_of() -> list[Fact]:
    return [
        accepted(polish=True),
        *(planned(node) for node in TEXTS),
        plan(list(TEXTS), polish=True),
        *(written(node) for node in TEXTS),
        reply(2),
        failed(joint_before(4), pool=Pool.SMALL),
    ]


def folded(*facts: Fact) -> Graph:
    graph = Graph(REQUEST)
    for fact, stored_at in story(*facts):
        graph.fold(fact, stored_at)
    return graph


def joints_released(graph: Graph) -> list[int]:
    return [r.work.node.id for r in graph.releases() if is_joint(r.work.node.id)]


def test_a_joint_is_released_when_both_its_texts_are_there_and_the_plan_is_complete() -> None:
    graph = folded(accepted(polish=True), *(planned(n) for n in TEXTS), written(1), written(2))
    assert joints_released(graph) == []
    graph.fold(plan(list(TEXTS), polish=True), 50.0)
    assert joints_released(graph) == [joint_before(2)]
    assert joints_released(graph) == []


def test_a_joints_work_is_small_and_urgent_and_shows_only_what_meets() -> None:
    graph = folded(*facts_of()[:8])
    (release,) = [r for r in graph.releases() if is_joint(r.work.node.id)]
    assert (release.work.pool, release.band) == (Pool.SMALL, Band.URGENT)
    said = [text.text for text in release.work.predecessors]
    assert said == [TEXTS[1], "The second part has a sentence too."]


def test_a_text_that_begins_with_structure_has_no_joint() -> None:
    assert joints_released(folded(*facts_of()[:10])) == [joint_before(2), joint_before(4)]


def test_the_answer_has_the_polished_beginnings_and_says_what_became_of_each() -> None:
    end = end_of(folded(*facts_of()), NOW)
    assert isinstance(end, AnswerAssembled)
    assert end.text == "\n\n".join(
        [TEXTS[1], "Then, The second part has a sentence too. And more.", TEXTS[3], TEXTS[4]]
    )
    assert [(j.node, j.outcome) for j in end.joints] == [
        (2, "polished"),
        (3, "kept"),
        (4, "failed"),
    ]
    assert [end.text[n.start : n.end] for n in end.nodes][0::2] == [TEXTS[1], TEXTS[3]]
    assert end.usage.generated_tokens == 20 + 5 * 5


def test_the_answer_waits_for_its_joints_but_can_be_had_without() -> None:
    graph = folded(*facts_of()[:-2])
    assert end_of(graph, NOW) is None
    assert graph.is_polishing
    end = answer(graph, NOW)
    assert end.text == "\n\n".join(TEXTS.values())
    assert [joint.outcome for joint in end.joints] == ["late", "kept", "late"]


def test_a_failed_joint_is_not_tried_again_nor_buried_and_nothing_falls_back() -> None:
    graph = folded(*facts_of()[:-2], failed(joint_before(4), retryable=False))
    assert joints_released(graph) == [joint_before(2)]
    assert (graph.deaths(), graph.falls_back, graph.fatal, graph.superfluous()) == (
        [],
        False,
        None,
        [],
    )


def test_a_direct_answer_has_no_joints() -> None:
    graph = folded(accepted(polish=True), plan([DIRECT_NODE], "direct"), decoded(DIRECT_NODE))
    assert joints_released(graph) == []
    assert end_of(graph, NOW) is not None


def test_a_joint_is_on_the_critical_path() -> None:
    graph = folded(*facts_of())
    found = timings(graph, tuple(TEXTS), NOW)
    assert found.polish_ms == 1000
    assert found.critical_path == (2,)
    assert found.critical_engine_ms == pytest.approx(100 + 1000 + 1000)
    assert found.sequential_ms == pytest.approx(500 + 5 * 1000)


@given(st.data())
def test_the_end_is_the_same_in_any_order_and_with_any_duplicates(data: st.DataObject) -> None:
    told = story(*facts_of())
    order = data.draw(st.permutations(told + data.draw(st.lists(st.sampled_from(told)))))
    graph, ids = Graph(REQUEST), []
    for fact, stored_at in order:
        graph.fold(fact, stored_at)
        ids += [(r.work.node.id, r.work.attempt) for r in graph.releases()]
    assert end_of(graph, NOW) == end_of(folded(*facts_of()), NOW)
    assert len(ids) == len(set(ids))
    assert DIRECT_NODE not in {node for node, _ in ids}


@given(st.data(), st.sampled_from(["live", "tokens", "nodes", "whole"]))
def test_a_stream_of_a_polished_answer_is_the_answer(data: st.DataObject, grain: Grain) -> None:
    end = answer(folded(*facts_of()), NOW)
    order = OrderedText(grain)
    told: list[Fact] = [*data.draw(st.permutations(facts_of())), end]
    assert "".join(str(output) for fact in told for output in order.fold(fact)) == end.text
