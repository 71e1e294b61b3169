"""Runs the real services on simulated engines: replayed questions, so many requests at once."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from bench.evaluate.methods import Method
from bench.evaluate.records import Frozen
from bench.evaluate.replay import Replay, as_lines, direct_lengths, question_of, replies
from bench.questions import NotAnswered
from bench.simulated_engine.processes import Simulated, simulated_engines
from proto.errors import SkelgraphError
from proto.messages import AnswerAssembled
from proto.names import new_request_id
from services.runtime.client import Client, Ending, make_request
from services.runtime.credentials import Access
from skelgraph.local.config import PoolConfig, StackConfig
from skelgraph.session import Where, reach

#: Profiles of the large and the small pool, by the name of the pair.
PAIRS: Final[Mapping[str, tuple[str, str]]] = {
    "a100": ("llama-70b-4xa100", "llama-8b-1xa100"),
    "h100": ("llama-70b-4xh100", "llama-8b-1xh100"),
}
#: Nodes that a worker decodes at once: more than any load here has, so that engines decide.
SLOTS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Set:
    """What is simulated.

    Args:
        pair: of profiles.
        dialect: of both engines.
        time_scale: real seconds of a simulated one: more for more requests at once, so that this
            machine keeps up.
        concurrency: requests at once.
        rounds: how often each question is asked by each method.
        same_arrivals: whether only the first method has so many at once, and the requests of the
            others come when those of the first came: as users come, however fast we are.
    """

    pair: str
    dialect: str
    time_scale: float
    concurrency: int
    rounds: int = 1
    same_arrivals: bool = False


class Timed(Frozen):
    """A request and its times, in milliseconds of the profiles."""

    question: str
    category: str
    method: str
    concurrency: int
    mode: str
    as_recorded: bool
    wall_ms: float
    plan_ms: float
    engine_ms: float
    overhead_ms: float
    answer_tokens: int
    generated_tokens: int
    prompt_tokens: int
    cached_tokens: int
    nodes: int


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late an engine's tokens were, in milliseconds of its profile."""

    median_ms: float
    most_ms: float


@dataclass(slots=True)
class Running:
    """Services and engines that run."""

    client: Client
    engines: Sequence[Simulated]
    set: Set
    #: When the requests of the first method were sent, in seconds after its first.
    arrivals: list[float] = field(default_factory=list)

    async def measure(self, method: Method, all_: Sequence[Replay]) -> list[Timed]:
        """Ask all of `all_` by `method`, `concurrency` at once, and return their times.

        The load is the same throughout: requests before and after those that are measured keep
        the number at once, or come as those of the first method.
        """
        measured = [one for one in all_ for _ in range(self.set.rounds)]
        Random(0).shuffle(measured)
        before = self.set.concurrency
        endless = itertools.chain(
            itertools.islice(itertools.cycle(all_), before), measured, itertools.cycle(all_)
        )
        load = _Load(self, method, enumerate(endless), range(before, before + len(measured)))
        if self.arrivals:
            return await load.run(self.arrivals)
        done = await load.run()
        if self.set.same_arrivals:
            self.arrivals = [at_s - load.sent_at_s[0] for at_s in load.sent_at_s]
        return done

    async def ask(self, method: Method, replay: Replay) -> Ending:
        """Ask one question and return how it ended."""
        request = new_request_id()
        question = question_of(replay, request[:6])
        fields: dict[str, object] = {"deadline_s": 3600, **method.fields}
        await self.client.submit(make_request(question=question, **fields), request)
        try:
            return await self.client.end_of(request)
        except asyncio.CancelledError:
            with suppress(SkelgraphError):
                await self.client.cancel(request)
            raise


class _Load:
    """Keeps so many requests going, or sends them at given times, until the measured have ended."""

    def __init__(
        self,
        running: Running,
        method: Method,
        order: Iterator[tuple[int, Replay]],
        measured: range,
    ) -> None:
        self._running = running
        self._method = method
        self._order = order
        self._measured = measured
        self._done: list[Timed] = []
        self._all_done = asyncio.Event()
        #: When requests were sent, by the clock of the event loop.
        self.sent_at_s: list[float] = []

    async def run(self, arrivals: Sequence[float] = ()) -> list[Timed]:
        """Return the times of the measured.

        Args:
            arrivals: when requests come, in seconds from now; the next when one has ended if empty.

        Raises:
            NotAnswered: a request failed, or there are too few arrivals.
        """
        calls = [self._arrive(at_s) for at_s in arrivals] or [
            self._call_on() for _ in range(self._running.set.concurrency)
        ]
        callers = [asyncio.create_task(call, name=f"caller {n}") for n, call in enumerate(calls)]
        waiting = asyncio.create_task(self._all_done.wait(), name="all measured")
        try:
            await self._until_done(waiting, callers)
        finally:
            for task in (waiting, *callers):
                task.cancel()
            ended = await asyncio.gather(*callers, return_exceptions=True)
        for one in ended:
            if isinstance(one, Exception):
                raise one
        return self._done

    async def _until_done(
        self, waiting: asyncio.Task[bool], callers: Sequence[asyncio.Task[None]]
    ) -> None:
        going = set(callers)
        while going and not self._all_done.is_set():
            await asyncio.wait({waiting, *going}, return_when=asyncio.FIRST_COMPLETED)
            ended = {one for one in going if one.done()}
            if any(one.exception() for one in ended):
                return
            going -= ended
        if not self._all_done.is_set():
            asked, done = len(self._measured), len(self._done)
            said = f"{done} of {asked} that are measured were asked: too few arrivals"
            raise NotAnswered(f"{self._method.name}: {said}")

    async def _arrive(self, at_s: float) -> None:
        await asyncio.sleep(at_s)
        await self._call(*next(self._order))

    async def _call_on(self) -> None:
        while not self._all_done.is_set():
            await self._call(*next(self._order))

    async def _call(self, number: int, replay: Replay) -> None:
        self.sent_at_s.append(asyncio.get_running_loop().time())
        end = await self._running.ask(self._method, replay)
        if not isinstance(end, AnswerAssembled):
            raise NotAnswered(f"{replay.mark}: {end!r}")
        if number in self._measured:
            self._done.append(timed(replay, self._method.name, end, self._running.set))
            if len(self._done) == len(self._measured):
                self._all_done.set()


def timed(replay: Replay, method: str, end: AnswerAssembled, set_: Set) -> Timed:
    """Return the times of an answer in those of the profiles."""
    took, scale = end.timings, set_.time_scale
    return Timed(
        question=replay.question,
        category=replay.category,
        method=method,
        concurrency=set_.concurrency,
        mode=end.mode,
        as_recorded=[r.node.id for r in end.nodes] == [one.node for one in replay.nodes],
        wall_ms=took.wall_ms / scale,
        plan_ms=took.plan_ms / scale,
        engine_ms=took.critical_engine_ms / scale,
        overhead_ms=(took.overhead_ms + took.critical_slot_wait_ms) / scale,
        answer_tokens=end.usage.generated_tokens - end.plan.usage.generated_tokens,
        generated_tokens=end.usage.generated_tokens,
        prompt_tokens=end.usage.prompt_tokens,
        cached_tokens=end.usage.cached_tokens,
        nodes=len(end.nodes),
    )


@asynccontextmanager
async def simulating(set_: Set, all_: Sequence[Replay]) -> AsyncIterator[Running]:
    """Run engines that repeat `all_`, and all services over them, within the block."""
    with (
        tempfile.TemporaryDirectory(prefix="skelgraph-simulated-") as name,
        _engines(set_, all_, Path(name)) as (large, small),
    ):
        stack = StackConfig(
            large=PoolConfig(model="", urls=(large.url,), slots=SLOTS),
            small=PoolConfig(model="", urls=(small.url,), slots=SLOTS),
            state_dir=Path(name) / "stack",
            log_level="warning",
            env={
                "SKELGRAPH_SLOTS": str(SLOTS),
                "SKELGRAPH_MAX_IN_FLIGHT": str(SLOTS),
                "SKELGRAPH_FIRST_TOKEN_TIMEOUT_S": "600",
                "SKELGRAPH_SILENT_AFTER_S": "600",
            },
        )
        where = Where(None, Access(), stack, "quiet")
        async with reach(where, may_start=True) as session:
            yield Running(session.over_nats, (large, small), set_)


@contextmanager
def _engines(set_: Set, all_: Sequence[Replay], folder: Path) -> Iterator[list[Simulated]]:
    file = folder / "replies.jsonl"
    direct = direct_lengths([one for one in all_ if not one.plan])
    file.write_text(
        as_lines(line for one in all_ for line in replies(one, direct.get(one.question)))
    )
    common = ["--replies", str(file), "--dialect", set_.dialect]
    common += ["--time-scale", str(set_.time_scale)]
    large, small = PAIRS[set_.pair]
    flags = [[*common, "--profile", large], [*common, "--profile", small]]
    with simulated_engines(*flags) as running:
        yield running


def lateness(engine: Simulated) -> Lateness:
    """Return how late the engine was of late."""
    scale = engine.metric("simulated_time_scale") or 1.0
    return Lateness(
        1000 * engine.metric("simulated_late_seconds_median") / scale,
        1000 * engine.metric("simulated_late_seconds_max") / scale,
    )
