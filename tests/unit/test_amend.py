"""An amendment is read in any chunking, bounded, and never breaks the graph it amends."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.errors import PlanRejected
from proto.messages import Mode, NodeSpec, Turn
from services.planner.amend import MAX_ADDED, AmendmentReader, amendment_call
from services.planner.draft import kept
from services.planner.parser import End, PlanItem, Planned, PlanParser

LINES = (
    "1. Rent | easy short",
    "2. Team | hard short",
    "3. Team again | easy short",
    "4. Advice | hard long needs 1,2",
)


def read(reply: str, cut: int | None = None) -> tuple[AmendmentReader, list[PlanItem]]:
    parser = AmendmentReader(LINES, 12)
    pieces = [reply[:cut], reply[cut:]] if cut is not None else list(reply)
    items = [item for piece in pieces if piece for item in parser.feed(piece)]
    return parser, items + parser.close()


def asked(mode: Mode = "auto", max_nodes: int = 12) -> str:
    call = amendment_call("Why?", LINES, mode=mode, max_nodes=max_nodes)
    assert call.grammar
    return call.grammar.regex


@pytest.mark.parametrize(
    ("reply", "verdict", "drops", "added"),
    [
        ("ok", "ok", set(), []),
        ("", "ok", set(), []),
        ("OK\n", "ok", set(), []),
        ("direct", "direct", set(), []),
        ("drop 3", "amended", {3}, []),
        ("drop 3\n", "amended", {3}, []),
        ("drop 3 \r\n\n", "amended", {3}, []),
        ("drop 1, 3\nend", "amended", {1, 3}, []),
        ("5. Cost | easy short\nend", "amended", set(), ["5. Cost | easy short"]),
        (
            "drop 3\n5. Cost | easy short needs 1\n6. Law | easy short\nend",
            "amended",
            {3},
            ["5. Cost | easy short needs 1", "6. Law | easy short"],
        ),
    ],
)
@given(cut=st.integers(0, 60))
def test_an_amendment_is_the_same_in_any_chunking(
    reply: str, verdict: str, drops: set[int], added: list[str], cut: int
) -> None:
    for chunked in (None, min(cut, len(reply))):
        parser, items = read(reply, chunked)
        assert (parser.verdict, set(parser.drops)) == (verdict, drops)
        assert [item.line for item in items if isinstance(item, Planned)] == added
        assert items[-1] == End()


@pytest.mark.parametrize(
    "reply",
    ["Sure, it looks fine to me.", "drop 9", "drop", "7. Too far | easy short", "5. No level"],
)
def test_what_is_no_amendment_is_refused(reply: str) -> None:
    with pytest.raises(PlanRejected):
        read(f"{reply}\n")


def test_an_amendment_that_is_cut_off_says_so() -> None:
    _, items = read("5. Cost | easy short\n6. La")
    assert [type(item) for item in items] == [Planned, End]
    assert items[-1] == End(cut_off=True)


@pytest.mark.parametrize(
    "reply", ["ok", "drop 2,4", "5. Cost | easy short\nend", "drop 1\n5. A | easy short\nend"]
)
def test_the_grammar_allows_what_the_parser_reads(reply: str) -> None:
    assert re.fullmatch(asked(), reply)


def test_the_grammar_bounds_what_is_added() -> None:
    lines = [f"{number}. Point | easy short" for number in range(5, 9)]
    assert re.fullmatch(asked(), "\n".join([*lines[:MAX_ADDED], "end"]))
    assert not re.fullmatch(asked(), "\n".join([*lines[: MAX_ADDED + 1], "end"]))
    assert not re.fullmatch(asked(max_nodes=4), "\n".join([*lines[:1], "end"]))


def test_only_a_free_request_may_become_direct() -> None:
    assert re.fullmatch(asked("auto"), "direct")
    assert not re.fullmatch(asked("sgd"), "direct")


def test_the_examples_are_in_the_form_that_is_asked_for() -> None:
    messages = amendment_call("Why?", LINES, mode="auto", max_nodes=12).messages
    shown = [m.content.partition("Outline:\n")[2].split("\n") for m in messages if m.role == "user"]
    replies = [message.content for message in messages if message.role == "assistant"]
    assert shown[-1] == list(LINES)
    for lines, reply in zip(shown, replies, strict=False):
        PlanParser(done=lines)
        parser = AmendmentReader(lines, 12)
        parser.feed(reply)
        assert parser.close()[-1] == End()


@st.composite
def graphs(draw: st.DrawFn) -> list[NodeSpec]:
    return [
        NodeSpec(
            id=node,
            summary="x",
            needs=tuple(draw(st.lists(st.integers(1, node - 1), max_size=2))) if node > 1 else (),
        )
        for node in range(1, draw(st.integers(1, 9)) + 1)
    ]


@given(graphs(), st.sets(st.integers(1, 9)))
def test_a_node_that_is_needed_is_never_dropped(nodes: list[NodeSpec], drops: set[int]) -> None:
    stays = kept(nodes, drops)
    ids = {node.id for node in stays}
    assert {node.id for node in nodes} - drops <= ids
    assert all(ids.issuperset(node.needs) for node in stays)
    for node in stays:
        assert node.id not in drops or any(node.id in other.needs for other in stays)
    assert stays == [node for node in nodes if node.id in ids]


def test_the_question_is_told_from_the_conversation_before_it() -> None:
    context = (Turn(role="user", content="Bees?"), Turn(role="assistant", content="Get a hive."))
    call = amendment_call("In winter?", LINES, mode="auto", max_nodes=12, context=context)
    last = call.messages[-1].content
    assert last.startswith("Conversation so far:\n\nUser: Bees?\n\nAssistant: Get a hive.\n\n")
    assert "\n\nQuestion: In winter?\n\nOutline:\n" in last


def test_a_model_without_a_grammar_adds_no_more_points_than_with_one() -> None:
    lines = [f"{number}. Point {number} | easy short" for number in range(5, 6 + MAX_ADDED)]
    reader = AmendmentReader(LINES, 12)
    items = reader.feed("\n".join([*lines, "end"]))
    assert len(items) == MAX_ADDED
    with pytest.raises(PlanRejected):
        reader.close()
