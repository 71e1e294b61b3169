"""Plans with and without the grammar, on a real engine: how many are valid, how big, how long.

`python -m bench.plans FILE` starts a local engine (`--model`), or asks the one at `--url`, for the
plan of each question of FILE twice in a row, once constrained and once free, the order turning
from question to question. Nothing is decoded but the plans. FILE is as for `bench.questions`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer
import uvloop

from bench.questions import Question, read_questions, spread
from proto.errors import EngineError, PlanRejected
from proto.messages import Mode
from services.planner.gate import Ending, decide
from services.planner.parser import End, PlanLimits, Planned, PlanParser, Shape, ShapeKind
from services.planner.prompts import plan_call
from services.runtime import logs
from services.runtime.engine import EngineClient
from skelgraph.local.engine import EngineOptions
from skelgraph.local.models import ensure_model
from skelgraph.local.ports import free_port
from skelgraph.local.process import Child

MAX_NODES: Final = 12
CONTEXT_TOKENS: Final = 2560


@dataclass(slots=True)
class Plan:
    """One plan, as the planner would read it.

    Args:
        ending: whether it is a plan, and whole; `failed` if the engine gave none.
    """

    constrained: bool
    ending: Ending | str = "cut_off"
    shape: ShapeKind | None = None
    nodes: list[Planned] = field(default_factory=list)
    decided: str = ""
    tokens: int = 0
    plan_s: float = 0.0


@contextmanager
def local_engine(model: str, threads: int) -> Iterator[str]:
    """Run an engine of this machine within the block; its URL."""
    port = free_port()
    options = EngineOptions(
        model=ensure_model(model),
        port=port,
        slots=1,
        context_tokens_per_slot=CONTEXT_TOKENS,
        threads=threads,
    )
    with tempfile.TemporaryDirectory() as folder:
        child = Child(options.process_spec("engine"), Path(folder) / "engine.log")
        child.launch()
        try:
            child.wait_ready()
            yield f"http://127.0.0.1:{port}"
        finally:
            child.kill()


async def plan(client: EngineClient, question: Question, mode: Mode, *, constrained: bool) -> Plan:
    """Have one plan written and read it as the planner does."""
    call = plan_call(question.text, mode=mode, max_nodes=MAX_NODES, constrained=constrained)
    made, parser, started = Plan(constrained), PlanParser(PlanLimits(MAX_NODES)), time.monotonic()
    stream = client.stream(call)
    try:
        async with stream:
            async for chunk in stream:
                made.tokens += 1
                _take(made, parser.feed(chunk.text))
                if made.ending == "complete":
                    break
            else:
                _take(made, parser.close())
    except PlanRejected:
        made.ending = "unparsable"
    except EngineError as error:
        made.ending = error.code
    made.plan_s = time.monotonic() - started
    ending: Ending = made.ending if made.ending in ("complete", "cut_off") else "unparsable"  # type: ignore[assignment]
    decision = decide(mode, made.shape, [planned.node for planned in made.nodes], ending)
    made.decided = f"{decision.mode} ({decision.reason})"
    return made


def _take(made: Plan, items: Sequence[object]) -> None:
    for item in items:
        if isinstance(item, Shape):
            made.shape = item.kind
        elif isinstance(item, Planned):
            made.nodes.append(item)
        elif isinstance(item, End):
            made.ending = "cut_off" if item.cut_off else "complete"


async def measure(url: str, questions: Sequence[Question], mode: Mode) -> list[Plan]:
    """Return the plans of all questions, two each."""
    client, plans = EngineClient(url), []
    try:
        await plan(client, questions[0], mode, constrained=True)  # the prefix, once for all
        for number, question in enumerate(questions):
            for constrained in (number % 2 == 0, number % 2 == 1):
                made = await plan(client, question, mode, constrained=constrained)
                plans.append(made)
                typer.echo(f"{question.id} {constrained=} {made.ending} {made.decided}", err=True)
    finally:
        await client.close()
    return plans


def table(plans: Sequence[Plan], mode: str) -> str:
    """Return the figures of both kinds, side by side, as Markdown."""
    kinds = [[one for one in plans if one.constrained is on] for on in (True, False)]
    rows: list[tuple[str, Callable[[list[Plan]], str]]] = [
        ("plans", lambda kind: str(len(kind))),
        ("valid and whole", lambda kind: _share(kind, "complete")),
        ("cut off at the limit of tokens", lambda kind: _share(kind, "cut_off")),
        ("not a plan", lambda kind: _share(kind, "unparsable")),
        ("decomposed in the end", lambda kind: str(sum("direct" not in p.decided for p in kind))),
        (
            "nodes (decomposed)",
            lambda kind: spread([float(len(p.nodes)) for p in kind if p.nodes], 0),
        ),
        ("plan tokens", lambda kind: spread([float(p.tokens) for p in kind], 0)),
        ("plan s", lambda kind: spread([p.plan_s for p in kind], 2)),
        ("ms a token", lambda kind: spread([1000 * p.plan_s / max(1, p.tokens) for p in kind], 0)),
    ]
    lines = [f"| mode `{mode}` | constrained | free |", "|---|---|---|"]
    lines += [f"| {name} | {figure(kinds[0])} | {figure(kinds[1])} |" for name, figure in rows]
    return "\n".join(lines)


def _share(plans: Sequence[Plan], ending: str) -> str:
    found = sum(one.ending == ending for one in plans)
    return f"{found} of {len(plans)}"


def main(
    file: Annotated[Path, typer.Argument(help="questions, a JSON object a line", exists=True)],
    model: Annotated[str, typer.Option(help="of the local engine")] = "qwen2.5-coder-0.5b",
    url: Annotated[str | None, typer.Option(help="an engine that runs, instead")] = None,
    mode: Annotated[str, typer.Option(help="auto, sot or sgd")] = "auto",
    limit: Annotated[int | None, typer.Option(help="ask only the first so many")] = None,
    threads: Annotated[int, typer.Option(help="of the local engine")] = 1,
) -> None:
    """Have each question planned with and without the grammar, and compare."""
    logs.configure("error", "console")
    questions = read_questions(file)[:limit]
    wanted: Mode = mode  # type: ignore[assignment]  # plan_call refuses what is none
    if url:
        plans = uvloop.run(measure(url, questions, wanted))
    else:
        with local_engine(model, threads) as local:
            plans = uvloop.run(measure(local, questions, wanted))
    typer.echo(table(plans, mode))


if __name__ == "__main__":
    typer.run(main)
