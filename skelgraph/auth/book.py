"""What an operator has given out: a folder of keys, credentials and certificates, and its index.

```
auth.json            public keys of accounts and users, what is revoked; no secret
keys/*.nk            seeds of the operator and the accounts: who has them can make credentials
keys/ca.key          the key of the CA: who has it can make certificates
creds/<user>.creds   one a service, for SKELGRAPH_NATS_CREDS;  creds/@<tenant>.creds  one a tenant
tls/                 ca.crt, server.crt, <user>.crt and their keys
nats.conf            for the server: `include` it, or let `skelgraph up --auth` do so
helm-values.yaml     the same for the chart; k8s-secrets.yaml  credentials as Secrets
```
What is there is never replaced but by `rotate`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Self

import orjson

from proto.errors import InvalidRequest
from proto.names import check_tenant, tenant_token
from services.runtime.connection import Json
from services.runtime.credentials import Access
from skelgraph.auth import tls as certificates
from skelgraph.auth.folder import Folder
from skelgraph.auth.index import Account, Index, Tls, User
from skelgraph.auth.nkeys import KeyPair, Kind
from skelgraph.auth.permissions import (
    APART,
    EXPORTS,
    SERVICES,
    STORE,
    SYSTEM,
    SYSTEM_USER,
    TENANT_LIMITS,
    account_of,
    borrowed,
    imports,
    tenant_permissions,
)
from skelgraph.auth.tokens import (
    Limits,
    Permissions,
    account_token,
    creds,
    lent,
    operator_token,
    user_token,
)

_OPERATOR: Final = "skelgraph"


class Book:
    """The folder of one deployment's keys.

    Args:
        folder: where it is; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._files = Folder(folder)
        self._index = Index.read(self.folder / "auth.json")

    @classmethod
    @contextlib.contextmanager
    def changing(cls, folder: Path, *, make: bool = False) -> Iterator[Self]:
        """Open a folder (`make`: made if it is not there) to change it when nobody else does."""
        files = Folder(folder)
        if make:
            files.make("")
        with files.locked():
            yield cls(folder)

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._files.path

    @property
    def written(self) -> list[Path]:
        """The files that this object has written, in order."""
        return self._files.written

    @property
    def exists(self) -> bool:
        """Whether there is one in the folder."""
        return bool(self._index.accounts)

    @property
    def tls(self) -> Tls:
        """What TLS was asked for."""
        return self._index.tls

    @property
    def tenants(self) -> list[str]:
        """The tenants' names.

        Raises:
            InvalidRequest: there are no keys in the folder.
        """
        self._wanted()
        return [name[1:] for name in self._index.accounts if name.startswith(tenant_token(""))]

    def creds_of(self, user: str) -> Path:
        """Where a user's credentials are."""
        return self._files.creds(user)

    def access(self, user: str) -> Access:
        """Return what `user` shows to NATS."""
        ca, certificate, key = map(str, self._files.tls(user))
        mutual = self.tls == "mutual"
        return Access(
            creds=str(self.creds_of(user)),
            ca=ca if self.tls != "none" else None,
            cert=certificate if mutual else None,
            key=key if mutual else None,
        )

    def init(self, tls: Tls, hosts: Sequence[str]) -> None:
        """Make all that is not there yet, and credentials anew that allow what a service may do
        no longer, or not yet; all else stays as it is.

        Raises:
            InvalidRequest: what is there was made for another kind of TLS.
        """
        if tls not in (self.tls, "none") and self.tls != "none":
            said = (
                f"this deployment was made with --tls {self.tls}; {tls} needs a folder of its own"
            )
            raise InvalidRequest(said, field="tls")
        self._files.make("keys", "creds", *(["tls"] if tls != "none" else []))
        self._files.make_key(_OPERATOR, Kind.OPERATOR)
        for account in (SYSTEM, STORE, *APART):
            self._account(account)
        self._index.tls = tls if self._index.tls == "none" else self._index.tls
        self._user(SYSTEM, SYSTEM, SYSTEM_USER)
        for name, permissions in SERVICES.items():
            self._user(name, account_of(name), permissions)
        if self.tls != "none":
            self._certificates(hosts)
        self._save()

    def add_tenant(self, tenant: str) -> Path:
        """Make a tenant's account and its credentials; return where these are.

        Raises:
            InvalidRequest: the name is not valid, or taken.
        """
        self._wanted()
        name = tenant_token(check_tenant(tenant))
        if tenant in (*SERVICES, SYSTEM, certificates.SERVER):
            raise InvalidRequest(f"{tenant} is the name of a service", field="tenant")
        if name in self._index.accounts:
            raise InvalidRequest(f"{tenant} is a tenant already; `rotate` renews its credentials")
        self._account(name)
        self._user(name, name, tenant_permissions(tenant), tags=[f"tenant:{tenant}"])
        if self.tls == "mutual":
            self._certificates(())
        self._save()
        return self.creds_of(name)

    def rotate(self, name: str) -> Path:
        """Put fresh credentials, and a certificate, in the place of a user's; old ones stay valid.

        Raises:
            InvalidRequest: there is no such user.
        """
        user = self._known(name)
        permissions = SERVICES.get(name) or (
            SYSTEM_USER if name == SYSTEM else tenant_permissions(name[1:])
        )
        user.former.append(user.key)
        tags = [f"tenant:{name[1:]}"] if name.startswith(tenant_token("")) else []
        fresh = KeyPair.new(Kind.USER)
        user.key, user.granted = fresh.public, permissions.digest()
        # The index first: what is valid and stands nowhere could never be revoked.
        self._save_index()
        self._write_creds(name, user.account, permissions, tags, fresh)
        if self.tls == "mutual":
            certificates.renew(self._files, name)
        self._save()
        return self.creds_of(name)

    def rotate_server(self) -> Path:
        """Put a fresh certificate in the place of the server's; the old one stays valid.

        Raises:
            InvalidRequest: this deployment has no TLS.
        """
        self._wanted()
        if self.tls == "none":
            raise InvalidRequest("there is no certificate: made with --tls none", field="name")
        return certificates.renew_server(self._files)

    def days_left(self) -> dict[str, int]:
        """Return for how many days each certificate is valid still, by whose it is."""
        return certificates.days_left(self._files, self._index.users)

    def revoke(self, name: str) -> list[str]:
        """Void the credentials that a user had before its present ones; return their keys.

        Raises:
            InvalidRequest: there is no such user.
        """
        user = self._known(name)
        account, now = self._index.accounts[user.account], int(time.time())
        voided, user.former = user.former, []
        account.revoked |= dict.fromkeys(voided, now)
        self._save()
        return voided

    def user_name(self, name: str) -> str:
        """Return the user that a service's or tenant's name stands for."""
        return name if name in self._index.users else tenant_token(name)

    def account_tokens(self) -> dict[str, str]:
        """Return what the operator says of each account, by the account's public key."""
        operator, lender = self._files.key(_OPERATOR), self._files.key(STORE)
        return {
            account.key: self._account_token(operator, lender, name, account)
            for name, account in self._index.accounts.items()
        }

    def server_config(self, jwt_dir: Path) -> str:
        """Return what a NATS server must be told; it keeps accounts in `jwt_dir`."""
        self._wanted()
        operator, system = self._files.key(_OPERATOR), self._index.accounts[SYSTEM].key
        block = certificates.server_block(self._files, self.tls)
        preload = "\n".join(f"  {key}: {token}" for key, token in self.account_tokens().items())
        return (
            f"operator: {operator_token(operator, _OPERATOR, system)}\n"
            f"system_account: {system}\n"
            f'resolver {{ type: full, dir: {json.dumps(str(jwt_dir))}, interval: "2m" }}\n'
            f"resolver_preload {{\n{preload}\n}}\n{block}"
        )

    def helm_values(self) -> Json:
        """Return the chart's values that say the same as `server_config`."""
        operator, system = self._files.key(_OPERATOR), self._index.accounts[SYSTEM].key
        merge: Json = {
            "operator": operator_token(operator, _OPERATOR, system),
            "system_account": system,
            "resolver_preload": self.account_tokens(),
        }
        return {"config": {"merge": merge}}

    def secrets(self) -> list[Json]:
        """Return the credentials of the services as Kubernetes Secrets."""
        return [
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": f"nats-{name}"},
                "stringData": {"user.creds": self.creds_of(name).read_text()},
            }
            for name in SERVICES
        ]

    # --- parts ------------------------------------------------------------------------

    def _account(self, name: str) -> None:
        key = self._files.make_key(name, Kind.ACCOUNT)
        self._index.accounts.setdefault(name, Account(key=key.public))

    def _user(
        self, name: str, account: str, permissions: Permissions, tags: Iterable[str] = ()
    ) -> None:
        known = self._index.users.get(name)
        granted = permissions.digest()
        fresh = known and (known.account, known.granted) == (account, granted)
        if fresh and self.creds_of(name).exists():
            return
        fresh_key = KeyPair.new(Kind.USER)
        self._index.users[name] = User(account=account, key=fresh_key.public, granted=granted)
        if known and known.account == account:
            self._index.users[name].former = [*known.former, known.key]
        elif known:  # it has moved: there is nothing that it may do where it was
            revoked = dict.fromkeys([*known.former, known.key], int(time.time()))
            self._index.accounts[known.account].revoked |= revoked
        self._save_index()
        self._write_creds(name, account, permissions, tags, fresh_key)

    def _write_creds(
        self, name: str, account: str, permissions: Permissions, tags: Iterable[str], user: KeyPair
    ) -> None:
        token = user_token(self._files.key(account), user.public, name, permissions, [*tags])
        self._files.write_secret(self.creds_of(name), creds(token, user).encode())

    def _account_token(
        self, operator: KeyPair, lender: KeyPair, name: str, account: Account
    ) -> str:
        tenant = name.startswith(tenant_token(""))
        needs = imports(name[1:]) if tenant else borrowed(name) if name in APART else ()
        return account_token(
            operator,
            account.key,
            name,
            TENANT_LIMITS if tenant else Limits(storage=name == STORE),
            exports=EXPORTS if name == STORE else (),
            imports=[lent(lender, account.key, one) for one in needs],
            revoked=account.revoked,
        )

    def _certificates(self, hosts: Sequence[str]) -> None:
        clients = self._index.users if self.tls == "mutual" else ()
        certificates.complete(self._files, hosts, clients)

    def _save_index(self) -> None:
        self._files.write_secret(self.folder / "auth.json", self._index.content())

    def _save(self) -> None:
        self._save_index()
        secrets = b"\n---\n".join(map(orjson.dumps, self.secrets()))
        for name, content in (
            ("nats.conf", self.server_config(self.folder / "jwt").encode()),
            ("helm-values.yaml", orjson.dumps(self.helm_values(), option=orjson.OPT_INDENT_2)),
            ("k8s-secrets.yaml", secrets),
        ):
            self._files.write_secret(self.folder / name, content)

    def _known(self, name: str) -> User:
        self._wanted()
        found = self._index.users.get(name)
        if found is None:
            said = name.removeprefix(tenant_token(""))
            raise InvalidRequest(f"there is no service or tenant of the name {said!r}")
        return found

    def _wanted(self) -> None:
        if not self.exists:
            said = f"{self.folder} holds no keys; make them with `skelgraph auth init`"
            raise InvalidRequest(said, field="auth")
