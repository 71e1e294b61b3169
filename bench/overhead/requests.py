"""Requests whose plan is stored by the benchmark itself: no planner, no model."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from dataclasses import dataclass

from nats.aio.msg import Msg

from bench.overhead.plans import plan_of
from bench.overhead.shapes import Shape
from bench.overhead.stand import Stand
from proto.messages import (
    AnswerAssembled,
    NodeDecoded,
    RequestAccepted,
    SubmitRequest,
)
from proto.names import PREFIX
from services.runtime.facts import StoredFact
from services.runtime.load import read_load

QUESTION = "What has to happen before that which takes no time at all is done? " * 4


@dataclass(frozen=True, slots=True)
class Run:
    """A request that has run: when each fact was stored, in seconds since the epoch."""

    accepted_at: float
    ended_at: float
    decoded_at: tuple[float, ...]

    @property
    def total_ms(self) -> float:
        """From the accepted request to its answer."""
        return (self.ended_at - self.accepted_at) * 1000

    @property
    def hops_ms(self) -> list[float]:
        """From one result to the next; of a chain, the time of a node."""
        return [(b - a) * 1000 for a, b in itertools.pairwise(self.decoded_at)]


class Requests:
    """Runs requests on the services of a stand."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._open: dict[str, asyncio.Future[None]] = {}

    async def listen(self) -> None:
        """Hear of ends, once they are stored."""
        await self._stand.connection.subscribe(f"{PREFIX}.fact.*.*.end", self._ended)

    async def plan(self, shape: Shape, copies: int) -> list[str]:
        """Store the plans of so many requests; return these when the assembler knows them."""
        requests = [secrets.token_hex(8) for _ in range(copies)]
        for part in range(0, copies, 64):
            await asyncio.gather(
                *(self._plan(request, shape) for request in requests[part : part + 64])
            )
        await self._settled()
        return requests

    async def start(self, requests: list[str]) -> None:
        """Accept requests that are planned: now their nodes may run."""
        loop = asyncio.get_running_loop()
        self._open |= {request: loop.create_future() for request in requests}
        submitted = SubmitRequest(question=QUESTION, mode="sgd", adaptive=False)
        now = time.time()
        await asyncio.gather(
            *(
                self._stand.events.append(
                    RequestAccepted(
                        request=request,
                        submitted=submitted,
                        submitted_at=now,
                        deadline_at=now + submitted.deadline_s,
                    )
                )
                for request in requests
            )
        )

    async def ended(self, requests: list[str]) -> None:
        """Return when all of them have ended."""
        for request in requests:
            await self._open[request]
            del self._open[request]

    async def runs(self, requests: list[str]) -> list[Run]:
        """Return how they went; raises `RuntimeError` for one without an answer."""
        events = self._stand.events
        up_to = await events.last_seq()
        return [_run(await events.read(request, up_to_seq=up_to)) for request in requests]

    async def _plan(self, request: str, shape: Shape) -> None:
        events = self._stand.events
        for fact in plan_of(request, shape):
            await events.append(fact)

    async def _settled(self) -> None:
        """Return when the assembler has taken all facts so far."""
        while (await read_load(self._stand.connection)).open_requests:  # noqa: ASYNC110  # a remote state
            await asyncio.sleep(0.005)

    async def _ended(self, message: Msg) -> None:
        ended = self._open.get(message.subject.split(".")[4])
        if ended and not ended.done():
            ended.set_result(None)


def _run(facts: list[StoredFact]) -> Run:
    accepted = next(one for one in facts if isinstance(one.fact, RequestAccepted))
    decoded = tuple(one.stored_at for one in facts if isinstance(one.fact, NodeDecoded))
    end = facts[-1]
    if not isinstance(end.fact, AnswerAssembled):
        raise RuntimeError(f"no answer: {end.fact}")  # noqa: TRY004  # it is a fact of the run
    return Run(accepted.stored_at, end.stored_at, decoded)
