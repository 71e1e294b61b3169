"""Who should write the plan: the large model, the small one, or the small one and then both.

`python -m bench.plan_pools FILE --small-url URL --large-url URL` has the plan of each question of
FILE written by both models, and the small one's amended by the large one. Nothing is decoded but
the plans. The engines' own times say little on a shared machine; what the tokens would take on
GPUs is told from the profiles of the simulated engine (no load, prompts' prefixes cached).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer
import uvloop

from bench.plan_figures import PlanText, near, read_plan
from bench.plans import LIMITS, MAX_NODES, ask
from bench.questions import Question, read_questions, spread
from bench.simulated_engine.profiles import PROFILES
from proto.errors import EngineError, PlanRejected
from proto.messages import NodeSpec
from services.planner.amend import AmendmentReader, amendment_call
from services.planner.draft import kept
from services.planner.gate import Decision, Ending, decide, depth, width
from services.planner.parser import PlanItem, Planned, ShapeKind
from services.runtime import logs
from services.runtime.engine import EngineClient

LARGE: Final = "llama-70b-4xa100"
SMALL: Final = "llama-8b-1xa100"
#: Categories whose questions are to be answered directly (SoT's labels).
DIRECT: Final = frozenset({"coding", "math"})
#: Tokens in context and computed first where a prompt's prefix is cached: the question, a draft.
CONTEXT_TOKENS: Final = 600
NEW_TOKENS: Final = 60


@dataclass(slots=True)
class Written:
    """A plan as it was decided in the end.

    Args:
        lines: of the plan, as they are published.
        tokens: generated, by pool.
        first_tokens: of them until the first node's line was whole, by its share of the text.
        reply: the amendment.
    """

    decision: Decision
    nodes: list[NodeSpec]
    lines: tuple[str, ...]
    ending: Ending
    tokens: dict[str, int]
    first_tokens: int
    reply: str = ""
    drops: int = 0
    adds: int = 0


@dataclass(slots=True)
class Row:
    """The plans of one question, by who wrote them."""

    question: Question
    plans: dict[str, Written] = field(default_factory=dict)


async def measure(
    small_url: str, large_url: str, questions: Sequence[Question], say: Callable[[str], None]
) -> list[Row]:
    """Return the plans of all questions."""
    small, large = EngineClient(small_url, limits=LIMITS), EngineClient(large_url, limits=LIMITS)
    try:
        return [await _row(small, large, question, say) for question in questions]
    finally:
        await small.close()
        await large.close()


async def _row(
    small: EngineClient, large: EngineClient, question: Question, say: Callable[[str], None]
) -> Row:
    row, started = Row(question), time.monotonic()
    drafted = await ask(small, question, "auto", constrained=True)
    row.plans["small"] = _written(drafted, "small")
    row.plans["large"] = _written(await ask(large, question, "auto", constrained=True), "large")
    row.plans["draft"] = await _amended(large, question, drafted)
    said = {who: (one.decision.mode, len(one.nodes)) for who, one in row.plans.items()}
    say(f"{question.id} {said} {row.plans['draft'].reply!r} {time.monotonic() - started:.0f} s")
    return row


def _written(plan: PlanText, pool: str) -> Written:
    if plan.failed:
        raise SystemExit(f"error: no plan of the {pool} model: {plan.failed}")
    read = read_plan(plan, checked=True, max_nodes=MAX_NODES)
    first_chars = len("\n".join(plan.text.split("\n")[:2]))
    first_tokens = round(plan.tokens * first_chars / max(1, len(plan.text)))
    decision = Decision(
        "sgd" if read.decomposed else "direct", "planned", tuple(node.id for node in read.nodes)
    )
    return Written(
        decision, list(read.nodes), read.lines, read.ending, {pool: plan.tokens}, first_tokens
    )


async def _amended(large: EngineClient, question: Question, plan: PlanText) -> Written:
    """Amend a draft as `services.planner.writer` does."""
    draft = _written(plan, "small")
    if draft.decision.mode == "direct":
        return draft
    reader = AmendmentReader(draft.lines, MAX_NODES)
    call = amendment_call(
        question.text,
        draft.lines,
        mode="auto",
        max_nodes=MAX_NODES,
        context=question.context,
    )
    draft.tokens["large"] = 0
    try:
        async with large.stream(call) as stream:
            async for chunk in stream:
                draft.tokens["large"] += 1
                draft.reply += chunk.text
                _add(draft, reader.feed(chunk.text))
        _add(draft, reader.close())
    except (EngineError, PlanRejected) as error:
        draft.reply += f" ({error.code})"
        return draft
    stays = kept(draft.nodes, reader.drops)
    draft.drops = len(draft.nodes) - len(stays)
    draft.nodes = stays
    ids = {node.id for node in stays}
    written = [node for node in reader.written if node.id in ids]
    shape: ShapeKind = "direct" if reader.verdict == "direct" else "graph"
    draft.decision = decide("auto", shape, written, draft.ending)
    return draft


def _add(draft: Written, items: Sequence[PlanItem]) -> None:
    added = [item.node for item in items if isinstance(item, Planned)]
    draft.nodes += added
    draft.adds += len(added)


# --- what it comes to -------------------------------------------------------------------


def plan_s(written: Written, *, until_first: bool = False) -> float:
    """Return how long the plan takes on the GPUs of the profiles, alone on them."""
    took_s = 0.0
    for pool, tokens in written.tokens.items():
        if until_first and took_s:
            break
        profile = PROFILES[LARGE if pool == "large" else SMALL]
        steps = written.first_tokens if until_first else tokens
        prefill_s = profile.step_s(NEW_TOKENS, CONTEXT_TOKENS)
        took_s += prefill_s + max(0, steps - 1) * profile.step_s(1, CONTEXT_TOKENS)
    return took_s


def table(rows: Sequence[Row]) -> str:
    """Return the figures of the three, side by side, as Markdown."""
    authors = ("large", "small", "draft")
    figures: list[tuple[str, Callable[[str], str]]] = [
        ("valid and whole", lambda a: _count(rows, a, lambda w: w.ending == "complete")),
        ("direct", lambda a: _count(rows, a, _is_direct)),
        ("… of coding and math", lambda a: _count(_of(rows, direct=True), a, _is_direct)),
        ("… of the others", lambda a: _count(_of(rows, direct=False), a, _is_direct)),
        ("goes the large one's way", lambda a: f"{_agreeing(rows, a)} of {len(rows)}"),
        ("nodes", lambda a: _spread(rows, a, lambda w: len(w.nodes))),
        ("depth", lambda a: _spread(rows, a, lambda w: depth(w.nodes))),
        ("width", lambda a: _spread(rows, a, lambda w: width(w.nodes))),
        ("titles nearly said twice", lambda a: _total(rows, a, lambda w: near(w.nodes))),
        ("points left out / added", lambda a: _changes(rows, a)),
        ("tokens of the large model", lambda a: _spread(rows, a, lambda w: w.tokens.get("large"))),
        ("tokens of the small model", lambda a: _spread(rows, a, lambda w: w.tokens.get("small"))),
        ("s to the first node, by profile", lambda a: _seconds(rows, a, until_first=True)),
        ("s to the plan's end, by profile", lambda a: _seconds(rows, a, until_first=False)),
    ]
    lines = [f"| {len(rows)} questions | {' | '.join(authors)} |", "|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(map(figure, authors))} |" for name, figure in figures]
    return "\n".join(lines)


def _is_direct(written: Written) -> bool:
    return written.decision.mode == "direct"


def _of(rows: Sequence[Row], *, direct: bool) -> list[Row]:
    return [row for row in rows if (row.question.category in DIRECT) is direct]


def _count(rows: Sequence[Row], author: str, is_so: Callable[[Written], bool]) -> str:
    return f"{sum(is_so(row.plans[author]) for row in rows)} of {len(rows)}"


def _agreeing(rows: Sequence[Row], author: str) -> int:
    return sum(_is_direct(row.plans[author]) == _is_direct(row.plans["large"]) for row in rows)


def _decomposed(rows: Sequence[Row], author: str) -> list[Written]:
    return [row.plans[author] for row in rows if not _is_direct(row.plans[author])]


def _spread(rows: Sequence[Row], author: str, of: Callable[[Written], int | None]) -> str:
    values = [found for one in _decomposed(rows, author) if (found := of(one)) is not None]
    return spread([float(value) for value in values], 0)


def _total(rows: Sequence[Row], author: str, of: Callable[[Written], int]) -> str:
    return str(sum(of(one) for one in _decomposed(rows, author)))


def _changes(rows: Sequence[Row], author: str) -> str:
    written = [row.plans[author] for row in rows]
    return f"{sum(one.drops for one in written)} / {sum(one.adds for one in written)}"


def _seconds(rows: Sequence[Row], author: str, *, until_first: bool) -> str:
    return spread([plan_s(w, until_first=until_first) for w in _decomposed(rows, author)], 2)


def _plain(rows: Sequence[Row]) -> bytes:
    """Return the rows as JSON, a line each."""
    return b"".join(
        orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE, default=str) for row in rows
    )


def main(
    file: Annotated[Path, typer.Argument(help="questions, a JSON object a line", exists=True)],
    small_url: Annotated[str, typer.Option(help="an engine of the small model")],
    large_url: Annotated[str, typer.Option(help="an engine of the large model")],
    limit: Annotated[int | None, typer.Option(help="ask only the first so many")] = None,
    save: Annotated[Path | None, typer.Option(help="write each plan here, a JSON a line")] = None,
    report: Annotated[Path | None, typer.Option(help="write the table here, as Markdown")] = None,
) -> None:
    """Have each question planned by both models and by both together, and compare."""
    logs.configure("error", "console")

    def say(line: str) -> None:
        typer.echo(line, err=True)

    rows = uvloop.run(measure(small_url, large_url, read_questions(file)[:limit], say))
    if save:
        save.write_bytes(_plain(rows))
    if report:
        report.write_text(table(rows) + "\n")
    typer.echo(table(rows))


if __name__ == "__main__":
    typer.run(main)
