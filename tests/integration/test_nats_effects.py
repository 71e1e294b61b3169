"""What comes of what a credential may send, on a server with streams: nothing that is not meant.

test_nats_matrix.py asks whether a line is let through; here is looked at what it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from nats.aio.msg import Msg

from docs.matrix import EFFECTS, NUMBER, SOURCE, TENANTS, USERS, Effect
from proto import channels
from proto.names import ANY_STOP, Header, Stream, Subjects, partition_consumer
from services.runtime.announce import Announcer
from services.runtime.connection import Connection
from services.runtime.direct import get_last
from services.runtime.facts import EventLog
from services.runtime.publisher import DurablePublisher, Outcome
from services.runtime.responder import Responder
from services.runtime.streams import StreamLimits, provision
from skelgraph.auth.book import Book
from skelgraph.local.nats import NatsServer
from tests.facts import answered

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: A consumer for each user to attack.
PARTITIONS = len(USERS)
#: Longer than anything takes that nobody awaits; what must come is awaited.
SETTLED_S = 0.3


@dataclass
class Site:
    """A connection with each credential, and what an attack would change."""

    users: dict[str, Connection]
    publisher: DurablePublisher
    stops: set[str]

    async def changed(self) -> set[str]:
        """Return the users whose victim is not as it was."""
        facts = await self._facts()
        consumers = await self._consumers()
        found = set()
        for number, user in enumerate(USERS):
            victim = f"victim{number}"
            filtered = consumers.get(partition_consumer(number))
            if (
                any(victim in subject.split(".") for subject in facts | self.stops)
                or filtered != f"skelgraph.v1.event.{number}.>"
                or f"mine{number}" in consumers
            ):
                found.add(user)
        return found

    async def restored(self) -> None:
        """Put back what an attempt that may succeed has changed."""
        asked = self.users["provision"]
        for number in range(PARTITIONS):
            only = {"filter": f"skelgraph.v1.event.*.victim{number}.>"}
            await asked.api(f"STREAM.PURGE.{Stream.EVENTS}", dict(only))
        for name in await self._consumers():
            if name.startswith("mine"):
                await asked.api(f"CONSUMER.DELETE.{Stream.EVENTS}.{name}")
        await provision(asked, StreamLimits(partitions=PARTITIONS))
        self.stops.clear()

    async def _facts(self) -> set[str]:
        query = {"subjects_filter": ">"}
        info = await self.users["provision"].api(f"STREAM.INFO.{Stream.EVENTS}", dict(query))
        state = info["state"]
        assert isinstance(state, dict)
        return set(state.get("subjects") or {})

    async def _consumers(self) -> dict[str, object]:
        listed = await self.users["provision"].api(f"CONSUMER.LIST.{Stream.EVENTS}")
        found = listed["consumers"]
        assert isinstance(found, list)
        return {one["name"]: one["config"].get("filter_subject") for one in found}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        users = await connected(stack, tmp_path_factory.mktemp("effects"))
        await provision(users["provision"], StreamLimits(partitions=PARTITIONS))
        assembler = users["assembler"]
        publisher = DurablePublisher(assembler)
        await publisher.open()
        # Without a message id: NATS takes no other message for it.
        await assembler.nc.request(Subjects(1).end(SOURCE), b"{}")
        responder = Responder(assembler)
        await responder.answer(channels.SUBMIT_COMMAND, said, tenants=True)
        await Announcer(assembler, responder, "test").open()
        stops: set[str] = set()
        await users["worker"].hear(ANY_STOP, lambda message: stops.add(message.subject))
        for user in ("assembler", "worker"):  # their subscriptions have arrived before
            await users[user].api("INFO")
        yield Site(users, publisher, stops)


async def said(_: Msg) -> bytes:
    """Reply with what would be an end."""
    return b'{"type":"AnswerAssembled"}'


async def connected(stack: AsyncExitStack, folder: Path) -> dict[str, Connection]:
    book = Book(folder / "auth")
    book.init("none", [])
    for tenant in TENANTS:
        book.add_tenant(tenant[1:])
    server = NatsServer(folder / "store", log_path=folder / "nats.log", book=book)
    await stack.enter_async_context(server)
    found = {}
    for user in USERS:
        found[user] = Connection([server.url], name=user, access=book.access(user))
        await stack.enter_async_context(found[user])
        await found[user].open(timeout_s=10)
    return found


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda effect: effect.what)
async def test_nobody_has_others_do_what_it_may_not_do(site: Site, effect: Effect) -> None:
    for number, user in enumerate(USERS):
        subject, reply, body = (
            one.replace(NUMBER, str(number)) for one in (effect.subject, effect.reply, effect.body)
        )
        await site.users[user].nc.publish(subject, body.encode(), reply=reply)
        await site.users[user].nc.flush(timeout=10)
    async with asyncio.timeout(5):
        while not effect.allowed <= await site.changed():  # noqa: ASYNC110  # a remote state
            await asyncio.sleep(0.02)
    await asyncio.sleep(SETTLED_S)
    changed = await site.changed()
    await site.restored()
    assert changed == effect.allowed


async def test_a_tenant_makes_no_request_of_another_pass_for_its_own(site: Site) -> None:
    acme = site.users["@acme"]
    await EventLog(site.users["assembler"], site.publisher, 1).append(answered("@acme.r1"))
    fact = await get_last(acme, Stream.EVENTS, Subjects(1).end("@acme.r1"))
    assert fact is not None
    known = (fact.headers or {})[Header.MSG_ID]
    begin, _, count = known.rpartition(".")
    guesses = [known, *(f"{begin}.{int(count) + n}" for n in range(1, 50) if count.isdigit())]
    for place, guess in enumerate(guesses):
        subject = Subjects.request(f"@acme.junk{place}")
        await acme.nc.request(subject, b"{}", headers={Header.MSG_ID: guess})
    theirs = Subjects.request("@bolt.order")
    assert await site.publisher.publish(theirs, b"{}") is Outcome.STORED
    assert await get_last(site.users["@bolt"], Stream.REQUESTS, theirs)
