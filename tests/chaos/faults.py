"""The faults: what is done to which process, when, by seed; each one heals by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Final

import httpx2

from proto.names import Stream
from skelgraph.local import ports
from skelgraph.local.process import Child, ProcessSpec
from tests.chaos.cluster import ClusterServer
from tests.chaos.engine import TOKEN_S
from tests.chaos.load import Load
from tests.chaos.stack import Member, Stack

#: Kinds of fault, and how often each is drawn.
WEIGHTS: Final[dict[str, int]] = {
    "kill_planner": 3,
    "kill_assembler": 4,
    "kill_worker": 5,
    "term_planner": 1,
    "term_assembler": 2,
    "term_worker": 2,
    "freeze_planner": 2,
    "freeze_assembler": 3,
    "freeze_worker": 3,
    "scale_down": 1,
    "scale_up": 2,
    "kill_nats": 2,
    "kill_nats_leader": 2,
    "kill_engine": 2,
    "engine_slow": 3,
    "engine_hang": 1,
    "engine_hang_mid": 1,
    "engine_busy": 1,
    "engine_error": 1,
    "engine_garbage": 1,
    "engine_cut": 1,
    "engine_pool_error": 1,
    "client_vanishes": 1,
}
_SCRIPTED_ONLY: Final = "engine_"
_WHOLE_POOL: Final = "pool_"
_CLUSTER_ONLY: Final = frozenset({"kill_nats_leader"})


@dataclass
class Fault:
    """What was done, to whom, and from when to when (seconds since the epoch)."""

    kind: str
    target: str
    at: float
    until: float = 0.0


def kinds(stack: Stack) -> dict[str, int]:
    """Return the kinds of fault of this run, with their weights.

    Raises:
        ValueError: the options name an unknown kind.
    """
    options = stack.options
    if unknown := set(options.only) - WEIGHTS.keys():
        raise ValueError(f"unknown kinds of fault: {', '.join(sorted(unknown))}")
    return {
        kind: weight
        for kind, weight in WEIGHTS.items()
        if (not options.only or kind in options.only)
        and (options.engine == "scripted" or not kind.startswith(_SCRIPTED_ONLY))
        and (options.profile == "cluster" or kind not in _CLUSTER_ONLY)
    }


class Injector:
    """Injects faults until it is told to stop.

    Args:
        stack: the processes.
        load: what vanishing clients follow.
        log: where each fault is told.
    """

    def __init__(self, stack: Stack, load: Load, log: Path) -> None:
        self.faults: list[Fault] = []
        self.failures: list[str] = []
        self._stack = stack
        self._load = load
        self._log = log
        self._rng = Random(f"faults {stack.options.seed}")
        self._kinds = kinds(stack)
        self._running: set[asyncio.Task[None]] = set()

    def count(self) -> Counter[str]:
        """How many faults of each kind there were."""
        return Counter(fault.kind for fault in self.faults)

    def note(self, kind: str, target: str) -> None:
        """Write down what somebody else does to a process."""
        fault = Fault(kind, target, time.time())
        self.faults.append(fault)
        self._tell(fault)

    async def run(self) -> None:
        """Inject, for ever."""
        rng = self._rng
        while True:
            await asyncio.sleep(rng.expovariate(self._stack.options.faults_per_minute / 60))
            kind = rng.choices([*self._kinds], [*self._kinds.values()])[0]
            target = await self._target(kind, Random(rng.random()))
            if target is not None or kind == "client_vanishes":
                self._start(self._inject(kind, target, Random(rng.random())), kind)

    async def settle(self) -> None:
        """Return when the last fault is healed."""
        while self._running:
            await asyncio.wait(self._running)

    async def _target(self, kind: str, rng: Random) -> Member | None:
        what, _, whom = kind.partition("_")
        if kind == "kill_nats_leader":
            return await self._leader()
        if what == "scale":
            spare = [one for one in self._stack.services if one.alive == (whom == "down")]
            return _choice(rng, [one for one in spare if not one.busy and not one.veteran])
        role = "engine" if what == "engine" else whom
        found = [one for one in self._stack.members if one.role.split("-")[0] == role]
        if role == "nats" and any(one.busy for one in found):
            return None  # a cluster without a quorum is another test
        spared = what in {"kill", "term"}
        return _choice(
            rng, [o for o in found if o.alive and not o.busy and not (spared and o.veteran)]
        )

    async def _leader(self) -> Member | None:
        servers = [one for one in self._stack.nats if isinstance(one.child, ClusterServer)]
        if any(one.busy for one in servers):
            return None
        for one in servers:
            assert isinstance(one.child, ClusterServer)
            if await asyncio.to_thread(one.child.leads, Stream.EVENTS):
                return one
        return None

    async def _inject(self, kind: str, target: Member | None, rng: Random) -> None:
        fault = Fault(kind, target.name if target else "client", time.time())
        self.faults.append(fault)
        self._tell(fault)
        if target is None:
            await self._vanish(rng)
        else:
            target.busy = True
            try:
                await self._do(kind, target, rng)
            finally:
                target.busy = False
        fault.until = time.time()
        self._tell(fault)

    async def _do(self, kind: str, target: Member, rng: Random) -> None:
        what = kind.partition("_")[0]
        does: dict[str, Callable[[str, Member, Random], Awaitable[None]]] = {
            "kill": self._kill,
            "term": self._term,
            "freeze": self._freeze,
            "scale": self._scale,
            "engine": self._misbehave,
        }
        await does[what](kind, target, rng)

    async def _kill(self, _: str, target: Member, rng: Random) -> None:
        target.kill()
        await asyncio.sleep(rng.uniform(0, 2))
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

    async def _misbehave(self, kind: str, target: Member, rng: Random) -> None:
        mode = kind.removeprefix("engine_")
        pool = [one for one in self._stack.engines if one.role == target.role]
        engines = pool if mode.startswith(_WHOLE_POOL) else [target]
        token_s = rng.uniform(0.1, 0.4) if mode == "slow" else TOKEN_S
        try:
            await self._order(engines, mode=mode.removeprefix(_WHOLE_POOL), token_s=token_s)
            await asyncio.sleep(rng.uniform(1, 6))
        finally:
            await self._order(engines, mode="normal", token_s=TOKEN_S)

    async def _order(self, engines: Sequence[Member], **order: object) -> None:
        for engine in engines:
            with contextlib.suppress(httpx2.HTTPError):  # it is dead at the moment
                await self._stack.control(engine, **order)

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
