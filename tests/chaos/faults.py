"""The faults: what is done to which process, when, by seed; each one heals by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Final

import httpx2

from proto.errors import QueueUnavailable
from proto.names import PIN_GROUP, Stream, partition_consumer
from services.runtime.connection import ApiError, Connection
from skelgraph.local import ports
from skelgraph.local.cluster import ClusterServer
from skelgraph.local.process import Child, ProcessSpec
from tests.chaos.kinds import Fault, kinds
from tests.chaos.load import Load
from tests.chaos.stack import PARTITIONS, Member, Stack

_WHOLE_POOL: Final = "pool_"
#: A follower of the cluster may stay away for as long as a frozen one.
_AWAY_S: Final = {"kill_nats_follower": 8.0}


class Injector:
    """Injects faults until it is told to stop.

    Args:
        stack: the processes.
        load: what vanishing clients follow.
        connection: an open connection.
        log: where each fault is told.
    """

    def __init__(self, stack: Stack, load: Load, connection: Connection, log: Path) -> None:
        self.faults: list[Fault] = []
        self.failures: list[str] = []
        self._stack = stack
        self._load = load
        self._connection = connection
        self._log = log
        self._rng = Random(f"faults {stack.options.seed}")
        self._kinds = kinds(stack.options)
        self._running: set[asyncio.Task[None]] = set()

    def count(self) -> Counter[str]:
        """How many faults of each kind there were."""
        return Counter(fault.kind for fault in self.faults)

    def note(self, kind: str, target: str) -> None:
        """Write down what somebody else does to a process."""
        self._began(kind, target)

    async def run(self) -> None:
        """Inject, for ever."""
        rng = self._rng
        while True:
            await asyncio.sleep(rng.expovariate(self._stack.options.faults_per_minute / 60))
            kind = rng.choices([*self._kinds], [*self._kinds.values()])[0]
            target_rng, rng_of_fault = Random(rng.random()), Random(rng.random())
            if kind in {"client_vanishes", "unpin_partition"}:
                self._start(self._bodiless(kind, rng_of_fault), kind)
            elif target := await self._target(kind, target_rng):
                self._start(self._inject(kind, target, rng_of_fault), kind)

    async def settle(self) -> None:
        """Return when the last fault is healed."""
        while self._running:
            await asyncio.wait(self._running)

    async def _target(self, kind: str, rng: Random) -> Member | None:
        what, _, whom = kind.partition("_")
        if kind.startswith(("kill_nats_", "freeze_nats_")):
            return await self._server(rng, leads=kind.endswith("leader"))
        if what == "scale":
            spare = [one for one in self._stack.services if one.alive == (whom == "down")]
            return _choice(rng, [one for one in spare if not one.busy and not one.veteran])
        if what == "join":
            spare = [one for one in self._stack.services if one.role == whom and not one.alive]
            return _choice(rng, [one for one in spare if not one.busy])
        role = "engine" if what == "engine" else whom
        found = [one for one in self._stack.members if one.role.split("-")[0] == role]
        if role == "nats" and any(one.busy for one in found):
            return None  # a cluster without a quorum is another test
        spared = what in {"kill", "term"}
        return _choice(
            rng, [o for o in found if o.alive and not o.busy and not (spared and o.veteran)]
        )

    async def _server(self, rng: Random, *, leads: bool) -> Member | None:
        """Return the cluster's server that leads the event log, or one that does not."""
        servers = [one for one in self._stack.nats if isinstance(one.child, ClusterServer)]
        if any(one.busy for one in servers):
            return None
        found = [one for one in servers if await self._leads(one) == leads]
        return _choice(rng, found)

    async def _leads(self, one: Member) -> bool:
        assert isinstance(one.child, ClusterServer)
        return await asyncio.to_thread(one.child.leads, Stream.EVENTS)

    async def _inject(self, kind: str, target: Member, rng: Random) -> None:
        fault = self._began(kind, target.name)
        target.busy = True
        try:
            await self._do(kind, target, rng)
        finally:
            target.busy = False
        self._over(fault)

    async def _bodiless(self, kind: str, rng: Random) -> None:
        """Do what is done to no process of the stack."""
        number = rng.randrange(PARTITIONS)
        fault = self._began(kind, "client" if kind == "client_vanishes" else f"partition {number}")
        if kind == "client_vanishes":
            await self._vanish(rng)
        else:
            await self._unpin(number)
        self._over(fault)

    def _began(self, kind: str, target: str) -> Fault:
        fault = Fault(kind, target, time.time())
        self.faults.append(fault)
        self._tell(fault)
        return fault

    def _over(self, fault: Fault) -> None:
        fault.until = time.time()
        self._tell(fault)

    async def _do(self, kind: str, target: Member, rng: Random) -> None:
        what = kind.partition("_")[0]
        does: dict[str, Callable[[str, Member, Random], Awaitable[None]]] = {
            "kill": self._kill,
            "term": self._term,
            "freeze": self._freeze,
            "scale": self._scale,
            "join": self._join,
            "engine": self._misbehave,
        }
        await does[what](kind, target, rng)

    async def _kill(self, kind: str, target: Member, rng: Random) -> None:
        target.kill()
        await asyncio.sleep(rng.uniform(0, _AWAY_S.get(kind, 2.0)))
        target.launch()
        await target.child.ready()

    async def _term(self, _: str, target: Member, rng: Random) -> None:
        await target.terminate()
        await asyncio.sleep(rng.uniform(0, 2))
        target.launch()
        await target.child.ready()

    async def _freeze(self, _: str, target: Member, rng: Random) -> None:
        await target.freeze(rng.uniform(1, 8))

    async def _scale(self, kind: str, target: Member, rng: Random) -> None:
        if kind == "scale_down":
            await target.terminate()
            await asyncio.sleep(rng.uniform(3, 8))
        elif not target.alive:
            target.launch()
            await target.child.ready()

    async def _join(self, _: str, target: Member, rng: Random) -> None:
        """One more, for long enough to be given its share, and then to give it back."""
        target.launch()
        await target.child.ready()
        await asyncio.sleep(rng.uniform(4, 10))
        await target.terminate()

    async def _misbehave(self, kind: str, target: Member, rng: Random) -> None:
        mode = kind.removeprefix("engine_")
        pool = [one for one in self._stack.engines if one.role == target.role]
        engines = pool if mode.startswith(_WHOLE_POOL) else [target]
        token_s = rng.uniform(0.1, 0.4) if mode == "slow" else self._stack.options.token_s
        try:
            await self._order(engines, mode=mode.removeprefix(_WHOLE_POOL), token_s=token_s)
            await asyncio.sleep(rng.uniform(1, 6))
        finally:
            await self._order(engines, mode="normal", token_s=self._stack.options.token_s)

    async def _order(self, engines: Sequence[Member], **order: object) -> None:
        for engine in engines:
            with contextlib.suppress(httpx2.HTTPError):  # it is dead at the moment
                await self._stack.control(engine, **order)

    async def _unpin(self, partition: int) -> None:
        """Take a partition from its living owner; whoever asks next has it."""
        consumer = partition_consumer(partition)
        with contextlib.suppress(ApiError, QueueUnavailable):  # nobody has it, or NATS is away
            await self._connection.api(
                f"CONSUMER.UNPIN.{Stream.EVENTS}.{consumer}", {"group": PIN_GROUP}
            )

    async def _vanish(self, rng: Random) -> None:
        requests = [one.request for one in self._load.open_requests][:5]
        command = (sys.executable, "-m", "tests.chaos.follower", ",".join(self._stack.servers))
        spec = ProcessSpec(
            name="follower", argv=(*command, *requests), port=ports.free_port(), ready_path="/"
        )
        follower = Child(spec, self._stack.folder / "logs" / "followers.log")
        follower.launch()
        try:
            await asyncio.sleep(rng.uniform(1.5, 4))
        finally:
            follower.kill()

    def _tell(self, fault: Fault) -> None:
        with self._log.open("a") as log:
            log.write(json.dumps(asdict(fault)) + "\n")

    def _start(self, coroutine: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error:
            self.failures.append(f"fault {task.get_name()}: {error!r}")

    async def close(self) -> None:
        """Stop at once."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


def _choice(rng: Random, members: Sequence[Member]) -> Member | None:
    return rng.choice(members) if members else None
