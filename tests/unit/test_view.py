"""What a person sees of a request: pictures at chosen moments, and the laws behind them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from proto.errors import Cancelled, EngineTimedOut, EngineUnavailable, PromptTooLong
from proto.messages import (
    AnswerAssembled,
    ErrorInfo,
    Fact,
    NodeFailed,
    NodePlanned,
    NodeReleased,
    NodeReset,
    NodeSpec,
    PlanCompleted,
    Preview,
    RequestAccepted,
    RequestFailed,
    SkeletonDrafted,
    SubmitRequest,
    Timings,
    TokensDecoded,
)
from proto.names import Pool
from skelgraph import draw, gantt, skeleton
from skelgraph.rows import URGENT, NodeState, Row
from skelgraph.view import Dag
from skelgraph.wrap import LineFiller
from tests.unit.test_order import REQUEST, answered, completed, decoded, started

Event = tuple[Fact | Preview, float]


def accepted(**fields: object) -> RequestAccepted:
    submitted = SubmitRequest.model_validate({"question": "why?", **fields})
    return RequestAccepted(
        request=REQUEST, submitted=submitted, submitted_at=0.0, deadline_at=600.0
    )


def planned(node: int, summary: str, *needs: int) -> NodePlanned:
    spec = NodeSpec(id=node, summary=summary, needs=needs)
    return NodePlanned(request=REQUEST, node=spec, line="", planned_ms=1)


def released(node: int, pool: Pool = Pool.LARGE, attempt: int = 1) -> NodeReleased:
    return NodeReleased(request=REQUEST, node=node, attempt=attempt, pool=pool)


def some_tokens(node: int, count: int, attempt: int = 1) -> TokensDecoded:
    return TokensDecoded(
        request=REQUEST, node=node, attempt=attempt, offset=0, text="…", tokens=count
    )


def failed(node: int, error: ErrorInfo, attempt: int = 1) -> NodeFailed:
    return NodeFailed(
        request=REQUEST, node=node, attempt=attempt, pool=Pool.LARGE, worker="w", error=error
    )


TIMED_OUT = ErrorInfo.of(EngineTimedOut())
TOO_LONG = ErrorInfo.of(PromptTooLong())
STORY: list[Event] = [
    (accepted(), 0.1),
    (planned(1, "Define the terms"), 0.8),
    (released(1, Pool.SMALL), 0.8),
    (started(1).model_copy(update={"pool": Pool.SMALL}), 0.9),
    (planned(2, "Derive the result, with all of its assumptions spelled out", 1), 1.2),
    (planned(3, "Worked example"), 1.5),
    (released(3), 1.5),
    (some_tokens(1, 20), 1.6),
    (completed(1, 2, 3), 2.0),
]


def drawn(events: list[Event], now: float, *, width: int = 80, height: int = 24) -> list[str]:
    dag = Dag(REQUEST, 0.0)
    for event, at in events:
        dag.fold(event, at)
    lines = draw.lines(dag.picture(now), draw.UNICODE, width=width, height=height, now=now)
    return [line.plain for line in lines]


def test_the_picture_before_a_planner_has_taken_the_request() -> None:
    assert drawn([], 1.25) == [
        "run r1  00:01.2",
        "plan ◌ waiting for a planner                    1.2s          queued",
    ]


def test_the_picture_while_the_plan_streams_in() -> None:
    assert drawn(STORY[:-1], 1.9) == [
        "run r1  0/3 nodes   1 running   1 queued   00:01.9",
        "plan ⠴ planning… 3 lines                large   1.8s",
        "   1 ⠴ Define the terms                 small   1.0s   20 tok 20 tok/s",
        "   2 ○ Derive the result, wi… ← 1                             waits",
        "   3 ◌ Worked example                   large   0.4s          queued",
    ]


def test_the_picture_with_a_retry_and_a_failure() -> None:
    events = [
        *STORY,
        (decoded(1, "Terms."), 2.5),
        (started(2), 2.6),
        (NodeReset(request=REQUEST, node=2, attempt=1, error=TIMED_OUT), 3.0),
        (failed(2, TIMED_OUT), 3.0),
        (failed(3, TOO_LONG), 3.1),
    ]
    assert drawn(events, 4.0) == [
        "run r1  1/3 nodes   0 running   0 queued   00:04.0",
        "plan ● sgd (planned)                    large   0.1s",
        "   1 ● Define the terms                 large   0.0s    3 tok",
        "   2 ↻ Derive the result, wi… ← 1       large                 try 2: timed_out",
        "   3 ! Worked example                   large                 prompt_too_long",
    ]


def test_a_collapsed_plan_shows_its_nodes_as_skipped() -> None:
    collapsed = PlanCompleted(request=REQUEST, mode="direct", reason="chain", nodes=(0,))
    lines = drawn([*STORY[:-1], (collapsed, 2.0), (released(0), 2.1)], 2.2)
    assert [line.split()[1] for line in lines[2:]] == ["◌", "–", "–", "–"]
    assert "0/1 nodes" in lines[0]


def test_a_cancelled_request_shows_what_was_cut_off() -> None:
    end = RequestFailed(request=REQUEST, error=ErrorInfo.of(Cancelled()))
    lines = drawn([*STORY, (decoded(1, "Terms."), 2.5), (end, 3.0)], 99.0)
    assert [line.split()[1] for line in lines[2:]] == ["●", "⊘", "⊘"]
    assert lines[0].endswith("00:03.0")


def test_a_dry_run_waits_for_nothing() -> None:
    drafted = SkeletonDrafted(request=REQUEST, mode="sgd", nodes=(), lines=(), plan=completed(1))
    events: list[Event] = [(accepted(dry_run=True), 0.1), (planned(1, "One"), 0.5)]
    events += [(completed(1), 1.0), (drafted, 1.0)]
    assert drawn(events, 2.0)[-1].split()[1] == "○"


def test_without_previews_a_node_whose_needs_are_met_counts_as_queued() -> None:
    lines = drawn([STORY[0], STORY[1], (some_tokens(1, 10), 1.0)], 3.0)
    assert lines[-1].split()[1] in draw.UNICODE.spinner
    assert "tok/s" not in lines[-1]  # one figure is no rate


@given(st.randoms(use_true_random=False))
def test_the_end_of_the_story_is_the_same_in_any_order(chance: random.Random) -> None:
    facts = [event for event in STORY if not isinstance(event[0], NodeReleased | TokensDecoded)]
    facts += [(decoded(node, "x"), 3.0) for node in (1, 2)]
    facts += [(failed(3, TIMED_OUT), 2.5)]
    shuffled = facts.copy()
    chance.shuffle(shuffled)
    assert drawn(shuffled, 4.0) == drawn(facts, 4.0)


ROWS = st.lists(st.sampled_from(list(NodeState)), max_size=40)


@given(ROWS, st.integers(1, 30))
def test_cropping_keeps_to_the_height_and_loses_no_row(
    states: list[NodeState], height: int
) -> None:
    rows = [Row(label=str(i), summary="", state=state) for i, state in enumerate(states)]
    shown, hidden = draw.crop(rows, height)
    assert len(shown) + bool(hidden) <= height
    assert sorted([*shown, *hidden], key=rows.index) == rows
    assert shown == sorted(shown, key=rows.index)
    if any(row.state in URGENT for row in hidden):
        assert all(row.state in URGENT for row in shown)


def test_a_low_terminal_shows_what_runs_and_counts_the_rest() -> None:
    events = [STORY[0], *((planned(n, f"Node {n}"), 0.5) for n in range(1, 20)), (started(7), 1.0)]
    lines = drawn(list(events), 2.0, height=6)
    assert len(lines) == 6
    assert any(line.startswith("   7") for line in lines)
    assert lines[-1].strip().startswith("… 16 more: ")


@pytest.mark.parametrize("width", [20, 50, 64, 80, 200])
@pytest.mark.parametrize("glyphs", [draw.UNICODE, draw.ASCII])
def test_no_line_is_wider_than_the_terminal(width: int, glyphs: draw.Glyphs) -> None:
    dag = Dag(REQUEST, 0.0)
    for event, at in [*STORY, (planned(4, "漢字の要約はとても広い文字です" * 3, 1, 2, 3), 2.1)]:
        dag.fold(event, at)
    for line in draw.lines(dag.picture(3.0), glyphs, width=width, height=24, now=3.0):
        assert cell_len(line.plain) <= width


def test_a_dumb_or_narrow_encoding_gets_ascii() -> None:
    assert draw.glyphs_for("utf-8", "xterm") is draw.UNICODE
    assert draw.glyphs_for("utf-8", "dumb") is draw.ASCII
    assert draw.glyphs_for("ascii", "xterm") is draw.ASCII
    signs = "".join([*draw.ASCII.states.values(), draw.ASCII.spinner, draw.ASCII.arrow])
    assert signs.isascii()


def test_control_characters_never_reach_the_terminal() -> None:
    assert draw.printable("a\x1b[2Jb\x07\x9bc\r\n\td") == "a[2Jbc\n\td"


# --- the end --------------------------------------------------------------------------


def finished() -> tuple[Dag, AnswerAssembled]:
    timings = Timings(
        wall_ms=4000,
        plan_ms=1000,
        critical_path=(1, 2),
        critical_engine_ms=3900,
        critical_slot_wait_ms=0,
        overhead_ms=100,
        sequential_ms=8000,
    )
    end = answered({1: "a", 2: "b"}).model_copy(update={"timings": timings})
    dag = Dag(REQUEST, 0.0)
    plan = completed(1, 2).model_copy(update={"plan_ms": 1000.0})
    times = {"decode_ms": 1500.0, "queued_ms": 500.0}
    events: list[Event] = [
        (accepted(), 0.0),
        (plan, 1.0),
        (decoded(1, "a").model_copy(update=times), 2.0),
        (decoded(2, "b").model_copy(update=times | {"pool": Pool.SMALL}), 4.0),
        (end.model_copy(update={"plan": plan}), 4.0),
    ]
    for event, at in events:
        dag.fold(event, at)
    return dag, end.model_copy(update={"plan": plan})


def test_the_gantt_shows_queueing_decoding_and_the_critical_path() -> None:
    dag, end = finished()
    assert [line.plain for line in gantt.gantt(dag, end, draw.UNICODE, width=64)] == [
        "plan * ██████████ 1.0 s large",
        "   1 * ░░░░░███████████████ 1.5 s large",
        "   2 *                     ░░░░░███████████████ 1.5 s small",
    ]


def test_the_closing_line_says_what_it_took_and_what_it_saved() -> None:
    _, end = finished()
    assert gantt.closing(end, draw.UNICODE) == (
        "answered in 4.0 s · 2 nodes on 1 pool · critical path plan → 1 → 2 · "
        "2.0x against one after another (8.0 s) · overhead 100 ms (2.5%)"
    )


def test_a_skeleton_as_mermaid_is_escaped() -> None:
    nodes = [
        NodeSpec(id=1, summary='Say "why" #1', difficulty="easy"),
        NodeSpec(id=2, summary="Then", needs=(1,)),
    ]
    assert skeleton.mermaid(nodes).splitlines() == [
        "flowchart TD",
        '  n1(["1. Say #quot;why#quot; #35;1"])',
        '  n2["2. Then"]',
        "  n1 --> n2",
    ]


def test_transitions_are_told_in_words() -> None:
    row = Row(label="2", summary="Derive", state=NodeState.RETRY, pool=Pool.SMALL, note="try 2")
    assert draw.transition(row) == "#2 retry · small · try 2: Derive"


@given(st.text(st.sampled_from("ab \n漢"), max_size=200), st.integers(10, 30), st.randoms())
def test_wrapping_keeps_every_word_and_the_width_in_any_chunking(
    text: str, width: int, chance: random.Random
) -> None:
    def wrapped(pieces: list[str]) -> list[str]:
        filler = LineFiller(width)
        return [line for piece in pieces for line in filler.feed(piece)] + filler.finish()

    cuts = sorted(chance.randrange(len(text) + 1) for _ in range(3))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    lines = wrapped(pieces)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_an_unknown_error_is_shown_by_its_code() -> None:
    unreachable = ErrorInfo.of(EngineUnavailable("http://x"))
    events = [*STORY, (failed(1, unreachable), 3.0)]
    assert "try 2: unavailable" in drawn(events, 3.5, width=100)[2]
