"""Asks questions by several methods and records how each ended; goes on where it was left."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.evaluate.lines import Adder
from bench.evaluate.methods import Method, long_question
from bench.evaluate.records import PlanLine, Record, Records, digest
from bench.questions import Question, request_of
from proto.messages import (
    AnswerAssembled,
    Fact,
    NodePlanned,
    Preview,
    SkeletonDrafted,
    TokensDecoded,
)
from services.runtime.client import END_TYPES, Client, Ending

#: Longest that one answer may take: small machines are slow, and nobody waits.
DEADLINE_S: Final = 6 * 3600
#: Share of a request's time from which on it was followed from its beginning.
_SEEN_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Cell:
    """A question that is to be answered by a method."""

    question: Question
    method: Method


@dataclass(slots=True)
class Heard:
    """What is told of a request until its end."""

    submitted: float = field(default_factory=time.monotonic)
    plan: list[PlanLine] = field(default_factory=list)
    first_ms: dict[int, float] = field(default_factory=dict)
    end: Ending | None = None
    took_ms: float = 0.0

    def take(self, told: Fact | Preview) -> None:
        """Note `told`."""
        if isinstance(told, NodePlanned):
            self.plan.append(PlanLine(line=told.line, planned_ms=told.planned_ms))
        elif isinstance(told, TokensDecoded):
            self.first_ms.setdefault(told.node, (time.monotonic() - self.submitted) * 1000)
        elif isinstance(told, END_TYPES):
            self.end, self.took_ms = told, (time.monotonic() - self.submitted) * 1000

    @property
    def first_text_ms(self) -> float | None:
        """When the first text of the answer's first node came.

        None for a request that was under way before: nobody saw it from its beginning.
        """
        if not isinstance(self.end, AnswerAssembled):
            return None
        if self.took_ms < _SEEN_SHARE * self.end.timings.wall_ms:
            return None
        return self.first_ms.get(self.end.nodes[0].node.id)


@dataclass(slots=True, kw_only=True)
class Recorder:
    """Makes records.

    Args:
        client: of the services.
        known: what is recorded already; grows.
        adder: of the file.
        run: token of the folder: a request that a killed run left behind keeps its id, and is
            followed to its end instead of asked again.
        common: fields of every request.
        tell: called with each new record.
    """

    client: Client
    known: Records
    adder: Adder[Record]
    run: str
    common: dict[str, object]
    tell: Callable[[Record], None]

    async def record(self, cells: Sequence[Cell], concurrency: int) -> None:
        """Record all of `cells` that are not recorded yet, so many at once.

        Raises:
            SkelgraphError: the services cannot be asked any more.
        """
        first = [cell for cell in cells if not cell.method.as_long_as]
        second = [cell for cell in cells if cell.method.as_long_as]
        for part in (first, second):  # these need the answers of those
            left = deque(cell for cell in part if not self.is_done(cell))
            async with asyncio.TaskGroup() as tasks:
                for number in range(min(concurrency, len(left))):
                    tasks.create_task(self._work(left), name=f"ask {number}")

    def is_done(self, cell: Cell) -> bool:
        """Say whether `cell` is recorded."""
        return self.known.find(cell.question.id, cell.method.name) is not None

    async def _work(self, left: deque[Cell]) -> None:
        while left:
            cell = left.popleft()
            if (text := self._text(cell)) is not None:
                self._keep(await self._ask(cell, text))

    def _text(self, cell: Cell) -> str | None:
        """Return what to ask; None where the answer whose length it needs is missing."""
        if not cell.method.as_long_as:
            return cell.question.text
        like = self.known.find(cell.question.id, cell.method.as_long_as)
        if like is None or like.answer is None:
            return None
        return long_question(cell.question.text, like.answer.text)

    async def _ask(self, cell: Cell, text: str) -> Record:
        question, method = cell.question, cell.method
        tries = self.known.failures(question.id, method.name)
        request = digest(f"{self.run}\n{question.id}\n{method.name}\n{tries}")
        fields: dict[str, object] = {"deadline_s": DEADLINE_S, **self.common, **method.fields}
        heard = Heard()
        await self.client.submit(request_of(question, text, **fields), request)
        async for told in self.client.follow(request):
            heard.take(told)
        if heard.end is None:
            raise RuntimeError("the event log ended before the request")
        return Record(
            question=question.id,
            category=question.category,
            asked=digest(question.identity),
            method=method.name,
            request=request,
            recorded_at=time.time(),
            load=os.getloadavg()[0],
            plan=_plan(heard),
            first_text_ms=heard.first_text_ms,
            end=heard.end,
        )

    def _keep(self, record: Record) -> None:
        self.adder.add(record)
        self.known.add(record)
        self.tell(record)


def _plan(heard: Heard) -> tuple[PlanLine, ...]:
    if isinstance(heard.end, SkeletonDrafted) and not heard.plan:
        return tuple(PlanLine(line=line, planned_ms=0) for line in heard.end.lines)
    return tuple(heard.plan)
