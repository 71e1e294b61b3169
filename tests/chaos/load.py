"""The load: requests of all kinds, and clients that cancel, repeat themselves and vanish."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from random import Random
from typing import Final

from proto.errors import Busy, QueueUnavailable
from proto.messages import Fact, Sampling, SubmitRequest
from services.runtime.client import END_TYPES, Client
from services.runtime.facts import StoredFact
from tests.chaos.options import Options
from tests.chaos.texts import question_of

#: More are not sent while so many are open: a steady load, not an avalanche.
MAX_OPEN: Final = 60
ROOM_S: Final = 1.0
#: A client that gets no answer repeats its request so often, under the same id.
SUBMIT_TRIES: Final = 6
CANCEL_TRIES: Final = 6


@dataclass
class Sent:
    """A request as its client saw it.

    Attributes:
        stored: whether NATS said that it has it.
        busy: whether it was refused as `busy`, and never stored.
        short: whether its deadline is short on purpose.
        cancels: when it was cancelled, and the outcome that was answered.
        follows: whether a client follows it.
        followed: the facts that this client got, once it has seen the end.
    """

    request: str
    ask: SubmitRequest
    short: bool
    sent_at: float
    stored: bool = False
    busy: bool = False
    cancels: list[tuple[float, str]] = field(default_factory=list)
    follows: bool = False
    followed: list[Fact] | None = None
    ended_at: float | None = None


class Load:
    """Sends requests until it is told to stop.

    Args:
        options: of the run.
        client: sends.
    """

    def __init__(self, options: Options, client: Client) -> None:
        self.sent: dict[str, Sent] = {}
        self.lags: list[tuple[float, float]] = []  # when the harness itself stood still, how long
        self.failures: list[str] = []
        self._options = options
        self._client = client
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Condition()

    @property
    def open_requests(self) -> list[Sent]:
        """Requests that may have been stored and whose end was not seen yet."""
        return [one for one in self.sent.values() if one.ended_at is None and one.stored]

    async def run(self) -> None:
        """Send all requests, spread over the minutes of the run."""
        pause_s = self._options.minutes * 60 / self._options.requests
        began = time.monotonic()
        for number in range(self._options.requests):
            await asyncio.sleep(max(0.0, began + number * pause_s - time.monotonic()))
            await self._room()
            self.send(number)

    def send(self, number: int) -> None:
        """Send one request now, however many are open."""
        self._start(self._one(number), f"request {number}")

    async def _room(self) -> None:
        """Wait until not too many are open, but not for ever: lost ones never end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ROOM_S), self._ended:
                await self._ended.wait_for(lambda: len(self.open_requests) < MAX_OPEN)

    async def settle(self, limit_s: float) -> None:
        """Return when all clients are done, or after `limit_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._tasks:
                    await asyncio.wait(self._tasks)

    async def all_ended(self, limit_s: float) -> bool:
        """Wait until every stored request has its end."""
        try:
            async with asyncio.timeout(limit_s), self._ended:
                await self._ended.wait_for(lambda: not self.open_requests)
        except TimeoutError:
            return False
        return True

    async def some_ended(self, count: int) -> None:
        """Wait until `count` more requests have ended."""
        goal = self._count_ended() + count
        async with self._ended:
            await self._ended.wait_for(lambda: self._count_ended() >= goal)

    def _count_ended(self) -> int:
        return sum(one.ended_at is not None for one in self.sent.values())

    async def saw(self, stored: StoredFact) -> None:
        """Take note of a fact."""
        sent = self.sent.get(stored.fact.request)
        if sent and isinstance(stored.fact, END_TYPES) and sent.ended_at is None:
            sent.ended_at = stored.stored_at
            async with self._ended:
                self._ended.notify_all()

    async def watch_itself(self) -> None:
        """Note when this process could not run: then others could not either."""
        while True:
            before = time.time()
            await asyncio.sleep(0.1)
            late_s = time.time() - before - 0.1
            if late_s > 0.3:
                self.lags.append((before, late_s))

    async def close(self) -> None:
        """End all clients."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- one request -------------------------------------------------------------------

    async def _one(self, number: int) -> None:
        rng = Random(f"{self._options.seed} {number}")
        request = f"chaos-{self._options.seed}-{number:05d}"
        sent = self._drawn(rng, request)
        self.sent[request] = sent
        habit = rng.choices(("", "cancels", "repeats", "follows"), (74, 9, 7, 10))[0]
        delay_s = rng.choice((0.0, rng.uniform(0, 0.3), rng.uniform(0, 2.5)))
        if habit == "follows":
            self._start(self._follow(sent), f"follow {request}")
        await self._submit(sent)
        if habit == "cancels" and sent.stored:
            await asyncio.sleep(delay_s)
            await self._cancel(sent)
        elif habit == "repeats":
            await asyncio.sleep(delay_s)
            await self._submit(sent)

    def _drawn(self, rng: Random, request: str) -> Sent:
        short = rng.random() < 0.06
        real = self._options.engine == "real"
        ask = SubmitRequest(
            question=question_of(request),
            mode=rng.choices(("auto", "sgd", "sot", "direct"), (4, 4, 2, 2))[0],
            adaptive=rng.random() < 0.9,
            dry_run=rng.random() < 0.08,
            deadline_s=rng.uniform(0.3, 3) if short else self._options.deadline_s,
            on_failure="fail" if rng.random() < 0.25 else "direct",
            sampling=Sampling(max_tokens=24) if real else Sampling(),
            max_nodes=6,
            polish=rng.random() < 0.3,
            planner_pool=rng.choices((None, "small", "draft"), (5, 2, 4))[0],
        )
        return Sent(request, ask, short, time.time())

    async def _submit(self, sent: Sent) -> None:
        for _ in range(SUBMIT_TRIES):
            try:
                await self._client.submit(sent.ask, sent.request)
            except Busy:
                sent.busy = not sent.stored
                return
            except QueueUnavailable:
                continue
            sent.stored = True
            return

    async def _cancel(self, sent: Sent) -> None:
        for _ in range(CANCEL_TRIES):
            at = time.time()
            try:
                outcome = (await self._client.cancel(sent.request, "chaos")).outcome
            except QueueUnavailable:
                sent.cancels.append((at, "no_answer"))
                await asyncio.sleep(0.5)
            else:
                sent.cancels.append((at, outcome))
                return

    async def _follow(self, sent: Sent) -> None:
        sent.follows = True
        got: list[Fact] = []
        async with aclosing(self._client.listen(sent.request)) as heard:
            async for one in heard:
                if isinstance(one, StoredFact):
                    got.append(one.fact)
        sent.followed = got

    def _start(self, coroutine: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.failures.append(f"{task.get_name()}: {error!r}")
