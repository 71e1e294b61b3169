"""Files of questions: what of a line is asked, and what is said of a line that asks nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.evaluate.records import Records, digest, refuse_changed
from bench.questions import Question, read_questions, request_of
from proto.errors import InvalidRequest
from proto.messages import Turn
from tests.unit.evaluated import record


def test_a_question_may_carry_a_reference(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(
        '{"question": "2+2?", "reference": "4"}\n{"turns": ["a"], "reference": ["b"]}\n'
    )
    assert [one.reference for one in read_questions(file)] == ["4", "b"]


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is a pod?"},
    {"role": "assistant", "content": "A group of containers."},
    {"role": "user", "content": "What are its states?"},
]


def test_of_a_conversation_the_last_turn_is_asked_after_the_earlier_ones(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"messages": CHAT}) + '\n{"question": "What are its states?"}\n')
    chat, alone = read_questions(file)
    asked = request_of(chat, chat.text, mode="sgd")
    assert asked.question == "What are its states?"
    assert [turn.model_dump() for turn in asked.context] == CHAT[:-1]
    assert chat.told.startswith("Instructions for the answer:\n\nBe brief.")
    assert chat.told.endswith("Assistant: A group of containers.\n\nWhat are its states?")
    assert (alone.told, request_of(alone, alone.text).context) == (alone.text, ())


PARTS = [{"role": "user", "content": [{"type": "text", "text": "What is a pod?"}]}]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({}, "one of `question`"),
        ([1], "dict"),
        ({"question": None}, "one of `question`"),
        ({"question": {"a": 1}}, "question: .* string"),
        ({"question": ""}, "not blank"),
        ({"question": " \n"}, "not blank"),
        ({"turns": []}, "not blank"),
        ({"turns": "abc"}, "turns: .* list"),
        ({"turns": [7]}, "turns.0: .* string"),
        ({"messages": []}, "not blank"),
        ({"messages": CHAT[:3]}, "has to be last"),
        ({"messages": [CHAT[1], {"role": "user", "content": " "}]}, "not blank"),
        ({"messages": [{"role": "x"}, CHAT[1]]}, "messages.0.role: "),
        ({"messages": [{"role": "developer", "content": "a"}, CHAT[1]]}, "messages.0.role: "),
        ({"messages": PARTS}, "messages.0.content: .* string"),
        ({"messages": [{**CHAT[1], "name": "bob"}]}, "messages.0.name: "),
        ({"messages": CHAT, "question": "Which?"}, "one of `question`"),
        ({"turns": ["a"], "question": "b"}, "one of `question`"),
        ({"question": "Why?", "reference": {"a": 1}}, "reference"),
    ],
)
def test_a_line_without_a_question_is_named_with_what_is_wrong(
    tmp_path: Path, line: object, said: str
) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"question": "What?"}) + "\n" + json.dumps(line))
    with pytest.raises(SystemExit, match=f"line 2: no question: .*{said}"):
        read_questions(file)


def test_a_text_may_hold_separators_that_json_leaves_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"question": "a\u2028b\x85c"}, ensure_ascii=False), "utf-8")
    assert [one.text for one in read_questions(file)] == ["a\u2028b\x85c"]


def test_a_conversation_in_another_order_is_another_question() -> None:
    said = (Turn(role="system", content="Be brief."), Turn(role="user", content="A pod?"))
    one, other = (Question("1", "", "Why?", "", turns) for turns in (said, said[::-1]))
    assert one.told == other.told
    assert digest(one.identity) != digest(other.identity)
    made = record("1", "generic", "direct").model_copy(update={"asked": digest(one.identity)})
    refuse_changed(Records([made]), [one])
    with pytest.raises(InvalidRequest, match="1: recorded with another text"):
        refuse_changed(Records([made]), [other])


def test_a_question_without_a_conversation_has_the_digest_that_it_had() -> None:
    assert Question("1", "", "Why?").identity == "Why?"
