"""`skelgraph auth` as a person uses it: what it makes, says, refuses, and tells a running NATS."""

from __future__ import annotations

import asyncio
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer.testing

from proto.errors import QueueUnavailable
from services.runtime.connection import Connection
from services.runtime.credentials import Access
from skelgraph import auth_commands, cli_auth  # noqa: F401 - adds its commands
from skelgraph.app import app
from skelgraph.auth import certificates
from skelgraph.auth.book import Book
from skelgraph.auth.certificates import hosts_of
from skelgraph.auth.permissions import SERVICES, SYSTEM
from skelgraph.local.nats import NatsServer

pytestmark = pytest.mark.usefixtures("in_process")

#: A command in this process: the same program as in the shell, without a second for its imports.
Auth = Callable[..., typer.testing.Result]


@pytest.fixture(autouse=True)
def _fresh_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKELGRAPH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("SKELGRAPH_NATS_URL", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def auth() -> Auth:
    runner = typer.testing.CliRunner()
    return lambda *argv: runner.invoke(app, ["auth", *map(str, argv)])


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "keys"
    Book(folder).init("none", [])
    return folder


@pytest.fixture
def keys(_made: Path, tmp_path: Path) -> Path:
    """Keys as `init` makes them."""
    return shutil.copytree(_made, tmp_path / "keys")


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def error_line(done: typer.testing.Result) -> str:
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


def test_init_makes_what_a_deployment_needs_and_shows_it_to_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    argv = [sys.executable, "-m", "skelgraph", "auth", "init", str(folder), "--tls", "mutual"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    made = {str(path.relative_to(folder)) for path in content(folder)}
    users = {*SERVICES, SYSTEM}
    assert {f"creds/{user}.creds" for user in users} < made
    assert {f"tls/{name}" for user in users for name in (f"{user}.crt", f"{user}.key")} < made
    assert {"auth.json", "nats.conf", "helm-values.yaml", "k8s-secrets.yaml"} < made
    # Each file is said, one a line, and what to do with them.
    assert made == set(re.findall(r"^  (\S+)$", done.stderr, re.MULTILINE))
    assert f"skelgraph up --auth {folder}" in done.stderr
    for path in folder.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o644 if path.suffix == ".crt" else 0o600), path


def test_a_second_init_replaces_nothing_and_completes_what_is_missing(
    auth: Auth, keys: Path
) -> None:
    lost = keys / "creds" / "worker.creds"
    lost.unlink()
    before = content(keys / "keys") | content(keys / "creds")
    done = auth("init", keys, "--tls", "server")
    assert done.exit_code == 0
    assert "completed the keys" in done.stderr
    assert before.items() < (content(keys / "keys") | content(keys / "creds")).items()
    assert lost.exists()
    assert (keys / "tls" / "server.crt").exists()


def test_init_for_another_kind_of_tls_is_refused_and_changes_nothing(
    auth: Auth, keys: Path
) -> None:
    assert auth("init", keys, "--tls", "server").exit_code == 0
    before = content(keys)
    done = auth("init", keys, "--tls", "mutual")
    assert done.exit_code == 2
    assert "(tls): this deployment was made with --tls server" in error_line(done)
    assert content(keys) == before


def test_a_tenants_credentials_are_the_only_line_on_stdout(auth: Auth, keys: Path) -> None:
    done = auth("add-tenant", "acme", keys)
    creds = keys / "creds" / "@acme.creds"
    assert (done.exit_code, done.stdout) == (0, f"{creds}\n")
    assert "no NATS was told" in done.stderr
    again = auth("add-tenant", "acme", keys)
    assert again.exit_code == 2
    assert "acme is a tenant already" in error_line(again)


def test_rotating_keeps_what_there_was_until_it_is_revoked(auth: Auth, keys: Path) -> None:
    creds = keys / "creds" / "worker.creds"
    before = creds.read_bytes()
    done = auth("rotate", "worker", keys)
    assert (done.exit_code, done.stdout) == (0, f"{creds}\n")
    assert f"skelgraph auth revoke worker {keys}" in done.stderr
    assert creds.read_bytes() != before
    assert stat.S_IMODE(creds.stat().st_mode) == 0o600
    for voided in (1, 0):
        done = auth("revoke", "worker", keys)
        said = "are noted as void; NOT yet in force: --nats-url"
        assert (done.exit_code, done.stdout) == (
            1,
            f"{voided} former credentials of worker {said}\n",
        )


def test_the_servers_certificate_is_renewed_for_the_same_hosts_once_it_is_warned_of(
    auth: Auth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, certificate = tmp_path / "keys", tmp_path / "keys" / "tls" / "server.crt"
    with monkeypatch.context() as aged:
        aged.setattr(certificates, "LEAF_DAYS", auth_commands.SOON_DAYS - 5)
        assert auth("init", folder, "--tls", "server", "--host", "nats.example.org").exit_code == 0
    before = certificate.read_bytes()
    assert "the certificate of server ends in 39 days" in auth("list", folder).stderr
    done = auth("rotate", "server", folder)
    assert (done.exit_code, done.stdout) == (0, f"{certificate}\n")
    assert "--signal reload" in done.stderr
    assert certificate.read_bytes() != before
    assert hosts_of(certificate.read_bytes()) == {"nats.example.org"}
    assert "ends in" not in auth("list", folder).stderr


def test_without_tls_there_is_no_certificate_to_renew(auth: Auth, keys: Path) -> None:
    done = auth("rotate", "server", keys)
    assert done.exit_code == 2
    assert "there is no certificate" in error_line(done)


@pytest.mark.parametrize("name", [*SERVICES, SYSTEM])
def test_no_tenant_has_the_name_of_a_service(auth: Auth, keys: Path, name: str) -> None:
    before = content(keys)
    done = auth("add-tenant", name, keys)
    assert done.exit_code == 2
    assert f"{name} is the name of a service" in error_line(done)
    assert content(keys) == before


def test_a_draft_that_was_left_makes_no_secret_public(auth: Auth, keys: Path) -> None:
    draft = keys / "creds" / ".worker.creds.new"
    draft.write_bytes(b"")
    draft.chmod(0o644)
    auth("rotate", "worker", keys)
    assert stat.S_IMODE((keys / "creds" / "worker.creds").stat().st_mode) == 0o600


def test_what_is_valid_stands_in_the_index_although_the_command_died(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Book(keys)._index.users["worker"].key
    with monkeypatch.context() as patch:
        patch.setattr(Book, "_write_creds", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Book(keys).rotate("worker")
    assert Book(keys)._index.users["worker"].former == [before]


def test_init_for_other_hosts_renews_the_servers_certificate_and_rotate_a_users(
    auth: Auth, tmp_path: Path
) -> None:
    keys = tmp_path / "mutual"
    auth("init", keys, "--tls", "mutual", "--host", "nats")
    before = content(keys / "tls")
    for again in (["--host", "nats"], []):
        auth("init", keys, "--tls", "mutual", *again)
        assert content(keys / "tls") == before
    auth("init", keys, "--tls", "mutual", "--host", "other")
    auth("rotate", "worker", keys)
    after = content(keys / "tls")
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed == {"server.crt", "server.key", "worker.crt", "worker.key"}
    assert hosts_of((keys / "tls" / "server.crt").read_bytes()) == {"other"}


def test_two_commands_at_once_lose_nothing_of_each_other(keys: Path) -> None:
    argv = [sys.executable, "-m", "skelgraph", "auth", "add-tenant"]
    names = [f"tenant{number}" for number in range(3)]
    running = [
        subprocess.Popen([*argv, name, str(keys)], stdout=subprocess.DEVNULL) for name in names
    ]
    assert [one.wait(60) for one in running] == [0, 0, 0]
    assert set(Book(keys).tenants) == set(names)


def test_the_key_of_an_older_ca_goes_to_where_nobody_gets_at_it(auth: Auth, keys: Path) -> None:
    auth("init", keys, "--tls", "server")
    moved, was = keys / "keys" / "ca.key", keys / "tls" / "ca.key"
    moved.rename(was)
    key = was.read_bytes()
    auth("init", keys, "--tls", "server")
    assert (moved.read_bytes(), was.exists()) == (key, False)


def test_list_names_everybody_and_where_their_credentials_are(auth: Auth, keys: Path) -> None:
    auth("add-tenant", "acme", keys)
    done = auth("list", keys)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert done.exit_code == 0
    assert [row[:2] for row in rows] == [
        *(["service", name] for name in (*SERVICES, SYSTEM)),
        ["tenant", "acme"],
    ]
    assert all(Path(row[2]).is_file() for row in rows)


@pytest.mark.parametrize("command", [["rotate", "nobody"], ["revoke", "nobody"]])
def test_whom_there_is_not_is_named(auth: Auth, keys: Path, command: list[str]) -> None:
    done = auth(*command, keys)
    assert "there is no service or tenant of the name 'nobody'" in error_line(done)
    assert done.exit_code == 2


@pytest.mark.parametrize("name", ["A b", "../acme", "a.b", "*", ""])
def test_a_name_that_is_none_for_a_tenant_is_refused(auth: Auth, keys: Path, name: str) -> None:
    before = content(keys)
    done = auth("add-tenant", name, keys)
    assert "(tenant): 1 to 32 lower-case letters" in error_line(done)
    assert done.exit_code == 2
    assert content(keys) == before


@pytest.mark.parametrize(
    "command", [["list"], ["add-tenant", "acme"], ["rotate", "worker"], ["revoke", "worker"]]
)
def test_without_keys_it_says_how_to_make_them(auth: Auth, command: list[str]) -> None:
    done = auth(*command, "nowhere")
    assert "nowhere holds no keys; make them with `skelgraph auth init`" in error_line(done)
    assert done.exit_code == 2
    assert not Path("nowhere").exists()


def test_an_index_that_is_garbage_is_named(auth: Auth, keys: Path) -> None:
    (keys / "auth.json").write_text('{"accounts": 7}')
    done = auth("list", keys)
    assert f"{keys}/auth.json" in error_line(done)
    assert done.exit_code == 2


@pytest.mark.parametrize("command", ["init", "add-tenant", "rotate", "revoke", "list"])
def test_each_command_explains_itself(auth: Auth, command: str) -> None:
    assert command in auth("--help").stdout
    done = auth(command, "--help")
    assert done.exit_code == 0
    assert "Exit codes: 0 answered" in done.stdout
    if command != "list":
        assert f"skelgraph auth {command}" in done.stdout  # an example


def lets_in(server: NatsServer, access: Access) -> bool:
    async def opened() -> bool:
        try:
            async with Connection([server.url], name="test", access=access) as connection:
                await connection.open(timeout_s=1)
        except QueueUnavailable:
            return False
        return True

    return asyncio.run(opened())


def test_a_running_nats_is_told_of_tenants_and_of_what_is_void(
    auth: Auth, keys: Path, tmp_path: Path
) -> None:
    book, old = Book(keys), tmp_path / "old.creds"
    with NatsServer(tmp_path / "store", book=book) as server:
        assert auth("add-tenant", "acme", keys, "--nats-url", server.url).exit_code == 0
        fresh = book.access("@acme")
        before = replace(fresh, creds=str(old))
        shutil.copy(fresh.creds or "", old)
        assert lets_in(server, before)
        assert auth("rotate", "acme", keys).exit_code == 0
        assert lets_in(server, before)
        assert auth("revoke", "acme", keys, "--nats-url", server.url).exit_code == 0
        assert lets_in(server, fresh)
        assert not lets_in(server, before)


def test_a_nats_that_was_not_told_can_be_told_later(
    auth: Auth, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_commands, "CONNECT_TIMEOUT_S", 0.2)
    with NatsServer(tmp_path / "store", book=Book(keys)) as server:
        done = auth("add-tenant", "acme", keys, "--nats-url", "nats://127.0.0.1:9")
        assert done.exit_code == 3
        assert "nats://127.0.0.1:9" in error_line(done)
        assert "NATS has yet to be told: `skelgraph auth revoke acme" in done.stderr
        assert not lets_in(server, Book(keys).access("@acme"))
        assert auth("revoke", "acme", keys, "--nats-url", server.url).exit_code == 0
        assert lets_in(server, Book(keys).access("@acme"))
