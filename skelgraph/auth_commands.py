"""Makes and renews the keys and credentials of a deployment's NATS."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proto.errors import QueueUnavailable
from proto.names import tenant_token
from services.runtime.connection import Connection
from skelgraph.auth.book import Book
from skelgraph.auth.index import Tls
from skelgraph.auth.permissions import SERVICES, SYSTEM
from skelgraph.auth.push import push
from skelgraph.auth.tls import SERVER
from skelgraph.local.state import StackState, find_running
from skelgraph.session import CONNECT_TIMEOUT_S

#: Certificates that end sooner are warned of.
SOON_DAYS: Final = 45


@dataclass(frozen=True, slots=True)
class Target:
    """The folder of keys, and the NATS servers that are to be told of changes.

    Args:
        folder: of the keys.
        nats_url: servers, separated by commas; None: the stack of this machine, if it runs with
            this folder.
    """

    folder: Path
    nats_url: str | None


async def init(folder: Path, tls: Tls, hosts: Sequence[str]) -> int:
    """Make keys and credentials; what is there stays."""
    with Book.changing(folder, make=True) as book:
        there = book.exists
        book.init(tls, hosts)
    _say(f"{'completed' if there else 'made'} the keys of a deployment in {book.folder}:")
    made = [path.relative_to(book.folder) for path in book.written]
    _say("  " + "\n  ".join(str(path) for path in dict.fromkeys(made)))
    _say(
        f"\nkeys/ is the root of all: keep a copy where nobody gets at it."
        f"\nnext:  skelgraph up --auth {folder}              this machine, with it"
        f"\n       skelgraph auth add-tenant NAME {folder}   somebody else's credentials"
        f"\n       docs/operations.md                        Kubernetes, rotation"
    )
    return 0


async def add_tenant(target: Target, tenant: str) -> int:
    """Make a tenant's credentials, and tell NATS of it."""
    with Book.changing(target.folder) as book:
        path = book.add_tenant(tenant)
        await _tell(book, target, tenant)
    _say(f"credentials of tenant {tenant}, to be handed over by a safe way:")
    print(path)
    return 0


async def rotate(target: Target, name: str) -> int:
    """Renew the credentials of a service or tenant, or the server's certificate; old ones stay
    valid.
    """
    if name == SERVER:
        return _rotate_server(target)
    with Book.changing(target.folder) as book:
        path = book.rotate(book.user_name(name))
    _say(
        f"fresh credentials of {name}; services read them within seconds and connect anew."
        f"\nThe old ones are valid still. When the fresh ones are in use everywhere:"
        f"\n  skelgraph auth revoke {name} {target.folder}"
    )
    print(path)
    return 0


def _rotate_server(target: Target) -> int:
    with Book.changing(target.folder) as book:
        path = book.rotate_server()
    _say("a fresh certificate of the server; NATS reads it with `nats-server --signal reload`")
    print(path)
    return 0


async def revoke(target: Target, name: str) -> int:
    """Void the credentials that a service or tenant had before; 1 if no NATS was told of it."""
    with Book.changing(target.folder) as book:
        voided = book.revoke(book.user_name(name))
        told = await _tell(book, target, name)
    in_force = "are void" if told else "are noted as void; NOT yet in force: --nats-url"
    print(f"{len(voided)} former credentials of {name} {in_force}")
    return 0 if told else 1


async def show(folder: Path) -> int:
    """Print who there is, and warn of certificates that end soon."""
    book = Book(folder)
    tenants = book.tenants
    for name, days in book.days_left().items():
        if days < SOON_DAYS:
            _say(f"the certificate of {name} ends in {days} days: `skelgraph auth rotate {name}`")
    for name in (*SERVICES, SYSTEM):
        print(f"{'service':8} {name:12} {book.creds_of(name)}")
    for tenant in tenants:
        print(f"{'tenant':8} {tenant:12} {book.creds_of(tenant_token(tenant))}")
    return 0


async def _tell(book: Book, target: Target, name: str) -> bool:
    """Tell NATS of the accounts; return whether there is one that could be told."""
    url = target.nats_url or _running(book)
    if url is None:
        _say("no NATS was told: it reads nats.conf when it starts; a running one by --nats-url")
        return False
    connection = Connection(url.split(","), name="skelgraph-auth", access=book.access(SYSTEM))
    try:
        async with connection:
            await connection.open(timeout_s=CONNECT_TIMEOUT_S)
            await push(connection, book.account_tokens())
    except QueueUnavailable:
        _say(f"it stands in {book.folder}; NATS has yet to be told: `skelgraph auth revoke {name}`")
        raise
    return True


def _running(book: Book) -> str | None:
    state: StackState | None = find_running()
    return state.nats_url if state and state.auth_dir == book.folder else None


def _say(text: str) -> None:
    print(text, file=sys.stderr)
