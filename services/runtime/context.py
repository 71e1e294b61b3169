"""What was said before the question, as prompts carry it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from proto.messages import Turn
from services.runtime.calls import ChatMessage

#: What a prompt holds beside conversation and question, and what the engine writes: the rules,
#: the plan, texts that a node builds on, the reply.
RESERVED_TOKENS: Final = 1200
# The fewest bytes that a token usually has: 4 or so in English, 3 in Chinese and Arabic, 2.5
# in German with its long words. Nothing of a known model's tokenizer is needed then; scripts that a
# model hardly knows, and emoji, have fewer, and such a prompt may still be too long.
_BYTES_PER_TOKEN: Final = 2.5

_SPEAKERS: Final = {"user": "User", "assistant": "Assistant"}


def fitted(context: Sequence[Turn], question: str, context_tokens: int) -> tuple[Turn, ...]:
    """Return the context without its oldest turns that would not fit the engine beside `question`.

    Instructions (role system) always stay, as does the question. What stays of the conversation
    begins with the client's turn. It depends on nothing else, so that the plan and all nodes of a
    request are written with the same conversation, and share it in the engine's cache.

    Args:
        context: what was said before, oldest first.
        question: what is asked.
        context_tokens: prompt and reply that the engine takes together.
    """
    if not context:
        return ()
    rules = sum(_tokens(turn.content) for turn in context if turn.role == "system")
    room = context_tokens - RESERVED_TOKENS - rules - _tokens(question)
    said = [place for place, turn in enumerate(context) if turn.role != "system"]
    first = len(context)
    for place in reversed(said):
        room -= _tokens(context[place].content)
        if room < 0:
            break
        first = place
    if said and first > said[0]:
        first = next((p for p in said if p >= first and context[p].role == "user"), len(context))
    return tuple(
        turn for place, turn in enumerate(context) if turn.role == "system" or place >= first
    )


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / _BYTES_PER_TOKEN)


def as_turns(context: Sequence[Turn]) -> tuple[ChatMessage, ...]:
    """Return the context as turns of a chat."""
    return tuple(ChatMessage(turn.role, turn.content) for turn in context)


def as_text(context: Sequence[Turn]) -> str:
    """Return the context as a text to stand before the question; empty if there is none."""
    rules = [turn.content for turn in context if turn.role == "system"]
    said = [f"{_SPEAKERS[t.role]}: {t.content}" for t in context if t.role in _SPEAKERS]
    parts = ["\n\n".join(["Instructions for the answer:", *rules])] if rules else []
    parts += ["\n\n".join(["Conversation so far:", *said])] if said else []
    return "".join(f"{part}\n\n" for part in parts)
