"""The law of ordered output: what is printed is the answer, whatever happens to previews."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.messages import (
    JOINT,
    AnswerAssembled,
    ErrorInfo,
    Fact,
    NodeDecoded,
    NodePlanned,
    NodeReport,
    NodeReset,
    NodeSpec,
    NodeStarted,
    PlanCompleted,
    Preview,
    Timings,
    TokensDecoded,
    Usage,
)
from proto.names import Pool
from services.runtime.order import (
    NEAR_LIMIT_TOKENS,
    Grain,
    Mark,
    OrderedText,
    Output,
    Settling,
    settled,
)
from services.worker.text import TextFilter

REQUEST = "r1"
ERROR = ErrorInfo(code="engine_failed", message="The engine failed.", retryable=True)
TIMINGS = Timings(
    wall_ms=1000,
    plan_ms=100,
    critical_path=(1,),
    critical_engine_ms=900,
    critical_slot_wait_ms=0,
    overhead_ms=100,
    sequential_ms=2000,
)


def planned(node: int, *needs: int) -> NodePlanned:
    spec = NodeSpec(id=node, summary=f"part {node}", needs=needs)
    return NodePlanned(request=REQUEST, node=spec, line=f"{node}. part {node}", planned_ms=1)


def completed(*nodes: int) -> PlanCompleted:
    return PlanCompleted(request=REQUEST, mode="sgd", reason="planned", nodes=nodes, plan_ms=100)


def decoded(node: int, text: str) -> NodeDecoded:
    return NodeDecoded(
        request=REQUEST,
        node=node,
        attempt=1,
        text=text,
        finish_reason="stop",
        pool=Pool.LARGE,
        model="m",
        endpoint="e",
        worker="w",
        queued_ms=1,
        slot_wait_ms=0,
        first_token_ms=1,
        decode_ms=10,
        usage=Usage(generated_tokens=3),
    )


def answered(texts: dict[int, str], *, fallback: bool = False) -> AnswerAssembled:
    reports, offset = [], 0
    for node, text in texts.items():
        reports.append(_report(node, offset, offset + len(text)))
        offset += len(text) + len(JOINT)
    return AnswerAssembled(
        request=REQUEST,
        mode="sgd",
        text=JOINT.join(texts.values()),
        nodes=tuple(reports),
        plan=completed(*texts),
        usage=Usage(),
        timings=TIMINGS,
        fallback=fallback,
    )


def _report(node: int, start: int, end: int) -> NodeReport:
    return NodeReport(
        node=NodeSpec(id=node, summary=f"part {node}"),
        pool=Pool.LARGE,
        model="m",
        endpoint="e",
        attempt=1,
        finish_reason="stop",
        queued_ms=1,
        slot_wait_ms=0,
        first_token_ms=1,
        decode_ms=10,
        usage=Usage(),
        start=start,
        end=end,
    )


def tokens(node: int, offset: int, text: str, attempt: int = 1, so_far: int = 1) -> TokensDecoded:
    return TokensDecoded(
        request=REQUEST, node=node, attempt=attempt, offset=offset, text=text, tokens=so_far
    )


def started(node: int, attempt: int = 1, max_tokens: int = 0) -> NodeStarted:
    return NodeStarted(
        request=REQUEST,
        node=node,
        attempt=attempt,
        pool=Pool.LARGE,
        worker="w",
        endpoint="e",
        max_tokens=max_tokens,
    )


def run(grain: Grain, events: Sequence[Fact | Preview]) -> list[Output]:
    order = OrderedText(grain)
    return [output for event in events for output in order.fold(event)]


def text_of(outputs: Sequence[Output]) -> str:
    assert not [output for output in outputs if isinstance(output, Mark)]
    return "".join(output for output in outputs if isinstance(output, str))


# --- the law --------------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from(
        [
            "word ",
            "end. ",
            "\n",
            "- item\n",
            "| a. | b |\n",
            "| ",
            "1. ",
            "a.b",
            "```\n",
            "x = 1\n",
            " ",
            "é!",
            "** ",
            ") ",
            "a. ",
            "So. ",
            "```x` ",
        ]
    ),
    min_size=1,
    max_size=25,
)


@dataclass
class Case:
    """An answer with the previews that its workers sent."""

    texts: dict[int, str]
    previews: list[Preview]


@st.composite
def cases(draw: Any) -> Case:
    texts: dict[int, str] = {}
    previews: list[Preview] = []
    for node in range(1, draw(st.integers(1, 4)) + 1):
        stream, offset = TextFilter(), 0
        previews.append(started(node))
        for piece in draw(PIECES):
            shown = stream.feed(piece)
            if shown:
                previews.append(tokens(node, offset, shown))
                offset += len(shown)
        texts[node] = stream.finish(draw(st.sampled_from(["stop", "length"]))) or "empty"
    return Case(texts, previews)


def facts_of(case: Case, chance: random.Random) -> list[Fact]:
    """The facts in an order in which they may be stored: the end is last."""
    facts: list[Fact] = [planned(node) for node in case.texts]
    facts += [decoded(node, text) for node, text in case.texts.items()]
    facts.append(completed(*case.texts))
    chance.shuffle(facts)
    return [*facts, answered(case.texts)]


@given(cases(), st.randoms(use_true_random=False), st.sampled_from(["whole", "nodes"]))
def test_a_pipe_gets_the_answer_exactly_whatever_becomes_of_previews(
    case: Case, chance: random.Random, grain: Grain
) -> None:
    events: list[Fact | Preview] = list(facts_of(case, chance))
    for preview in case.previews:
        for _ in range(chance.choice([0, 1, 1, 2])):
            events.insert(chance.randrange(len(events) + 1), preview)
    assert text_of(run(grain, events)) == answered(case.texts).text


@given(cases(), st.randoms(use_true_random=False))
def test_a_terminal_gets_the_answer_exactly_where_no_node_is_made_anew(
    case: Case, chance: random.Random
) -> None:
    events: list[Fact | Preview] = list(facts_of(case, chance))
    for preview in case.previews:
        for _ in range(chance.choice([0, 1, 1, 2])):
            events.insert(chance.randrange(len(events) + 1), preview)
    assert text_of(run("tokens", events)) == answered(case.texts).text


@given(cases())
def test_previews_in_their_order_print_all_that_is_settled_before_the_node_is_done(
    case: Case,
) -> None:
    order = OrderedText("tokens")
    order.fold(completed(*case.texts))
    first = [preview for preview in case.previews if preview.node == 1]
    printed = text_of([out for preview in first for out in order.fold(preview)])
    shown = "".join(p.text for p in first if isinstance(p, TokensDecoded))
    assert printed == settled(shown)
    assert case.texts[1].startswith(printed)


@given(PIECES)
def test_what_is_settled_is_the_same_however_the_text_grows(pieces: list[str]) -> None:
    settling, text = Settling(), ""
    for piece in pieces:
        text += piece
        assert text[: settling.end(text)] == settled(text)


@given(cases(), st.randoms(use_true_random=False))
def test_live_text_is_the_answer_exactly_where_no_node_is_cut_off(
    case: Case, chance: random.Random
) -> None:
    whole = {
        node: text
        for node, text in case.texts.items()
        if text.startswith(_shown(case, node))  # else it was trimmed
    }
    kept = [p for p in case.previews if p.node in whole]
    kept = [started(p.node, max_tokens=999) if isinstance(p, NodeStarted) else p for p in kept]
    events: list[Fact | Preview] = []
    events += facts_of(Case(whole, kept), chance) if whole else []
    for preview in kept:
        events.insert(chance.randrange(len(events) + 1), preview)
    assert text_of(run("live", events)) == (answered(whole).text if whole else "")


def _shown(case: Case, node: int) -> str:
    said = [p for p in case.previews if isinstance(p, TokensDecoded) and p.node == node]
    return "".join(piece.text for piece in said)


# --- examples -------------------------------------------------------------------------


def test_nothing_is_printed_before_the_plan_is_complete() -> None:
    events: list[Fact | Preview] = [planned(1), tokens(1, 0, "One. "), decoded(1, "One.")]
    assert run("tokens", events) == []
    assert run("tokens", [*events, completed(0)]) == []


def test_the_first_unfinished_node_flows_while_later_ones_wait() -> None:
    order = OrderedText("tokens")
    order.fold(completed(1, 2))
    assert order.fold(tokens(2, 0, "Two. And ")) == []
    assert order.fold(tokens(1, 0, "One. And")) == ["One."]
    assert order.fold(tokens(1, 8, " more. ")) == [" And more."]
    assert order.printing == 1
    assert order.fold(decoded(1, "One. And more.")) == [JOINT + "Two."]


def test_live_text_flows_by_the_token_until_the_node_is_near_its_limit() -> None:
    order, limit = OrderedText("live"), NEAR_LIMIT_TOKENS + 2
    events: list[Fact | Preview] = [completed(1), started(1, max_tokens=limit)]
    assert [order.fold(event) for event in events] == [[], []]
    assert order.fold(tokens(1, 0, "One", so_far=1)) == ["One"]
    assert order.fold(tokens(1, 3, " two. Th", so_far=2)) == [" two. Th"]
    assert order.fold(tokens(1, 11, "ree. Fo", so_far=3)) == ["ree."]
    assert order.fold(decoded(1, "One two. Three. Four.")) == [" Four."]


def test_live_text_of_a_node_that_is_cut_off_in_a_printed_sentence_stays() -> None:
    order = OrderedText("live")
    order.fold(completed(1, 2))
    order.fold(started(1, max_tokens=NEAR_LIMIT_TOKENS + 1))
    assert order.fold(tokens(1, 0, "One. Two is", so_far=1)) == ["One. Two is"]
    assert order.fold(decoded(1, "One.")) == []
    assert order.fold(decoded(2, "Next.")) == [JOINT + "Next."]


def test_live_text_of_a_node_whose_limit_is_not_known_flows_by_the_sentence() -> None:
    order = OrderedText("live")
    order.fold(completed(1))
    assert order.fold(tokens(1, 0, "One. Two")) == ["One."]


def test_a_lost_preview_holds_the_node_back_until_it_is_decoded() -> None:
    order = OrderedText("tokens")
    order.fold(completed(1))
    assert order.fold(tokens(1, 10, "later. ")) == []
    assert order.fold(decoded(1, "The whole later. ")) == ["The whole later. "]


def test_a_reset_node_goes_on_where_the_new_text_is_the_same() -> None:
    reset = NodeReset(request=REQUEST, node=1, attempt=1, error=ERROR)
    events: list[Fact | Preview] = [
        completed(1),
        tokens(1, 0, "One. Two"),
        reset,
        tokens(1, 0, "One. Two. ", attempt=2),
    ]
    assert run("tokens", events) == ["One.", " Two."]


def test_a_reset_node_with_another_text_is_printed_anew_after_a_mark() -> None:
    reset = NodeReset(request=REQUEST, node=1, attempt=1, error=ERROR)
    events: list[Fact | Preview] = [
        completed(1),
        tokens(1, 0, "One. Two"),
        reset,
        decoded(1, "Other."),
    ]
    assert run("tokens", events) == ["One.", Mark(1), "Other."]


def test_tokens_of_an_attempt_that_failed_do_not_come_back() -> None:
    reset = NodeReset(request=REQUEST, node=1, attempt=1, error=ERROR)
    assert run("tokens", [completed(1), reset, tokens(1, 0, "Old. text")]) == []


@pytest.mark.parametrize("grain", ["tokens", "nodes"])
def test_a_fallback_after_printed_text_is_marked(grain: Grain) -> None:
    end = answered({0: "Direct."}, fallback=True)
    assert run(grain, [completed(1, 2), decoded(1, "One."), end]) == ["One.", Mark(None), "Direct."]


@pytest.mark.parametrize("grain", ["tokens", "nodes", "whole"])
def test_a_fallback_before_any_text_is_printed_as_it_is(grain: Grain) -> None:
    end = answered({0: "Direct."}, fallback=True)
    assert run(grain, [completed(1, 2), decoded(2, "Two."), end]) == ["Direct."]


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("No end yet", ""),
        ("Pi is 3.14 and", ""),
        ("Done. Not yet", "Done."),
        ('"Quoted." Then', '"Quoted."'),
        ("Title\nText", ""),
        ("1. ", ""),
        ("- item one\n- item", "- item one"),
        ("Code:\n```\nx = 1", "Code:\n```\nx = 1"),
        ("```\nx\n```\nNot yet", "```\nx\n```"),
        ("Done. See e.g. Rome", "Done."),
        ("Done. Acme Inc. was", "Done."),
        ("Done. Then! \n", "Done. Then!"),
        ("Done. Or\n```x", "Done."),
        ("Done. Or\n```x` is", "Done."),
    ],
)
def test_only_what_cannot_be_trimmed_any_more_is_settled(text: str, stays: str) -> None:
    assert settled(text) == stays
