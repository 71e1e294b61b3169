"""What a death costs, and how soon a cancel reaches the engine: measured while all is calm."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Sequence
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
from tests.chaos.stack import Member, Stack
from tests.chaos.texts import PLAN, VARIANT, question_of

#: Requests that are open together while a process is killed.
PROBES: Final = 6
#: A pace at which a request takes a few seconds, so that a kill meets it.
SLOW_TOKEN_S: Final = 0.04
#: Less is noise.
DELAYED_S: Final = 0.3
CANCELS_A_ROUND: Final = 3
#: From a cancel to its reply, and to the end of the engine's call; where no fault interferes.
CANCEL_BOUND_S: Final = 1.0
#: Roles that are killed, and what bounds the time that the others lose.
_BOUNDS: Final = {
    "worker": "ack wait {ack_wait_s:g} s: its nodes go to another, and are decoded anew",
    "planner": "ack wait {ack_wait_s:g} s: its requests go to another, who continues the plans",
    "assembler": "pin 2 s, then ack wait {ack_wait_s:g} s of what it held",
    "nats": "its restart, then a new connection every 0.1 s, and what is sent again",
}


@dataclass(frozen=True, slots=True)
class CancelTook:
    """How long one cancel took.

    Attributes:
        at: when it was asked for, in seconds since the epoch.
        replied_s: until its reply.
        closed_s: until the engine's call was over; None where no engine was called.
    """

    at: float
    replied_s: float
    closed_s: float | None = None


@dataclass
class Figures:
    """What was measured, in seconds.

    Attributes:
        delays_s: by the role that was killed: what each request that was open then took
            longer than in calm.
        cancels: by window.
        called_late: cancelled while queued, and yet the engine was called.
    """

    delays_s: dict[str, list[float]] = field(default_factory=dict)
    cancels: dict[str, list[CancelTook]] = field(default_factory=dict)
    called_late: int = 0

    def lines(self, ack_wait_s: float) -> Iterator[str]:
        """Yield the report: recovery with what bounds it, and cancels with their bound."""
        yield f"{'killed':10}{'open':>5}{'delayed':>8}{'median':>9}{'worst':>9}   what bounds it"
        for role, delays in self.delays_s.items():
            hit = [delay for delay in delays if delay > DELAYED_S]
            lost = f"{median(hit):7.2f} s{max(hit):7.2f} s" if hit else f"{'–':>9}{'–':>9}"
            bound = _BOUNDS[role].format(ack_wait_s=ack_wait_s)
            yield f"{role:10}{len(delays):5}{len(hit):8}{lost}   {bound}"
        yield (
            f"{'cancel':20}{'times':>6}{'reply p50':>12}{'worst':>9}{'engine left p50':>18}"
            f"{'worst':>9}   each at most {CANCEL_BOUND_S:g} s"
        )
        for window, took in self.cancels.items():
            replied = _spread([one.replied_s for one in took], 12)
            closed = _spread([one.closed_s for one in took if one.closed_s is not None], 18)
            yield f"{window:20}{len(took):6}{replied}{closed}"
        if self.called_late:
            yield f"cancelled while queued, and yet planned: {self.called_late}"

    def slow_cancels(self, stalls: Sequence[tuple[float, float]]) -> Iterator[tuple[str, str]]:
        """Yield window and what was too slow in it, but for when the machine stood still."""
        for window, took in self.cancels.items():
            for one in took:
                until_s = max(one.replied_s, one.closed_s or 0.0)
                stalled = any(at <= one.at + until_s and at + lag >= one.at for at, lag in stalls)
                if until_s > CANCEL_BOUND_S and not stalled:
                    yield window, f"{until_s:.2f} s, at most {CANCEL_BOUND_S:g} s are allowed"


def _spread(values: list[float], width: int) -> str:
    if not values:
        return f"{'–':>{width}}{'–':>9}"
    return f"{median(values):{width - 2}.3f} s{max(values):7.3f} s"


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
        for role in _BOUNDS:
            for number in range(rounds):
                self._say(f"  killing {role}, {number + 1} of {rounds}")
                await self._killed(role, f"{role}{number}", calm_s)
        for number in range(rounds * CANCELS_A_ROUND):
            if number < rounds:
                await self._queued()
            await self._cancels()
        await self._engines(mode="normal", token_s=self._stack.options.token_s)
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
        await self._engines(mode="normal", token_s=self._stack.options.token_s)

    async def _queued(self) -> None:
        """Cancel while no planner can take the request up."""
        planners = [one for one in self._stack.services if one.role == "planner" and one.alive]
        for one in planners:
            one.child.signal(signal.SIGSTOP)
        try:
            request, offsets = await self._asked("sgd")
            at, replied_s = await self._cancel(request, "queued")
            self._took("queued", CancelTook(at, replied_s))
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
        at, replied_s = await self._cancel(request, window)
        async with asyncio.timeout(10):
            while any(call.said < 0 for call in self._calls(request, offsets)):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        over = max(call.over or at for call in self._calls(request, offsets))
        self._took(window, CancelTook(at, replied_s, max(0.0, over - at)))

    async def _asked(self, mode: str) -> tuple[str, dict[str, int]]:
        offsets = {one.name: self._size(one) for one in self._stack.engines}
        request = f"chaos-cancel-{new_request_id()}"
        ask = SubmitRequest.model_validate({"question": question_of(request), "mode": mode})
        await self._client.submit(ask, request)
        await asyncio.sleep(0.1)
        return request, offsets

    async def _cancel(self, request: str, window: str) -> tuple[float, float]:
        """Cancel; return when it was asked for, and how long the reply took."""
        at = time.time()
        outcome = await self._client.cancel(request, "measured")
        if outcome.outcome != "cancelled":
            self._say(f"  cancel in window {window!r}: {outcome.outcome}")
        return at, time.time() - at

    def _took(self, window: str, took: CancelTook) -> None:
        self._figures.cancels.setdefault(window, []).append(took)

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
