"""What a death costs, and how soon a cancel reaches the engine: measured while all is calm."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from random import Random
from statistics import median
from typing import Final

from proto.messages import SubmitRequest
from proto.names import new_request_id
from services.runtime.client import END_TYPES, Client
from services.runtime.facts import StoredFact
from tests.chaos.calls import EngineCall, read_calls
from tests.chaos.engine import TOKEN_S
from tests.chaos.stack import Member, Stack
from tests.chaos.texts import PLAN, VARIANT, question_of

#: Requests that are open together while a process is killed.
PROBES: Final = 6
#: A pace at which a request takes a few seconds, so that a kill meets it.
SLOW_TOKEN_S: Final = 0.04
#: Less is noise.
DELAYED_S: Final = 0.3
CANCELS_A_ROUND: Final = 3
_VICTIMS: Final = ("worker", "planner", "assembler", "nats")


@dataclass
class Figures:
    """What was measured, in seconds.

    Attributes:
        delays_s: by the role that was killed: what each request that was open then took
            longer than in calm.
        cancels_s: by window: from the command to the end of the engine's call.
        replies_s: from the command to its reply.
        called_late: cancelled while queued, and yet the engine was called.
    """

    delays_s: dict[str, list[float]] = field(default_factory=dict)
    cancels_s: dict[str, list[float]] = field(default_factory=dict)
    replies_s: dict[str, list[float]] = field(default_factory=dict)
    called_late: int = 0

    def lines(self) -> Iterator[str]:
        """Yield the report."""
        for role, delays in self.delays_s.items():
            hit = [delay for delay in delays if delay > DELAYED_S]
            worst = f"median {median(hit):.2f} s, worst {max(hit):.2f} s" if hit else "none"
            yield f"killed {role:9} {len(delays)} requests open, {len(hit)} delayed: {worst}"
        for window, replies in self.replies_s.items():
            closed = self.cancels_s.get(window)
            until = f"engine's call closed {_spread(closed)}" if closed else "no engine call"
            yield f"cancel {window:18} {len(replies)} times: replied {_spread(replies)}; {until}"
        if self.called_late:
            yield f"cancelled while queued, and yet planned: {self.called_late}"


def _spread(values: list[float]) -> str:
    return f"p50 {median(values):.3f} s, worst {max(values):.3f} s"


class Measurement:
    """Measures on a healed stack with scripted engines.

    Args:
        stack: the processes.
        client: sends the probes.
        say: told in a line what is going on.
        note: told each kill, by role and name, for the audit.
    """

    def __init__(
        self,
        stack: Stack,
        client: Client,
        say: Callable[[str], None],
        note: Callable[[str, str], None],
    ) -> None:
        self._note = note
        self._stack = stack
        self._client = client
        self._say = say
        self._rng = Random(f"measure {stack.options.seed}")
        self._figures = Figures()

    async def run(self, rounds: int) -> Figures:
        """Measure everything so many times."""
        await self._engines(token_s=SLOW_TOKEN_S)
        calm = [await self._probes(f"calm{number}") for number in range(2)]
        calm_s = [median(each) for each in zip(*calm, strict=True)]
        for role in _VICTIMS:
            for number in range(rounds):
                self._say(f"  killing {role}, {number + 1} of {rounds}")
                await self._killed(role, f"{role}{number}", calm_s)
        for number in range(rounds * CANCELS_A_ROUND):
            if number < rounds:
                await self._queued()
            await self._cancels()
        await self._engines(mode="normal", token_s=TOKEN_S)
        return self._figures

    async def _engines(self, **order: object) -> None:
        for engine in self._stack.engines:
            await self._stack.control(engine, **order)

    # --- deaths --------------------------------------------------------------------------

    async def _probes(self, name: str) -> list[float]:
        """Send the probes together and return how long each took."""
        return await asyncio.gather(*(self._probe(n, name) for n in range(PROBES)))

    async def _probe(self, number: int, name: str) -> float:
        request = f"chaos-probe{number}{VARIANT}{name}-{new_request_id()}"
        ask = SubmitRequest(question=question_of(request), mode="sgd", deadline_s=60)
        sent_at = time.time()
        await self._client.submit(ask, request)
        async with aclosing(self._client.listen(request)) as heard:
            async for one in heard:
                if isinstance(one, StoredFact) and isinstance(one.fact, END_TYPES):
                    return one.stored_at - sent_at
        raise RuntimeError(f"{request} has no end")

    async def _killed(self, role: str, name: str, calm_s: list[float]) -> None:
        probing = asyncio.create_task(self._probes(name), name=name)
        wait_s = self._rng.uniform(0.1, 0.7 if role == "planner" else min(calm_s))
        await asyncio.sleep(wait_s)
        victim = await self._victim(role)
        victim.busy = True
        self._note(f"kill_{role}", victim.name)
        victim.kill()
        if role == "nats":
            victim.launch()
        took_s = await probing
        open_then = [(t, c) for t, c in zip(took_s, calm_s, strict=True) if t > wait_s]
        self._figures.delays_s.setdefault(role, []).extend(t - c for t, c in open_then)
        if not victim.alive:
            victim.launch()
        await victim.child.ready()
        victim.busy = False

    async def _victim(self, role: str) -> Member:
        members = [one for one in self._stack.members if one.role.split("-")[0] == role]
        alive = [one for one in members if one.alive and not one.veteran]
        return self._rng.choice(alive)

    # --- cancels -------------------------------------------------------------------------

    async def _cancels(self) -> None:
        await self._engines(mode="normal", token_s=0.2)
        await self._cancelled("planning", "sgd", PLAN, 0.3)
        await self._cancelled("mid-stream", "direct", 0, 0.7)
        await self._engines(mode="hang")
        await self._cancelled("before first token", "direct", 0, 0.3)
        await self._engines(mode="normal", token_s=TOKEN_S)

    async def _queued(self) -> None:
        """Cancel while no planner can take the request up."""
        planners = [one for one in self._stack.services if one.role == "planner" and one.alive]
        for one in planners:
            one.child.signal(signal.SIGSTOP)
        try:
            request, offsets = await self._asked("sgd")
            await self._cancel(request, "queued")
        finally:
            for one in planners:
                one.child.signal(signal.SIGCONT)
        await asyncio.sleep(self._stack.options.ack_wait_s + 1)
        self._figures.called_late += bool(self._calls(request, offsets))

    async def _cancelled(self, window: str, mode: str, node: int, after_s: float) -> None:
        request, offsets = await self._asked(mode)
        async with asyncio.timeout(10):
            while not any(call.node == node for call in self._calls(request, offsets)):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        await asyncio.sleep(after_s)
        at = await self._cancel(request, window)
        async with asyncio.timeout(10):
            while any(call.said < 0 for call in self._calls(request, offsets)):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        over = max(call.over or at for call in self._calls(request, offsets))
        self._figures.cancels_s.setdefault(window, []).append(max(0.0, over - at))

    async def _asked(self, mode: str) -> tuple[str, dict[str, int]]:
        offsets = {one.name: self._size(one) for one in self._stack.engines}
        request = f"chaos-cancel-{new_request_id()}"
        ask = SubmitRequest.model_validate({"question": question_of(request), "mode": mode})
        await self._client.submit(ask, request)
        await asyncio.sleep(0.1)
        return request, offsets

    async def _cancel(self, request: str, window: str) -> float:
        at = time.time()
        outcome = await self._client.cancel(request, "measured")
        if outcome.outcome == "cancelled":
            self._figures.replies_s.setdefault(window, []).append(time.time() - at)
        else:
            self._say(f"  cancel in window {window!r}: {outcome.outcome}")
        return at

    def _size(self, engine: Member) -> int:
        path = self._stack.calls_log(engine)
        return path.stat().st_size if path.exists() else 0

    def _calls(self, request: str, offsets: dict[str, int]) -> list[EngineCall]:
        """Return the calls for `request`; those that are not over have `said` below 0."""
        found: list[EngineCall] = []
        for engine in self._stack.engines:
            path = self._stack.calls_log(engine)
            if path.exists():
                found += read_calls(path, (), offset=offsets[engine.name])
        return [call for call in found if call.request == request]
