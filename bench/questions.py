"""Answers a file of questions one after another and says where the time went.

`python -m bench.questions FILE` starts a local stack, or uses one that runs. A line of FILE is
JSON with one of `question`, `turns` (Vicuna's form: the first is asked) and `messages` (a chat: the
last one, a user's, is asked after those before it; each has a `role`, system, user or assistant,
and a text as its `content`), and optionally `question_id`, `category` and `reference` (an answer
known to be right, for judges). Exit code 1 if any question was not answered.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
import uvloop
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from proto.errors import SkelgraphError
from proto.messages import AnswerAssembled, RequestFailed, SubmitRequest, Turn
from proto.names import new_request_id
from services.planner.gate import depth, width
from services.runtime import logs
from services.runtime.client import Client, Ending, make_request
from services.runtime.context import as_text
from services.runtime.credentials import Access
from skelgraph.local.config import StackConfig
from skelgraph.session import Where, reach

COLUMNS: Final = (
    "id", "category", "mode", "nodes", "depth", "width", "plan %", "wall s", "path s",
    "wait s", "overhead ms", "overhead %", "speed-up", "tokens",
)  # fmt: skip

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class NotAnswered(SkelgraphError):
    """A question of the benchmark has no answer."""

    code = "not_answered"


@dataclass(frozen=True, slots=True)
class Question:
    """A line of the file.

    Args:
        id: of the question, in records and reports.
        category: what it is counted with.
        text: what is asked.
        reference: an answer that is known to be right, if there is one.
        context: what was said before.
    """

    id: str
    category: str
    text: str
    reference: str = ""
    context: tuple[Turn, ...] = ()

    @property
    def told(self) -> str:
        """What is asked, with what was said before: as a judge is told it."""
        return as_text(self.context) + self.text

    @property
    def identity(self) -> str:
        """What another question has not: all turns in their order, which `told` does not keep."""
        said = [[turn.role, turn.content] for turn in self.context]
        return json.dumps([*said, self.text]) if said else self.text


class _Line(BaseModel):
    """A line of the file; what else it holds is of no use here."""

    question_id: int | str | None = None
    category: str | None = None
    reference: str | list[str] | None = None
    question: str | None = None
    turns: list[str] | None = None
    messages: tuple[Turn, ...] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A question and how it ended."""

    question: Question
    end: Ending


def read_questions(path: Path) -> list[Question]:
    """Return the questions in `path`; raises `SystemExit` naming a line that is none."""
    questions = []
    # Not `splitlines`: a text may hold separators that JSON leaves as they are.
    for number, text in enumerate(path.read_text("utf-8").split("\n"), start=1):
        if not text.strip():
            continue
        try:
            questions.append(_question(_Line.model_validate(json.loads(text)), str(number)))
        except ValueError as error:
            raise SystemExit(f"error: {path}, line {number}: no question: {_why(error)}") from None
    return questions


def _question(line: _Line, number: str) -> Question:
    *before, asked = _turns(line)
    reference = line.reference or ""
    return Question(
        id=number if line.question_id is None else str(line.question_id),
        category=line.category or "",
        text=asked.content,
        reference=reference if isinstance(reference, str) else reference[0],
        context=tuple(before),
    )


def _turns(line: _Line) -> Sequence[Turn]:
    """Return what a line says, the question last; raises `ValueError` if there is none."""
    if sum(form is not None for form in (line.question, line.turns, line.messages)) != 1:
        raise ValueError("it has to have one of `question`, `turns` and `messages`")
    texts = line.turns[:1] if line.turns is not None else [line.question or ""]
    said = line.messages or tuple(Turn(role="user", content=text) for text in texts)
    if not said or said[-1].role != "user" or not said[-1].content.strip():
        raise ValueError("what is asked, a text of the user's that is not blank, has to be last")
    return said


def _why(error: ValueError) -> str:
    """Return what is wrong, and where in the line."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


def request_of(question: Question, text: str, **fields: object) -> SubmitRequest:
    """Return what asks `text`, the question's or more, after what was said before."""
    if question.context:
        fields["context"] = [turn.model_dump() for turn in question.context]
    return make_request(question=text, **fields)


async def ask(client: Client, question: Question, **asked: object) -> Result:
    """Ask a question and wait for its end."""
    request = new_request_id()
    await client.submit(request_of(question, question.text, **asked), request)
    return Result(question, await client.end_of(request))


def progress() -> Progress:
    """Return what shows on stderr how many of how many are done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
    )


def row(result: Result) -> list[str]:
    """Return the result's line in the table."""
    question, end = result.question, result.end
    if not isinstance(end, AnswerAssembled):
        code = end.error.code if isinstance(end, RequestFailed) else end.type
        return [question.id, question.category, code, *["–"] * (len(COLUMNS) - 3)]
    took, specs = end.timings, [node.node for node in end.nodes]
    return [
        question.id,
        question.category,
        f"{end.mode} ({end.plan.reason})",
        str(len(specs)),
        str(depth(specs)),
        str(width(specs)),
        f"{100 * took.plan_ms / took.wall_ms:.0f}",
        f"{took.wall_ms / 1000:.1f}",
        f"{took.critical_engine_ms / 1000:.1f}",
        f"{took.critical_slot_wait_ms / 1000:.1f}",
        f"{took.overhead_ms:.1f}",
        f"{100 * took.overhead_ms / took.wall_ms:.2f}",
        f"{took.sequential_ms / took.wall_ms:.2f}",
        str(end.usage.generated_tokens),
    ]


def table(results: Iterable[Result]) -> Table:
    """Return the table by question."""
    drawn = Table(*COLUMNS, title="By question")
    for column in drawn.columns[3:]:
        column.justify = "right"
    for result in results:
        drawn.add_row(*row(result))
    return drawn


def summary(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Return the figures over all questions."""
    ends = [result.end for result in results if isinstance(result.end, AnswerAssembled)]
    lines = [("questions", str(len(results))), ("failures", str(len(results) - len(ends)))]
    if not ends:
        return lines
    modes = sorted({end.mode for end in ends})
    planned = [end for end in ends if end.mode != "direct"]
    return [
        *lines,
        ("modes", ", ".join(f"{mode} {sum(e.mode == mode for e in ends)}" for mode in modes)),
        ("pools used", ", ".join(sorted({node.pool for end in ends for node in end.nodes}))),
        ("wall s", spread([end.timings.wall_ms / 1000 for end in ends], 1)),
        ("overhead ms", spread([end.timings.overhead_ms for end in ends], 1)),
        ("overhead %", spread([_overhead_percent(end) for end in ends], 2)),
        ("plan % (decomposed)", spread([_plan_percent(end) for end in planned], 0)),
        ("speed-up (decomposed)", spread([_speed_up(end) for end in planned], 2)),
        ("tokens", spread([float(end.usage.generated_tokens) for end in ends], 0)),
    ]


def spread(values: Sequence[float], digits: int) -> str:
    """Return median, quartiles and extremes."""
    if not values:
        return "–"
    low, median, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    )
    return (
        f"median {median:.{digits}f}, quartiles {low:.{digits}f}–{high:.{digits}f}, "
        f"range {min(values):.{digits}f}–{max(values):.{digits}f}"
    )


def markdown(results: Sequence[Result]) -> str:
    """Return table and summary as Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row(result)) + " |" for result in results]
    lines += ["", "| | |", "|---|---|"]
    lines += [f"| {name} | {figure} |" for name, figure in summary(results)]
    return "\n".join(lines) + "\n"


def _overhead_percent(end: AnswerAssembled) -> float:
    return 100 * end.timings.overhead_ms / end.timings.wall_ms


def _plan_percent(end: AnswerAssembled) -> float:
    return 100 * end.timings.plan_ms / end.timings.wall_ms


def _speed_up(end: AnswerAssembled) -> float:
    return end.timings.sequential_ms / end.timings.wall_ms


async def _run(questions: Sequence[Question], where: Where, **asked: object) -> list[Result]:
    results: list[Result] = []
    shown = progress()
    async with reach(where, may_start=True) as session:
        with shown:
            task = shown.add_task("asking", total=len(questions))
            for question in questions:
                shown.update(task, description=f"{question.id} {question.text[:40]!r}")
                results.append(await ask(session.over_nats, question, **asked))
                shown.advance(task)
    return results


def main(
    file: Annotated[Path, typer.Argument(help="questions, a JSON object a line", exists=True)],
    mode: Annotated[str, typer.Option(help="auto, direct, sot or sgd")] = "auto",
    max_tokens: Annotated[int | None, typer.Option(help="limit of a node's text, tokens")] = None,
    limit: Annotated[int | None, typer.Option(help="ask only the first so many")] = None,
    nats_url: Annotated[
        str | None, typer.Option(help="services to ask", envvar="SKELGRAPH_NATS_URL")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="write each end here, a JSON a line")] = None,
    report: Annotated[Path | None, typer.Option(help="write the tables here, as Markdown")] = None,
) -> None:
    """Answer a file of questions, one at a time, and say where the time went."""
    logs.configure("error", "console")
    questions = read_questions(file)[:limit]
    where = Where(nats_url, Access(), StackConfig(), "plain")
    asked: dict[str, object] = {"mode": mode}
    if max_tokens:
        asked["sampling"] = {"max_tokens": max_tokens}
    try:
        results = uvloop.run(_run(questions, where, **asked))
    except SkelgraphError as error:
        err.print(f"error: {error.message} ({error.code})")
        raise typer.Exit(1) from None
    _show(results, save, report)
    failed = sum(not isinstance(result.end, AnswerAssembled) for result in results)
    raise typer.Exit(1 if failed else 0)


def _show(results: Sequence[Result], save: Path | None, report: Path | None) -> None:
    wide = Console(highlight=False, width=max(out.width, 150))
    wide.print(table(results))
    for name, figure in summary(results):
        wide.print(f"{name:>22}  {figure}")
    if save:
        save.write_text("".join(f"{result.end.model_dump_json()}\n" for result in results))
    if report:
        report.write_text(markdown(results))


if __name__ == "__main__":
    typer.run(main)
