"""The services work over mutual TLS with the credentials of `skelgraph auth init`, tenants apart.

What each credential may do is tried in test_nats_matrix.py.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import nats.errors
import orjson
import pytest
import pytest_asyncio
from nats.aio.msg import Msg

from proto.codec import decode
from proto.errors import InvalidRequest, NotConfirmed, QueueUnavailable, UnknownRequest
from proto.messages import (
    MAX_WAIT_S,
    AnswerAssembled,
    NodeDecoded,
    RequestAccepted,
    SubmitRequest,
    TokensDecoded,
)
from proto.names import ANSWER, Stream, Subjects, of_tenant
from services.provision.__main__ import ProvisionSettings
from services.runtime.client import Client
from services.runtime.connection import Connection
from services.runtime.credentials import Access
from services.runtime.facts import StoredFact
from services.runtime.opening import open_client
from services.runtime.publisher import DurablePublisher
from services.runtime.snapshots import restore, save
from skelgraph.auth.book import Book
from skelgraph.auth.folder import Folder
from skelgraph.auth.nkeys import KeyPair, Kind
from skelgraph.auth.permissions import RESPOND_S, STORE
from skelgraph.auth.push import push
from skelgraph.auth.tls import renew
from skelgraph.auth.tokens import Permissions, creds, user_token
from skelgraph.local import ports
from skelgraph.local.nats import NatsServer
from skelgraph.local.process import Child, ProcessSpec
from skelgraph.local.services import shown
from skelgraph.session import provision_at
from tests.scripted_engine import ScriptedEngine, writer

#: One server and one set of services for all; six processes start.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

REQUEST = "secured-1"
#: All that there is: what a tenant with an account of its own could give itself.
EVERYTHING = Permissions((">",), (">",))


@dataclass
class Secured:
    """A server that lets in whom `skelgraph auth init` names, with mutual TLS, and its streams."""

    server: NatsServer
    book: Book
    folder: Path

    @property
    def url(self) -> str:
        return self.server.url

    def connection(self, user: str) -> Connection:
        return Connection([self.url], name=f"test-{user}", access=self.book.access(user))


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[Secured]:
    book = Book(folder / "auth")
    book.init("mutual", ["127.0.0.1"])
    for tenant in ("acme", "bolt"):
        book.add_tenant(tenant)
    async with NatsServer(folder / "store", log_path=folder / "nats.log", book=book) as server:
        await provision_at(server.url, access=book.access("provision"))
        yield Secured(server, book, folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    async with started(tmp_path_factory.mktemp("secured")) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(secured: Secured) -> AsyncIterator[int]:
    """All services, each as its own user; the gateway's port."""
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(ScriptedEngine(writer(token_s=0.002)))
        yield await started_services(stack, secured, engine.url)


async def started_services(stack: AsyncExitStack, secured: Secured, engine: str) -> int:
    """Start all services, each as its own user; return the gateway's port."""
    api = ports.free_port()
    children = []
    for service, pool in (
        ("assembler", ""),
        ("planner", ""),
        ("worker", "large"),
        ("worker", "small"),
        ("gateway", ""),
    ):
        health = ports.free_port()
        env = {
            "SKELGRAPH_NATS_URL": secured.url,
            **shown(secured.book.access(service)),
            "SKELGRAPH_LARGE_URLS": engine,
            "SKELGRAPH_SMALL_URLS": engine,
            "SKELGRAPH_HEALTH_PORT": str(health),
            "SKELGRAPH_POOL": pool or "large",
            "SKELGRAPH_HTTP_PORT": str(api),
            "SKELGRAPH_DRAIN_S": "3",
            "SKELGRAPH_LOG_FORMAT": "json",
        }
        spec = ProcessSpec(
            name=f"{service}{pool}",
            argv=(sys.executable, "-m", f"services.{service}"),
            env=env,
            port=health,
            ready_path="/readyz",
            ready_timeout_s=120,
        )
        child = Child(spec, secured.folder.joinpath(f"{service}{pool}.log"))
        stack.push_async_callback(child.stop)
        child.launch()
        children.append(child)
    for child in children:
        await child.ready()
    return api


async def test_all_services_work_with_their_own_permissions(secured: Secured, api: int) -> None:
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(secured.connection("gateway"))
        await connection.open(timeout_s=20)
        publisher = DurablePublisher(connection)
        await publisher.open()
        client = Client(connection, publisher)
        await client.check()
        await client.submit(SubmitRequest(question="Why?", mode="sgd"), REQUEST)
        seen = [event async for event in client.listen(REQUEST)]
        ends = [one.fact for one in seen if hasattr(one, "fact")]
        assert isinstance(ends[-1], AnswerAssembled)
        assert {fact.pool for fact in ends if isinstance(fact, NodeDecoded)} == {"large", "small"}
        # Previews came, too: live subjects may be published and heard.
        assert any(not hasattr(one, "fact") for one in seen)
        await client.submit(SubmitRequest(question="Why not?", mode="sgd"), "secured-2")
        assert (await client.cancel("secured-2", "test")).outcome in {"cancelled", "already_ended"}
        operator = await stack.enter_async_context(secured.connection("operator"))
        await operator.open(timeout_s=20)
        question = b'{"question": "And why?", "request": "secured-3"}'
        reply = await operator.request(ANSWER, question, timeout_s=30)
        assert (decode(AnswerAssembled, reply.data)).request == "secured-3"
        assert (await operator.request("$SRV.PING", timeout_s=5)).data
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
            body = {"model": "skelgraph", "messages": [{"role": "user", "content": "Why?"}]}
            url = f"http://127.0.0.1:{api}/v1/chat/completions"
            answer = await http.post(url, json=body)
        assert answer.status_code == 200, answer.text
    logs = "".join(path.read_text() for path in secured.folder.glob("*.log"))
    assert "violation" not in logs.lower(), [one for one in logs.splitlines() if "iolation" in one]
    assert "SUA" not in logs, "a seed is logged"


@dataclass
class Tenant:
    """A tenant that may do in its account whatever it likes, and what it has heard."""

    connection: Connection
    client: Client
    heard: list[Msg]


@asynccontextmanager
async def tenant(secured: Secured, name: str) -> AsyncIterator[Tenant]:
    """Somebody who has got hold of a whole account's key: no user's permissions bind it."""
    folder, user = secured.book.folder, KeyPair.new(Kind.USER)
    account = KeyPair.read((folder / "keys" / f"@{name}.nk").read_text().strip())
    path = folder / f"{name}-everything.creds"
    token = user_token(account, user.public, name, EVERYTHING, [f"tenant:{name}"])
    path.write_text(creds(token, user))
    access = replace(secured.book.access(f"@{name}"), creds=str(path))
    async with open_client([secured.url], access=access) as client:
        heard: list[Msg] = []

        async def hear(message: Msg) -> None:
            heard.append(message)

        await client.connection.subscribe("skelgraph.>", hear)
        yield Tenant(client.connection, client, heard)


@pytest.mark.usefixtures("api")
async def test_a_tenant_has_its_own_requests_and_nobody_elses(secured: Secured) -> None:
    async with AsyncExitStack() as stack:
        acme = await stack.enter_async_context(tenant(secured, "acme"))
        bolt = await stack.enter_async_context(tenant(secured, "bolt"))
        # Its own: with the tenant's own credentials, and no more than they allow.
        own = secured.book.access("@acme")
        client = await stack.enter_async_context(open_client([secured.url], access=own))
        await client.check()
        forged = SubmitRequest(question="Why?", mode="sgd", owner="bolt")
        await client.submit(forged, "@acme.r1")
        seen = [one async for one in client.listen("@acme.r1")]
        facts = [one.fact for one in seen if isinstance(one, StoredFact)]
        accepted, end = facts[0], facts[-1]
        assert isinstance(accepted, RequestAccepted)
        assert accepted.submitted.owner == "acme"
        assert isinstance(end, AnswerAssembled)
        assert any(isinstance(one, TokensDecoded) for one in seen)
        # Later, from the log; by request-reply; and once more under the same id.
        again = [one async for one in client.follow("@acme.r1")]
        assert [one for one in again if type(one) in {type(fact) for fact in facts}][-1] == end
        reply = await client.connection.request(Subjects.answer("@acme.r1"), timeout_s=10)
        assert decode(AnswerAssembled, reply.data) == end
        await client.submit(forged, "@acme.r2")
        assert (await client.cancel("@acme.r2")).outcome in {"cancelled", "already_ended"}
        with pytest.raises(InvalidRequest):
            await client.state("@bolt.r1")
        # Somebody else's, with all that an account's key can give.
        assert {
            message.subject.split(".")[4] for message in acme.heard if ".fact." in message.subject
        } == {"@acme"}
        for subject in (
            Subjects.cancel("@acme.r1"),
            Subjects.answer("@acme.r1"),
            of_tenant(Subjects.cancel("@acme.r1"), "acme"),
            f"$JS.API.DIRECT.GET.{Stream.EVENTS}.skelgraph.v1.event.*.@acme.r1.end",
            f"$JS.API.DIRECT.GET.{Stream.EVENTS}",
            f"$JS.API.STREAM.MSG.GET.{Stream.EVENTS}",
            f"$JS.API.STREAM.INFO.{Stream.EVENTS}",
            f"$JS.API.CONSUMER.CREATE.{Stream.EVENTS}.mine",
            f"$JS.API.CONSUMER.MSG.NEXT.{Stream.EVENTS}.assembler-0",
        ):
            await nothing_comes_of(bolt, subject)
        # Where it may ask, what the subject says counts, whatever the body asks for.
        asked = f"$JS.API.DIRECT.GET.{Stream.EVENTS}.skelgraph.v1.event.*.@bolt.>"
        theirs = "skelgraph.v1.event.*.@acme.>"
        for body in (
            {},
            {"seq": 1},
            {"last_by_subj": theirs},
            {"next_by_subj": theirs, "seq": 1, "batch": 9},
            {"multi_last": [theirs], "batch": 9},
        ):
            answer = await bolt.connection.request(asked, orjson.dumps(body), timeout_s=20)
            assert (answer.headers or {})["Status"] in {"404", "408"}, body
            assert not answer.data
        await bolt.connection.publish(Subjects(1).end("@acme.r9"), b"{}")
        await bolt.connection.publish(Subjects.live("@acme.r1", 1), b"{}")
        with pytest.raises(NotConfirmed):
            await DurablePublisher(bolt.connection).publish(
                Subjects.request("@acme.r9"), b"{}", timeout_s=0.5
            )
        # What it has heard is its own shouting, in its own account.
        assert {len(message.data) for message in bolt.heard} <= {0, 2}
        with pytest.raises(UnknownRequest):
            await client.state("@acme.r9")


async def nothing_comes_of(bolt: Tenant, subject: str) -> None:
    """Nobody answers, or what answers is bolt's own account, which has no JetStream."""
    try:
        reply = await bolt.connection.request(subject, timeout_s=0.3)
    except (nats.errors.Error, TimeoutError):
        return
    assert b"JetStream not enabled for account" in reply.data, subject


@pytest.mark.usefixtures("api")
async def test_credentials_are_renewed_under_load_and_the_old_ones_voided(secured: Secured) -> None:
    book = secured.book
    async with AsyncExitStack() as stack:
        acme = await stack.enter_async_context(
            open_client([secured.url], access=book.access("@acme"))
        )
        old = secured.folder / "old.creds"
        old.write_bytes(book.creds_of("worker").read_bytes())

        async def answered(number: int) -> str:
            request = await acme.submit(
                SubmitRequest(question="Why?", mode="sgd"), f"@acme.load{number}"
            )
            return [type(one).__name__ async for one in acme.follow(request)][-1]

        async with asyncio.TaskGroup() as group:
            asking = []
            for number in range(30):
                asking.append(group.create_task(answered(number)))
                await asyncio.sleep(0.2)
                if number == 5:
                    for name in ("worker", "planner", "assembler", "@acme"):
                        book.rotate(name)
                if number == 25:  # four seconds later: all have looked
                    for name in ("worker", "planner", "assembler", "@acme"):
                        assert len(book.revoke(name)) == 1
                    async with secured.connection("system") as system:
                        await system.open(timeout_s=20)
                        await push(system, book.account_tokens())
        assert [task.result() for task in asking] == ["AnswerAssembled"] * 30
        access = replace(book.access("worker"), creds=str(old))
        voided = Connection([secured.url], name="test", access=access)
        with pytest.raises(QueueUnavailable):
            await voided.open(timeout_s=2)
        async with secured.connection("worker") as fresh:
            await fresh.open(timeout_s=20)
    logs = [(secured.folder / f"{name}.log").read_text() for name in ("workerlarge", "planner")]
    assert all("nats_credentials_renewed" in log for log in logs)


async def test_what_was_made_by_an_older_version_gets_the_rights_of_this_one(
    tmp_path: Path,
) -> None:
    book = Book(tmp_path / "auth")
    book.init("none", [])
    old = {name: book.creds_of(name).read_bytes() for name in ("gateway", "worker", "backup")}
    index = orjson.loads((book.folder / "auth.json").read_bytes())
    # As it was: one account for all services, of which the gateway was a user.
    index["users"]["gateway"]["account"] = STORE
    index["users"]["worker"]["granted"] = ""
    (book.folder / "auth.json").write_bytes(orjson.dumps(index))
    book = Book(book.folder)
    book.init("none", [])
    fresh = {name: book.creds_of(name).read_bytes() for name in old}
    assert [name for name in old if old[name] != fresh[name]] == ["gateway", "worker"]
    index = orjson.loads((book.folder / "auth.json").read_bytes())
    assert list(index["accounts"][STORE]["revoked"]) == [index_key(old["gateway"])]
    assert index["users"]["worker"]["former"] == [index_key(old["worker"])]


def index_key(credentials: bytes) -> str:
    """Return the public key of the user that credentials are of."""
    token = credentials.split(b"\n")[1].split(b".")[1]
    return str(orjson.loads(base64.urlsafe_b64decode(token + b"=="))["sub"])


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_a_tenant_is_answered_later_than_after_two_minutes(tmp_path: Path) -> None:
    async with (
        started(tmp_path) as alone,
        alone.connection("assembler") as assembler,
        alone.connection("@acme") as acme,
    ):
        await assembler.open(timeout_s=20)
        await acme.open(timeout_s=20)

        async def late(message: Msg) -> None:
            await asyncio.sleep(135)
            await assembler.publish(message.reply, b"at last")

        await assembler.subscribe(of_tenant(ANSWER), late)
        await assembler.api("INFO")
        assert (await acme.request(ANSWER, timeout_s=200)).data == b"at last"


async def test_services_that_answer_tenants_have_the_time_that_a_caller_may_wait(
    secured: Secured,
) -> None:
    said = [
        orjson.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        for token in secured.book.account_tokens().values()
    ]
    (store,) = [one["nats"] for one in said if one["name"] == STORE]
    late = {one["subject"]: one.get("response_threshold") for one in store["exports"]}
    asked = (ANSWER, of_tenant(ANSWER), of_tenant(Subjects.answer("*.*")))
    assert {late[subject] for subject in asked} == {RESPOND_S * 10**9}
    assert MAX_WAIT_S < RESPOND_S


async def test_backups_need_a_user_of_their_own_only(tmp_path: Path) -> None:
    async with started(tmp_path) as alone:
        async with alone.connection("backup") as connection:
            await connection.open(timeout_s=20)
            await save(connection, tmp_path / "saved")
        async with alone.connection("provision") as connection:
            await connection.open(timeout_s=20)
            for stream in Stream:
                await connection.api(f"STREAM.DELETE.{stream}")
            assert set(await restore(connection, tmp_path / "saved")) == set(Stream)


async def test_a_certificate_is_renewed_without_a_restart(tmp_path: Path) -> None:
    async with started(tmp_path) as alone, alone.connection("worker") as connection:
        await connection.open(timeout_s=20)
        came_back = asyncio.Event()
        connection.on_reconnect(came_back.set)
        _, certificate, _ = Folder(alone.book.folder).tls("worker")
        before = certificate.read_bytes()
        renew(Folder(alone.book.folder), "worker")  # the credentials stay
        assert certificate.read_bytes() != before
        async with asyncio.timeout(10):
            await came_back.wait()
        shown = connection.nc.options["tls"]
        assert shown is connection._tls.context
        assert (await connection.api("STREAM.INFO.SKELGRAPH_EVENTS"))["config"]


async def test_a_server_of_another_ca_is_not_trusted(secured: Secured) -> None:
    access = Access(creds=str(secured.book.creds_of("worker")))
    connection = Connection([secured.url], name="test", access=access)
    with pytest.raises(QueueUnavailable):
        await connection.open(timeout_s=2)


async def test_who_shows_no_certificate_is_not_let_in(secured: Secured) -> None:
    access = replace(secured.book.access("worker"), cert=None, key=None)
    connection = Connection([secured.url], name="test", access=access)
    with pytest.raises(QueueUnavailable):
        await connection.open(timeout_s=2)


async def test_a_credentials_file_that_is_not_there_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        await asyncio.to_thread(ProvisionSettings.load, ["--nats-creds", "/nowhere/user.creds"])
    assert caught.value.code == 2
    assert "SKELGRAPH_NATS_CREDS" in capsys.readouterr().err
