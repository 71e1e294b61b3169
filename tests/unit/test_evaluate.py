"""What the evaluation reckons, keeps and repeats."""

from __future__ import annotations

import math
import re
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.evaluate.bound import bound_s, call_s
from bench.evaluate.figures import geometric_mean, groups
from bench.evaluate.lines import InUse, JsonLines
from bench.evaluate.methods import METHODS, Way, choose, long_question
from bench.evaluate.packing import replays, replays_of_plans
from bench.evaluate.records import Frozen, PlanLine, Records
from bench.evaluate.replay import Length, Part, Replay, as_method, question_of, replies
from bench.evaluate.runs import open_run
from bench.plan_figures import PlanText
from bench.simulated_engine.author import Author, Recorded, Turn
from bench.simulated_engine.profiles import PROFILES, Profile
from bench.simulated_engine.tokens import pieces
from proto.errors import InvalidRequest
from proto.messages import AnswerAssembled, DecodeNode, Mode, NodeText, Usage
from proto.names import Pool
from services.planner.amend import amendment_call
from services.planner.grammar import grammar
from services.planner.prompts import plan_call
from services.runtime.calls import ChatCall
from services.runtime.client import make_request
from services.worker.prompts import node_call
from tests.unit.evaluated import record

PAIR = {Pool.LARGE: PROFILES["llama-70b-4xa100"], Pool.SMALL: PROFILES["llama-8b-1xa100"]}
SGD = Replay(
    question="7",
    category="generic",
    question_tokens=40,
    method="sgd",
    plan=(
        Part(text="graph\n", tokens=2),
        Part(text="1. One thing | easy short\n", tokens=8),
        Part(text="2. Another thing | hard long\n", tokens=9),
        Part(text="3. Both of them | hard medium needs 1,2\n", tokens=14),
        Part(text="end", tokens=1),
    ),
    nodes=(
        Length(node=1, tokens=90, finish="stop"),
        Length(node=2, tokens=80, finish="stop"),
        Length(node=3, tokens=110, finish="length"),
    ),
)
DIRECT = Replay(
    question="7",
    category="generic",
    question_tokens=40,
    method="direct",
    nodes=(Length(node=0, tokens=400, finish="stop"),),
)


# --- files ---


class Numbered(Frozen):
    number: int


def lines_at(folder: Path) -> JsonLines[Numbered]:
    return JsonLines(folder / "numbers.jsonl", Numbered)


@settings(max_examples=25)
@given(st.integers(0, 200))
def test_whatever_of_a_file_a_kill_leaves_is_read_and_gone_on_with(cut: int) -> None:
    with TemporaryDirectory() as name:
        file = lines_at(Path(name))
        with file.adding() as adder:
            for number in range(10):
                adder.add(Numbered(number=number))
        file.path.write_bytes(file.path.read_bytes()[:cut])
        left = file.read()
        assert [one.number for one in left] == list(range(len(left)))
        with file.adding() as adder:
            adder.add(Numbered(number=len(left)))
        assert [one.number for one in file.read()] == list(range(len(left) + 1))


def test_a_line_that_is_none_is_named_with_its_field(tmp_path: Path) -> None:
    file = lines_at(tmp_path)
    file.path.write_text('{"number": 1}\n{"number": "x"}\n')
    with pytest.raises(InvalidRequest, match="line 2") as caught:
        file.read()
    assert caught.value.field == "number"


def test_two_processes_do_not_write_to_one_file(tmp_path: Path) -> None:
    with lines_at(tmp_path).adding(), pytest.raises(InUse), lines_at(tmp_path).adding():
        pass


def test_a_folder_is_gone_on_with_only_as_it_was_begun(tmp_path: Path) -> None:
    first = open_run(tmp_path, {}, {"large": "a"})
    assert open_run(tmp_path, {}, {"large": "a"}) == first
    with pytest.raises(InvalidRequest, match="another folder") as caught:
        open_run(tmp_path, {}, {"large": "b"})
    assert caught.value.field == "engines"


# --- methods ---


def test_every_method_is_a_request_that_services_take() -> None:
    for method in METHODS:
        make_request(question="?", **method.fields)


@pytest.mark.parametrize("own", ["x", "x=", "x=[]", 'x={"moed": "sgd"}', '={"mode": "sgd"}'])
def test_a_method_of_ones_own_is_checked_before_anything_runs(own: str) -> None:
    with pytest.raises(InvalidRequest):
        choose([], [own])


def test_a_plan_by_the_small_model_is_in_the_bound() -> None:
    large, small = (choose([name])[0].way for name in ("sgd", "sgd-small-plan"))
    assert bound_s(SGD, PAIR, small) < bound_s(SGD, PAIR, large)


def test_a_method_of_ones_own_is_the_fields_of_its_request() -> None:
    (mine,) = choose([], ['mine={"mode": "sgd", "max_nodes": 4, "adaptive": false}'])
    assert mine.fields["max_nodes"] == 4
    assert not mine.way.adaptive


@pytest.mark.parametrize(
    ("like", "asked"),
    [
        ("Take your time, and a map.", "6 words"),
        ("Die Donaudampfschifffahrt und die Rechtsschutzversicherung helfen.", "6 words"),
        ("خذ وقتك وخريطة جيدة.", "4 words"),
        ("北京属于温带季风气候，夏季炎热多雨，冬季寒冷干燥，春秋短促。", "30 characters"),
        (
            "北京的气候 很好，夏季炎热多雨， 冬季寒冷干燥，春秋短促，风也很大，雪很少，雨不多。",
            "40 characters",
        ),
        ("", "0 words"),
    ],
)
def test_the_control_for_length_is_asked_for_what_can_be_counted_in_its_language(
    like: str, asked: str
) -> None:
    assert long_question("Why?", like) == f"Why?\n\nWrite about {asked}."


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(InvalidRequest, match="sgdd"):
        choose(["sgdd"])


# --- figures ---


@given(st.lists(st.floats(0.01, 100), min_size=1))
def test_the_geometric_mean_of_inverses_is_the_inverse(values: list[float]) -> None:
    inverse = geometric_mean(1 / value for value in values)
    assert math.isclose(geometric_mean(values) * inverse, 1.0, rel_tol=1e-9)


def test_the_geometric_mean_of_nothing_is_none() -> None:
    assert math.isnan(geometric_mean([]))


def test_questions_that_suit_stand_before_the_others_and_all_at_the_end() -> None:
    names = [name for name, _ in groups(["math", "knowledge", "generic"], str)]
    both = ["**those that suit**", "**the others**"]
    assert names == ["generic", "knowledge", "math", *both, "**all**"]


# --- bound ---


def test_the_bound_of_direct_is_its_own_call() -> None:
    assert bound_s(DIRECT, PAIR, Way()) == call_s(PAIR[Pool.LARGE], 40, 400)


#: A second for each token, of a prompt or of a reply, and nothing else.
SECONDS = dict.fromkeys(
    Pool,
    Profile(
        name="a second a token",
        model="m",
        weights_s=0,
        kv_token_s=0,
        token_s=1,
        overhead_s=0,
        kv_tokens=9999,
    ),
)


def test_the_bound_is_the_longest_of_plan_and_chain_without_what_a_cache_may_have() -> None:
    # The first line is there at 49, the second at 58; nodes are told 4, 5 and 5 tokens of them.
    # 1 from 49: 40 of the question, 4 of the plan, then 89. 2 from 58: 5 of the plan, then 79.
    # 3 from 182: 5 of the plan; the text of 1 stands where it was written, that of 2 does not.
    assert bound_s(SGD, SECONDS, Way(adaptive=False)) == 49 + 44 + 89 + 5 + 80 + 109
    # By two pools, 2 is the first in its own, and has neither the question nor the line of 1;
    # 3 starts when 2 ends, at 186, and the text of 1 is none of its pool's.
    assert bound_s(SGD, SECONDS, Way()) == 58 + 49 + 79 + 5 + 90 + 80 + 109
    # When the plan has to end first, at 73, whoever is first in a pool prefills all of it.
    late = Way(adaptive=False, pipelined=False)
    assert bound_s(SGD, SECONDS, late) == 73 + 54 + 89 + 0 + 80 + 109


def test_texts_that_were_built_on_before_are_not_prefilled_again() -> None:
    fourth = Part(text="4. Both again | hard short needs 1,2\n", tokens=14)
    plan = (*SGD.plan[:-1], fourth, SGD.plan[-1])
    four = SGD.model_copy(
        update={"plan": plan, "nodes": (*SGD.nodes, Length(node=4, tokens=200, finish="stop"))}
    )
    # As above, but that 4 starts beside 3, and has one line more.
    told = len(pieces("4. Both again"))
    assert bound_s(four, SECONDS, Way(adaptive=False)) == 49 + 44 + 89 + told + 199


def repeating(*titles: str) -> Replay:
    """Return a replay of a plan with these points, 12 tokens a line and 10 a node."""
    lines = [f"{number}. {title} | hard short\n" for number, title in enumerate(titles, start=1)]
    plan = [Part(text="list\n", tokens=1), *(Part(text=line, tokens=12) for line in lines)]
    plan.append(Part(text="end", tokens=1))
    replay = SGD.model_copy(update={"question_tokens": 20, "plan": tuple(plan)})
    nodes = [Length(node=one.node.id, tokens=10, finish="stop") for one in replay.planned()]
    return replay.model_copy(update={"nodes": tuple(nodes)})


def test_a_point_after_one_that_was_left_out_waits_for_its_own_line() -> None:
    replay = repeating("Alpha", "Beta", "alpha", "Gamma")
    assert [(place, one.node.id) for place, one in replay.placed()] == [(1, 1), (2, 2), (4, 3)]
    # The line of the third node is the fourth: 20 + 1 + 4 * 12 tokens, less the one that overlaps.
    assert bound_s(replay, SECONDS, Way()) == 68 + 3 + 9


def test_no_answer_is_there_before_its_plan_has_ended() -> None:
    replay = repeating("Alpha", "Beta", "alpha", "alpha", "alpha")
    assert bound_s(replay, SECONDS, Way()) == 20 + 1 + 5 * 12 + 1 - 1


@pytest.mark.parametrize(("generated", "plan"), [(35, 34), (69, 68), (2, 34), (0, 34)])
def test_the_tokens_of_points_that_were_left_out_are_in_the_replayed_plan(
    generated: int, plan: int
) -> None:
    made = record("7", "generic", "sgd")
    assert isinstance(made.end, AnswerAssembled)
    lines = [part.text for part in SGD.plan[1:-1]]
    planned = made.end.plan.model_copy(update={"usage": Usage(generated_tokens=generated)})
    made = made.model_copy(
        update={
            "plan": tuple(PlanLine(line=line.rstrip("\n"), planned_ms=0) for line in lines),
            "end": made.end.model_copy(update={"plan": planned}),
        }
    )
    sizes = {part.text: part.tokens for part in SGD.plan}
    (replay,) = replays(Records([made]), {"7": "Why?"}, lambda text: sizes.get(text, 1))
    assert [part.text for part in replay.plan] == [part.text for part in SGD.plan]
    assert sum(part.tokens for part in replay.plan) == plan
    author = Author(recorded=[Recorded(**line) for line in replies(replay)])  # type: ignore[arg-type]
    call = plan_call(question_of(replay, "abc123"), mode="sgd", max_nodes=12)
    assert len(said(call, author)) == plan  # an engine can say it in so many tokens


def test_each_lever_makes_the_bound_better() -> None:
    best = bound_s(SGD, PAIR, Way(planner=Pool.SMALL, needs=False))
    usual = bound_s(SGD, PAIR, Way())
    assert best < bound_s(SGD, PAIR, Way(needs=False)) < usual
    assert usual <= bound_s(SGD, PAIR, Way(adaptive=False))
    assert usual < bound_s(SGD, PAIR, Way(pipelined=False))


# --- replay ---


def said(call: ChatCall, author: Author) -> list[str]:
    turns = [Turn(message.role, message.content) for message in call.messages]
    return author.write(turns, None, 9999)


def test_every_call_of_a_replayed_question_gets_what_was_recorded() -> None:
    lines = [*replies(DIRECT), *replies(SGD, 400)]
    author = Author(recorded=[Recorded(**line) for line in lines])  # type: ignore[arg-type]
    question = question_of(SGD, "abc123")
    modes: tuple[Mode, ...] = ("auto", "sgd", "sot")
    for mode in modes:
        plan = said(plan_call(question, mode=mode, max_nodes=12), author)
        assert "".join(plan) == "".join(part.text for part in SGD.plan)
        assert len(plan) == 34
        assert said(amendment_call(question, SGD.lines, mode=mode, max_nodes=12), author) == ["ok"]
    texts: list[NodeText] = []
    for planned, length in zip(SGD.planned(), SGD.nodes, strict=True):
        node = planned.node
        work = decode_node(question, planned.node.id, tuple(t for t in texts if t.id in node.needs))
        text = said(node_call(work), author)
        assert len(text) == length.tokens
        texts.append(NodeText(id=node.id, summary=node.summary, text="".join(text)))
    assert len(said(node_call(decode_node(question, 0, ())), author)) == 400


def decode_node(question: str, node: int, texts: tuple[NodeText, ...]) -> DecodeNode:
    specs = {planned.node.id: planned.node for planned in SGD.planned()}
    spec = specs.get(node) or specs[1].model_copy(update={"id": 0})
    return DecodeNode(
        request="r",
        node=spec,
        attempt=1,
        pool=Pool.LARGE,
        mode="sgd",
        question=question,
        skeleton=SGD.lines if node else (),
        predecessors=texts,
        deadline_at=0,
    )


def test_plans_that_were_asked_for_alone_become_replays_of_the_lengths_they_ask_for() -> None:
    texts = ("".join(part.text for part in SGD.plan), "letter")
    plans = [PlanText(str(n), "generic", "auto", True, t, "", 9, 1.0) for n, t in enumerate(texts)]
    (graph,) = replays_of_plans(plans, Records(), {"0": "Why?", "1": "What?"}, len)
    assert [(one.node, one.tokens) for one in graph.nodes] == [(1, 40), (2, 100), (3, 70)]
    assert graph.lengths == "planned"
    records = Records([record("1", "generic", "direct")])
    found = replays_of_plans(plans, records, {"0": "Why?", "1": "What?"}, len)
    assert [one.is_direct for one in found] == [False, True]
    assert [one.tokens for one in found[1].nodes] == [49]


def test_a_plan_is_repeated_in_the_form_that_another_method_is_held_to() -> None:
    for mode, needs in (("sot", ()), ("sgd", (1, 2))):
        other = as_method(SGD, "other", mode)
        text = "".join(part.text for part in other.plan)
        assert re.fullmatch(grammar(mode, 12).regex, text)  # type: ignore[arg-type]
        assert other.planned()[-1].node.needs == needs
        assert other.plan[3].tokens == (14 if needs else 9)


@given(st.integers(20, 300))
def test_a_replayed_question_is_as_long_as_the_real_one(tokens: int) -> None:
    replay = SGD.model_copy(update={"question_tokens": tokens})
    head = f"{Random(tokens).getrandbits(24):06x}"
    question = question_of(replay, head)
    assert replay.mark in question
    assert len(pieces(question)) == max(tokens, len(pieces(f"{head} {replay.mark}")))
