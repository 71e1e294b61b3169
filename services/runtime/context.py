"""What was said before the question, as prompts carry it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proto.messages import Turn
from services.runtime.calls import ChatMessage

_SPEAKERS: Final = {"user": "User", "assistant": "Assistant"}


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
