"""Asks a judge, any chat endpoint, about pairs of answers; goes on where it was left."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.evaluate.judging import ORDERS, Judgement, Order, call, verdict_in
from bench.evaluate.lines import Adder, JsonLines
from bench.evaluate.records import Records, digest
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
    shown_a: str
    shown_b: str

    @property
    def texts(self) -> str:
        """Digest of both answers."""
        return digest(f"{self.shown_a}\x00{self.shown_b}")


def judgements_of(folder: Path) -> JsonLines[Judgement]:
    """Return the file of judgements in `folder`."""
    return JsonLines(folder / JUDGEMENTS, Judgement)


def looks(
    questions: Iterable[Question], records: Records, pairs: Iterable[tuple[str, str]]
) -> list[Look]:
    """Return the looks at all pairs of which both answers are recorded, both orders together."""
    return [
        look
        for question in questions
        for first, second in pairs
        for look in _both_orders(question, first, second, records)
    ]


def left(all_: Iterable[Look], done: Iterable[Judgement]) -> list[Look]:
    """Return the looks that are not among `done`, or were at other texts."""
    known = {(one.question, one.first, one.second, one.order, one.texts) for one in done}
    return [
        look
        for look in all_
        if (look.question.id, look.first, look.second, look.order, look.texts) not in known
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
    stream = client.stream(call(question, look.shown_a, look.shown_b))
    async with stream:
        said = "".join([chunk.text async for chunk in stream])
    completion = stream.completion
    return Judgement(
        question=question.id,
        category=question.category,
        first=look.first,
        second=look.second,
        order=look.order,
        texts=look.texts,
        verdict=verdict_in(said),
        said=said,
        judge=f"{completion.model or '?'} at {completion.endpoint}",
        reference=bool(question.reference),
    )


def _both_orders(question: Question, first: str, second: str, records: Records) -> list[Look]:
    found = [records.find(question.id, method) for method in (first, second)]
    texts = [one.answer.text for one in found if one and one.answer]
    if len(texts) < len(found):
        return []
    return [
        Look(question, first, second, order, *(texts if order == "straight" else texts[::-1]))
        for order in ORDERS
    ]
