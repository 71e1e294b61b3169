"""What all families share: the batch in time, permits, streams, faults."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final, Protocol

from bench.simulated_engine.author import Author
from bench.simulated_engine.batching import TGI, VLLM, Batch
from bench.simulated_engine.counts import Counts
from bench.simulated_engine.exchange import Cut, Exchange
from bench.simulated_engine.faults import Fault
from bench.simulated_engine.jobs import Ask, Job, compose
from bench.simulated_engine.options import Options
from bench.simulated_engine.pace import Flow, Pace

KEEP_ALIVE: Final = b":\n\n"
_GARBAGE: Final = b'\x00\xff\xfedata: {"choices": [{"del\n\ndata: {not json\n\n'
_DEAD: Final = 137


class Overloaded(Exception):
    """More requests than the engine takes."""


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


class Core:
    """The engine behind the routes.

    Args:
        options: all that can be chosen.
    """

    def __init__(self, options: Options) -> None:
        policy = TGI if options.family == "tgi" else VLLM
        self.options = options
        self.batch = Batch(
            options.profile, replace(policy, caches=options.prefix_cache), options.seed
        )
        self.pace = Pace(self.batch, options.time_scale)
        self.pace.slow = options.slow
        self.author = Author(options.seed, options.lengths, options.recorded)
        self.faults = options.faults
        self.counts = Counts()
        self.in_flight = 0
        self.healthy = True

    @contextmanager
    def permit(self, limit: int | None) -> Iterator[None]:
        """Count a request within the block.

        Raises:
            Overloaded: there are `limit` already.
        """
        if limit is not None and self.in_flight >= limit:
            raise Overloaded
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def compose(self, ask: Ask) -> Job:
        """Return the reply to `ask`; nothing is computed yet."""
        return compose(ask, self.author)

    async def run(self) -> None:
        """Let time pass, and send signs of life, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.pace.run(), name="pace")
            tasks.create_task(self._keep_alive(), name="keep alive")

    async def wait(self, exchange: Exchange, job: Job, fault: Fault | None) -> bool:
        """Wait for the whole reply; false if the client has left.

        Raises:
            Broken, Cut: what the fault wants.
        """
        flow = self.pace.submit(job.sequence)
        exchange.when_gone(flow.nudge)
        try:
            if fault and fault.kind in {"hang", "keep_alive"}:
                await exchange.departure.wait()
            while not (flow.ended or exchange.gone):
                await flow.more()
                if flow.cut:
                    raise Cut
                if fault and job.sequence.generated >= fault.after_tokens:
                    await self._strike(fault, exchange)
        finally:
            self._over(flow, job)
        return not exchange.gone

    async def play(self, exchange: Exchange, job: Job, frames: Frames, fault: Fault | None) -> bool:
        """Stream the reply's events; false if the client has left or the stream has failed.

        Raises:
            Cut: what the fault wants.
        """
        flow = self.pace.submit(job.sequence)
        exchange.when_gone(flow.nudge)
        try:
            return await self._play(exchange, job, flow, frames, fault)
        except Broken:
            await exchange.write(frames.broken())
            return False
        finally:
            self._over(flow, job)

    async def _play(
        self, exchange: Exchange, job: Job, flow: Flow, frames: Frames, fault: Fault | None
    ) -> bool:
        await self._hang(exchange, fault)
        if first := frames.first():
            await exchange.write(first)
        sent = 0
        while True:
            count = await flow.more()
            if flow.cut:
                raise Cut
            if exchange.gone:
                return False
            if count:
                await self._send(exchange, job, flow, frames, sent, sent + count, fault)
                sent += count
            elif not flow.ended:
                await exchange.write(KEEP_ALIVE)
            if flow.ended and not flow.ready:
                return True

    async def _send(
        self,
        exchange: Exchange,
        job: Job,
        flow: Flow,
        frames: Frames,
        begin: int,
        end: int,
        fault: Fault | None,
    ) -> None:
        last = job.sequence.generated - 1 if job.sequence.ended_s is not None else -1
        if fault and begin <= fault.after_tokens < end:
            end = fault.after_tokens
        else:
            fault = None
        data = b"".join(frames.token(index, last=index == last) for index in range(begin, end))
        if fault and fault.kind == "cut_mid":
            whole = frames.token(end, last=end == last)
            data += whole[: len(whole) // 2]
        if fault and fault.kind == "garbage":
            data += _GARBAGE
        flow.quiet_since_s = asyncio.get_running_loop().time()
        await exchange.write(data)
        if fault:
            await self._strike(fault, exchange)

    async def _hang(self, exchange: Exchange, fault: Fault | None) -> None:
        if fault is None or fault.kind not in {"hang", "keep_alive"}:
            return
        silence_s = self.options.keep_alive_s * self.options.time_scale
        while not exchange.gone:
            with suppress(TimeoutError):
                async with asyncio.timeout(silence_s if fault.kind == "keep_alive" else None):
                    await exchange.departure.wait()
            if not exchange.gone:
                await exchange.write(KEEP_ALIVE)

    async def _strike(self, fault: Fault, exchange: Exchange) -> None:
        match fault.kind:
            case "cut" | "cut_mid" | "garbage":
                raise Cut
            case "in_band":
                raise Broken
            case "die":
                os._exit(_DEAD)
            case "hang_mid":
                await exchange.departure.wait()
            case _:
                pass

    def _over(self, flow: Flow, job: Job) -> None:
        self.pace.drop(flow)
        self.counts.over(job, self.batch.now_s)

    async def _keep_alive(self) -> None:
        time = asyncio.get_running_loop().time
        quiet_s = self.options.keep_alive_s * self.options.time_scale
        while True:
            await asyncio.sleep(min(1.0, quiet_s / 10))
            now_s = time()
            for flow in self.pace.flows:
                if now_s - flow.quiet_since_s >= quiet_s:
                    flow.quiet_since_s = now_s
                    flow.nudge()
