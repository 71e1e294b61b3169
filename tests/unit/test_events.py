"""An event is JSON of a known form, an error told in band, or refused as no event."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.dialects import TGI
from services.runtime.events import InBand, NotAnEvent, mended, read
from services.runtime.reply import Reply

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
fields = st.sampled_from(["choices", "delta", "content", "finish_reason", "usage", "model"])
likely = st.recursive(
    anything, lambda inner: st.lists(inner) | st.dictionaries(fields, inner), max_leaves=12
)


def delta(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


@given(st.text())
def test_any_text_is_an_event_or_is_refused(data: str) -> None:
    with suppress(NotAnEvent, InBand):
        read(data)


@given(likely)
def test_any_json_is_folded_or_refused(event: Any) -> None:
    with suppress(NotAnEvent, InBand):
        Reply(TGI).take(read(json.dumps(event)))


@pytest.mark.parametrize(
    "payload",
    [
        {"error": "Model is overloaded", "error_type": "overloaded"},
        {"error": {"message": "x", "http_status_code": 422}},
        {"object": "error", "message": "x", "code": 400},
    ],
)
def test_an_error_in_band_is_told_apart(payload: dict[str, Any]) -> None:
    with pytest.raises(InBand):
        read(json.dumps(payload))


def test_a_character_that_came_in_two_halves_is_put_together() -> None:
    reply = Reply(TGI)
    events = [r'{"choices":[{"delta":{"content":"a\ud83d"}}]}', json.dumps(delta("")),
              r'{"choices":[{"delta":{"content":"\ude00b"}}]}']  # fmt: skip
    assert [reply.take(read(event)).text for event in events] == ["a", "", "😀b"]


def test_half_a_character_becomes_a_replacement_and_can_be_sent_on() -> None:
    reply = Reply(TGI)
    first = reply.take(read(r'{"choices":[{"delta":{"content":"a\ud83d"}}]}')).text
    second = reply.take(read(r'{"choices":[{"delta":{"content":"b\udc00\ud83d"}}]}')).text
    text = first + second + reply.rest()
    text.encode()
    assert text == "a\ufffdb\ufffd\ufffd"


@given(st.lists(st.text(alphabet=st.characters(codec=None), max_size=5), max_size=6))
def test_whatever_halves_come_the_text_can_be_sent_on(texts: list[str]) -> None:
    reply = Reply(TGI)
    got = "".join(reply.take(delta(text)).text for text in texts) + reply.rest()
    got.encode()
    assert got == mended("".join(texts))


@pytest.mark.parametrize("count", [-1, True, "7", 1.5, None, [], 2**80])
def test_figures_that_count_nothing_do_not_cost_the_reply(count: Any) -> None:
    reply = Reply(TGI)
    reply.take({"choices": [], "usage": {"prompt_tokens": count, "completion_tokens": 3}})
    assert (reply.usage.prompt_tokens, reply.usage.generated_tokens) == (0, 3)
