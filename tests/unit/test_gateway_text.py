"""Where an answer is cut off, and how its events become OpenAI's chunks."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.messages import JOINT, NodeReset
from services.gateway.chat_answer import AnswerText, Chunks, completion
from services.gateway.cutting import Cutter
from services.runtime.order import Grain
from tests.unit.test_order import ERROR, REQUEST, answered, completed, decoded, started, tokens

TEXTS = {1: "One. Two.", 2: "Three."}


@given(
    st.lists(st.text("abE ND", max_size=4), max_size=12),
    st.lists(st.sampled_from(["END", "ab", "EE", "D"]), max_size=3),
)
def test_a_stop_text_is_found_in_any_chunking(pieces: list[str], stops: list[str]) -> None:
    cutter, whole = Cutter(stops), "".join(pieces)
    passed = "".join(cutter.feed(piece) for piece in pieces) + cutter.finish()
    ends = [(at + len(stop), at) for stop in stops if (at := whole.find(stop)) >= 0]
    assert passed == whole[: min(ends)[1] if ends else len(whole)]
    assert (cutter.reason == "stop") == bool(ends)


def test_what_cannot_begin_a_stop_text_is_not_held_back() -> None:
    cutter = Cutter(["END"])
    assert cutter.feed("text E") == "text "
    assert cutter.feed("asy") == "Easy"


def test_the_limit_is_found_by_the_mean_of_the_answer() -> None:
    cutter = Cutter(max_tokens=4)
    cutter.count(decoded(1, "a" * 30))  # of three tokens, says `decoded`
    assert cutter.feed("a" * 30) == "a" * 30
    cutter.count(decoded(2, "b" * 30))
    assert cutter.feed("b" * 30) == "b" * 10
    assert cutter.reason == "length"


@pytest.mark.parametrize("grain", ["live", "nodes", "whole"])
def test_the_text_is_the_answers(grain: Grain) -> None:
    answer = AnswerText(REQUEST, grain, Cutter())
    end = answered(TEXTS)
    for event in (completed(1, 2), started(1), tokens(1, 0, "One. Tw"), decoded(2, TEXTS[2]), end):
        assert not answer.is_done
        answer.fold(event)
    assert answer.text == end.text
    whole = completion(answer, "skelgraph", 7)
    assert whole.choices[0].message.content == end.text
    assert (whole.choices[0].finish_reason, whole.skelgraph.mode) == ("stop", "sgd")


def test_a_fallback_replaces_what_has_not_gone_out_and_follows_what_has() -> None:
    events = (completed(1, 2), decoded(1, "One."), answered({0: "Direct."}, fallback=True))
    kept, gone = AnswerText(REQUEST, "nodes", Cutter()), AnswerText(REQUEST, "live", Cutter())
    for event in events:
        kept.fold(event)
        gone.fold(event)
    assert (kept.text, kept.report.made_anew) == ("Direct.", ())
    assert (gone.text, gone.report.made_anew) == (f"One.{JOINT}Direct.", (None,))


def test_a_node_made_anew_is_told_of() -> None:
    answer = AnswerText(REQUEST, "live", Cutter())
    reset = NodeReset(request=REQUEST, node=1, attempt=1, error=ERROR)
    for event in (completed(1), tokens(1, 0, "Old. "), reset, decoded(1, "New.")):
        answer.fold(event)
    assert answer.text == f"Old.{JOINT}New."
    assert answer.report.made_anew == (1,)


def test_usage_of_an_answer_that_was_cut_off_is_what_is_known() -> None:
    answer = AnswerText(REQUEST, "live", Cutter(["END"]))
    running = (started(2, max_tokens=999), tokens(2, 0, "Two END "))
    for event in (completed(1, 2), decoded(1, "One."), *running, answered(TEXTS)):
        answer.fold(event)
    assert answer.text == f"One.{JOINT}Two "
    assert answer.usage.completion_tokens == 3 + 1
    assert answer.report.cut_off


def test_chunks_are_events_of_one_form() -> None:
    chunks = Chunks(REQUEST, 'mo"del', 7, with_usage=True)
    answer = AnswerText(REQUEST, "live", Cutter())
    answer.fold(answered(TEXTS))
    said = [chunks.first(), chunks.text('new\nline "quoted" \x00 é'), chunks.last(answer)]
    first, text, end, usage = (_json(line) for line in b"".join(said).split(b"\n\n") if line)
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert text["choices"][0]["delta"] == {"content": 'new\nline "quoted" \x00 é'}
    assert text["model"] == 'mo"del'
    assert end["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert end["skelgraph"]["request"] == REQUEST
    assert (usage["choices"], end["usage"]) == ([], None)


def _json(line: bytes) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(line.removeprefix(b"data: "))
    return found
