"""One reply on its way to one client, and what may befall it there."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Final, Protocol

from bench.simulated_engine.core import Core
from bench.simulated_engine.exchange import Cut, Exchange
from bench.simulated_engine.faults import Fault
from bench.simulated_engine.jobs import Job
from services.runtime.waits import until_set

KEEP_ALIVE: Final = b":\n\n"
_GARBAGE: Final = b'\x00\xff\xfedata: {"choices": [{"del\n\ndata: {not json\n\n'
_DEAD: Final = 137


class Broken(Exception):
    """The engine is to fail as for a broken card."""


class Frames(Protocol):
    """The events of one reply, in a family's form."""

    def first(self) -> bytes:
        """Return what comes before the first token."""

    def token(self, index: int, *, last: bool) -> bytes:
        """Return the event of a token."""

    def broken(self) -> bytes:
        """Return the event of a failure in the middle."""


class Play:
    """Gives a reply to a client.

    Args:
        core: the engine.
        exchange: with the client.
        job: the reply; it is queued now.
        fault: what befalls it.

    Raises:
        ValueError: there could never be room for it.
    """

    def __init__(self, core: Core, exchange: Exchange, job: Job, fault: Fault | None) -> None:
        self._core = core
        self._exchange = exchange
        self._job = job
        # A reply may be shorter than what was to come before the fault.
        after = min(fault.after_tokens, len(job.pieces) - 1) if fault else 0
        self._fault = replace(fault, after_tokens=after) if fault else None
        self._sent = 0
        self._flow = core.begin(job)
        exchange.when_gone(self._flow.nudge)

    async def whole(self) -> bool:
        """Wait for the whole reply; false if the client has left.

        Raises:
            Broken, Cut: what the fault wants.
        """
        try:
            if self._silent():
                await self._exchange.departure.wait()
            while not (self._flow.ended or self._exchange.gone):
                await self._more()
                if self._fault and self._job.sequence.generated >= self._fault.after_tokens:
                    await self._strike(self._fault)
        finally:
            self._core.over(self._flow, self._job)
        return not self._exchange.gone

    async def stream(self, frames: Frames) -> bool:
        """Send the reply's events; false if the client has left or the stream has failed.

        Raises:
            Cut: what the fault wants.
        """
        try:
            return await self._stream(frames)
        except Broken:
            await self._exchange.write(frames.broken())
            return False
        finally:
            self._core.over(self._flow, self._job)

    async def _stream(self, frames: Frames) -> bool:
        while self._silent() and not self._exchange.gone:
            await self._keep_silent()
        if first := frames.first():
            await self._exchange.write(first)
        while True:
            count = await self._more()
            if self._exchange.gone:
                return False
            if count:
                await self._send(frames, count)
            elif not self._flow.ended:
                await self._exchange.write(KEEP_ALIVE)
            if self._flow.ended and not self._flow.ready:
                return True

    async def _more(self) -> int:
        count = await self._flow.more()
        if self._flow.cut:
            raise Cut
        return count

    async def _send(self, frames: Frames, count: int) -> None:
        begin, end = self._sent, self._sent + count
        fault = self._fault if self._fault and begin <= self._fault.after_tokens < end else None
        if fault:
            end = fault.after_tokens
        data = b"".join(self._event(frames, index) for index in range(begin, end))
        if fault and fault.kind == "cut_mid":
            whole = self._event(frames, end)
            data += whole[: len(whole) // 2]
        elif fault and fault.kind == "garbage":
            data += _GARBAGE
        self._sent = end
        self._flow.quiet_since_s = asyncio.get_running_loop().time()
        await self._exchange.write(data)
        if fault:
            await self._strike(fault)

    def _event(self, frames: Frames, index: int) -> bytes:
        sequence = self._job.sequence
        last = sequence.ended_s is not None and index == sequence.generated - 1
        return frames.token(index, last=last)

    def _silent(self) -> bool:
        return self._fault is not None and self._fault.kind in {"hang", "keep_alive"}

    async def _keep_silent(self) -> None:
        signs = self._fault is not None and self._fault.kind == "keep_alive"
        silence_s = self._core.options.keep_alive_s * self._core.options.time_scale
        await until_set(self._exchange.departure, silence_s if signs else None)
        if not self._exchange.gone:
            await self._exchange.write(KEEP_ALIVE)

    async def _strike(self, fault: Fault) -> None:
        match fault.kind:
            case "cut" | "cut_mid" | "garbage":
                raise Cut
            case "in_band":
                raise Broken
            case "die":
                os._exit(_DEAD)
            case "hang_mid":
                await self._exchange.departure.wait()
            case _:
                pass
