"""The bodies of Skelgraph's own API, as its OpenAPI document describes them."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from proto.messages import (
    MAX_QUESTION_CHARS,
    FinishReason,
    Mode,
    NodeSpec,
    PlanCompleted,
    PlannerPool,
    ResolvedMode,
    Sampling,
    SubmitRequest,
    Timings,
    Turn,
    Usage,
)
from proto.names import Pool
from services.gateway.accounts import State

OpenState = Literal["queued", "planning", "decoding", "answered", "drafted", "failed", "cancelled"]
NodeState = Literal["waiting", "ready", "decoded", "failed", "cancelled"]

#: The largest number a parameter may hold: positions of facts are far below it.
MAX_NUMBER: Final = 10**18 - 1


class Given(BaseModel):
    """Base of what clients send: unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Shown(BaseModel):
    """Base of what is answered."""

    model_config = ConfigDict(frozen=True)


class NewSkeleton(Given):
    """A question of which only the skeleton is wanted."""

    question: str = Field(min_length=1, max_length=MAX_QUESTION_CHARS, pattern=r"\S")
    context: tuple[Turn, ...] = Field((), max_length=1000, description="what was said before")
    mode: Mode = "auto"
    planner_pool: PlannerPool | None = Field(
        None, description="whose model writes the skeleton; as the planners are set if null"
    )
    max_nodes: int = Field(12, ge=1, le=64)
    deadline_s: float = Field(60, gt=0, le=86_400)

    def submitted(self, owner: str) -> SubmitRequest:
        """Return the command that asks for it."""
        return SubmitRequest(**dict(self), dry_run=True, owner=owner)


class NewRequest(NewSkeleton):
    """A question; see `SubmitRequest`."""

    adaptive: bool = Field(True, description="easy nodes go to the small pool (mode sgd)")
    dry_run: bool = Field(False, description="end with the skeleton, decode nothing")
    sampling: Sampling = Sampling()
    deadline_s: float = Field(600, gt=0, le=86_400)
    on_failure: Literal["direct", "fail"] = "direct"
    polish: bool = Field(
        False, description="the beginning of each part is fitted to the text before it"
    )

    def submitted(self, owner: str) -> SubmitRequest:
        """Return the command that asks for it."""
        return SubmitRequest(**dict(self), owner=owner)


class RequestRef(Shown):
    """A request that was submitted."""

    id: str
    object: Literal["request"] = "request"
    state: Literal["queued"] = "queued"


class AskedRequest(Shown):
    """A request of the history."""

    id: str
    object: Literal["request"] = "request"
    question: str = Field(description="its first 200 characters")
    asked_mode: str
    submitted_at: float
    ended_at: float | None
    state: State


class RequestList(Shown):
    """Recent requests, newest first."""

    object: Literal["list"] = "list"
    data: tuple[AskedRequest, ...]


class AttemptError(Shown):
    """Why an attempt at a node failed."""

    attempt: int
    code: str
    message: str


class NodeView(Shown):
    """A node as it stands; what is not known yet is null."""

    node: NodeSpec
    line: str | None = None
    planned_ms: float | None = None
    planned_at: float | None = None
    state: NodeState
    attempts: int = Field(0, description="attempts that have ended")
    text: str | None = None
    pool: Pool | None = None
    model: str | None = None
    endpoint: str | None = None
    worker: str | None = None
    finish_reason: FinishReason | None = None
    queued_ms: float | None = None
    slot_wait_ms: float | None = None
    first_token_ms: float | None = None
    decode_ms: float | None = None
    usage: Usage | None = None
    decoded_at: float | None = None
    errors: tuple[AttemptError, ...] = ()


class RequestError(Shown):
    """Why there is no answer."""

    code: str
    message: str


class RequestView(Shown):
    """A request as it stands; what is not known yet is null."""

    id: str
    object: Literal["request"] = "request"
    state: OpenState
    question: str
    asked_mode: Mode
    mode: ResolvedMode | None = None
    dry_run: bool
    max_nodes: int
    submitted_at: float | None = None
    deadline_at: float | None = None
    ended_at: float | None = None
    plan: PlanCompleted | None = None
    nodes: tuple[NodeView, ...] = ()
    answer: str | None = None
    fallback: bool = False
    usage: Usage | None = None
    timings: Timings | None = None
    error: RequestError | None = None
    last_event: int = Field(0, description="position of its last fact, for `Last-Event-ID`")


class Cancelled(Shown):
    """What became of a cancel."""

    id: str
    object: Literal["request"] = "request"
    outcome: Literal["cancelled", "already_ended"]


class ErrorBody(Shown):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(Shown):
    """An error in OpenAI's form."""

    error: ErrorBody
