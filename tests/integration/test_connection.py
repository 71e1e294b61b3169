"""What waits for an answer of NATS can be stopped at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from services.runtime.connection import Connection
from tests.conftest import Runtime


async def asks(runtime: Runtime) -> None:
    while True:
        await runtime.connection.api("INFO")


async def reads(runtime: Runtime) -> None:
    while True:
        await runtime.events.read("r1")


@pytest.mark.parametrize("work", [asks, reads])
async def test_a_cancel_is_heeded_whenever_it_comes(
    runtime: Runtime, work: Callable[[Runtime], Coroutine[object, object, None]]
) -> None:
    for turns in range(150):
        task = asyncio.create_task(work(runtime))
        for _ in range(turns % 40):
            await asyncio.sleep(0)
        task.cancel()
        _, deaf = await asyncio.wait([task], timeout=2)
        assert not deaf


async def test_a_cancel_that_meets_the_answer_is_heeded(runtime: Runtime) -> None:
    connection: Connection = runtime.connection
    task = asyncio.create_task(asks(runtime))
    waiting = connection.nc._resp_map
    while not waiting:  # noqa: ASYNC110 - the very next turn of the loop matters
        await asyncio.sleep(0)
    (answer,) = waiting.values()
    answer.add_done_callback(lambda _: task.cancel())
    _, deaf = await asyncio.wait([task], timeout=2)
    assert not deaf
