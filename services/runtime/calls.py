"""What is asked of an engine and what comes back: values, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from proto.errors import EngineError
from proto.messages import FinishReason, Usage

Role = Literal["system", "user", "assistant"]
#: Which of `EngineLimits` it is that a reply passes.
Limit = Literal["first_token", "between_tokens", "total"]


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
        priority: in the engine's own terms; left out where it has no such field.
    """

    messages: tuple[ChatMessage, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    grammar: Grammar | None = None
    repetition_penalty: float | None = None
    priority: int | None = None


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


@dataclass(frozen=True, slots=True)
class Went:
    """How a stream went, once it was left. Instants are monotonic seconds.

    Args:
        started_at: when it was entered.
        first_at: when its first token came; None if none did.
        last_at: when its latest token came.
        tokens: how many events with tokens came.
        complete: whether the reply came to its end.
        failure: what the engine did wrong; None also where the caller went.
        limit: that which passed, if one of the client's own did.
    """

    started_at: float
    first_at: float | None
    last_at: float | None
    tokens: int
    complete: bool
    failure: EngineError | None
    limit: Limit | None = None


class StreamWatcher(Protocol):
    """Hears how the streams of an endpoint go."""

    def started(self, now: float) -> None:
        """Note that a stream was entered."""

    def heard(self, started_at: float, now: float, gap_s: float | None) -> None:
        """Note that the stream entered at `started_at` has another token.

        Args:
            started_at: when the stream was entered, monotonic seconds.
            now: monotonic seconds.
            gap_s: from the token before it; None if it is the first.
        """

    def ended(self, went: Went) -> None:
        """Note that a stream was left."""


class EngineStream(Protocol):
    """A reply as it is decoded: an async context manager and an async iterator of `Chunk`.

    Entering it sends the call. Entering and iterating raise:

        EngineUnavailable: the engine cannot be reached.
        EngineOverloaded: it is at its limit.
        EngineRejected, PromptTooLong: it refused the call.
        EngineTimedOut: one of the limits has passed.
        EngineCutOff: the reply broke off.
        EngineError: it failed in another way.
    """

    @property
    def endpoint(self) -> str:
        """The URL that is asked; of a pool, before it is entered, that which likely will be."""

    @property
    def first_token_ms(self) -> float | None:
        """From entering to the first text; None before it."""

    @property
    def completion(self) -> Completion:
        """How the reply ended; only once the iteration has ended."""

    def so_far(self) -> Completion:
        """Return how the reply would have ended here, for who leaves it before its end.

        Its tokens are those that were heard; what else the engine tells at the end is not known.
        """

    async def __aenter__(self) -> Self:
        """Send the call."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the reply; if it has not ended, the engine stops decoding."""

    def __aiter__(self) -> Self:
        """Return the iterator of the chunks."""

    async def __anext__(self) -> Chunk:
        """Return the next piece of the reply."""


class Engines(Protocol):
    """What a service asks for replies: a pool of engines, or what stands for one."""

    def stream(
        self,
        call: ChatCall,
        *,
        key: str,
        avoid: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> EngineStream:
        """Return the reply to `call`; it is sent when the stream is entered.

        Args:
            call: what is asked.
            key: calls with the same key go to the same endpoint, for its prefix cache.
            avoid: URL of an endpoint to be passed over if there is another.
            headers: to send with it, such as `traceparent`.
        """

    async def close(self) -> None:
        """Close all connections; streams that are open break off."""
