"""Notices the end of a process that should run on, and starts it again."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterable

import structlog

from skelgraph.local.errors import LocalStackError, ProcessDied
from skelgraph.local.events import Report, StackEvent, StackStep
from skelgraph.local.process import Child

log = structlog.get_logger()

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 8.0
_MOST_ENDS = 5
_WITHIN_S = 60.0


class Deaths:
    """How often a process ended of late: how long to wait, and when to give up. Pure."""

    def __init__(self) -> None:
        self._at_s: deque[float] = deque(maxlen=_MOST_ENDS)

    def add(self, now_s: float) -> None:
        """Take an end into account."""
        while self._at_s and now_s - self._at_s[0] > _WITHIN_S:
            self._at_s.popleft()
        self._at_s.append(now_s)

    @property
    def pause_s(self) -> float:
        """How long to wait before the next start, doubling with each recent end."""
        return min(_LONGEST_PAUSE_S, math.ldexp(_FIRST_PAUSE_S, len(self._at_s) - 1))

    @property
    def too_many(self) -> bool:
        """Whether it ended so often in a minute that starting it again is of no use."""
        return len(self._at_s) == _MOST_ENDS


class Watch:
    """One task a process; each starts its process again until that is of no use."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._tasks: list[asyncio.Task[LocalStackError]] = []

    def start(self, children: Iterable[Child]) -> None:
        """Begin to watch processes that are ready."""
        self._tasks = [
            asyncio.create_task(self._keep(child), name=f"watch {child.spec.name}")
            for child in children
        ]

    async def failed(self) -> LocalStackError:
        """Wait until a process is given up, and return why."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()

    async def stop(self) -> None:
        """Stop watching: from here on processes may end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, child: Child) -> LocalStackError:
        deaths = Deaths()
        while True:
            await child.ended()
            deaths.add(time.monotonic())
            self._say(StackStep.DIED, child, child.obituary())
            child.kill()  # what it may have started itself
            if deaths.too_many:
                return ProcessDied(f"{_MOST_ENDS} times in a minute, last: {child.obituary()}")
            await asyncio.sleep(deaths.pause_s)
            await self._restart(child)

    async def _restart(self, child: Child) -> None:
        self._say(StackStep.RESTARTING, child)
        try:
            child.launch()
            await child.ready()
        except LocalStackError as error:
            self._say(StackStep.WARNING, child, error.message)
            child.kill()
        else:
            self._say(StackStep.READY, child)

    def _say(self, step: StackStep, child: Child, detail: str = "") -> None:
        log.warning("process", step=step, process=child.spec.name)
        self._report(StackEvent(step, child.spec.name, detail))
