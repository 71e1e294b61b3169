"""The graph folds facts into what follows from them, in whatever order they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.messages import AnswerAssembled, Fact, RequestFailed, SkeletonDrafted
from proto.names import DIRECT_NODE, Band, Pool
from services.assembler.answer import end_of
from services.assembler.folded import RetryPolicy
from services.assembler.graph import Graph, Release
from tests.facts import REQUEST, accepted, decoded, failed, plan, planned, story

NOW = 2000.0


def folded(*facts: Fact, policy: RetryPolicy | None = None) -> Graph:
    graph = Graph(REQUEST, policy or RetryPolicy())
    for fact, stored_at in story(*facts):
        graph.fold(fact, stored_at)
    return graph


def released(graph: Graph) -> list[tuple[int, int]]:
    return [(release.work.node.id, release.work.attempt) for release in graph.releases()]


def only(graph: Graph) -> Release:
    (release,) = graph.releases()
    return release


@st.composite
def dags(draw: st.DrawFn) -> list[list[int]]:
    """Needs of nodes 1 … n, each on earlier nodes only."""
    count = draw(st.integers(1, 8))
    return [
        draw(st.lists(st.integers(1, node - 1), unique=True, max_size=3)) if node > 1 else []
        for node in range(1, count + 1)
    ]


def facts_of(needs: list[list[int]]) -> list[Fact]:
    nodes = range(1, len(needs) + 1)
    return [
        accepted(),
        *(planned(node, needs[node - 1]) for node in nodes),
        plan(list(nodes)),
        *(decoded(node) for node in nodes),
    ]


def test_a_node_is_released_as_soon_as_its_line_is_planned() -> None:
    assert released(folded(accepted(), planned(1))) == [(1, 1)]


def test_a_node_waits_for_all_that_it_needs() -> None:
    graph = folded(accepted(), planned(1), planned(2), planned(3, [1, 2]))
    assert released(graph) == [(1, 1), (2, 1)]
    graph.fold(decoded(1), 1.0)
    assert released(graph) == []
    graph.fold(decoded(2), 2.0)
    assert released(graph) == [(3, 1)]


def test_without_pipelining_no_node_is_released_before_the_plan_is_complete() -> None:
    graph = folded(accepted(without=["pipelining"]), planned(1), planned(2), planned(3, [1]))
    assert released(graph) == []
    graph.fold(plan([1, 2, 3]), 9.0)
    assert released(graph) == [(1, 1), (2, 1)]


def test_a_worker_is_told_what_to_do_without() -> None:
    graph = folded(accepted(without=["prefix", "needs"]), planned(1))
    assert only(graph).work.without == ("prefix", "needs")


def test_released_work_is_self_contained() -> None:
    graph = folded(accepted(), planned(1), planned(2, [1]), decoded(1))
    work = {release.work.node.id: release.work for release in graph.releases()}[2]
    assert work.question == "Why?"
    assert work.skeleton == ("1. point 1 | hard", "2. point 2 | hard")
    assert [(text.id, text.text) for text in work.predecessors] == [(1, "Text 1.")]


def test_nothing_is_released_twice() -> None:
    graph = folded(accepted(), planned(1), planned(2))
    assert released(graph) == [(1, 1), (2, 1)]
    assert released(graph) == []
    graph.fold(planned(1), 9.0)
    assert released(graph) == []


def test_work_found_in_the_queue_is_not_released_again() -> None:
    graph = folded(accepted(), planned(1), planned(2))
    graph.note_queued(1, 1)
    assert released(graph) == [(2, 1)]


def test_a_dry_run_releases_nothing_and_ends_with_the_skeleton() -> None:
    graph = folded(accepted(dry_run=True), planned(1), planned(2), planned(3), plan([1, 2, 3]))
    assert released(graph) == []
    end = end_of(graph, NOW)
    assert isinstance(end, SkeletonDrafted)
    assert [node.id for node in end.nodes] == [1, 2, 3]


@pytest.mark.parametrize(
    ("asked", "difficulty", "pool"),
    [
        ({"mode": "sgd"}, "easy", Pool.SMALL),
        ({"mode": "auto"}, "easy", Pool.SMALL),
        ({"mode": "sgd"}, "hard", Pool.LARGE),
        ({"mode": "sgd", "adaptive": False}, "easy", Pool.LARGE),
        ({"mode": "sot"}, "easy", Pool.LARGE),
    ],
)
def test_easy_nodes_go_to_the_small_pool_only_where_asked(
    asked: dict[str, object], difficulty: str, pool: Pool
) -> None:
    graph = folded(accepted(**asked), planned(1, (), difficulty))  # type: ignore[arg-type]
    assert only(graph).work.pool is pool


def test_nodes_of_requests_that_have_waited_are_urgent() -> None:
    graph = folded(accepted(), planned(1), planned(2), planned(3, [1]), decoded(1), failed(2))
    bands = {release.work.node.id: release.band for release in graph.releases()}
    assert bands == {2: Band.URGENT, 3: Band.URGENT}
    assert only(folded(accepted(), planned(1))).band is Band.NORMAL


def test_a_node_taken_for_dead_and_done_after_all_lets_the_graph_go_on() -> None:
    graph = folded(accepted(), planned(1), plan([1, 2]), failed(1, retryable=False))
    assert released(graph) == [(DIRECT_NODE, 1)]
    graph.fold(planned(2), 9.0)
    assert released(graph) == []
    graph.fold(decoded(1), 10.0)
    assert released(graph) == [(2, 1)]


def test_a_collapsed_plan_releases_the_direct_node_and_gives_up_the_others() -> None:
    graph = folded(accepted(), planned(1), planned(2))
    assert released(graph) == [(1, 1), (2, 1)]
    graph.fold(plan([DIRECT_NODE], "direct"), 9.0)
    assert released(graph) == [(DIRECT_NODE, 1)]
    assert graph.superfluous() == [1, 2]
    graph.fold(decoded(1), 10.0)
    graph.fold(decoded(DIRECT_NODE, text="All."), 11.0)
    end = end_of(graph, NOW)
    assert isinstance(end, AnswerAssembled)
    assert (end.mode, end.text) == ("direct", "All.")


def test_a_failed_node_is_tried_again_elsewhere_at_once_then_with_growing_pauses() -> None:
    graph = folded(accepted(), planned(1))
    first = only(graph)
    assert (first.delay_s, first.work.avoid_endpoint) == (0.0, None)
    delays = []
    for attempt in (1, 2, 3):
        graph.fold(failed(1, attempt), 5.0)
        again = only(graph)
        assert again.work.avoid_endpoint == "http://e"
        delays.append((again.work.attempt, again.delay_s))
    assert delays == [(2, 0.0), (3, 0.5), (4, 1.0)]


def test_a_node_that_keeps_failing_in_the_small_pool_goes_to_the_large_one() -> None:
    graph = folded(accepted(), planned(1, (), "easy"))
    releases = [only(graph)]
    for attempt in (1, 2):
        graph.fold(failed(1, attempt, pool=Pool.SMALL), 5.0)
        releases.append(only(graph))
    graph.fold(failed(1, 3, pool=Pool.LARGE), 5.0)
    releases.append(only(graph))
    pools = [release.work.pool for release in releases]
    assert pools == [Pool.SMALL, Pool.SMALL, Pool.LARGE, Pool.LARGE]
    assert [release.escalated for release in releases] == [False, False, True, False]


@pytest.mark.parametrize("retryable", [True, False])
def test_a_dead_node_is_buried_once_and_the_answer_is_direct(retryable: bool) -> None:
    attempts = 4 if retryable else 1
    deaths = [failed(1, attempt, retryable=retryable) for attempt in range(1, attempts + 1)]
    graph = folded(accepted(), planned(1), planned(2), plan([1, 2]), *deaths)
    (dead,) = graph.deaths()
    assert dead.work.node.id == 1
    assert [one.attempt for one in dead.history] == list(range(1, attempts + 1))
    assert [one.failed_at for one in dead.history] == [1005.0 + n for n in range(attempts)]
    assert (dead.error, dead.submitted) == (deaths[-1].error, accepted().submitted)
    assert graph.deaths() == []
    assert (DIRECT_NODE, 1) in released(graph)
    graph.fold(decoded(DIRECT_NODE), 9.0)
    end = end_of(graph, NOW)
    assert isinstance(end, AnswerAssembled)
    assert end.fallback


def test_a_node_can_be_buried_without_the_others() -> None:
    deaths = [failed(1, retryable=False), failed(2, retryable=False)]
    graph = folded(accepted(), planned(1), planned(2), planned(3), *deaths)
    assert [dead.work.node.id for dead in graph.deaths(2)] == [2]
    assert graph.deaths(3) == []
    assert [dead.work.node.id for dead in graph.deaths()] == [1]


def test_a_request_that_wants_no_fallback_fails_after_its_siblings_are_done() -> None:
    graph = folded(
        accepted(on_failure="fail"),
        planned(1),
        planned(2),
        planned(3, [1]),
        plan([1, 2, 3]),
        failed(1, retryable=False),
    )
    assert end_of(graph, NOW) is None
    graph.fold(decoded(2), 9.0)
    end = end_of(graph, NOW)
    assert isinstance(end, RequestFailed)
    assert (end.error.code, [text.id for text in end.partial]) == ("node_gave_up", [2])


def test_when_the_direct_answer_dies_too_the_request_fails() -> None:
    graph = folded(
        accepted(), planned(1), plan([1]), failed(1, retryable=False), failed(0, retryable=False)
    )
    end = end_of(graph, NOW)
    assert isinstance(end, RequestFailed)
    assert end.error.code == "node_gave_up"


def test_reports_say_where_each_text_stands_in_the_answer() -> None:
    graph = folded(*facts_of([[], [], [1]]))
    end = end_of(graph, NOW)
    assert isinstance(end, AnswerAssembled)
    assert [end.text[node.start : node.end] for node in end.nodes] == [
        "Text 1.",
        "Text 2.",
        "Text 3.",
    ]
    assert end.usage.generated_tokens == 20 + 3 * 5


@given(dags(), st.data())
def test_no_node_is_released_before_its_needs_and_none_twice(
    needs: list[list[int]], data: st.DataObject
) -> None:
    facts = facts_of(needs)
    order = data.draw(st.permutations(facts + data.draw(st.lists(st.sampled_from(facts)))))
    graph, seen, done = Graph(REQUEST), [], set()
    for second, fact in enumerate(order):
        graph.fold(fact, float(second))
        if fact.type == "NodeDecoded":
            done.add(fact.node)
        for release in graph.releases():
            node = release.work.node
            assert set(node.needs) <= done
            seen.append(node.id)
    assert len(seen) == len(set(seen))


@given(dags(), st.data())
def test_the_end_is_the_same_in_any_order_and_with_any_duplicates(
    needs: list[list[int]], data: st.DataObject
) -> None:
    facts = facts_of(needs)
    told = story(*facts)
    order = data.draw(st.permutations(told + data.draw(st.lists(st.sampled_from(told)))))
    plain, shuffled = folded(*facts), Graph(REQUEST)
    for fact, stored_at in order:
        shuffled.fold(fact, stored_at)
    assert end_of(shuffled, NOW) == end_of(plain, NOW)
    assert end_of(plain, NOW) is not None


@given(dags(), st.data())
def test_driven_by_its_own_releases_every_graph_comes_to_its_answer(
    needs: list[list[int]], data: st.DataObject
) -> None:
    """Whatever order the workers finish in, and however often they fail before."""
    nodes = range(1, len(needs) + 1)
    graph = folded(
        accepted(), *(planned(node, needs[node - 1]) for node in nodes), plan(list(nodes))
    )
    running: list[tuple[int, int]] = released(graph)
    while running:
        node, attempt = running.pop(data.draw(st.integers(0, len(running) - 1)))
        if attempt < 4 and data.draw(st.booleans()):
            graph.fold(failed(node, attempt), 5.0)
        else:
            graph.fold(decoded(node, attempt), 6.0)
        running += released(graph)
    end = end_of(graph, NOW)
    assert isinstance(end, AnswerAssembled)
    assert [report.node.id for report in end.nodes] == list(nodes)


@given(dags(), st.integers(1, 8), st.sampled_from(["direct", "fail"]))
def test_a_request_with_a_dead_node_always_ends(
    needs: list[list[int]], victim: int, on_failure: str
) -> None:
    nodes = range(1, len(needs) + 1)
    graph = folded(
        accepted(on_failure=on_failure),
        *(planned(node, needs[node - 1]) for node in nodes),
        plan(list(nodes)),
    )
    running = released(graph)
    while running:
        node, attempt = running.pop()
        dies = node == min(victim, len(needs))
        graph.fold(failed(node, attempt) if dies else decoded(node, attempt), 5.0)
        running += released(graph)
    end = end_of(graph, NOW)
    wanted = AnswerAssembled if on_failure == "direct" else RequestFailed
    assert isinstance(end, wanted)
