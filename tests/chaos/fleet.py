"""Services that come and go while load is on: for rolling upgrades and autoscaling."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.runtime.opening import open_client
from skelgraph.local import ports
from skelgraph.local.process import ProcessSpec
from tests.chaos.checks import audit
from tests.chaos.evidence import Evidence, Gatherer
from tests.chaos.kinds import Fault
from tests.chaos.load import Load
from tests.chaos.options import Options
from tests.chaos.run import SETTLE_MARGIN_S, aside, tail_log
from tests.chaos.stack import Member, Stack
from tests.chaos.violations import Violation
from tests.chaos.watch import Watch

ROLES: Final = ("assembler", "planner", "worker-large", "worker-small")


@dataclass(frozen=True)
class Version:
    """Sources that services run from: a folder, and what to call it."""

    name: str
    folder: Path


class Fleet(Stack):
    """A stack whose services are started and retired one by one, from any version's sources.

    Args:
        options: of the run.
        folder: for stores and logs.
        slots: nodes or requests that a service takes at once.
    """

    def __init__(self, options: Options, folder: Path, *, slots: int = 4) -> None:
        super().__init__(options, folder)
        self.services: list[Member] = []
        self._slots = slots
        self._numbers_given = itertools.count(1)
        #: What an audit may take for the reason of a redelivery.
        self.deeds: list[Fault] = []

    async def start(self) -> None:
        """Start NATS and the engines, and make the streams; no service yet."""
        for one in [*self.nats, *self.engines]:
            one.launch()
        await asyncio.gather(*(one.child.ready() for one in [*self.nats, *self.engines]))
        await self._provision()

    def of(self, role: str, version: Version | None = None) -> list[Member]:
        """The services of a role that run, the oldest first; of one version only if given."""
        mark = f"-{version.name}-" if version else "-"
        found = [one for one in self.services if one.role == role and not one.busy]
        return [one for one in found if one.alive and mark in one.name]

    async def add(self, role: str, version: Version) -> Member:
        """Start a service and return it when it is ready."""
        one = self._new(role, version)
        self.services.append(one)
        self._note("scale_up", one)
        one.launch()
        await one.child.ready()
        return one

    async def retire(self, one: Member) -> None:
        """SIGTERM, and wait for its end, as the kubelet does."""
        one.busy = True  # its end is ordered: the watch does not start it again
        self._note("scale_down", one)
        await one.terminate()

    def _note(self, kind: str, one: Member) -> None:
        self.deeds.append(Fault(kind=kind, target=one.name, at=time.time()))

    def _new(self, role: str, version: Version) -> Member:
        name = f"{role}-{version.name}-{next(self._numbers_given)}"
        service, _, pool = role.partition("-")
        port = ports.free_port()
        # -P: or the working directory's sources would win over the version's.
        argv = (sys.executable, "-P", "-m", f"services.{service}")
        spec = ProcessSpec(
            name=name,
            argv=(*argv, *(["--pool", pool] if pool else [])),
            env={
                **self._env(name, port),
                "PYTHONPATH": str(version.folder),
                "SKELGRAPH_SLOTS": str(self._slots),
            },
            port=port,
            ready_path="/readyz",
            ready_timeout_s=60,
        )
        return Member(name, role, self._child(spec))


@dataclass
class Outcome:
    """What came of a run with a fleet."""

    fleet: Fleet
    evidence: Evidence
    violations: list[Violation]

    @property
    def answered(self) -> int:
        """Requests that have ended."""
        return sum(sent.ended_at is not None for sent in self.evidence.sent.values())


Deed = Callable[[Load], Coroutine[object, object, None]]


@asynccontextmanager
async def running(fleet: Fleet) -> AsyncIterator[Fleet]:
    """Start what a fleet stands on; end all of it, however the block ends."""
    try:
        await fleet.start()
        yield fleet
    finally:
        await fleet.stop()


async def under_load(
    fleet: Fleet, load_of: Callable[[Load], Coroutine[object, object, None]], deed: Deed
) -> Outcome:
    """Do `deed` while load is on, wait for all ends, and audit.

    Args:
        fleet: runs already, with a service of each role.
        load_of: sends the requests.
        deed: what is done meanwhile; it ends by itself.
    """
    watch = Watch(fleet)
    async with AsyncExitStack() as exits:
        client = await exits.enter_async_context(open_client(fleet.servers))
        load = Load(fleet.options, client)
        exits.push_async_callback(load.close)
        tail = await exits.enter_async_context(tail_log(fleet.servers, load))
        for coroutine in (watch.run(), load.watch_itself()):
            await exits.enter_async_context(aside(coroutine))
        async with asyncio.TaskGroup() as group:
            group.create_task(load_of(load))
            group.create_task(deed(load))
        await load.all_ended(fleet.options.deadline_s + SETTLE_MARGIN_S)
        await load.settle(SETTLE_MARGIN_S)
        evidence = Evidence(
            fleet.options,
            load.sent,
            faults=fleet.deeds,
            stalls=load.lags,
            watch=watch,
            failures=load.failures,
        )
        await Gatherer(fleet, tail).gather(evidence)
        return Outcome(fleet, evidence, audit(evidence))
