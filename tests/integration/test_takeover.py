"""What a successor must not miss: in this process, so that replicas can be made to lag."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from nats.aio.msg import Msg

from proto.errors import Cancelled
from proto.messages import AnswerAssembled, ErrorInfo, RequestFailed
from proto.names import Band, Pool, Stream, Subjects, node_consumer
from services.assembler.graph import Dead
from services.assembler.ledger import Ledger
from services.runtime.clock import ServerClock
from services.runtime.connection import Connection, Json
from services.runtime.direct import direct_get
from tests.assemblers import assembler
from tests.conftest import Runtime
from tests.facts import accepted, decoded, failed, plan, planned
from tests.processes import Inbox, end_of

EVERY_BAND = [node_consumer(pool, band) for pool in Pool for band in Band]


async def now(runtime: Runtime) -> float:
    clock = ServerClock()
    await clock.sync(runtime.connection)
    return clock.now()


async def test_a_successor_does_not_miss_what_a_lagging_replica_has_not_got_yet(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = (accepted(at=await now(runtime)), planned(1), planned(2, [1]), plan([1, 2]))
    async with AsyncExitStack() as stack:
        work = await stack.enter_async_context(Inbox(runtime, Stream.NODES, *EVERY_BAND))
        async with assembler(runtime.server.url):
            for fact in told:
                await runtime.events.append(fact)
            await (await work.wait_for(1))[0].ack()
            lag_seq = (await runtime.events.read("r1"))[-1].stream_seq
            await runtime.events.append(decoded(1))
            await (await work.wait_for(2))[1].ack()  # so the fact has been acked, too
        stale = Stale(lag_seq)
        monkeypatch.setattr("services.runtime.facts.direct_get", stale.direct_get)
        async with assembler(runtime.server.url):
            await runtime.events.append(decoded(2))
            assert isinstance(await end_of(runtime, "r1"), AnswerAssembled)
        assert stale.reads == 0


class Stale:
    """Direct reads of which the first are as a replica answers that lags behind."""

    def __init__(self, lag_seq: int, reads: int = 3) -> None:
        self.reads = reads
        self._lag_seq = lag_seq
        self._real = direct_get

    async def direct_get(
        self, connection: Connection, stream: Stream, query: Json
    ) -> tuple[list[Msg], Msg]:
        messages, ending = await self._real(connection, stream, query)
        if stream is Stream.EVENTS and self.reads:
            self.reads -= 1
            headers: Any = ending.headers
            headers["Nats-UpTo-Sequence"] = str(self._lag_seq)
            messages = [one for one in messages if _seq(one) <= self._lag_seq]
        return messages, ending


def _seq(message: Msg) -> int:
    return int((message.headers or {})["Nats-Sequence"])


async def test_a_dead_letter_is_stored_although_the_end_is_there_already(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = {1: asyncio.Event(), 2: asyncio.Event()}
    may_go_on = {1: asyncio.Event(), 2: asyncio.Event()}
    real = Ledger.bury

    async def bury(self: Ledger, dead: Dead, headers: dict[str, str]) -> None:
        began[dead.work.node.id].set()
        await may_go_on[dead.work.node.id].wait()
        await real(self, dead, headers)

    monkeypatch.setattr(Ledger, "bury", bury)
    told = (accepted(at=await now(runtime)), planned(1), planned(2), plan([1, 2]))
    async with assembler(runtime.server.url):
        for fact in (*told, failed(1, 1), failed(1, 2)):
            await runtime.events.append(fact)
        async with asyncio.timeout(10):
            await began[1].wait()
            ended = RequestFailed(request="r1", error=ErrorInfo.of(Cancelled()))
            for later in (ended, failed(2, 1), failed(2, 2)):
                await runtime.events.append(later)
            await began[2].wait()
            for one in may_go_on.values():
                one.set()
                await asyncio.sleep(0.1)
            while len(await letters(runtime)) < 2:  # noqa: ASYNC110  # a remote state
                await asyncio.sleep(0.02)
        assert await letters(runtime) == {Subjects.dead("r1", 1), Subjects.dead("r1", 2)}


async def letters(runtime: Runtime) -> set[str]:
    every: Json = {"subjects_filter": ">"}
    info = await runtime.connection.api(f"STREAM.INFO.{Stream.DEAD}", every)
    state = info["state"]
    assert isinstance(state, dict)
    return set(state.get("subjects") or ())
