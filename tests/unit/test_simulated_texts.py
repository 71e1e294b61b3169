"""What the simulated engine says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.simulated_engine import grammars, tokens
from bench.simulated_engine.author import Author, LengthLaw, Recorded, Turn, read_recorded
from bench.simulated_engine.jobs import Ask, Job, compose
from proto.messages import Mode
from services.planner.grammar import grammar as plan_grammar
from services.planner.parser import DIRECT_WORDS, End, PlanItem, PlanLimits, Planned, PlanParser
from services.planner.prompts import plan_call

QUESTION = Turn("user", "Why is the sky blue?")


@given(st.text())
def test_tokens_add_up_to_the_text(text: str) -> None:
    assert "".join(tokens.pieces(text)) == text


@given(st.text(st.characters(codec=None)))
def test_every_token_has_an_id_even_a_lone_surrogate(text: str) -> None:
    ids = tokens.token_ids(tokens.pieces(text))
    assert all(tokens.FIRST_ID <= one < tokens.VOCABULARY for one in ids)


def write(author: Author, *turns: Turn, seed: int | None = None, most: int = 9999) -> str:
    return "".join(author.write(turns or (QUESTION,), seed, most))


def test_the_same_request_gets_the_same_reply_and_another_seed_another() -> None:
    assert write(Author(1)) == write(Author(1))
    assert len({write(Author(1)), write(Author(2)), write(Author(1), seed=3)}) == 3


@given(st.integers(1, 400))
def test_prose_has_the_length_of_the_law(length: int) -> None:
    author = Author(lengths=LengthLaw(median=length, spread=0))
    assert len(author.write([QUESTION], None, 9999)) == length


def test_lengths_spread_about_the_median() -> None:
    random, law = Random(1), LengthLaw(median=100, spread=0.5)
    drawn = sorted(law.draw(random) for _ in range(999))
    assert 90 < drawn[499] < 110
    assert drawn[100] < 70
    assert drawn[900] > 150


def test_a_recorded_reply_is_given_where_its_mark_stands_in_the_last_message(
    tmp_path: Path,
) -> None:
    file = tmp_path / "replies.jsonl"
    lines = [{"match": "sky", "reply": "Rayleigh scattering."}, {"match": "sea", "reply": "Salt."}]
    file.write_text("\n".join(map(json.dumps, lines)))
    author = Author(recorded=read_recorded(file))
    assert write(author) == "Rayleigh scattering."
    assert write(author, QUESTION, Turn("user", "And the sea?")) == "Salt."
    assert "Salt" not in write(author, Turn("user", "sea"), Turn("user", "No."))


def test_a_recorded_reply_may_count_fewer_tokens_than_ours() -> None:
    author = Author(recorded=[Recorded("sky", "One two three four five six.", tokens=3)])
    assert len(author.write([QUESTION], None, 99)) == 3
    assert write(author) == "One two three four five six."


@given(st.text(min_size=1, max_size=40), st.integers(1, 60))
def test_a_recorded_reply_has_the_tokens_that_were_counted(text: str, count: int) -> None:
    said = Recorded("", text, tokens=count).said()
    assert "".join(said) == text
    assert len(said) == min(count, len(text))


def test_a_reply_in_pieces_has_the_tokens_of_each() -> None:
    said = Recorded("", ["graph\n", "1. One | easy\n"], tokens=[2, 9]).said()
    assert "".join(said[:2]) == "graph\n"
    assert len(said) == 11


def test_the_first_reply_whose_texts_both_occur_is_given() -> None:
    recorded = [
        Recorded("part 1", "Of the sea.", within="sea"),
        Recorded("part", "Of the sky.", within="sky"),
        Recorded("part 1", "Never."),
        Recorded("part", "Whatever."),
    ]
    author = Author(recorded=recorded)
    asked = Turn("user", "[part 1]")
    assert write(author, Turn("user", "the sea"), asked) == "Of the sea."
    assert write(author, Turn("user", "the sky"), asked) == "Of the sky."
    assert write(author, Turn("user", "the sky and the sea"), asked) == "Of the sea."
    assert write(author, Turn("user", "the sun"), Turn("user", "part 2")) == "Whatever."


def test_a_line_that_is_no_reply_is_named(tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    for bad in ('{"mark": "c"}', '{"match": "a", "reply": ["b"], "tokens": [1, 2]}'):
        file.write_text(f'{{"match": "a", "reply": "b"}}\n{bad}\n')
        with pytest.raises(ValueError, match="line 2"):
            read_recorded(file)


# --- plans ---

MODES: list[Mode] = ["auto", "sot", "sgd"]


def planned(seed: int, mode: Mode, done: list[str]) -> tuple[str, list[PlanItem]]:
    call = plan_call("What is love?", mode=mode, max_nodes=8, done_lines=done)
    turns = [Turn(turn.role, turn.content) for turn in call.messages]
    text = write(Author(seed), *turns)
    parser = PlanParser(PlanLimits(max_nodes=8), done)
    return text, [*parser.feed(text), *parser.close()]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("done", [[], ["1. Causes | easy", "2. Effects | hard | needs 1"]])
def test_plans_are_valid_for_the_real_planner_and_its_grammar(mode: Mode, done: list[str]) -> None:
    for seed in range(40):
        text, items = planned(seed, mode, done)
        assert items[-1] == End(cut_off=False)
        assert re.fullmatch(plan_grammar(mode, 8, len(done)).regex, text), text


def test_plans_differ_in_shape() -> None:
    texts = [planned(seed, "auto", [])[0] for seed in range(60)]
    words = {text.split("\n")[0] for text in texts}
    assert words == {*DIRECT_WORDS, "list", "graph"}
    assert any("needs" in text for text in texts)
    sizes = {sum(isinstance(item, Planned) for item in planned(s, "sgd", [])[1]) for s in range(30)}
    assert len(sizes) > 2


# --- grammars ---


@pytest.mark.parametrize(
    "pattern", [r"((25[0-5]|2[0-4]\d|[01]?\d\d?)\.){3}\d{1,3}", r"\w+@\w+\.com", r"(yes|no)( sir)?"]
)
def test_replies_match_the_regex(pattern: str) -> None:
    constraint = grammars.regex(pattern)
    for seed in range(20):
        assert re.fullmatch(pattern, "".join(constraint.fit(["nothing"], Random(seed))))


def test_a_reply_that_matches_already_stays() -> None:
    assert grammars.regex(r"\w+ \w+").fit(["Hello", " you"], Random(1)) == ["Hello", " you"]


SCHEMA: dict[str, Any] = {
    "$defs": {"Hobby": {"type": "string", "enum": ["botany", "astronomy"]}},
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "zip": {"type": "string", "pattern": r"\d{5}"},
        "hobbies": {"type": "array", "items": {"$ref": "#/$defs/Hobby"}, "minItems": 2},
        "address": {"type": "object", "properties": {"city": {"type": "string"}}},
        "married": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
    },
    "required": ["name"],
}


def test_replies_follow_the_schema() -> None:
    constraint = grammars.json_schema(SCHEMA, needs_properties=True)
    for seed in range(20):
        said = json.loads("".join(constraint.fit([], Random(seed))))
        assert set(said) == set(SCHEMA["properties"])
        assert 0 <= said["age"] <= 150
        assert re.fullmatch(r"\d{5}", said["zip"])
        assert len(said["hobbies"]) >= 2
        assert set(said["hobbies"]) <= {"botany", "astronomy"}
        assert said["married"] in (True, False, None)


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"type": "object"}, "Grammar must have a 'properties' field"),
        ("{", "Expecting"),
        (7, "an object"),
        ({"properties": {"when": {"type": "string", "format": "date"}}}, "format 'date'"),
        ({"properties": {"a": {"$ref": "#/nowhere"}}}, "nowhere"),
        ({"properties": {"a": {"type": "colour"}}}, "colour"),
    ],
)
def test_what_is_not_simulated_is_refused_by_name(schema: object, complaint: str) -> None:
    with pytest.raises(grammars.Unsupported, match=re.escape(complaint)):
        grammars.json_schema(schema, needs_properties=True)


# --- how a reply ends ---


def job(reply: str, *, limit: int = 50, stop: tuple[str, ...] = (), keeps: bool = True) -> Job:
    ask = Ask(
        turns=[QUESTION], prompt=["Why"], max_new_tokens=limit, stop=stop, keeps_stop=keeps
    )  # fmt: skip
    made = compose(ask, Author(recorded=[Recorded("sky", reply)]))
    made.sequence.generated = len(made.pieces)
    return made


def test_a_reply_ends_with_an_end_token_that_counts_but_says_nothing() -> None:
    made = job("It scatters.")
    assert (made.text, made.ending, made.ids[-1]) == ("It scatters.", "eos", tokens.EOS)


def test_a_reply_as_long_as_its_limit_ends_by_length() -> None:
    whole = len(tokens.pieces("It scatters."))
    assert job("It scatters.", limit=whole).ending == "length"
    assert job("It scatters.", limit=whole + 1).ending == "eos"
    assert len(job("It scatters.", limit=2).pieces) == 2


def test_tgi_keeps_the_stop_text_and_vllm_ends_before_it() -> None:
    reply = "One. Stop here. Two."
    assert job(reply, stop=("nothing", "Stop")).text == "One. Stop"
    assert job(reply, stop=("nothing", "Stop"), keeps=False).text == "One. "
    assert job(reply, stop=("Stop",)).ending == "stop"
