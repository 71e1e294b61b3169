"""The messages: commands in the imperative, facts and previews in the past tense.

What clients send forbids unknown fields; what services read from each other ignores
them, so that two versions can run side by side during an upgrade. All are frozen
values. Durations end in `_ms` or `_s`; instants (`_at`) are seconds since the epoch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from proto.errors import SkelgraphError
from proto.names import REQUEST_ID_PATTERN, Pool

Mode = Literal["auto", "direct", "sot", "sgd"]
ResolvedMode = Literal["direct", "sot", "sgd"]
Difficulty = Literal["easy", "hard"]
FinishReason = Literal["stop", "length"]
#: Whose model writes the plan; `draft`: the small pool's, and the large one's amends it.
PlannerPool = Literal["large", "small", "draft"]
#: What a request can be answered without, to find out what it is worth (and see `adaptive`).
Part = Literal["pipelining", "prefix", "needs", "grammar"]

NodeId = Annotated[int, Field(ge=0, le=999)]
#: Python reads longer whole numbers than others do, and orjson writes none of them.
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Attempt = Annotated[int, Field(ge=1, le=2**63 - 1)]
RequestId = Annotated[str, Field(pattern=REQUEST_ID_PATTERN)]

MAX_QUESTION_CHARS = 100_000
MAX_DEADLINE_S = 86_400
#: How long a caller may wait for an answer in one call, and waits if it says nothing: less than
#: the two minutes for which NATS lets a service reply unless it is told otherwise.
MAX_WAIT_S = 3600
DEFAULT_WAIT_S = 100.0

#: Between the texts of two nodes in an answer.
JOINT = "\n\n"


class Sent(BaseModel):
    """Base of what clients send: strict, unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Passed(BaseModel):
    """Base of what services pass on: unknown fields of a newer version are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


# --- parts ----------------------------------------------------------------------------


class NodeSpec(Passed):
    """A sub-problem of the question."""

    id: NodeId
    summary: str = Field(description="what the node is to write, in a few words")
    needs: tuple[NodeId, ...] = Field(
        (), description="ids of earlier nodes whose texts it builds on"
    )
    difficulty: Difficulty = "hard"
    budget_tokens: int = Field(
        70, ge=1, le=8192, description="how long its text is meant to be, in tokens"
    )


class NodeText(Passed):
    """A finished node, as its dependants read it."""

    id: NodeId
    summary: str
    text: str
    budget_tokens: Int64 = Field(70, description="as in `NodeSpec`")


class Usage(Passed):
    """Tokens of one engine call or of several together."""

    prompt_tokens: Int64 = 0
    cached_tokens: Int64 = Field(
        0, description="prompt tokens that the engine had in its prefix cache"
    )
    generated_tokens: Int64 = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            generated_tokens=self.generated_tokens + other.generated_tokens,
        )


class Sampling(Sent):
    """How node texts are sampled: greedily and to the worker's limit of tokens unless told."""

    max_tokens: int | None = Field(
        None,
        ge=1,
        le=8192,
        description="limit of a direct answer and of each part, in tokens; a part has a limit of "
        "its own, by its budget, which this does not lift",
    )
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, le=2**31 - 1)


class Turn(Sent):
    """What was said before the question: an instruction, or a turn of the conversation."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=MAX_QUESTION_CHARS)


class ErrorInfo(Passed):
    """An error as it travels: see `proto.errors` for the codes."""

    code: str
    message: str
    retryable: bool
    field: str | None = None
    retry_after_s: float | None = Field(None, description="when it is worth another try")

    @classmethod
    def of(cls, error: SkelgraphError) -> ErrorInfo:
        """Describe `error`."""
        return cls(
            code=error.code,
            message=error.message,
            retryable=error.retryable,
            field=error.field,
            retry_after_s=error.retry_after_s,
        )


# --- commands -------------------------------------------------------------------------


class Question(Sent):
    """Base of what asks for an answer."""

    type: str
    question: str = Field(min_length=1, max_length=MAX_QUESTION_CHARS, pattern=r"\S")
    context: tuple[Turn, ...] = Field(
        (), max_length=1000, description="what was said before; the answer is to the question"
    )
    mode: Mode = Field("auto", description="auto: the planner decides; the others force a method")
    adaptive: bool = Field(True, description="easy nodes go to the small pool (mode sgd)")
    dry_run: bool = Field(False, description="end with the skeleton, decode nothing")
    max_nodes: int = Field(12, ge=1, le=64)
    sampling: Sampling = Sampling()
    deadline_s: float = Field(600, gt=0, le=MAX_DEADLINE_S)
    on_failure: Literal["direct", "fail"] = Field(
        "direct", description="when a node fails for good: answer directly, or fail"
    )
    polish: bool = Field(
        False,
        description="the small pool's model fits the beginning of each part to the end of the"
        " part before it, once both are decoded",
        exclude_if=lambda value: not value,  # services of an older version do not know it
    )
    planner_pool: PlannerPool | None = Field(
        None,
        description="whose model writes the plan: large; small; or draft, which the small pool"
        " writes and the large one amends while its first nodes decode. As the planners are set"
        " if null; the large one where there is no small one",
        exclude_if=lambda value: value is None,  # planners of an older version do not know it
    )


class SubmitRequest(Question):
    """Ask for an answer; the request id stands in the subject."""

    type: Literal["SubmitRequest"] = "SubmitRequest"
    requeued_from: RequestId | None = Field(
        None,
        description="the request with dead letters that this one does again",
        exclude_if=lambda value: value is None,  # planners of an older version do not know it
    )
    owner: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_.-]{0,64}$",
        description="whose it is, as a gateway has found out; empty without one",
    )
    without: tuple[Part, ...] = Field(
        (),
        max_length=4,
        description="for comparisons only: pipelining: no node is released before the plan is"
        " complete; prefix: nothing is laid out for a prefix cache; needs: nodes depend on"
        " nothing; grammar: the plan is written free",
        exclude_if=lambda value: not value,  # services of an older version do not know it
    )


RequestIdWanted = Annotated[
    RequestId | None,
    Field(
        description="id of the request: to send the same again under it asks once and is"
        " answered alike; null: a new one, which cannot be asked for again if the reply is lost"
    ),
]
WaitS = Annotated[
    float, Field(gt=0, le=MAX_WAIT_S, description="seconds after which `AnswerPending` is replied")
]


class CreateRequest(Question):
    """Ask that a request be stored (request-reply), without waiting for its answer."""

    type: Literal["CreateRequest"] = "CreateRequest"
    request: RequestIdWanted = None


class RequestCreated(Passed):
    """Reply to `CreateRequest`: the request is stored."""

    type: Literal["RequestCreated"] = "RequestCreated"
    request: RequestId
    outcome: Literal["created", "known"] = Field(description="known: it was stored before")


class AskQuestion(Question):
    """Ask for an answer and wait for it (request-reply).

    The reply is the request's end (`AnswerAssembled`, `SkeletonDrafted`, `RequestFailed`),
    `AnswerPending`, or an `ErrorInfo` if the request could not be stored.
    """

    type: Literal["AskQuestion"] = "AskQuestion"
    request: RequestIdWanted = None
    wait_s: WaitS = DEFAULT_WAIT_S


class AwaitAnswer(Sent):
    """Wait for the answer to a request that is stored (request-reply); see `AskQuestion`."""

    type: Literal["AwaitAnswer"] = "AwaitAnswer"
    wait_s: WaitS = DEFAULT_WAIT_S


class AnswerPending(Passed):
    """Reply to who waits for an answer: not yet; ask for it again by the request's id."""

    type: Literal["AnswerPending"] = "AnswerPending"
    request: RequestId


class CancelRequest(Sent):
    """Ask that a request be cancelled (request-reply); the id stands in the subject."""

    type: Literal["CancelRequest"] = "CancelRequest"
    reason: str = Field("", max_length=1000)


class CancelOutcome(Passed):
    """Reply to `CancelRequest`."""

    type: Literal["CancelOutcome"] = "CancelOutcome"
    request: RequestId
    outcome: Literal["cancelled", "already_ended", "unknown"]


class DecodeNode(Passed):
    """Work for a worker: all that it needs to know to write one node."""

    type: Literal["DecodeNode"] = "DecodeNode"
    request: RequestId
    node: NodeSpec
    attempt: Attempt
    pool: Pool
    mode: ResolvedMode
    question: str
    context: tuple[Turn, ...] = Field((), description="as in `SubmitRequest`")
    skeleton: tuple[str, ...] = Field(
        (), description="the plan's lines, byte for byte as the model wrote them"
    )
    predecessors: tuple[NodeText, ...] = Field((), description="in ascending id")
    sampling: Sampling = Sampling()
    deadline_at: float
    avoid_endpoint: str | None = Field(None, description="where the last attempt failed")
    held_ms: float = Field(
        0, ge=0, description="how long it was held back because the pool had no slot for it"
    )
    without: tuple[Part, ...] = Field((), description="as in `SubmitRequest`")


class StopWork(Passed):
    """Tell workers and planners (core NATS) that work on a request is of no more use."""

    type: Literal["StopWork"] = "StopWork"
    request: RequestId
    nodes: tuple[NodeId, ...] | None = Field(None, description="only these nodes; all if null")


# --- facts: the event log -------------------------------------------------------------


class RequestAccepted(Passed):
    """A valid request was taken up by a planner."""

    type: Literal["RequestAccepted"] = "RequestAccepted"
    request: RequestId
    submitted: SubmitRequest
    submitted_at: float = Field(description="when NATS stored the request")
    deadline_at: float


class NodePlanned(Passed):
    """A line of the plan is complete; its node may be decoded."""

    type: Literal["NodePlanned"] = "NodePlanned"
    request: RequestId
    node: NodeSpec
    line: str = Field(description="the line as the model wrote it")
    planned_ms: float = Field(description="engine time of the plan up to the line's end")


class PlanCall(Passed):
    """An engine's call for a plan, or for an amendment of one."""

    pool: Pool
    model: str = ""
    endpoint: str = ""
    engine_ms: float = Field(description="the whole call, prefill included")
    usage: Usage = Field(Usage(), description="zero where the reply did not come to its end")
    error: str = Field("", description="code of what kept it from being of use")


class PlanCompleted(Passed):
    """The plan has ended; the nodes that make up the answer are known."""

    type: Literal["PlanCompleted"] = "PlanCompleted"
    request: RequestId
    mode: ResolvedMode
    reason: Literal[
        "forced", "gate", "planned", "few_nodes", "chain", "unparsable", "cut_off", "no_planner"
    ] = Field(description="why this mode")
    saturated: bool = Field(
        False, description="not planned because the pools were full; `reason` is then `gate`"
    )
    nodes: tuple[NodeId, ...] = Field(description="the answer's nodes in plan order")
    model: str = Field("", description="of the last call")
    endpoint: str = Field("", description="of the last call")
    plan_ms: float = Field(0, description="time in the engines; 0 if none was asked")
    usage: Usage = Field(Usage(), description="of all calls")
    written_by: PlannerPool | None = Field(
        None, description="whose model wrote it; draft: an amendment came in time"
    )
    calls: tuple[PlanCall, ...] = Field((), description="each call to an engine, in order")
    polish: bool = Field(
        False,
        description="the beginnings of all parts but the first may still change once they are"
        " decoded; the answer has them as they stay",
    )

    @property
    def why(self) -> str:
        """Why this mode, for people."""
        return "saturated" if self.saturated else self.reason.replace("_", " ")


class NodeDecoded(Passed):
    """A node has its text."""

    type: Literal["NodeDecoded"] = "NodeDecoded"
    request: RequestId
    node: NodeId
    attempt: Attempt
    text: str
    finish_reason: FinishReason
    pool: Pool
    model: str
    endpoint: str
    worker: str
    queued_ms: float = Field(description="from release to the start of the engine call")
    slot_wait_ms: float = Field(description="the part of queued_ms in which no slot was free")
    first_token_ms: float = Field(description="from the start of the engine call")
    decode_ms: float = Field(description="the whole engine call, prefill included")
    usage: Usage


class NodeFailed(Passed):
    """One attempt at a node failed."""

    type: Literal["NodeFailed"] = "NodeFailed"
    request: RequestId
    node: NodeId
    attempt: Attempt
    pool: Pool
    endpoint: str = ""
    worker: str
    error: ErrorInfo


class NodeReport(Passed):
    """How one node of the answer came about."""

    node: NodeSpec
    pool: Pool
    model: str
    endpoint: str
    attempt: Attempt
    finish_reason: FinishReason
    queued_ms: float
    slot_wait_ms: float
    first_token_ms: float
    decode_ms: float
    usage: Usage
    start: Int64 = Field(description="offset of the node's text in the answer, in characters")
    end: Int64


class JointReport(Passed):
    """What became of the beginning of a node that was to be fitted to the text before it."""

    node: NodeId = Field(description="the node that begins there")
    outcome: Literal["polished", "kept", "failed", "late"] = Field(
        description="kept: the reply was of no use, or changed nothing; late: it did not come"
        " in time"
    )
    pool: Pool = Pool.SMALL
    model: str = ""
    endpoint: str = ""
    decode_ms: float = 0
    usage: Usage = Usage()


class Timings(Passed):
    """Where the time of a request went.

    `wall_ms = critical_engine_ms + critical_slot_wait_ms + critical_retry_ms + overhead_ms`,
    along the critical path: the chain of plan and nodes of which each waited for the one before.
    """

    wall_ms: float = Field(description="from the stored request to the end")
    plan_ms: float = Field(description="engine time of the plan")
    critical_path: tuple[NodeId, ...]
    critical_engine_ms: float = Field(description="engine time on the critical path, plan included")
    critical_slot_wait_ms: float = Field(description="time on it in which all slots were taken")
    critical_retry_ms: float = Field(
        0, description="time on it of failed attempts and the pauses after them"
    )
    overhead_ms: float = Field(description="the rest: queue, services, network")
    sequential_ms: float = Field(description="plan and all nodes, one after another")
    polish_ms: float = Field(0, description="engine time of the last joint, part of the critical")


class AnswerAssembled(Passed):
    """The request has its answer."""

    type: Literal["AnswerAssembled"] = "AnswerAssembled"
    request: RequestId
    mode: ResolvedMode
    text: str
    nodes: tuple[NodeReport, ...]
    plan: PlanCompleted
    usage: Usage = Field(description="plan, all nodes and joints together")
    timings: Timings
    fallback: bool = Field(False, description="a node failed for good, this is the direct answer")
    joints: tuple[JointReport, ...] = Field((), description="what was polished, in plan order")


class SkeletonDrafted(Passed):
    """The request was a dry run; this is its skeleton."""

    type: Literal["SkeletonDrafted"] = "SkeletonDrafted"
    request: RequestId
    mode: ResolvedMode
    nodes: tuple[NodeSpec, ...]
    lines: tuple[str, ...] = Field(description="the plan as the model wrote it")
    plan: PlanCompleted


class RequestFailed(Passed):
    """The request has no answer: it failed, was cancelled, or ran out of time."""

    type: Literal["RequestFailed"] = "RequestFailed"
    request: RequestId
    error: ErrorInfo
    partial: tuple[NodeText, ...] = Field((), description="nodes that were done, in plan order")


End = Annotated[AnswerAssembled | SkeletonDrafted | RequestFailed, Field(discriminator="type")]
Fact = Annotated[
    RequestAccepted
    | NodePlanned
    | PlanCompleted
    | NodeDecoded
    | NodeFailed
    | AnswerAssembled
    | SkeletonDrafted
    | RequestFailed,
    Field(discriminator="type"),
]


class FailedAttempt(Passed):
    """One attempt at a node that has a dead letter."""

    attempt: Attempt
    pool: Pool
    endpoint: str
    worker: str
    error: ErrorInfo
    failed_at: float = Field(description="when NATS stored the failure")


class DeadLetter(Passed):
    """A node that failed for good, with all that is needed to see why and to do it again."""

    type: Literal["DeadLetter"] = "DeadLetter"
    request: RequestId
    node: NodeId
    attempts: Int64
    error: ErrorInfo = Field(description="of the last attempt")
    work: DecodeNode = Field(
        description="as it was last released; without its texts if the letter were too large"
    )
    history: tuple[FailedAttempt, ...] = Field((), description="each attempt, in order")
    submitted: SubmitRequest | None = Field(None, description="the request as it was submitted")


# --- dead letters: commands and replies -----------------------------------------------

#: Stands for a question or summary that was not asked for.
WITHHELD = "…"
MAX_LETTERS = 200


class ListLetters(Sent):
    """Ask for dead letters, oldest first."""

    type: Literal["ListLetters"] = "ListLetters"
    request: RequestId | None = Field(None, description="only those of this request")
    code: str | None = Field(None, max_length=64, description="only those of this error code")
    since: float | None = Field(
        None, ge=0, le=1e11, description="only those stored since, in seconds since the epoch"
    )
    after: int = Field(
        0, ge=0, le=2**63 - 1, description="go on after this place: `next` of the last page"
    )
    limit: int = Field(50, ge=1, le=MAX_LETTERS, description="most letters of one page")


class LetterSummary(Passed):
    """A dead letter in a line: no text of the question, the plan or an answer."""

    request: RequestId
    node: NodeId
    attempts: Int64
    pool: Pool = Field(description="of the last attempt")
    code: str
    message: str = Field(description="what the last attempt's error says, at most 300 characters")
    died_at: float = Field(description="when NATS stored the letter")


class LetterPage(Passed):
    """Reply to `ListLetters`."""

    type: Literal["LetterPage"] = "LetterPage"
    letters: tuple[LetterSummary, ...]
    next: Int64 | None = Field(
        None,
        description="`after` of the next page; null at the end. A page with a `next` may be short"
        " or empty: then the filter left little of what was read for it",
    )


class ShowLetter(Sent):
    """Ask for one dead letter."""

    type: Literal["ShowLetter"] = "ShowLetter"
    request: RequestId
    node: NodeId
    text: bool = Field(False, description="with question, plan and texts, which are personal")


class LetterShown(Passed):
    """Reply to `ShowLetter`."""

    type: Literal["LetterShown"] = "LetterShown"
    letter: DeadLetter = Field(
        description=f"without `text`, question and summary are `{WITHHELD}`, plan and texts empty"
    )
    died_at: float = Field(description="when NATS stored the letter")
    request_state: Literal["open", "answered", "fell_back", "failed", "gone"] = Field(
        description="what became of the request; gone: its facts are no longer kept"
    )
    end_code: str | None = Field(None, description="error code of the request's end, if it failed")


class RequeueLetter(Sent):
    """Ask that the request of a dead letter be done again, as a new request.

    All letters of the request are done with by that.
    """

    type: Literal["RequeueLetter"] = "RequeueLetter"
    request: RequestId
    node: NodeId


class LetterRequeued(Passed):
    """Reply to `RequeueLetter`: the new request is stored, the letters are removed."""

    type: Literal["LetterRequeued"] = "LetterRequeued"
    request: RequestId
    node: NodeId
    requeued_as: RequestId = Field(description="the new request, the same however often asked")
    outcome: Literal["requeued", "already_requeued"]


class DropLetter(Sent):
    """Ask that a dead letter be removed."""

    type: Literal["DropLetter"] = "DropLetter"
    request: RequestId
    node: NodeId


class LetterDropped(Passed):
    """Reply to `DropLetter`."""

    type: Literal["LetterDropped"] = "LetterDropped"
    request: RequestId
    node: NodeId
    outcome: Literal["dropped", "unknown"]


# --- previews: core NATS --------------------------------------------------------------


class NodeReleased(Passed):
    """A node was handed to its pool."""

    type: Literal["NodeReleased"] = "NodeReleased"
    request: RequestId
    node: NodeId
    attempt: Attempt
    pool: Pool


class NodeStarted(Passed):
    """A worker has called its engine for a node; earlier text of the node is void."""

    type: Literal["NodeStarted"] = "NodeStarted"
    request: RequestId
    node: NodeId
    attempt: Attempt
    pool: Pool
    worker: str
    endpoint: str
    max_tokens: Int64 = Field(0, ge=0, description="the call's limit of tokens; 0 if not known")


class TokensDecoded(Passed):
    """A piece of a node's text."""

    type: Literal["TokensDecoded"] = "TokensDecoded"
    request: RequestId
    node: NodeId
    attempt: Attempt
    offset: Int64 = Field(ge=0, description="where `text` begins in the node's text, in characters")
    text: str
    tokens: Int64 = Field(ge=0, description="tokens generated so far")


class NodeReset(Passed):
    """The partial text of a node is void: the attempt failed."""

    type: Literal["NodeReset"] = "NodeReset"
    request: RequestId
    node: NodeId
    attempt: Attempt
    error: ErrorInfo


# --- load: core NATS ------------------------------------------------------------------


class LoadAnnounced(Passed):
    """What one process has, or holds, of a pool: once a second, and when it changes."""

    type: Literal["LoadAnnounced"] = "LoadAnnounced"
    source: str = Field(description="the process; its last word counts, for a few seconds")
    pool: Pool
    slots: Int64 = Field(0, ge=0, description="nodes that a worker decodes at once")
    released: Int64 = Field(
        0, ge=0, description="nodes that an assembler has handed over and that are not done"
    )
    held: Int64 = Field(
        0, ge=0, description="nodes that could be decoded and that an assembler holds back"
    )


PartitionNumber = Annotated[int, Field(ge=0, le=255)]


class PartitionsClaimed(Passed):
    """Which partitions of the event log an assembler has: twice a second, and when it changes."""

    type: Literal["PartitionsClaimed"] = "PartitionsClaimed"
    source: str = Field(description="the process; its last word counts, for a moment")
    owned: tuple[PartitionNumber, ...] = Field((), description="partitions that are pinned to it")
    asked: tuple[PartitionNumber, ...] = Field(
        (), description="partitions that it asks for beside them"
    )
    leaving: bool = Field(False, description="it is about to end: it is not to be reckoned with")


Preview = Annotated[
    NodeReleased | NodeStarted | TokensDecoded | NodeReset, Field(discriminator="type")
]
