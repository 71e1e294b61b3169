"""The services work over TLS with the permissions that deploy/k8s/nats grants, and no more."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from nacl.signing import SigningKey

from proto.codec import decode
from proto.errors import QueueUnavailable
from proto.messages import AnswerAssembled, NodeDecoded, SubmitRequest
from proto.names import ANSWER, Stream
from services.provision.__main__ import ProvisionSettings, make
from services.runtime.client import Client, open_client
from services.runtime.connection import Connection
from services.runtime.publisher import DurablePublisher
from services.runtime.snapshots import restore, save
from skelgraph.local import ports
from skelgraph.local.nats import find_nats_server
from skelgraph.local.process import Child, ProcessSpec
from tests.k8s.nats_values import as_config, users, values
from tests.scripted_engine import ScriptedEngine, writer

REQUEST = "secured-1"
USERS = tuple(user["user"] for user in users())


@dataclass
class Secured:
    """A server as the chart would configure it; each user's password is `<user>-secret`."""

    port: int
    ca: Path
    log: Path

    def url(self, user: str) -> str:
        return f"tls://{user}:{user}-secret@127.0.0.1:{self.port}"

    def connection(self, user: str) -> Connection:
        return Connection([self.url(user)], name=f"test-{user}", ca=str(self.ca))


def openssl(*argv: str) -> None:
    subprocess.run(["openssl", *argv], check=True, capture_output=True)


def certificates(folder: Path) -> None:
    """A CA, and a server's key and certificate signed by it."""
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl to make certificates with")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    ca, ca_key = str(folder / "ca.crt"), str(folder / "ca.key")
    request, signed = str(folder / "tls.csr"), str(folder / "tls.crt")
    basics = ("-addext", "keyUsage=critical,keyCertSign")
    openssl("req", "-x509", *key, "-keyout", ca_key, "-out", ca, "-subj", "/CN=test CA", *basics)
    server_key = ("-keyout", str(folder / "tls.key"))
    openssl("req", *key, *server_key, "-out", request, "-subj", "/CN=nats")
    names = folder / "names"
    names.write_text("subjectAltName=IP:127.0.0.1\n")
    by = ("-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-extfile", str(names))
    openssl("x509", "-req", "-in", request, "-out", signed, *by)


def started(config: str, folder: Path, monitor: int, env: dict[str, str]) -> Child:
    path = folder / "nats.conf"
    path.write_text(config)
    argv = (find_nats_server(), "--config", str(path))
    spec = ProcessSpec(name="nats", argv=argv, env=env, port=monitor, ready_path="/healthz")
    child = Child(spec, folder / "nats.log")
    child.launch()
    return child


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[Secured]:
    certificates(tmp_path)
    port, monitor = ports.free_ports(2)
    merged = values("values-secure")["config"]["merge"]
    merged |= values("values")["config"]["merge"]
    lines = [f"{key}: {as_config(value)}" for key, value in merged.items()]
    tls = f'tls {{ cert_file: "{tmp_path / "tls.crt"}", key_file: "{tmp_path / "tls.key"}" }}'
    config = "\n".join(
        [
            f'listen: "127.0.0.1:{port}"',
            f'http: "127.0.0.1:{monitor}"',
            f'jetstream {{ store_dir: "{tmp_path / "store"}" }}',
            tls,
            *lines,
        ]
    )
    env = {f"NATS_{user.upper()}_PASSWORD": f"{user}-secret" for user in USERS}
    child = started(config, tmp_path, monitor, env)
    try:
        await child.ready()
        found = Secured(port, tmp_path / "ca.crt", tmp_path / "nats.log")
        settings = {"nats_url": found.url("provision"), "nats_ca": str(found.ca)}
        assert await make(ProvisionSettings.model_validate(settings)) == 0
        yield found
    finally:
        child.kill()


async def started_services(stack: AsyncExitStack, secured: Secured, engine: str) -> int:
    """Start all services, each as its own user; return the gateway's port."""
    api = ports.free_port()
    for service, pool in (
        ("assembler", ""),
        ("planner", ""),
        ("worker", "large"),
        ("worker", "small"),
        ("gateway", ""),
    ):
        health = ports.free_port()
        env = {
            "SKELGRAPH_NATS_URL": secured.url(service),
            "SKELGRAPH_NATS_CA": str(secured.ca),
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
        )
        child = Child(spec, secured.log.with_name(f"{service}{pool}.log"))
        stack.push_async_callback(child.stop)
        child.launch()
        await child.ready()
    return api


async def test_all_services_work_with_their_own_permissions(secured: Secured) -> None:
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(ScriptedEngine(writer(token_s=0.002)))
        api = await started_services(stack, secured, engine.url)
        connection = await stack.enter_async_context(secured.connection("gateway"))
        await connection.open(timeout_s=5)
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
        await operator.open(timeout_s=5)
        question = b'{"question": "And why?", "request": "secured-3"}'
        reply = await operator.request(ANSWER, question, timeout_s=30)
        assert (decode(AnswerAssembled, reply.data)).request == "secured-3"
        assert (await operator.request("$SRV.PING", timeout_s=5)).data
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
            body = {"model": "skelgraph", "messages": [{"role": "user", "content": "Why?"}]}
            url = f"http://127.0.0.1:{api}/v1/chat/completions"
            answer = await http.post(url, json=body)
        assert answer.status_code == 200, answer.text
    logs = "".join(path.read_text() for path in secured.log.parent.glob("*.log"))
    assert "violation" not in logs.lower(), [one for one in logs.splitlines() if "iolation" in one]
    for user in USERS:
        assert f"{user}-secret" not in logs


async def test_backups_need_a_user_of_their_own_only(secured: Secured, tmp_path: Path) -> None:
    async with secured.connection("backup") as connection:
        await connection.open(timeout_s=5)
        await save(connection, tmp_path / "saved")
    async with secured.connection("provision") as connection:
        await connection.open(timeout_s=5)
        for stream in Stream:
            await connection.api(f"STREAM.DELETE.{stream}")
        assert set(await restore(connection, tmp_path / "saved")) == set(Stream)


FORBIDDEN = {
    "backup": [f"STREAM.RESTORE.{Stream.EVENTS}", f"STREAM.DELETE.{Stream.EVENTS}"],
    "worker": [
        f"STREAM.DELETE.{Stream.EVENTS}",
        f"STREAM.PURGE.{Stream.EVENTS}",
        f"CONSUMER.DELETE.{Stream.NODES}.large-0",
        f"STREAM.MSG.DELETE.{Stream.EVENTS}",
        f"CONSUMER.MSG.NEXT.{Stream.REQUESTS}.planner",
    ],
    "planner": [f"STREAM.DELETE.{Stream.REQUESTS}", f"STREAM.UPDATE.{Stream.REQUESTS}"],
    "assembler": [f"STREAM.DELETE.{Stream.EVENTS}", f"STREAM.PURGE.{Stream.EVENTS}"],
    "gateway": [
        f"STREAM.DELETE.{Stream.EVENTS}",
        f"STREAM.SNAPSHOT.{Stream.EVENTS}",
        f"CONSUMER.MSG.NEXT.{Stream.NODES}.large-0",
    ],
}


@pytest.mark.parametrize("user", sorted(FORBIDDEN))
async def test_what_a_service_does_not_need_it_may_not(secured: Secured, user: str) -> None:
    async with secured.connection(user) as connection:
        await connection.open(timeout_s=5)
        for subject in FORBIDDEN[user]:
            # No answer, not an error: the server does not hand the message on.
            await connection.nc.publish(f"$JS.API.{subject}", b"{}")
        await connection.nc.flush()
        assert connection.is_connected
    async with secured.connection("provision") as admin:
        await admin.open(timeout_s=5)
        for stream in Stream:
            await admin.api(f"STREAM.INFO.{stream}")
        await admin.api(f"CONSUMER.INFO.{Stream.NODES}.large-0")
    said = secured.log.read_text()
    for subject in FORBIDDEN[user]:
        assert f'Publish Violation - Subject "$JS.API.{subject}"' in said


async def test_a_server_of_another_ca_is_not_trusted(secured: Secured) -> None:
    connection = Connection([secured.url("worker")], name="test")
    with pytest.raises(QueueUnavailable) as caught:
        await connection.open(timeout_s=2)
    assert "secret" not in caught.value.message


# --- credentials: operator mode ---------------------------------------------------------


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


#: The first byte of public keys in nkeys: they begin with these letters.
KINDS = {"O": 14 << 3, "A": 0, "U": 20 << 3}
SEED = 18 << 3


def keys(kind: str) -> tuple[SigningKey, str, str]:
    """A new key pair with its public key and its seed, as nkeys writes them."""
    key, prefix = SigningKey.generate(), KINDS[kind]
    seed = bytes([SEED | prefix >> 5, (prefix & 31) << 3]) + bytes(key)
    return key, written(bytes([prefix]) + bytes(key.verify_key)), written(seed)


def written(raw: bytes) -> str:
    """Base32 with a checksum (CRC-16/XMODEM)."""
    check = binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw + check).rstrip(b"=").decode()


def token(issuer: SigningKey, issuer_key: str, subject: str, claims: dict[str, object]) -> str:
    """A NATS JWT, as `nsc` makes it."""
    head = encoded(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    body = {"jti": "x", "iat": int(time.time()), "iss": issuer_key, "name": "x", "sub": subject}
    signed = f"{head}.{encoded(json.dumps(body | {'nats': claims | {'version': 2}}).encode())}"
    return f"{signed}.{encoded(issuer.sign(signed.encode()).signature)}"


async def test_a_credentials_file_lets_a_service_in(tmp_path: Path) -> None:
    operator, operator_key, _ = keys("O")
    account, account_key, _ = keys("A")
    _, system_key, _ = keys("A")
    _, user_key, seed = keys("U")
    free = dict.fromkeys(("subs", "data", "payload", "conn", "leaf", "imports", "exports"), -1)
    stores = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    # The system account must not have JetStream.
    limits = {account_key: {**free, **stores, "wildcards": True}, system_key: free}
    accounts = {
        key: token(operator, operator_key, key, {"type": "account", "limits": limit})
        for key, limit in limits.items()
    }
    user = token(
        account, account_key, user_key, {"type": "user", "subs": -1, "data": -1, "payload": -1}
    )
    creds = tmp_path / "user.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{user}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    port, monitor = ports.free_ports(2)
    preload = "\n".join(f"{key}: {jwt}" for key, jwt in accounts.items())
    config = (
        f'listen: "127.0.0.1:{port}"\nhttp: "127.0.0.1:{monitor}"\n'
        f'jetstream {{ store_dir: "{tmp_path / "store"}" }}\n'
        f"operator: {token(operator, operator_key, operator_key, {'type': 'operator'})}\n"
        f"system_account: {system_key}\nresolver: MEMORY\nresolver_preload {{\n{preload}\n}}\n"
    )
    child = started(config, tmp_path, monitor, {})
    try:
        await child.ready()
        url = f"nats://127.0.0.1:{port}"
        settings = {"nats_url": url, "nats_creds": str(creds)}
        assert await make(ProvisionSettings.model_validate(settings)) == 0
        async with open_client([url], creds=str(creds)) as client:
            await client.check()
    finally:
        child.kill()


async def test_a_credentials_file_that_is_not_there_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        await asyncio.to_thread(ProvisionSettings.load, ["--nats-creds", "/nowhere/user.creds"])
    assert caught.value.code == 2
    assert "SKELGRAPH_NATS_CREDS" in capsys.readouterr().err
