"""A chaos run from the first process to the audit."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.runtime.client import Client
from services.runtime.connection import Connection
from services.runtime.fact_reader import LogReader
from services.runtime.facts import LogEntry, StoredFact, fact_of
from services.runtime.opening import open_client
from tests.chaos.checks import audit
from tests.chaos.evidence import Evidence, Gatherer
from tests.chaos.faults import Injector
from tests.chaos.load import Load
from tests.chaos.measure import Figures, Measurement
from tests.chaos.options import Options
from tests.chaos.stack import Stack
from tests.chaos.violations import Violation
from tests.chaos.watch import Watch

PROGRESS_EVERY_S: Final = 5.0
#: After the last deadline: time in which the last ends must be there.
SETTLE_MARGIN_S: Final = 20.0


@dataclass
class Result:
    """What came of a run."""

    options: Options
    folder: Path
    evidence: Evidence
    violations: list[Violation]
    took_s: float
    faults: dict[str, int] = field(default_factory=dict)


async def run(options: Options, say: Callable[[str], None]) -> Result:
    """Run chaos and return what was found; all processes have ended then.

    Args:
        options: of the run.
        say: told in a line what is going on.
    """
    folder = options.keep or Path(tempfile.mkdtemp(prefix="skelgraph-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    stack = Stack(options, folder.absolute())
    try:
        say(f"starting the processes; logs and stores in {folder}")
        await stack.start()
        result = await _Run(stack, say).all()
    finally:
        await stack.stop()
    result.took_s = time.monotonic() - began
    if not result.violations and options.keep is None:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return result


class _Run:
    """What happens while the processes are there."""

    def __init__(self, stack: Stack, say: Callable[[str], None]) -> None:
        self._stack = stack
        self._options = stack.options
        self._say = say
        self._watch = Watch(stack)

    async def all(self) -> Result:
        async with AsyncExitStack() as exits:
            client = await exits.enter_async_context(open_client(self._stack.servers))
            load = Load(self._options, client)
            exits.push_async_callback(load.close)
            watching = await exits.enter_async_context(tail_log(self._stack.servers, load))
            for coroutine in (self._watch.run(), load.watch_itself()):
                await exits.enter_async_context(aside(coroutine))
            log = self._stack.folder / "faults.jsonl"
            injector = Injector(self._stack, load, client.connection, log)
            exits.push_async_callback(injector.close)
            await self._load_and_faults(load, injector)
            figures = await self._measured(client, injector)
            return await self._audited(load, injector, watching, figures)

    async def _load_and_faults(self, load: Load, injector: Injector) -> None:
        async with aside(self._progress(load, injector)):
            async with aside(injector.run()):
                await load.run()
            self._watch.load_over_at = time.time()
            self._say("load is out; healing")
            await injector.settle()
            await self._stack.heal()
            await load.settle(SETTLE_MARGIN_S)
            await load.all_ended(self._options.deadline_s + SETTLE_MARGIN_S)
            await load.settle(SETTLE_MARGIN_S)

    async def _measured(self, client: Client, injector: Injector) -> Figures | None:
        if not self._options.measure:
            return None
        self._say("measuring recovery and cancel")
        measurement = Measurement(self._stack, client, self._say, injector.note)
        return await measurement.run(self._options.measure)

    async def _audited(
        self, load: Load, injector: Injector, tail: Connection, figures: Figures | None
    ) -> Result:
        self._say("auditing")
        evidence = Evidence(
            self._options,
            load.sent,
            faults=injector.faults,
            stalls=load.lags,
            watch=self._watch,
            failures=[*load.failures, *injector.failures],
            figures=figures,
        )
        await Gatherer(self._stack, tail).gather(evidence)
        return Result(
            self._options,
            self._stack.folder,
            evidence,
            audit(evidence),
            0.0,
            dict(injector.count()),
        )

    async def _progress(self, load: Load, injector: Injector) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(PROGRESS_EVERY_S)
            ended = sum(sent.ended_at is not None for sent in load.sent.values())
            down = [one.name for one in self._stack.members if one.busy]
            self._say(
                f"{time.monotonic() - began:5.0f} s  sent {len(load.sent)}  ended {ended}"
                f"  open {len(load.open_requests)}  faults {len(injector.faults)}"
                f"  now: {', '.join(down) or 'calm'}"
            )


@asynccontextmanager
async def tail_log(servers: list[str], load: Load) -> AsyncIterator[Connection]:
    """Read all facts as they come, over a connection of its own."""
    queue: asyncio.Queue[StoredFact] = asyncio.Queue()

    async def hand_on() -> None:
        while True:
            await load.saw(await queue.get())

    async with Connection(servers, name="chaos-tail") as connection:
        await connection.open(timeout_s=30)

        def heard(entry: LogEntry) -> None:
            if stored := fact_of(entry):
                queue.put_nowait(stored)

        reader = LogReader(connection, "chaos", heard)
        async with aside(reader.run()), aside(hand_on()):
            yield connection


@asynccontextmanager
async def aside(coroutine: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Run a coroutine beside the block; its own failure is the block's."""
    task = asyncio.create_task(coroutine)
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def say(line: str) -> None:
    """Tell a person, at once."""
    print(line, file=sys.stderr, flush=True)
