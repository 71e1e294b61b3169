"""The plan's text form: any chunking, nothing but valid graphs, every refusal named."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.errors import PlanRejected
from proto.messages import Difficulty, NodeSpec
from services.planner.parser import (
    DIRECT_WORDS,
    SIZES,
    End,
    PlanItem,
    PlanLimits,
    Planned,
    PlanParser,
    Shape,
    ShapeKind,
    render,
    render_node,
)

PLAN = """graph
1. Cost of rent | easy short
2. Effects on the team | hard long
3. Advice | hard medium needs 1,2
end"""

NODES = (
    NodeSpec(id=1, summary="Cost of rent", difficulty="easy", budget_tokens=40),
    NodeSpec(id=2, summary="Effects on the team", difficulty="hard", budget_tokens=100),
    NodeSpec(id=3, summary="Advice", difficulty="hard", needs=(1, 2), budget_tokens=70),
)

Outcome = tuple[list[PlanItem], str]


def read(pieces: Iterable[str], parser: PlanParser | None = None) -> Outcome:
    """Return all items and the message of the refusal, empty if there was none."""
    parser = parser or PlanParser()
    items: list[PlanItem] = []
    try:
        for piece in pieces:
            items += parser.feed(piece)
        items += parser.close()
    except PlanRejected as error:
        return items, error.message
    return items, ""


def nodes_of(items: Iterable[PlanItem]) -> tuple[NodeSpec, ...]:
    return tuple(item.node for item in items if isinstance(item, Planned))


def cut(text: str, places: Iterable[int]) -> list[str]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


_WORDS = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs"), exclude_characters="|"),
    min_size=1,
    max_size=12,
)
_SUMMARIES = st.lists(_WORDS, min_size=1, max_size=5).map(" ".join)
_PLACES = st.lists(st.integers(0, 5000), max_size=12)


@st.composite
def plans(draw: st.DrawFn) -> tuple[ShapeKind, tuple[NodeSpec, ...]]:
    shape: ShapeKind = draw(st.sampled_from(("list", "graph")))
    nodes = []
    for number in range(1, draw(st.integers(1, 12)) + 1):
        earlier = st.sets(st.integers(1, number - 1)) if number > 1 else st.just(set[int]())
        needs = tuple(sorted(draw(earlier))) if shape == "graph" else ()
        level: Difficulty = draw(st.sampled_from(("easy", "hard")))
        spec = NodeSpec(
            id=number,
            summary=draw(_SUMMARIES),
            needs=needs,
            difficulty=level,
            budget_tokens=draw(st.sampled_from(tuple(SIZES.values()))),
        )
        nodes.append(spec)
    return shape, tuple(nodes)


@given(plans(), _PLACES, st.sampled_from(("\n", "\r\n")), st.booleans())
def test_any_plan_comes_back_in_any_chunking(
    plan: tuple[ShapeKind, tuple[NodeSpec, ...]], places: list[int], newline: str, ended: bool
) -> None:
    shape, nodes = plan
    text = render(shape, nodes).replace("\n", newline) + (newline if ended else "")
    lines = [Planned(node, render_node(node)) for node in nodes]
    assert read(cut(text, places)) == ([Shape(shape), *lines, End()], "")


_GARBLED = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "graph",
                "list",
                "direct",
                "end",
                "\n",
                "\r",
                "1. ",
                "2. ",
                "3. ",
                "| ",
                "easy",
                "hard",
                " long ",
            ]
        ),
        st.sampled_from(
            ["needs 1", "needs 2,1", "needs", "needs 9", "A", "**", "\t", "\u2028", " "]
        ),
        st.text(max_size=4),
    ),
    max_size=60,
).map("".join)


@given(_GARBLED | _GARBLED.map("graph\n".__add__), _PLACES)
def test_garbage_is_refused_the_same_in_any_chunking_and_never_makes_a_cycle(
    text: str, places: list[int]
) -> None:
    items, refusal = read(cut(text, places))
    assert (items, refusal) == read([text])
    for place, node in enumerate(nodes_of(items), start=1):
        assert node.id == place
        assert all(1 <= need < node.id for need in node.needs)
        assert node.summary
    assert refusal or isinstance(items[-1], End)


def test_the_line_is_what_the_model_wrote_byte_for_byte() -> None:
    line = "  1.  Kosten  |  EASY  Short|needs:none "
    items, _ = read(["Graph\n", line, "\r\n", "END"])
    assert items == [
        Shape("graph"),
        Planned(NODES[0].model_copy(update={"summary": "Kosten"}), line),
        End(),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "3. Advice | hard | needs 1,2",
        "3. Advice | needs 1,2 | hard",
        "3. Advice | medium needs 1,2 hard",
        "3.Advice|Hard|Medium|Needs: 2, 1, 2",
        " 3. Advice | hard medium | needs 1 2 ",
        "3. Advice | hard, medium, needs 1,2",
        "3. Advice | medium , needs 1, 2, hard",
    ],
)
def test_small_departures_are_tolerated(line: str) -> None:
    items, refusal = read([f"\nlist\n\n1. A | easy\n2. B | easy\n{line}\n\nend\nThat is my plan."])
    assert not refusal
    assert nodes_of(items)[2] == NODES[2]


def test_direct_ends_the_plan_and_nothing_after_it_is_read() -> None:
    for word in ("direct", *DIRECT_WORDS):
        assert read([word]) == ([Shape("direct"), End()], "")
        assert read([f" {word.title()}\n", "1. A | easy"]) == ([Shape("direct"), End()], "")
    parser = PlanParser()
    assert parser.feed("direct\nThe answer is 42" + "x" * 10_000) == [Shape("direct"), End()]
    assert parser.feed("\x00") == []
    assert parser.close() == []


def test_a_node_is_handed_out_with_the_newline_of_its_line() -> None:
    parser = PlanParser()
    assert parser.feed("graph\n1. Cost of rent | easy short") == [Shape("graph")]
    assert nodes_of(parser.feed("\n2. Eff")) == NODES[:1]


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        ("3. C | hard | needs 3", "needs 3, which is not an earlier node"),
        ("3. C | hard | needs 4", "needs 4, which is not an earlier node"),
        ("3. C | hard | needs 0", "needs 0, which is not an earlier node"),
        ("4. C | hard", "number 4, where 3 is next"),
        ("2. C | hard", "number 2, where 3 is next"),
        ("3. C | medium", "the difficulty is missing"),
        ("3. C | normal", "come only easy or hard"),
        ("3. C | hard long short", "come only easy or hard"),
        ("3. C | hardlong", "come only easy or hard"),
        ("3. C | hard,, long", "come only easy or hard"),
        ("3. C | hard long,", "come only easy or hard"),
        ("3. C | hard needs 1,x", "come only easy or hard"),
        ("3. C | hard long needs 1,", "come only easy or hard"),
        ("3. C | hard | easy", "come only easy or hard"),
        ("3. C | hard | needs 1 | needs 2", "come only easy or hard"),
        ("3. C | hard | needs one", "come only easy or hard"),
        ("3. C", "the difficulty is missing"),
        ("3. C | needs 1", "the difficulty is missing"),
        ("3.  | hard", "the summary is empty"),
        ("3) C | hard", "a node line or the end line is expected"),
        ("**3. C** | hard", "a node line or the end line is expected"),
        ("I hope this helps!", "a node line or the end line is expected"),
        ("3. C\tD | hard", "control characters"),
        ("3. C\x1b[31m | hard", "control characters"),
        ("3. C\u2028D | hard", "control characters"),
        ("3. " + "C" * 300 + " | hard", "longer than 300 characters"),
    ],
)
def test_a_refusal_names_the_line_and_what_is_wrong(rest: str, why: str) -> None:
    items, refusal = read([f"graph\n1. A | easy\n2. B | easy\n{rest}\nend"])
    assert len(nodes_of(items)) == 2
    assert "(line 4)" in refusal
    assert why in refusal


@pytest.mark.parametrize(
    "text", ["", "\n\n", "gra", "list", "end", "Here is the plan:\n1. A | easy\n"]
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    items, refusal = read([text])
    assert not items
    assert refusal


def test_prose_instead_of_a_plan_is_refused_at_its_first_line() -> None:
    items, refusal = read(["Sure! Here is a plan for you:\n\n1. A | easy\n"])
    assert items == []
    assert "(line 1): the first line must be direct, list or graph" in refusal


def test_more_nodes_than_the_limit_are_refused() -> None:
    items, refusal = read([PLAN], PlanParser(PlanLimits(max_nodes=2)))
    assert nodes_of(items) == NODES[:2]
    assert "more than 2 nodes" in refusal


def test_a_line_without_end_is_refused_as_soon_as_it_is_too_long() -> None:
    parser = PlanParser(PlanLimits(max_line_chars=50))
    parser.feed("graph\n1. " + "a" * 40)
    with pytest.raises(PlanRejected, match="longer than 50 characters"):
        parser.feed("a" * 10)
    with pytest.raises(PlanRejected, match="longer than 50 characters"):
        parser.close()


def test_a_bad_line_takes_nothing_back_that_came_before_it_in_the_same_chunk() -> None:
    parser = PlanParser()
    assert nodes_of(parser.feed("graph\n1. Cost of rent | easy short\n7. No | easy\n")) == NODES[:1]
    with pytest.raises(PlanRejected, match="number 7"):
        parser.feed("end\n")


@pytest.mark.parametrize("text", [PLAN[:-4], PLAN[:-3], PLAN[:-1], PLAN[:-4] + "\n4. Half a li"])
def test_a_cut_is_told_and_a_half_line_never_becomes_a_node(text: str) -> None:
    items, refusal = read([text])
    assert not refusal
    assert items[-1] == End(cut_off=True)
    assert nodes_of(items) == NODES[: text.count("\n") - 1]


def test_a_half_published_plan_goes_on_where_it_stopped() -> None:
    done = [render_node(node) for node in NODES[:2]]
    items, refusal = read([render_node(NODES[2]), "\nend"], PlanParser(done=done))
    assert not refusal
    assert items == [Planned(NODES[2], render_node(NODES[2])), End()]


def test_a_half_published_plan_may_end_at_once() -> None:
    assert read(["end"], PlanParser(done=["1. A | easy"])) == ([End()], "")


def test_a_published_line_written_again_is_refused() -> None:
    items, refusal = read(["1. A | easy\n"], PlanParser(done=["1. A | easy"]))
    assert items == []
    assert "(line 3): number 1, where 2 is next" in refusal


def test_lines_that_are_no_beginning_of_a_plan_cannot_be_continued() -> None:
    with pytest.raises(PlanRejected, match="number 2, where 1 is next"):
        PlanParser(done=["2. B | easy"])
