"""An event is done when the last of what follows from it has ended, and not before."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from services.assembler.open_request import Event
from services.runtime.pull import Delivery
from tests.facts import decoded


def event() -> Event:
    return Event(cast("Delivery", None), decoded(1))


async def a_turn() -> None:
    await asyncio.sleep(0)


def effects(count: int) -> list[asyncio.Future[Any]]:
    loop = asyncio.get_running_loop()
    return [loop.create_future() for _ in range(count)]


async def test_it_waits_for_all_that_follows() -> None:
    one, done = event(), list[Event]()
    first, second = effects(2)
    one.wait_for([first, second], done.append)
    second.set_result(None)
    await a_turn()
    assert not done
    first.set_result(None)
    await a_turn()
    assert done == [one]
    assert not one.failed


async def test_it_is_done_at_once_if_nothing_follows() -> None:
    one, done = event(), list[Event]()
    one.wait_for([], done.append)
    assert done == [one]


@pytest.mark.parametrize("ended", ["cancelled", "raised"])
async def test_it_must_not_be_acked_if_something_was_not_stored(ended: str) -> None:
    one, done = event(), list[Event]()
    lost, stored = effects(2)
    one.wait_for([lost, stored], done.append)
    if ended == "cancelled":
        lost.cancel()
    else:
        lost.set_exception(ValueError("lost"))
    stored.set_result(None)
    await a_turn()
    assert done == [one]
    assert one.failed
