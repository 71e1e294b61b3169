"""Checks on a plan while it is read: no point twice, and no need lost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.errors import PlanRejected
from proto.messages import Mode, NodeSpec
from services.planner.gate import decide, depth
from services.planner.parser import End, PlanItem, Planned, PlanParser, Shape, render
from services.planner.prompts import plan_call
from services.planner.reading import PlanReader, point_of


def read(text: str, reader: PlanReader | None = None) -> list[PlanItem]:
    reader = reader or PlanReader()
    return reader.feed(text) + reader.close()


def nodes_of(items: list[PlanItem]) -> list[NodeSpec]:
    return [item.node for item in items if isinstance(item, Planned)]


def test_a_plan_without_fault_stays_as_the_model_wrote_it() -> None:
    plan = "graph\n1.  Rent|easy\n2. Team | hard long\n3. Advice | hard | needs 1,2\nend"
    parser = PlanParser()
    assert read(plan) == parser.feed(plan) + parser.close()


def test_a_repeated_point_is_left_out_and_the_rest_moves_up() -> None:
    items = read(
        "graph\n1. Cost of rent | easy short\n2. The costs of rent | easy short\n"
        "3. Team | hard long\n4. Advice | hard medium needs 2,3\nend"
    )
    assert [(node.id, node.summary, node.needs) for node in nodes_of(items)] == [
        (1, "Cost of rent", ()),
        (2, "Team", ()),
        (3, "Advice", (1, 2)),
    ]
    lines = [item.line for item in items if isinstance(item, Planned)]
    assert lines[1:] == ["2. Team | hard long", "3. Advice | hard medium needs 1,2"]
    assert items[-1] == End()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cost of rent", "The costs of rent"),
        ("Größe und Lage", "größe und  Lage."),
        ("**C#**: strengths", "#C# strengths"),
        ("结论和建议", "结论和建议"),
        ("التكلفة والوقت", "التكلفة، والوقت"),
    ],
)
def test_the_same_point_in_another_number_case_or_punctuation(one: str, other: str) -> None:
    assert point_of(one) == point_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Pros of renting", "Cons of renting"),
        ("Effects on men", "Effects on women"),
        ("Step 1", "Step 2"),
        ("短期影响", "长期影响"),
        ("The", "And"),
        ("Strengths of C", "Strengths of C++"),
        ("Strengths of C", "Strengths of C#"),
        ("Effects of wages on inflation", "Effects of inflation on wages"),
        ("From theory to practice", "From practice to theory"),
        ("Vitamin A", "Vitamin"),
        ("New channels", "News channels"),
        ("Cost of a pass", "Cost of a pas"),
        ("दिन की योजना", "दान की योजना"),
        ("น้ำ", "นา"),
        ("🎉", "🍕"),
        ("< 5", "> 5"),
    ],
)
def test_points_that_differ_in_a_word_are_two(one: str, other: str) -> None:
    assert point_of(one) != point_of(other)


def test_titles_without_a_word_repeat_nothing() -> None:
    items = read("list\n1. ! | easy\n2. ? | easy\n3. ! | easy\nend")
    assert [node.summary for node in nodes_of(items)] == ["!", "?", "!"]


_WORDS = st.lists(st.text(st.characters(categories=("L", "M", "N", "S")), min_size=1), min_size=1)


@given(_WORDS.filter(lambda words: words[0].casefold() not in ("a", "an")))
def test_a_point_is_none_of_its_beginnings(words: list[str]) -> None:
    point = point_of(" ".join(words))
    assert all(point_of(" ".join(words[:count])) != point for count in range(1, len(words)))


def test_a_planner_that_takes_over_knows_the_published_points_again() -> None:
    reader = PlanReader(done=["1. Rent | easy", "2. Team | hard needs 1"])
    items = read("3. The team | easy\n4. Advice | hard needs 3\nend", reader)
    assert nodes_of(items) == [NodeSpec(id=3, summary="Advice", difficulty="hard", needs=(2,))]
    assert [item.line for item in items if isinstance(item, Planned)] == [
        "3. Advice | hard medium needs 2"
    ]


def test_needs_stay_as_the_model_wrote_them_however_deep() -> None:
    chain = (
        "graph\n1. A | easy\n2. B | easy needs 1\n3. C | easy needs 2\n4. D | hard needs 1,3\nend"
    )
    nodes = nodes_of(read(chain))
    assert [node.needs for node in nodes] == [(), (1,), (2,), (1, 3)]
    assert decide("auto", "graph", nodes, "complete").reason == "chain"
    assert decide("sgd", "graph", nodes, "complete").nodes == (1, 2, 3, 4)


EXAMPLES = [
    message.content
    for message in plan_call("?", mode="auto", max_nodes=9).messages
    if message.role == "assistant" and "|" in message.content
]


@pytest.mark.parametrize("plan", EXAMPLES, ids=lambda plan: plan.splitlines()[1])
@pytest.mark.parametrize("mode", ["auto", "sgd", "sot"])
def test_a_plan_copied_out_of_the_prompt_is_refused_whole(plan: str, mode: Mode) -> None:
    word, first, second, *_ = plan.splitlines()
    reader = PlanReader()
    assert len(nodes_of(reader.feed(f"{word}\n{first}\n"))) == 1
    with pytest.raises(PlanRejected, match="copied"):
        reader.feed(f"{second}\n")
    assert decide(mode, "graph", reader.written, "unparsable").nodes == (0,)


def test_a_copy_is_known_by_its_titles_whatever_stands_beside_them() -> None:
    titles = [node.summary for node in nodes_of(PlanParser().feed(EXAMPLES[0]))]
    copy = f"list\n1. {titles[0].upper()} | easy short\n2. {titles[1]}. | hard long\n"
    with pytest.raises(PlanRejected, match="copied"):
        PlanReader().feed(copy)


def test_a_planner_that_takes_over_knows_a_copy_that_another_began() -> None:
    _, first, second, *_ = EXAMPLES[0].splitlines()
    with pytest.raises(PlanRejected, match="copied"):
        PlanReader(done=[first]).feed(f"{second}\n")


@pytest.mark.parametrize(
    "titles",
    [
        ("Pests and diseases", "Weather", "Prices"),
        ("Weather", "Pests and diseases", "Water by the feel of the soil"),
        ("Recht und Datenschutz", "Folgen für die Zusammenarbeit", "Kosten"),
        ("Unsteady tilt of the axis", "Darker nights for animals", "Calendars and myths"),
        ("Kosten von Miete und Technik", "Wünsche der Mitarbeiter", "Empfehlung"),
    ],
)
def test_a_plan_keeps_each_point_that_an_example_has_too(titles: tuple[str, ...]) -> None:
    lines = [f"{number}. {title} | easy short" for number, title in enumerate(titles, 1)]
    found = nodes_of(read("\n".join(["list", *lines, "end"])))
    assert tuple(node.summary for node in found) == titles


def test_without_checks_it_is_the_parser() -> None:
    plan = "graph\n1. A | easy\n2. A | easy needs 1\n3. A | easy needs 2\nend"
    parser = PlanParser()
    assert read(plan, PlanReader(checked=False)) == parser.feed(plan) + parser.close()
    assert nodes_of(read(EXAMPLES[0], PlanReader(checked=False)))


_SUMMARIES = st.sampled_from(["Rent", "Team", "Costs", "Cost", "Law", "Advice", "Light", "Air"])


@st.composite
def plans(draw: st.DrawFn) -> tuple[NodeSpec, ...]:
    nodes = []
    for number in range(1, draw(st.integers(1, 12)) + 1):
        earlier = st.sets(st.integers(1, number - 1)) if number > 1 else st.just(set[int]())
        needs = tuple(sorted(draw(earlier)))
        nodes.append(NodeSpec(id=number, summary=draw(_SUMMARIES), needs=needs))
    return tuple(nodes)


@given(plans(), st.lists(st.integers(0, 900), max_size=8))
def test_any_plan_is_read_the_same_in_any_chunking_and_taken_over_at_any_line(
    nodes: tuple[NodeSpec, ...], places: list[int]
) -> None:
    text = render("graph", nodes)
    whole = read(text)
    edges = [0, *sorted(place % len(text) for place in places), len(text)]
    reader = PlanReader()
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert [item for piece in pieces for item in reader.feed(piece)] + reader.close() == whole
    lines = [item.line for item in whole if isinstance(item, Planned)]
    again = read("\n".join(["graph", *lines, "end"]))
    assert nodes_of(again) == nodes_of(whole)
    taken_over = PlanReader(done=lines[: (len(lines) + 1) // 2])
    rest = read("\n".join([*lines[(len(lines) + 1) // 2 :], "end"]), taken_over)
    assert [*taken_over.done, *nodes_of(rest)] == nodes_of(whole)


@given(plans())
def test_the_graph_is_whole_keeps_each_need_and_has_no_point_twice(
    nodes: tuple[NodeSpec, ...],
) -> None:
    items = read(render("graph", nodes))
    found = nodes_of(items)
    assert (items[0], items[-1]) == (Shape("graph"), End())
    assert [node.id for node in found] == list(range(1, len(found) + 1))
    said = {node.id: point_of(node.summary) for node in nodes}
    known = {point_of(node.summary): node for node in found}
    assert set(said.values()) == set(known)
    assert len(known) == len(found)
    for node in {said[node.id]: node for node in reversed(nodes)}.values():  # each point's first
        needs = known[said[node.id]].needs
        assert set(needs) == {known[said[need]].id for need in node.needs}


@given(plans())
def test_a_plan_that_is_answered_in_parts_is_no_chain(nodes: tuple[NodeSpec, ...]) -> None:
    found = nodes_of(read(render("graph", nodes)))
    decision = decide("auto", "graph", found, "complete")
    assert decision.mode == "direct" or depth(found) <= max(2, len(found) / 2)
