"""Streams to clients: bounded by the slowest, ended when the client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from starlette.types import Message, Scope

from services.gateway.errors import ShuttingDown
from services.gateway.following import MAX_WAITING, Following
from services.gateway.requests_api import event_name
from services.gateway.sse import ABORT, EventStream, event
from services.runtime.facts import StoredFact
from tests.facts import decoded, plan, planned


def stored(number: int) -> StoredFact:
    return StoredFact(planned(number), number, float(number))


def preview(text: bytes) -> Msg:
    return Msg(Client(), data=text)


async def test_facts_come_once_and_in_order_however_they_were_learnt() -> None:
    following: Following[bytes] = Following("r1", 1, None)
    following.on_fact(stored(4))  # from the tail, before what is stored was read
    following.joined([stored(number) for number in (1, 2, 3)])
    following.on_fact(stored(3))
    following.on_fact(stored(5))
    taken = await following.take(1)
    assert [one.stream_seq for one in taken if isinstance(one, StoredFact)] == [2, 3, 4, 5]


async def test_a_slow_reader_loses_previews_and_no_facts() -> None:
    following: Following[bytes] = Following("r1", 0, bytes)
    following.joined([])
    for number in range(MAX_WAITING + 5):
        await following.on_preview(preview(b"%d" % number))
    following.on_fact(stored(1))
    taken = await following.take(1)
    assert len(taken) == MAX_WAITING + 1
    assert following.dropped == 5
    assert isinstance(taken[-1], StoredFact)


async def test_silence_is_an_empty_list_and_closing_an_end() -> None:
    following: Following[bytes] = Following("r1", 0, None)
    following.joined([])
    assert await following.take(0.01) == []
    following.on_fact(stored(1))
    following.close()
    assert len(await following.take(1)) == 1
    with pytest.raises(ShuttingDown):
        await following.take(1)


class Watched:
    """A body that notes its end, and a stack that notes its closing."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.stack = AsyncExitStack()
        self.stack.callback(self.closed.set)
        self.ended = False

    async def pieces(self, *, wait: bool) -> AsyncGenerator[bytes, None]:
        try:
            yield b"one"
            if wait:
                await asyncio.Event().wait()
        finally:
            self.ended = True


SCOPE: Scope = {"type": "http", "state": {}}


async def never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_client_that_has_gone_ends_the_body_at_once() -> None:
    watched, sent = Watched(), asyncio.Event()

    async def send(message: Message) -> None:
        if message.get("body"):
            sent.set()

    async def receive() -> Message:
        await sent.wait()
        return {"type": "http.disconnect"}

    await EventStream(watched.pieces(wait=True), stack=watched.stack)(SCOPE, receive, send)
    assert watched.ended
    assert watched.closed.is_set()


async def test_a_client_that_takes_nothing_is_cut_off() -> None:
    watched, aborted = Watched(), asyncio.Event()

    async def send(message: Message) -> None:
        if message.get("body"):
            await asyncio.Event().wait()  # its buffers are full

    scope = {**SCOPE, "state": {ABORT: aborted.set}}
    response = EventStream(watched.pieces(wait=False), stack=watched.stack, write_timeout_s=0.01)
    await response(scope, never, send)
    assert aborted.is_set()
    assert watched.ended
    assert watched.closed.is_set()


async def test_a_body_that_never_began_is_cleaned_up_too() -> None:
    watched = Watched()

    async def send(_: Message) -> None:
        await asyncio.Event().wait()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    await EventStream(watched.pieces(wait=True), stack=watched.stack)(SCOPE, receive, send)
    assert watched.closed.is_set()


def test_events_are_named_after_their_messages() -> None:
    assert event_name(plan([1]).type) == "plan_completed"
    assert event_name(decoded(1).type) == "node_decoded"
    assert event(b"{}", name="x", ident=7) == b"id: 7\nevent: x\ndata: {}\n\n"
