"""What is asked of an engine and what comes back: values, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from proto.errors import EngineError
from proto.messages import FinishReason, Usage

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Grammar:
    """The same language in the forms that engines take; each takes the one it knows."""

    gbnf: str
    regex: str


@dataclass(frozen=True, slots=True)
class ChatCall:
    """One chat completion, in no engine's own terms.

    Args:
        messages: the chat so far.
        max_tokens: limit of the reply, in tokens.
        temperature: 0 is greedy.
        top_p: nucleus of the sampling, `0 < top_p <= 1`; the engine's default if None.
        seed: for repeatable sampling, where the engine has it.
        stop: texts that end the reply; an engine with a limit gets the first ones.
        grammar: what the reply must match; left out where the engine knows no grammar.
        repetition_penalty: 1 is none; left out where the engine has no such field.
    """

    messages: tuple[ChatMessage, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    grammar: Grammar | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the reply; `text` is never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Completion:
    """How a stream ended."""

    finish_reason: FinishReason
    usage: Usage
    model: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """How long an engine may take, in seconds.

    Args:
        connect_s: to take a connection.
        first_token_s: from the start of the call to the first text, queueing included.
        between_tokens_s: from one text to the next; keep-alives do not count as text.
        total_s: for the whole call.
        check_s: to answer a health check or a probe (an engine may answer late while it
            runs a long prefill, so this is not a second).
    """

    connect_s: float = 2.0
    first_token_s: float = 60.0
    between_tokens_s: float = 30.0
    total_s: float = 600.0
    check_s: float = 15.0


class StreamWatcher(Protocol):
    """Hears how the streams of an endpoint go."""

    def started(self) -> None:
        """Note that a stream was entered."""

    def answered(self, started_at: float) -> None:
        """Note that the stream entered at `started_at`, monotonic seconds, has text or an end."""

    def ended(self, started_at: float, failure: EngineError | None) -> None:
        """Note that the stream entered at `started_at` was left, and what its engine did wrong."""
