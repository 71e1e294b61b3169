"""Asks a judge, any chat endpoint, about pairs of answers; goes on where it was left."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.evaluate.judging import (
    Judgement,
    Order,
    Shown,
    call,
    may_judge,
    shown,
    verdict_in,
)
from bench.evaluate.lines import Adder, JsonLines
from bench.evaluate.records import Records
from bench.questions import Question
from services.runtime.calls import EngineLimits
from services.runtime.engine import EngineClient

JUDGEMENTS: Final = "judgements.jsonl"
#: A judge may be slow: these are no limits of an evaluation.
PATIENT: Final = EngineLimits(first_token_s=3600, between_tokens_s=1800, total_s=14400)


@dataclass(frozen=True, slots=True)
class Look:
    """A pair of answers as it is to be shown."""

    question: Question
    first: str
    second: str
    order: Order
    shown: Shown


def judgements_of(folder: Path) -> JsonLines[Judgement]:
    """Return the file of judgements in `folder`."""
    return JsonLines(folder / JUDGEMENTS, Judgement)


def looks(
    questions: Iterable[Question], records: Records, pairs: Iterable[tuple[str, str]]
) -> list[Look]:
    """Return the looks at all pairs that may be judged, both orders of a pair together.

    Those of which both answers are recorded, but for `without_reference`.
    """
    return [
        Look(question, *methods, order, one)
        for question in questions
        if may_judge(question.category, reference=bool(question.reference))
        for methods in pairs
        for order, one in shown(records, question.id, methods).items()
    ]


def without_reference(questions: Iterable[Question]) -> list[Question]:
    """Return those that are not judged for want of an answer that is known to be right."""
    return [one for one in questions if not may_judge(one.category, reference=bool(one.reference))]


def made_by(judgements: Iterable[Judgement], endpoint: str, model: str | None) -> list[Judgement]:
    """Return those of one judge; without `model` that is whatever answers at `endpoint`."""
    return [
        one
        for one in judgements
        if (
            one.judge == judge_name(model, endpoint)
            if model
            else one.judge.endswith(f" at {endpoint}")
        )
    ]


def judge_name(model: str | None, endpoint: str) -> str:
    """Return what a judge is called."""
    return f"{model or '?'} at {endpoint}"


def left(all_: Iterable[Look], done: Iterable[Judgement]) -> list[Look]:
    """Return the looks that are not among `done`, the judge's own, or were at other texts."""
    known = {(one.question, one.first, one.second, one.order, one.texts) for one in done}
    return [
        look
        for look in all_
        if (look.question.id, look.first, look.second, look.order, look.shown.texts) not in known
    ]


async def judge(
    client: EngineClient,
    looking: Sequence[Look],
    adder: Adder[Judgement],
    concurrency: int,
    tell: Callable[[Judgement], None],
) -> None:
    """Ask the judge all of `looking`, so many at once, and add what it says.

    Raises:
        EngineError: the judge cannot be asked.
    """
    waiting = deque(looking)

    async def work() -> None:
        while waiting:
            made = await _look(client, waiting.popleft())
            adder.add(made)
            tell(made)

    async with asyncio.TaskGroup() as tasks:
        for number in range(min(concurrency, len(waiting))):
            tasks.create_task(work(), name=f"judge {number}")


async def _look(client: EngineClient, look: Look) -> Judgement:
    question = look.question
    stream = client.stream(call(question, look.shown))
    async with stream:
        said = "".join([chunk.text async for chunk in stream])
    completion = stream.completion
    return Judgement(
        question=question.id,
        category=question.category,
        first=look.first,
        second=look.second,
        order=look.order,
        texts=look.shown.texts,
        verdict=verdict_in(said),
        said=said,
        judge=judge_name(completion.model, completion.endpoint),
        reference=bool(question.reference),
    )
