"""What a reply says so far: a fold of the events of a chat completion stream. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from proto.errors import EngineCutOff
from proto.messages import FinishReason, Usage
from services.runtime.dialects import Dialect, cached_tokens
from services.runtime.events import Event, NotAnEvent, mended

#: What engines call an end at the limit of tokens; every other end is "stop".
_LENGTH: Final = frozenset({"length", "max_tokens"})
#: The engine gave the reply up: its text is not whole.
_GAVE_UP: Final = frozenset({"abort", "error"})
#: Where models that reason put what they think; it differs from engine to engine.
_THOUGHTS: Final = ("reasoning", "reasoning_content")

#: No reply has more characters; and none has more than its tokens can make, by far.
MAX_CHARS: Final = 4 * 1024 * 1024
MIN_CHARS: Final = 64 * 1024
CHARS_A_TOKEN: Final = 256


def most_chars(max_tokens: int) -> int:
    """Return how many characters a reply of `max_tokens` may have: more is a broken engine."""
    return min(MAX_CHARS, max(MIN_CHARS, CHARS_A_TOKEN * max_tokens))


@dataclass(frozen=True, slots=True)
class Piece:
    """One event: its text, and whether it shows that the model decodes."""

    text: str
    decodes: bool


_NOTHING: Final = Piece("", decodes=False)


class Reply:
    """What is known of a reply.

    Args:
        dialect: of the engine.
        max_chars: of its text; who collects it need not fear for their memory.

    Attributes:
        finish_reason: how it ended; None as long as it has not.
        usage: the tokens, where the engine tells them.
        model: its name as the engine echoes it.
    """

    def __init__(self, dialect: Dialect, *, max_chars: int = MAX_CHARS) -> None:
        self.finish_reason: FinishReason | None = None
        self.usage = Usage()
        self.model = ""
        self._dialect = dialect
        self._half = ""
        self._chars_left = max_chars

    def take(self, event: Event) -> Piece:
        """Fold `event` in and return what it adds.

        Raises:
            EngineCutOff: the engine says that it gave up, or its text has no end.
            NotAnEvent: a field is not of its type.
        """
        model = event.get("model")
        if isinstance(model, str) and model:
            self.model = model
        self._note_usage(event)
        choice = _first(event.get("choices"))
        if choice is None:
            return _NOTHING
        self._note_end(choice.get("finish_reason"))
        return self._piece(choice.get("delta"))

    def rest(self) -> str:
        """Return what was held back: half a character whose other half never came."""
        half, self._half = self._half, ""
        return mended(half)

    def _piece(self, delta: object) -> Piece:
        if delta is None:
            return _NOTHING
        if not isinstance(delta, dict):
            raise NotAnEvent("delta")
        text = delta.get("content") or ""
        if not isinstance(text, str):
            raise NotAnEvent("content")
        self._chars_left -= len(text)
        if self._chars_left < 0:
            raise EngineCutOff("its text is longer than it can be")
        # A model that reasons decodes long before it has a text to show.
        thinks = any(delta.get(name) for name in _THOUGHTS)
        return Piece(self._whole(text), decodes=bool(text or thinks))

    def _whole(self, text: str) -> str:
        """Return `text` in whole characters; half of one at its end waits for the next event."""
        if text.isascii() and not self._half:
            return text
        text, self._half = self._half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return mended(text)

    def _note_usage(self, event: Event) -> None:
        usage = event.get("usage")
        if not isinstance(usage, dict):
            return
        self.usage = Usage(
            prompt_tokens=_count(usage.get("prompt_tokens")),
            cached_tokens=_count(cached_tokens(self._dialect, event)),
            generated_tokens=_count(usage.get("completion_tokens")),
        )

    def _note_end(self, reason: object) -> None:
        if not reason:
            return
        if not isinstance(reason, str):
            raise NotAnEvent("finish_reason")
        if reason in _GAVE_UP:
            raise EngineCutOff(f"finish reason {reason}")
        self.finish_reason = "length" if reason in _LENGTH else "stop"


def _first(choices: object) -> Mapping[str, Any] | None:
    if not choices:
        return None
    if not isinstance(choices, list) or not isinstance(choices[0], dict):
        raise NotAnEvent("choices")
    return choices[0]


def _count(tokens: object) -> int:
    """Return `tokens` if it counts some; a reply is not given up for its figures."""
    counts = isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens < 2**53
    return int(tokens) if counts and isinstance(tokens, int) else 0
