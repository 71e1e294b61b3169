"""Each engine family is sent what it takes, and nothing that it chokes on."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.errors import EngineCutOff
from proto.messages import Usage
from services.runtime.calls import ChatCall, ChatMessage, Grammar
from services.runtime.dialects import (
    DIALECTS,
    LLAMACPP,
    PLAIN,
    SGLANG,
    TGI,
    VLLM,
    Dialect,
    cached_tokens,
    parameters,
)
from services.runtime.reply import MAX_CHARS, MIN_CHARS, Reply, most_chars
from services.runtime.settings import EngineSettings

GRAMMAR = Grammar(gbnf='root ::= "a"', regex="a")
FULL = ChatCall(
    messages=(ChatMessage("system", "s"), ChatMessage("user", "u")),
    max_tokens=7,
    temperature=0.0,
    top_p=1.0,
    seed=3,
    stop=("1", "2", "3", "4", "5"),
    grammar=GRAMMAR,
    repetition_penalty=1.1,
)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_every_call_is_streamed_with_usage_and_greedy_at_zero(dialect: Dialect) -> None:
    sent = parameters(FULL, dialect)
    assert sent["stream"] is True
    assert sent["stream_options"] == {"include_usage": True}
    assert sent["temperature"] == 0.0
    assert sent["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
    ]


@pytest.mark.parametrize(
    ("dialect", "extra"),
    [
        (TGI, {"response_format": {"type": "regex", "value": "a"}}),
        (VLLM, {"structured_outputs": {"regex": "a"}, "repetition_penalty": 1.1}),
        (SGLANG, {"regex": "a", "repetition_penalty": 1.1}),
        (LLAMACPP, {"cache_prompt": True, "grammar": GRAMMAR.gbnf, "repeat_penalty": 1.1}),
        (PLAIN, {}),
    ],
)
def test_grammar_and_repetition_go_by_the_name_that_the_engine_knows(
    dialect: Dialect, extra: dict[str, Any]
) -> None:
    assert parameters(FULL, dialect)["extra_body"] == extra


def test_tgi_refuses_top_p_1_and_takes_another_name_for_an_adapter() -> None:
    sent = parameters(FULL, TGI)
    assert sent["top_p"] is None
    assert sent["model"] == "tgi"
    assert sent["stop"] == ["1", "2", "3", "4"]


def test_an_engine_whose_default_is_below_1_is_sent_top_p_1() -> None:
    assert parameters(FULL, LLAMACPP)["top_p"] == 1.0


def test_a_configured_model_goes_before_the_dialects() -> None:
    assert parameters(FULL, TGI, model="adapter")["model"] == "adapter"


@given(st.sampled_from(list(DIALECTS.values())), st.lists(st.text(min_size=1), max_size=8))
def test_no_more_stops_are_sent_than_the_engine_takes(dialect: Dialect, stop: list[str]) -> None:
    call = ChatCall(messages=(), max_tokens=1, stop=tuple(stop))
    sent = parameters(call, dialect)["stop"] or []
    assert sent == stop[: len(sent)]
    assert len(sent) == min(len(stop), dialect.max_stop or len(stop))


@pytest.mark.parametrize(
    ("event", "found"),
    [
        ({"usage": {"prompt_tokens_details": {"cached_tokens": 5}}}, 5),
        ({"usage": {"prompt_tokens_details": None}, "timings": {"cache_n": 4}}, 4),
        ({"usage": {"prompt_tokens_details": {"cached_tokens": 0}}, "timings": {"cache_n": 4}}, 0),
        ({"usage": None, "timings": None}, None),
    ],
)
def test_cached_tokens_are_found_where_the_engine_puts_them(
    event: dict[str, Any], found: int | None
) -> None:
    assert cached_tokens(LLAMACPP, event) == found


def event(**fields: Any) -> dict[str, Any]:
    return fields


def test_a_reply_is_folded_from_its_events() -> None:
    reply = Reply(LLAMACPP)
    delta = {"role": "assistant", "content": "x"}
    assert reply.take(event(model="m", choices=[{"index": 0, "delta": delta}])).text == "x"
    reply.take(event(choices=[{"index": 0, "delta": {}, "finish_reason": "length"}]))
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 1,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
    reply.take(event(choices=[], usage=usage))
    assert (reply.finish_reason, reply.model) == ("length", "m")
    assert reply.usage == Usage(prompt_tokens=9, cached_tokens=8, generated_tokens=1)


def test_a_role_alone_is_no_sign_of_decoding_but_a_thought_is() -> None:
    reply = Reply(PLAIN)
    role = {"index": 0, "delta": {"role": "assistant", "content": None}}
    thought = {"index": 0, "delta": {"role": "assistant", "reasoning_content": "hm"}}
    assert not reply.take(event(choices=[role])).decodes
    assert reply.take(event(choices=[thought])).decodes


def test_a_reply_that_the_engine_gave_up_is_not_whole() -> None:
    given_up = {"index": 0, "delta": {"content": "x"}, "finish_reason": "abort"}
    with pytest.raises(EngineCutOff):
        Reply(PLAIN).take(event(choices=[given_up]))


def test_no_family_is_named_outside_of_the_table() -> None:
    """A condition on a family's name would be a difference that the table does not show."""
    literal = re.compile(r"(?:[=!]=|\bin|\bis|case)\W.*[\"'](?:tgi|vllm|sglang|llamacpp)[\"']")
    root = Path(__file__).parents[2]
    allowed = {root / "services/runtime/dialects.py", root / "services/runtime/settings.py"}
    found = [
        f"{path.relative_to(root)}:{number}"
        for folder in ("proto", "services", "skelgraph")
        for path in sorted((root / folder).rglob("*.py"))
        if path not in allowed
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if literal.search(line)
    ]
    assert found == []


def test_the_setting_names_the_families_of_the_table() -> None:
    names = get_args(EngineSettings.model_fields["engine_dialect"].annotation)
    assert set(names) == {"auto", *DIALECTS}


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        (TGI, {}),
        (LLAMACPP, {}),
        (VLLM, {"continue_final_message": True, "add_generation_prompt": False}),
        (SGLANG, {"continue_final_message": True}),
    ],
)
def test_a_reply_that_is_begun_is_gone_on_with(dialect: Dialect, fields: dict[str, Any]) -> None:
    begun = ChatCall((ChatMessage("user", "u"), ChatMessage("assistant", "a")), max_tokens=1)
    fresh = ChatCall((ChatMessage("user", "u"),), max_tokens=1)
    assert parameters(begun, dialect)["extra_body"].items() >= fields.items()
    assert not parameters(fresh, dialect)["extra_body"].keys() & {"continue_final_message"}


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_a_priority_is_sent_where_there_is_a_field_for_it(dialect: Dialect) -> None:
    call = ChatCall((ChatMessage("user", "u"),), max_tokens=1, priority=3)
    extra = parameters(call, dialect)["extra_body"]
    assert ("priority" in extra) is (dialect.priority_field is not None)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_the_signals_of_every_family_are_words_that_can_be_searched_for(dialect: Dialect) -> None:
    for words in (dialect.overloaded, dialect.too_long):
        assert words
        assert not re.search(words, "all is well, here is your answer")


@pytest.mark.parametrize(
    ("dialect", "max_tokens", "sent"),
    [(TGI, 1024, True), (TGI, 1025, False), (VLLM, 1025, True), (LLAMACPP, 1025, True)],
)
def test_a_grammar_is_left_out_where_it_would_begin_anew_within_the_reply(
    dialect: Dialect, max_tokens: int, sent: bool
) -> None:
    call = replace(FULL, max_tokens=max_tokens)
    without = parameters(call, dialect, constrained=False)
    assert (parameters(call, dialect) != without) is sent


def test_a_reply_that_is_longer_than_its_tokens_can_be_is_given_up() -> None:
    most = most_chars(4)
    reply = Reply(PLAIN, max_chars=most)
    said = event(choices=[{"delta": {"content": "x" * 1024}}])
    for _ in range(most // 1024):
        reply.take(said)
    with pytest.raises(EngineCutOff, match="longer"):
        reply.take(said)


@given(st.integers(1, 10**9))
def test_no_reply_may_have_more_than_the_absolute_number_of_characters(max_tokens: int) -> None:
    assert MIN_CHARS <= most_chars(max_tokens) <= MAX_CHARS
