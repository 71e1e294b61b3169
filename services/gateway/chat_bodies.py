"""The bodies of the OpenAI-compatible API: what is taken, and what is answered.

https://platform.openai.com/docs/api-reference/chat; what is taken is a subset, and each other
parameter is refused by its name.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import orjson
from pydantic import Field

from proto.messages import (
    MAX_QUESTION_CHARS,
    PlannerPool,
    ResolvedMode,
    Sampling,
    Timings,
    Usage,
)
from services.gateway.bodies import Given, Shown
from services.gateway.models import MODELS

ChatRole = Literal["system", "developer", "user", "assistant"]
StopText = Annotated[str, Field(min_length=1, max_length=1000)]


class TextPart(Given):
    """A part of a message; only text is supported."""

    type: Literal["text"]
    text: str


class ChatMessage(Given):
    """A turn of the conversation; the last one must be the user's, it is the question."""

    role: ChatRole
    content: str | tuple[TextPart, ...] = Field(description="not empty for the last turn")
    name: str | None = Field(None, description="not used")


class StreamOptions(Given):
    """What a stream holds beside the text."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Extension(Given):
    """What only Skelgraph has; `extra_body={"skelgraph": {...}}` of OpenAI's client."""

    planner_pool: PlannerPool | None = Field(
        None, description="whose model writes the skeleton; as the planners are set if null"
    )
    max_nodes: int = Field(12, ge=1, le=64)
    deadline_s: float = Field(600, gt=0, le=86_400)
    on_failure: Literal["direct", "fail"] = "direct"
    polish: bool = Field(
        False,
        description="the beginning of each part is fitted to the text before it; a stream then has"
        " the first part as it is written, and the rest at the end",
    )


class ChatCompletionRequest(Given):
    """What to answer.

    `tools`, `functions`, `response_format` and the like are refused by name, unless they are
    at the value that changes nothing.
    """

    UNIONS: ClassVar = frozenset({"stop"})

    model: str = Field(json_schema_extra={"enum": list(MODELS)})
    messages: tuple[ChatMessage, ...] = Field(min_length=1, max_length=1000)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(
        None, ge=1, le=1_000_000, description="limit of the whole answer, in tokens (approximate)"
    )
    max_completion_tokens: int | None = Field(
        None, ge=1, le=1_000_000, description="the same under its newer name"
    )
    temperature: float | None = Field(None, ge=0, le=2, description="0, the default, is greedy")
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, le=2**31 - 1)
    stop: StopText | Annotated[tuple[StopText, ...], Field(max_length=4)] | None = None
    n: Literal[1] | None = None
    user: str | None = Field(None, max_length=MAX_QUESTION_CHARS, description="not used")
    metadata: dict[str, str] | None = Field(None, description="not used")
    skelgraph: Extension = Extension()

    def sampling(self) -> Sampling:
        """Return how each node is sampled; no node may be longer than the whole."""
        limit = self.limit_tokens
        return Sampling(
            max_tokens=min(limit, 8192) if limit else None,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
        )

    @property
    def limit_tokens(self) -> int | None:
        """Limit of the whole answer."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def terms(self) -> str:
        """What cuts the answer off; the request that is stored does not say it."""
        limit = self.limit_tokens
        return orjson.dumps([limit, self.stops]).decode() if limit or self.stops else ""

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end the answer."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()


class PromptDetails(Shown):
    """What of the prompts the engines had at hand."""

    cached_tokens: int


class ChatUsage(Shown):
    """Tokens of the plan and all nodes together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails

    @classmethod
    def of(cls, usage: Usage) -> ChatUsage:
        """Return `usage` in OpenAI's terms."""
        return cls(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.generated_tokens,
            total_tokens=usage.prompt_tokens + usage.generated_tokens,
            prompt_tokens_details=PromptDetails(cached_tokens=usage.cached_tokens),
        )


class AnswerNode(Shown):
    """How a part of the answer came about."""

    id: int
    summary: str
    needs: tuple[int, ...]
    pool: str
    model: str
    attempt: int
    finish_reason: str
    queued_ms: float
    first_token_ms: float
    decode_ms: float
    usage: Usage


class AnswerReport(Shown):
    """What only Skelgraph tells of an answer; times and nodes are null where it was cut off."""

    request: str
    mode: ResolvedMode | None = None
    fallback: bool = False
    cut_off: bool = Field(False, description="at a stop text or the limit: the rest was cancelled")
    made_anew: tuple[int | None, ...] = Field(
        (), description="nodes of which text was streamed that is void; null: the whole answer"
    )
    nodes: tuple[AnswerNode, ...] | None = None
    timings: Timings | None = None


class AnswerMessage(Shown):
    """The answer's text."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(Shown):
    """The one answer."""

    index: Literal[0] = 0
    message: AnswerMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(Shown):
    """An answer in OpenAI's form."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[Choice]
    usage: ChatUsage
    system_fingerprint: None = None
    skelgraph: AnswerReport


class Model(Shown):
    """A model name."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["skelgraph"] = "skelgraph"


class ModelList(Shown):
    """All model names."""

    object: Literal["list"] = "list"
    data: tuple[Model, ...]
