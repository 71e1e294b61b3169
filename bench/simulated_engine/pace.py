"""Lets a batch's virtual time pass, and hands its tokens to whoever waits for them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from bench.simulated_engine.batching import Batch
from bench.simulated_engine.sequences import Sequence

#: Steps whose lateness is remembered.
_REMEMBERED: Final = 4096


class Flow:
    """What one request gets of the batch's steps; one reader."""

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.ready = 0
        self.ended = False
        self.cut = False
        self.quiet_since_s = 0.0
        self._alarm = False
        self._waiter: asyncio.Future[None] | None = None

    async def more(self) -> int:
        """Wait for new tokens and return how many are there in all; the same: time for a sign."""
        while not (self.ready or self.ended or self._alarm):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._alarm = False
        ready, self.ready = self.ready, 0
        return ready

    def push(self, count: int, *, ended: bool) -> None:
        """Add tokens."""
        self.ready += count
        self.ended = self.ended or ended
        self._wake()

    def nudge(self) -> None:
        """Wake the reader without tokens, for a sign of life."""
        self._alarm = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)


class Pace:
    """Runs a batch in real time.

    Args:
        batch: what is computed.
        scale: real seconds of a virtual one; 0.1 is ten times faster than the profile says.

    Attributes:
        slow: factor on the duration of all steps, for faults.
        steps: how many there were.
        late_s: by how much tokens of the last steps were handed out late, in real seconds.
    """

    def __init__(self, batch: Batch, scale: float = 1.0) -> None:
        self.batch = batch
        self.scale = scale
        self.slow = 1.0
        self.steps = 0
        self.late_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._flows: dict[Sequence, Flow] = {}
        self._work = asyncio.Event()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._due_s = 0.0

    @property
    def flows(self) -> list[Flow]:
        """Of all requests that are under way."""
        return list(self._flows.values())

    def now_s(self) -> float:
        """Return the virtual time."""
        passed_s = asyncio.get_running_loop().time() - self._due_s
        return self.batch.now_s + max(0.0, passed_s) / self.scale

    def submit(self, sequence: Sequence) -> Flow:
        """Put `sequence` in the queue.

        Raises:
            ValueError: there could never be room for it.
        """
        self.batch.submit(sequence, self.now_s() if self.steps else 0.0)
        flow = Flow(sequence)
        flow.quiet_since_s = asyncio.get_running_loop().time()
        self._flows[sequence] = flow
        self._work.set()
        return flow

    @property
    def frozen(self) -> bool:
        """Whether time stands still."""
        return not self._thawed.is_set()

    def freeze(self, frozen: bool) -> None:
        """Let time stand still, or go on."""
        if frozen:
            self._thawed.clear()
        else:
            self._thawed.set()

    def cut_all(self) -> None:
        """Break all requests off that are under way."""
        for flow in self.flows:
            flow.cut = True
            flow.nudge()

    def drop(self, flow: Flow) -> None:
        """Forget a request; if it still runs, it ends before the next step."""
        if self._flows.pop(flow.sequence, None) and flow.sequence.ended_s is None:
            self.batch.cancel(flow.sequence)

    async def run(self) -> None:
        """Let time pass until cancelled."""
        while True:
            await self._work.wait()
            self._catch_up()
            while (step := self.batch.step()) is not None:
                await self._sleep(step.duration_s * self.scale * self.slow)
                await self._thaw()
                for sequence, count in step.produced:
                    if flow := self._flows.get(sequence):
                        flow.push(count, ended=sequence.ended_s is not None)
            self._work.clear()

    def _catch_up(self) -> None:
        """Begin anew after idleness: nothing was due meanwhile."""
        now_s = asyncio.get_running_loop().time()
        if self.steps:
            self.batch.now_s += max(0.0, now_s - self._due_s) / self.scale
        self._due_s = now_s

    async def _thaw(self) -> None:
        if self.frozen:
            await self._thawed.wait()
            self._due_s = asyncio.get_running_loop().time()

    async def _sleep(self, duration_s: float) -> None:
        time = asyncio.get_running_loop().time
        # Where steps take no time nothing can be late.
        self._due_s = self._due_s + duration_s if duration_s else time()
        await asyncio.sleep(max(0.0, self._due_s - time()))
        self.steps += 1
        self.late_s.append(max(0.0, time() - self._due_s))
