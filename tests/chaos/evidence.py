"""What is gathered after a run: the whole event log, the queues, the gauges, the logs."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2

from proto.messages import DeadLetter
from proto.names import STREAM_SUBJECTS, Stream
from services.runtime.connection import Connection
from services.runtime.fact_reader import stored_entries
from services.runtime.facts import StoredFact, fact_of
from services.runtime.streams import StreamLimits, consumer_configs
from tests.chaos.calls import EngineCall, Span, note_attempts, read_calls
from tests.chaos.kinds import Fault
from tests.chaos.load import Sent
from tests.chaos.measure import Figures
from tests.chaos.options import Options
from tests.chaos.server import (
    connected,
    consumers_left,
    expected_connections,
    read_letters,
)
from tests.chaos.stack import PARTITIONS, Stack
from tests.chaos.watch import Watch

_IN_FLIGHT: Final = re.compile(r'^skelgraph_in_flight\{kind="([^"]+)"\} (\S+)$', re.MULTILINE)
_CALM_S: Final = 10.0


@dataclass
class Evidence:
    """Everything that the checks look at.

    Attributes:
        facts: of each request, in the order in which they were stored.
        repeated: subjects that hold more than one fact.
        messages: in each stream.
        left: subjects of what is in each queue.
        held: unacked and undelivered messages of each consumer.
        gauges: what each service says it has in flight.
        open_streams: replies under way at each engine.
        frozen: when each process was stopped by a signal.
        stalls: when the whole machine seems to have stood still, and for how long.
        letters: all dead letters.
        connections: how many connections NATS has, by client's name.
        expected: names of the connections that there must be.
        consumers_left: consumers of the event log that nobody should have made.
        figures: what was measured, if it was.
    """

    options: Options
    sent: dict[str, Sent]
    facts: dict[str, list[StoredFact]] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    messages: dict[str, int] = field(default_factory=dict)
    left: dict[str, list[str]] = field(default_factory=dict)
    held: dict[str, tuple[int, int]] = field(default_factory=dict)
    gauges: dict[str, dict[str, float]] = field(default_factory=dict)
    open_streams: dict[str, int] = field(default_factory=dict)
    calls: list[EngineCall] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    frozen: dict[str, list[Span]] = field(default_factory=dict)
    stalls: list[tuple[float, float]] = field(default_factory=list)
    watch: Watch | None = None
    failures: list[str] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    connections: dict[str, int] = field(default_factory=dict)
    expected: set[str] = field(default_factory=set)
    consumers_left: list[str] = field(default_factory=list)
    figures: Figures | None = None


class Gatherer:
    """Gathers the evidence once all is calm.

    Args:
        stack: the processes.
        connection: an open connection.
    """

    def __init__(self, stack: Stack, connection: Connection) -> None:
        self._stack = stack
        self._connection = connection

    async def gather(self, evidence: Evidence) -> Evidence:
        """Fill in what is to be asked of NATS, engines, services and logs."""
        await self._until_calm(evidence)
        await self._read_events(evidence)
        for engine in self._stack.engines:
            if self._stack.options.engine == "scripted":
                evidence.calls += read_calls(self._stack.calls_log(engine), engine.died)
        note_attempts(evidence.calls, lambda who: self._stack.folder / "logs" / f"{who}.log")
        evidence.letters = await read_letters(self._connection)
        evidence.frozen = {one.name: one.frozen for one in self._stack.members}
        return evidence

    async def _until_calm(self, evidence: Evidence) -> None:
        """Look until nothing is in flight and nobody is left, as long as that may take."""
        began = asyncio.get_running_loop().time()
        while True:
            await self._look(evidence)
            await self._look_for_others(evidence)
            passed_s = asyncio.get_running_loop().time() - began
            if is_calm(evidence) or passed_s > _CALM_S:
                return
            await asyncio.sleep(0.5)

    async def _look_for_others(self, evidence: Evidence) -> None:
        evidence.connections = await connected(self._stack)
        evidence.expected = expected_connections(self._stack)
        evidence.consumers_left = await consumers_left(self._connection)

    async def _look(self, evidence: Evidence) -> None:
        for stream in Stream:
            info: Any = await self._connection.api(f"STREAM.INFO.{stream}")
            evidence.messages[stream] = info["state"]["messages"]
        for queue in (Stream.REQUESTS, Stream.NODES):
            every = {"subjects_filter": ">"}
            info = await self._connection.api(f"STREAM.INFO.{queue}", dict(every))
            evidence.left[queue] = list(info["state"].get("subjects") or ())
        for stream, config in consumer_configs(StreamLimits(partitions=PARTITIONS)):
            name = str(config["durable_name"])
            info = await self._connection.api(f"CONSUMER.INFO.{stream}.{name}")
            evidence.held[name] = (info["num_ack_pending"], info["num_pending"])
        for one in self._stack.services:
            if one.alive:
                evidence.gauges[one.name] = await self._gauges(one.name)
        for engine in self._stack.engines:
            if self._stack.options.engine == "scripted":
                status = (await self._stack.get(engine, "/status")).json()
                evidence.open_streams[engine.name] = status["open_streams"]

    async def _gauges(self, name: str) -> dict[str, float]:
        member = self._stack.member(name)
        assert member is not None
        try:
            page = (await self._stack.get(member, "/metrics")).text
        except httpx2.HTTPError as error:
            return {f"no answer: {error!r}": 1.0}
        return {kind: float(value) for kind, value in _IN_FLIGHT.findall(page)}

    async def _read_events(self, evidence: Evidence) -> None:
        """Read the whole log back."""
        async with asyncio.timeout(60):
            async for entry in stored_entries(self._connection, STREAM_SUBJECTS[Stream.EVENTS]):
                if stored := fact_of(entry):
                    evidence.facts.setdefault(stored.fact.request, []).append(stored)
        await self._count_subjects(evidence)

    async def _count_subjects(self, evidence: Evidence) -> None:
        subjects: Counter[str] = Counter()
        while True:  # the server tells so many subjects at a time
            query = {"subjects_filter": ">", "offset": len(subjects)}
            info: Any = await self._connection.api(f"STREAM.INFO.{Stream.EVENTS}", query)
            page = info["state"].get("subjects") or {}
            subjects.update(page)
            if not page or len(subjects) >= info.get("total", 0):
                break
        evidence.repeated = sorted(subject for subject, count in subjects.items() if count > 1)


def is_calm(evidence: Evidence) -> bool:
    """Whether nothing is queued, held or in flight any more."""
    queued = sum(map(len, evidence.left.values()))
    held = sum(sum(pair) for pair in evidence.held.values())
    gauges = sum(sum(kinds.values()) for kinds in evidence.gauges.values())
    known = evidence.connections == dict.fromkeys(evidence.expected, 1)
    streams = sum(evidence.open_streams.values())
    return known and not queued and not held and not gauges and not streams


def log_lines(folder: Path, request: str, limit: int = 40) -> list[str]:
    """Return what the services logged about a request, by time."""
    found: list[tuple[str, str]] = []
    for path in sorted((folder / "logs").glob("*.log")):
        for line in path.read_text(errors="replace").splitlines():
            if request in line:
                stamp = re.search(r'"timestamp":"([^"]+)"', line)
                found.append((stamp[1] if stamp else "", f"{path.stem}: {line}"))
    return [line for _, line in sorted(found)][:limit]


__all__ = ["Evidence", "Gatherer", "is_calm", "log_lines"]
