"""A conversation in a prompt: what is left out of it when it is too long for the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.messages import Turn
from services.runtime.context import RESERVED_TOKENS, as_text, fitted

RULES = Turn(role="system", content="Answer in one sentence. " * 20)


def said(role: Literal["user", "assistant"], number: int, words: int = 50) -> Turn:
    return Turn(role=role, content=f"turn {number} " + "word " * words)


TALK = (RULES, *(said("assistant" if n % 2 else "user", n) for n in range(10)))


def test_a_conversation_that_fits_stays_as_it_is() -> None:
    assert fitted(TALK, "Why?", 8192) == TALK
    assert fitted((), "Why?", 2048) == ()
    odd = (said("assistant", 1), said("user", 2))
    assert fitted(odd, "Why?", 8192) == odd


def test_the_oldest_turns_go_first_and_the_rest_begins_with_the_clients() -> None:
    room = RESERVED_TOKENS + 192 + 2 + 3 * 103
    assert fitted(TALK, "Why?", room + 20) == (RULES, *TALK[-2:])
    assert fitted(TALK, "Why?", room + 120) == (RULES, *TALK[-4:])


@pytest.mark.parametrize("question", ["Why?", "为什么？" * 5000])
def test_neither_the_instructions_nor_the_question_are_ever_cut(question: str) -> None:
    rules = Turn(role="system", content="Be brief. " * 5000)
    late = Turn(role="system", content="In German.")
    assert fitted((rules, *TALK[1:], late), question, 2048) == (rules, late)
    assert "Be brief." in as_text(fitted((rules,), question, 2048))


_TURNS = st.lists(
    st.builds(
        Turn,
        role=st.sampled_from(["system", "user", "assistant"]),
        content=st.text(st.sampled_from("aß界م 😀\n"), max_size=400),
    ),
    max_size=8,
)


def _bytes(turns: Sequence[Turn]) -> int:
    return sum(len(turn.content.encode()) for turn in turns)


@given(_TURNS, st.text(max_size=50), st.integers(1200, 2400))
def test_what_is_kept_fits_and_is_the_end_of_what_was_said(
    turns: list[Turn], question: str, context_tokens: int
) -> None:
    kept = fitted(turns, question, context_tokens)
    rules = [turn for turn in turns if turn.role == "system"]
    talk = [turn for turn in turns if turn.role != "system"]
    kept_talk = [turn for turn in kept if turn.role != "system"]
    assert [turn for turn in kept if turn.role == "system"] == rules
    assert kept_talk == talk[len(talk) - len(kept_talk) :]
    assert tuple(turns) == kept or not kept_talk or kept_talk[0].role == "user"
    if kept_talk:
        room = context_tokens - RESERVED_TOKENS
        assert _bytes(kept) + len(question.encode()) <= 2.5 * room
