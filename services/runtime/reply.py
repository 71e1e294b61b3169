"""What a reply says so far: a fold of the events of a chat completion stream. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from huggingface_hub import ChatCompletionStreamOutput

from proto.errors import EngineCutOff
from proto.messages import FinishReason, Usage
from services.runtime.dialects import Dialect, cached_tokens

#: What engines call an end at the limit of tokens; every other end is "stop".
_LENGTH: Final = frozenset({"length", "max_tokens"})
#: The engine gave the reply up: its text is not whole.
_GAVE_UP: Final = frozenset({"abort", "error"})


@dataclass(frozen=True, slots=True)
class Piece:
    """One event: its text, and whether it shows that the model decodes."""

    text: str
    decodes: bool


class Reply:
    """What is known of a reply.

    Attributes:
        finish_reason: how it ended; None as long as it has not.
        usage: the tokens, where the engine tells them.
        model: its name as the engine echoes it.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.finish_reason: FinishReason | None = None
        self.usage = Usage()
        self.model = ""
        self._dialect = dialect

    def take(self, event: ChatCompletionStreamOutput) -> Piece:
        """Fold `event` in and return what it adds.

        Raises:
            EngineCutOff: the engine says that it gave up.
            TypeError: a field is not of its type; other errors of that kind where
                huggingface_hub let something else than an event pass.
        """
        self.model = event.model or self.model
        self._note_usage(event)
        if not event.choices:
            return Piece("", decodes=False)
        choice = event.choices[0]
        self._note_end(choice.finish_reason)
        return _piece(choice.delta)

    def _note_usage(self, event: ChatCompletionStreamOutput) -> None:
        usage = event.usage
        if usage is None:
            return
        told = {"usage": usage, "timings": getattr(event, "timings", None)}
        self.usage = Usage(
            prompt_tokens=int(usage.prompt_tokens or 0),
            cached_tokens=cached_tokens(self._dialect, told) or 0,
            generated_tokens=int(usage.completion_tokens or 0),
        )

    def _note_end(self, reason: str | None) -> None:
        if not reason:
            return
        if reason in _GAVE_UP:
            raise EngineCutOff(f"finish reason {reason}")
        self.finish_reason = "length" if reason in _LENGTH else "stop"


def _piece(delta: Mapping[str, Any] | None) -> Piece:
    if delta is None:
        return Piece("", decodes=False)
    text = delta.get("content") or ""
    if not isinstance(text, str):
        raise TypeError("content is not a text")
    # A model that reasons decodes long before it has a text to show.
    thinks = delta.get("reasoning") or delta.get("reasoning_content")
    return Piece(text, decodes=bool(text or thinks))
