"""Facts for tests: one request's, told as short as a test can read them."""

from __future__ import annotations

from collections.abc import Sequence

from proto.errors import EngineError, EngineRejected
from proto.messages import (
    AnswerAssembled,
    Difficulty,
    ErrorInfo,
    Fact,
    NodeDecoded,
    NodeFailed,
    NodePlanned,
    NodeSpec,
    PlanCompleted,
    RequestAccepted,
    ResolvedMode,
    SubmitRequest,
    Timings,
    Usage,
)
from proto.names import Pool

REQUEST = "r1"


def accepted(request: str = REQUEST, *, at: float = 1000.0, **asked: object) -> RequestAccepted:
    submitted = SubmitRequest.model_validate({"question": "Why?", **asked})
    return RequestAccepted(
        request=request, submitted=submitted, submitted_at=at, deadline_at=at + submitted.deadline_s
    )


def planned(
    node: int,
    needs: Sequence[int] = (),
    difficulty: Difficulty = "hard",
    request: str = REQUEST,
    planned_ms: float = 100.0,
) -> NodePlanned:
    spec = NodeSpec(id=node, summary=f"point {node}", needs=tuple(needs), difficulty=difficulty)
    line = f"{node}. point {node} | {difficulty}"
    return NodePlanned(request=request, node=spec, line=line, planned_ms=planned_ms)


def plan(
    nodes: Sequence[int],
    mode: ResolvedMode = "sgd",
    request: str = REQUEST,
    plan_ms: float = 500.0,
    polish: bool = False,
) -> PlanCompleted:
    return PlanCompleted(
        request=request,
        mode=mode,
        reason="planned" if mode != "direct" else "few_nodes",
        nodes=tuple(nodes),
        plan_ms=plan_ms,
        usage=Usage(prompt_tokens=50, generated_tokens=20),
        polish=polish,
    )


def decoded(
    node: int,
    attempt: int = 1,
    request: str = REQUEST,
    decode_ms: float = 1000.0,
    slot_wait_ms: float = 0.0,
    text: str | None = None,
) -> NodeDecoded:
    return NodeDecoded(
        request=request,
        node=node,
        attempt=attempt,
        text=text or f"Text {node}.",
        finish_reason="stop",
        pool=Pool.LARGE,
        model="m",
        endpoint="http://e",
        worker="w",
        queued_ms=1.0 + slot_wait_ms,
        slot_wait_ms=slot_wait_ms,
        first_token_ms=10.0,
        decode_ms=decode_ms,
        usage=Usage(prompt_tokens=10, generated_tokens=5),
    )


def failed(
    node: int,
    attempt: int = 1,
    *,
    retryable: bool = True,
    pool: Pool = Pool.LARGE,
    request: str = REQUEST,
) -> NodeFailed:
    error = EngineError("boom") if retryable else EngineRejected("no")
    return NodeFailed(
        request=request,
        node=node,
        attempt=attempt,
        pool=pool,
        endpoint="http://e",
        worker="w",
        error=ErrorInfo.of(error),
    )


def answered(request: str) -> AnswerAssembled:
    plan = PlanCompleted(request=request, mode="direct", reason="gate", nodes=(0,))
    timings = Timings(
        wall_ms=1,
        plan_ms=0,
        critical_path=(0,),
        critical_engine_ms=1,
        critical_slot_wait_ms=0,
        overhead_ms=0,
        sequential_ms=1,
    )
    return AnswerAssembled(
        request=request,
        mode="direct",
        text="forty-two",
        nodes=(),
        plan=plan,
        usage=Usage(),
        timings=timings,
    )


def story(*facts: Fact) -> list[tuple[Fact, float]]:
    """The facts with the times at which they were stored, a second apart."""
    return [(fact, 1001.0 + second) for second, fact in enumerate(facts)]
