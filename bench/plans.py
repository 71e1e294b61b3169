"""Plans on a real engine: how many are valid, their shape and size, and the gate as a classifier.

`python -m bench.plans FILE` starts a local engine (`--model`), or asks the one at `--url`, for the
plan of each question of FILE. Nothing is decoded but the plans. What was written is read twice,
with the planner's check on points and without. With `--free` each question is asked a
second time without the grammar, the order turning from question to question. With `--record PLANS`
the replies are kept there, a JSON object a line, and those that are there are not asked for again.
FILE is as for `bench.questions`.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
import uvloop

from bench.plan_figures import PlanText, ReadPlan, by_category, checks, gate, read_plan
from bench.questions import Question, read_questions, spread
from proto.errors import EngineError
from proto.messages import Mode
from services.planner.parser import END_LINE
from services.planner.prompts import plan_call
from services.runtime import logs
from services.runtime.calls import EngineLimits
from services.runtime.engine import EngineClient
from skelgraph.local.engine import EngineOptions
from skelgraph.local.models import ensure_model
from skelgraph.local.ports import free_port
from skelgraph.local.process import Child

MAX_NODES: Final = 12
CONTEXT_TOKENS: Final = 2560
#: A machine that does other things too takes its time.
LIMITS: Final = EngineLimits(first_token_s=900, between_tokens_s=300, total_s=1800)


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


async def ask(
    client: EngineClient, question: Question, mode: Mode, *, constrained: bool
) -> PlanText:
    """Have one plan written."""
    call = plan_call(
        question.text,
        mode=mode,
        max_nodes=MAX_NODES,
        context=question.context,
        constrained=constrained,
    )
    text, failed, tokens, started = "", "", 0, time.monotonic()
    try:
        async with client.stream(call) as stream:
            async for chunk in stream:
                text, tokens = text + chunk.text, tokens + 1
                if text.endswith((f"\n{END_LINE}", f"\n{END_LINE}\n")):
                    break
    except EngineError as error:
        failed = error.code
    return PlanText(
        question=question.id,
        category=question.category,
        mode=mode,
        constrained=constrained,
        text=text,
        failed=failed,
        tokens=tokens,
        plan_s=time.monotonic() - started,
    )


async def measure(
    url: str, questions: Sequence[Question], mode: Mode, *, free: bool, record: Path | None
) -> list[PlanText]:
    """Return the plans of all questions, of which those in `record` are there already."""
    client, plans = EngineClient(url, limits=LIMITS), _recorded(record)
    known = {(one.question, one.mode, one.constrained) for one in plans}
    try:
        for number, question in enumerate(questions):
            first = number % 2 == 0 or not free
            for constrained in (first, not first) if free else (True,):
                if (question.id, mode, constrained) in known:
                    continue
                made = await ask(client, question, mode, constrained=constrained)
                plans.append(made)
                _record(record, made)
                typer.echo(f"{question.id} {constrained=} {made.tokens} {made.failed}", err=True)
    finally:
        await client.close()
    asked = {question.id for question in questions}
    return [one for one in plans if one.mode == mode and one.question in asked]


def _recorded(path: Path | None) -> list[PlanText]:
    text = path.read_text("utf-8") if path and path.exists() else ""
    # Texts may hold separators that JSON leaves as they are, and that `splitlines` ends lines at.
    return [PlanText(**json.loads(line)) for line in text.split("\n") if line.strip()]


def _record(path: Path | None, made: PlanText) -> None:
    if path and not made.failed:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(made), ensure_ascii=False) + "\n")


# --- the report -------------------------------------------------------------------------


def report(plans: Sequence[PlanText], mode: Mode, engine: str) -> str:
    """Return all tables as Markdown."""
    bound = [one for one in plans if one.constrained]
    on, off = (
        [read_plan(one, checked=checked, max_nodes=MAX_NODES) for one in bound]
        for checked in (True, False)
    )
    parts = [f"Mode `{mode}`, {engine}, {len(bound)} plans.", by_category(on), checks(on, off)]
    if mode == "auto":
        parts.append(gate(on))
    if len(bound) < len(plans):
        loose = [one for one in plans if not one.constrained]
        free = [read_plan(one, checked=True, max_nodes=MAX_NODES) for one in loose]
        parts.append(grammar_table(on, free))
    return "\n\n".join(parts)


def grammar_table(constrained: Sequence[ReadPlan], free: Sequence[ReadPlan]) -> str:
    """Return the figures with and without the grammar, side by side."""
    rows: list[tuple[str, Callable[[Sequence[ReadPlan]], str]]] = [
        ("valid and whole", lambda kind: _share(kind, "complete")),
        ("cut off at the limit of tokens", lambda kind: _share(kind, "cut_off")),
        ("not a plan", lambda kind: _share(kind, "unparsable")),
        ("decomposed in the end", lambda kind: str(sum(p.decomposed for p in kind))),
        ("plan tokens", lambda kind: spread([float(p.plan.tokens) for p in kind], 0)),
        ("plan s", lambda kind: spread([p.plan.plan_s for p in kind], 2)),
    ]
    lines = ["| grammar | constrained | free |", "| --- | --- | --- |"]
    lines += [f"| {name} | {figure(constrained)} | {figure(free)} |" for name, figure in rows]
    return "\n".join(lines)


def _share(plans: Sequence[ReadPlan], ending: str) -> str:
    found = sum(one.ending == ending for one in plans)
    return f"{found} of {len(plans)}"


def main(
    file: Annotated[Path, typer.Argument(help="questions, a JSON object a line", exists=True)],
    model: Annotated[str, typer.Option(help="of the local engine")] = "qwen2.5-coder-0.5b",
    url: Annotated[str | None, typer.Option(help="an engine that runs, instead")] = None,
    mode: Annotated[str, typer.Option(help="auto, sot or sgd")] = "auto",
    limit: Annotated[int | None, typer.Option(help="ask only the first so many")] = None,
    threads: Annotated[int, typer.Option(help="of the local engine")] = 1,
    free: Annotated[bool, typer.Option(help="ask without the grammar too")] = False,
    record: Annotated[Path | None, typer.Option(help="keep the replies here, go on there")] = None,
    report_to: Annotated[Path | None, typer.Option("--report", help="Markdown, to a file")] = None,
) -> None:
    """Have each question planned, and say what the plans are like."""
    logs.configure("error", "console")
    questions = read_questions(file)[:limit]
    wanted: Mode = mode  # type: ignore[assignment]  # plan_call refuses what is none
    if url:
        plans = uvloop.run(measure(url, questions, wanted, free=free, record=record))
    else:
        with local_engine(model, threads) as local:
            plans = uvloop.run(measure(local, questions, wanted, free=free, record=record))
    text = report(plans, wanted, url or f"`{model}`")
    typer.echo(text)
    if report_to:
        report_to.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
