"""The discrete-event simulation: what its figures rest on."""

from __future__ import annotations

import re
import statistics
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from bench.evaluate.replay import Length, Part, Replay
from bench.simulate import plot, real, recorded, study, work
from bench.simulate.figures import Answered, figures, quantile, spread
from bench.simulate.policies import DIRECT, OURS, POLICIES, Policy
from bench.simulate.work import Arrival, PlannedNode, Question
from bench.simulate.world import Asked, Deployment, World
from bench.simulated_engine.profiles import H100, LLAMA_8B, roofline
from services.planner.parser import PlanLimits, Planned
from services.planner.prompts import plan_call
from services.planner.reading import PlanReader

FAST = replace(roofline("fast", LLAMA_8B, H100, 1), kv_token_s=0.0)
SMALL = Deployment(large_endpoints=1, small_endpoints=1, slots=2, planner_slots=2)


def direct(tokens: int) -> Question:
    return Question("direct", "direct", (), tokens)


def graph(*needs: tuple[int, ...]) -> Question:
    nodes = tuple(
        PlannedNode(id_, of, easy=id_ % 2 == 0, line_tokens=5, tokens=20)
        for id_, of in enumerate(needs, 1)
    )
    return Question("graph", "graph", nodes, 20 * len(nodes))


def taken(asked: Asked) -> float:
    assert asked.ended_s is not None
    return asked.ended_s - asked.arrival.at_s


def test_a_lone_direct_answer_takes_a_step_a_token() -> None:
    deployment = replace(SMALL, large=FAST)
    (asked,) = World(deployment, DIRECT, [Arrival(3.0, "", direct(50))]).run()
    assert taken(asked) == pytest.approx(50 * FAST.step_s(1, 0), rel=0.05)


def test_one_slot_waits_as_queueing_theory_says() -> None:
    deployment = replace(SMALL, large=FAST, slots=1, small_endpoints=0)
    question, load = direct(20), 0.7
    (alone,) = World(deployment, DIRECT, [Arrival(0.0, "", question)]).run()
    service_s = taken(alone)
    coming = work.arrivals(Random(1), [question], rate=load / service_s, count=2500)
    waits = [taken(one) - service_s for one in World(deployment, DIRECT, coming).run()]
    # Pollaczek and Khinchine, services of one length.
    assert statistics.fmean(waits) == pytest.approx(load * service_s / (2 * (1 - load)), rel=0.2)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda one: one.name)
def test_every_request_ends_and_its_needs_come_first(policy: Policy) -> None:
    questions = [direct(30), graph((), (), (1, 2), (3,)), graph((), (), ())]
    coming = work.arrivals(Random(2), questions, rate=20.0, count=60, tenants=study.FLOOD)
    world = World(SMALL, policy, coming)
    for asked in world.run():
        assert asked.plan_done
        assert asked.done == set(asked.planned)
        assert asked.first_s is not None
        assert taken(asked) > 0
    for pool in (world.large, world.small):
        assert not pool.held
        assert not pool.handed_over
        assert not any(pool.of_tenant.values())


@pytest.mark.parametrize("policy", POLICIES, ids=lambda one: one.name)
def test_no_slot_is_idle_while_a_node_waits(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(SMALL, policy, [Arrival(0.0, "", graph((), (), (), (1,))) for _ in range(9)])
    step = world._step

    def checked(endpoint: object) -> None:
        for pool in (world.large, world.small):
            assert pool.running == pool.slots or not (pool.held or pool.handed_over > pool.running)
        step(endpoint)  # type: ignore[arg-type]

    monkeypatch.setattr(world, "_step", checked)
    world.run()


def test_beside_a_flood_another_takes_at_most_twice_what_it_takes_alone() -> None:
    deployment = Deployment(large_endpoints=1, small_endpoints=1, slots=6, planner_slots=2)
    questions = work.drawn(Random(5), 60)
    scenario = study.Scenario(load=3.0, tenants=study.FLOOD, count=60)

    def of_alone(policy: Policy) -> float:
        return study.run(deployment, policy, scenario, questions, 3.0, 1).of_alone

    assert of_alone(OURS) <= 2 < of_alone(replace(OURS, fair_planning=False))


def test_all_policies_meet_the_same_arrivals() -> None:
    questions = work.drawn(Random(3), 20)
    scenario = study.Scenario(load=0.5, count=20)
    runs = [study.run(SMALL, DIRECT, scenario, questions, 0.5, seed) for seed in (1, 1, 2)]
    assert runs[0].mean_s == runs[1].mean_s != runs[2].mean_s


@pytest.mark.parametrize("kind", ["poisson", "bursty"])
def test_requests_come_at_the_rate_asked_for(kind: work.Arrivals) -> None:
    coming = work.arrivals(Random(5), [direct(1)], rate=4.0, count=20_000, kind=kind)
    assert [one.at_s for one in coming] == sorted(one.at_s for one in coming)
    assert 20_000 / coming[-1].at_s == pytest.approx(4.0, rel=0.1)


def test_drawn_questions_are_plans_that_can_be_run() -> None:
    for question in work.drawn(Random(4), 300):
        assert all(need < node.id for node in question.nodes for need in node.needs)
        assert (question.shape == "direct") == (not question.nodes)
        assert question.direct_tokens > 0


def replayed(method: str, lengths: list[int], *lines: str) -> Replay:
    """A question of which each line of the plan has ten tokens, and its word one."""
    parts = [Part(text=line, tokens=10 if "|" in line else 1) for line in lines]
    first = 1 if len(lengths) > 1 else 0
    nodes = [Length(node=id_, tokens=n, finish="stop") for id_, n in enumerate(lengths, first)]
    return Replay(
        question="7", category="", question_tokens=9, method=method, plan=tuple(parts),
        nodes=tuple(nodes),
    )  # fmt: skip


LISTED = ("graph\n", "1. Sun | easy short\n", "2. Moon | hard long needs 1\n", "end")


def test_recorded_questions_have_the_gates_word_and_the_lengths_that_were_written() -> None:
    answered, gate = replayed("direct", [300]), replayed("auto", [40, 70], *LISTED)
    forced = replayed("sgd", [55, 99], *LISTED)
    (question,) = recorded.questions([answered, gate, forced])
    assert question.direct_tokens == 301  # the one that ends it is generated too
    assert question.shape == "graph"
    assert question.nodes == (
        PlannedNode(1, (), easy=True, line_tokens=10, tokens=56),
        PlannedNode(2, (1,), easy=False, line_tokens=10, tokens=100),
    )
    (planned,) = recorded.questions([answered, gate])
    assert [node.tokens for node in planned.nodes] == [41, 71]
    (alone,) = recorded.questions([answered, replayed("auto", [300], "fact"), forced])
    assert (alone.shape, alone.nodes) == ("direct", ())
    assert recorded.questions([gate, forced]) == []


def test_the_committed_recordings_can_be_simulated() -> None:
    for path in Path("bench/evaluate/recorded").glob("*.jsonl"):
        questions = recorded.read_recording(path)
        coming = [Arrival(0.0, "", question) for question in questions]
        assert len(questions) >= 10
        assert all(taken(one) > 0 for one in World(SMALL, POLICIES[-1], coming).run())


def test_a_bad_line_of_a_recording_is_named(tmp_path: Path) -> None:
    file = tmp_path / "plans.jsonl"
    file.write_text(replayed("direct", [3]).model_dump_json() + '\n{"question": 8}\n')
    with pytest.raises(ValueError, match="line 2: question"):
        recorded.read_recording(file)


def test_figures_leave_out_the_edges_and_tell_tenants_apart() -> None:
    edge = Answered("a", 1000.0, 1000.0, 1.0)
    found = figures(
        [edge, *[Answered("a", 2.0, 1.0, 1.0)] * 4, *[Answered("b", 4.0, 1.0, 1.0)] * 4, edge]
    )
    assert found.mean_s == 3.0
    assert found.tenants_s == {"a": 2.0, "b": 4.0}
    assert found.slowdown == 3.0


def test_a_picture_names_the_policies(tmp_path: Path) -> None:
    runs = [figures([Answered("", float(n), 1.0, 1.0)] * 3) for n in (2, 4)]
    plot.draw({"ours & others": [(0.5, runs), (0.8, runs)]}, "drawn", tmp_path / "new" / "p.svg")
    assert "<svg" in (tmp_path / "new" / "p.svg").read_text("utf-8")


def test_quantiles_and_confidence() -> None:
    assert quantile(list(range(1, 101)), 0.99) == 99
    assert quantile([7.0], 0.99) == 7.0
    mean, half = spread([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.30 / 3**0.5)


def test_engines_can_repeat_what_is_simulated() -> None:
    grammar = plan_call("?", mode="auto", max_nodes=12).grammar
    assert grammar is not None
    for question in work.drawn(Random(6), 60):
        repeated = real.replay(question)
        assert re.fullmatch(grammar.regex, "".join(part.text for part in repeated.plan))
        reader = PlanReader(PlanLimits(max_nodes=12))
        items = [*reader.feed("".join(part.text for part in repeated.plan)), *reader.close()]
        nodes = [item.node for item in items if isinstance(item, Planned)]
        assert [node.needs for node in nodes] == [node.needs for node in question.nodes]
        assert [node.difficulty == "easy" for node in nodes] == [
            node.easy for node in question.nodes
        ]
