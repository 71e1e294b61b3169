"""Records as an evaluation makes them, for tests."""

from __future__ import annotations

from bench.evaluate.records import PlanLine, Record, Records, digest
from proto.messages import (
    AnswerAssembled,
    NodeReport,
    NodeSpec,
    PlanCompleted,
    ResolvedMode,
    Timings,
    Usage,
)
from proto.names import Pool


def record(question: str, category: str, method: str, *, wall_ms: float = 1000) -> Record:
    direct = method == "direct"
    mode: ResolvedMode = "direct" if direct else "sgd"
    specs = (
        [NodeSpec(id=0, summary="")]
        if direct
        else [
            NodeSpec(id=1, summary="One", difficulty="easy"),
            NodeSpec(id=2, summary="Two"),
            NodeSpec(id=3, summary="Both", needs=(1, 2)),
        ]
    )
    nodes = tuple(
        NodeReport(
            node=spec,
            pool=Pool.LARGE,
            model="m",
            endpoint="e",
            attempt=1,
            finish_reason="stop",
            queued_ms=1,
            slot_wait_ms=0,
            first_token_ms=1,
            decode_ms=10,
            usage=Usage(generated_tokens=50),
            start=0,
            end=1,
        )
        for spec in specs
    )
    plan = PlanCompleted(
        request="r",
        mode=mode,
        reason="forced",
        nodes=tuple(spec.id for spec in specs),
        plan_ms=0 if direct else 200,
    )
    timings = Timings(
        wall_ms=wall_ms,
        plan_ms=plan.plan_ms,
        critical_path=(),
        critical_engine_ms=1,
        critical_slot_wait_ms=0,
        overhead_ms=1,
        sequential_ms=1,
    )
    return Record(
        question=question,
        category=category,
        asked=digest(question),
        method=method,
        request="r",
        recorded_at=1,
        load=1,
        plan=()
        if direct
        else tuple(PlanLine(line=f"{n}. x | easy", planned_ms=n) for n in (1, 2, 3)),
        first_text_ms=10,
        end=AnswerAssembled(
            request="r",
            mode=mode,
            text=f"# Of {question} by {method}",
            nodes=nodes,
            plan=plan,
            usage=Usage(generated_tokens=50 * len(nodes)),
            timings=timings,
        ),
    )


def recorded() -> Records:
    categories = {"1": "generic", "2": "generic", "61": "coding"}
    return Records(
        record(question, category, method, wall_ms=wall_ms)
        for question, category in categories.items()
        for method, wall_ms in (("direct", 2000.0), ("sot", 1600.0), ("sgd", 1000.0))
    )
