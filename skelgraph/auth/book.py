"""What an operator has given out: a folder of keys, credentials and certificates, and its index.

```
auth.json            public keys of accounts and users, what is revoked; no secret
keys/*.nk            seeds of the operator and the accounts: who has them can make credentials
creds/<user>.creds   one a service, for SKELGRAPH_NATS_CREDS;  creds/@<tenant>.creds  one a tenant
tls/                 ca.crt, server.crt, <user>.crt and their keys
nats.conf            for the server: `include` it, or let `skelgraph up --auth` do so
helm-values.yaml     the same for the chart; k8s-secrets.yaml  credentials as Secrets
```
Files with secrets are for their owner only (0600, folders 0700). What is there is never replaced
but by `rotate`; each file is written whole or not at all.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal

import orjson
import pydantic

from proto.errors import InvalidRequest
from proto.names import check_tenant, tenant_token
from services.runtime.connection import Json
from services.runtime.credentials import Access
from skelgraph.auth import certificates
from skelgraph.auth.nkeys import KeyPair, Kind
from skelgraph.auth.permissions import (
    EXPORTS,
    SERVICES,
    SYSTEM,
    SYSTEM_USER,
    TENANT_LIMITS,
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

_SECRET: Final = 0o600
_PUBLIC: Final = 0o644
_OPERATOR: Final = "skelgraph"
_SERVICES: Final = "services"
Tls = Literal["none", "server", "mutual"]


class Account(pydantic.BaseModel):
    """An account's public key, and the users whose credentials are void."""

    key: str
    #: Public key of a user, and the time up to which tokens for it are void.
    revoked: dict[str, int] = {}


class User(pydantic.BaseModel):
    """A user's public key, and those that it had before."""

    account: str
    key: str
    #: Replaced and not yet revoked.
    former: list[str] = []


class Index(pydantic.BaseModel):
    """The content of auth.json."""

    accounts: dict[str, Account] = {}
    users: dict[str, User] = {}
    tls: Tls = "none"


class Book:
    """The folder of one deployment's keys.

    Args:
        folder: where it is; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        #: Files that this object has written, in order.
        self.written: list[Path] = []
        self._index = self._read()

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
        return self.folder / "creds" / f"{user}.creds"

    def tls_files(self, user: str) -> tuple[Path, Path, Path]:
        """Where the CA's certificate and a user's certificate and key are."""
        folder = self.folder / "tls"
        return folder / "ca.crt", folder / f"{user}.crt", folder / f"{user}.key"

    def access(self, user: str) -> Access:
        """Return what `user` shows to NATS."""
        ca, certificate, key = map(str, self.tls_files(user))
        mutual = self.tls == "mutual"
        return Access(
            creds=str(self.creds_of(user)),
            ca=ca if self.tls != "none" else None,
            cert=certificate if mutual else None,
            key=key if mutual else None,
        )

    def init(self, tls: Tls, hosts: Sequence[str]) -> None:
        """Make all that is not there yet; what is there stays as it is.

        Raises:
            InvalidRequest: what is there was made for another kind of TLS.
        """
        if tls not in (self.tls, "none") and self.tls != "none":
            said = (
                f"this deployment was made with --tls {self.tls}; {tls} needs a folder of its own"
            )
            raise InvalidRequest(said, field="tls")
        for folder in ("keys", "creds", *(["tls"] if tls != "none" else [])):
            self._make_folder(self.folder / folder)
        self._key(_OPERATOR, Kind.OPERATOR)
        for account in (SYSTEM, _SERVICES):
            self._account(account)
        self._index.tls = tls if self._index.tls == "none" else self._index.tls
        self._user(SYSTEM, SYSTEM, SYSTEM_USER)
        for name, permissions in SERVICES.items():
            self._user(name, _SERVICES, permissions)
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
        if name in self._index.accounts:
            raise InvalidRequest(f"{tenant} is a tenant already; `rotate` renews its credentials")
        self._account(name)
        self._user(name, name, tenant_permissions(tenant), tags=[f"tenant:{tenant}"])
        if self.tls == "mutual":
            self._certificates(())
        self._save()
        return self.creds_of(name)

    def rotate(self, name: str) -> Path:
        """Put fresh credentials in the place of a user's; the old ones stay valid.

        Raises:
            InvalidRequest: there is no such user.
        """
        user = self._known(name)
        permissions = SERVICES.get(name) or (
            SYSTEM_USER if name == SYSTEM else tenant_permissions(name[1:])
        )
        user.former.append(user.key)
        tags = [f"tenant:{name[1:]}"] if name.startswith(tenant_token("")) else []
        user.key = self._write_creds(name, user.account, permissions, tags)
        self._save()
        return self.creds_of(name)

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
        operator, lender = self._key(_OPERATOR), self._key(_SERVICES)
        return {
            account.key: self._account_token(operator, lender, name, account)
            for name, account in self._index.accounts.items()
        }

    def server_config(self, jwt_dir: Path) -> str:
        """Return what a NATS server must be told; it keeps accounts in `jwt_dir`."""
        self._wanted()
        operator, system = self._key(_OPERATOR), self._index.accounts[SYSTEM].key
        preload = "\n".join(f"  {key}: {token}" for key, token in self.account_tokens().items())
        return (
            f"operator: {operator_token(operator, _OPERATOR, system)}\n"
            f"system_account: {system}\n"
            f'resolver {{ type: full, dir: {json.dumps(str(jwt_dir))}, interval: "2m" }}\n'
            f"resolver_preload {{\n{preload}\n}}\n{self._tls_config()}"
        )

    def helm_values(self) -> Json:
        """Return the chart's values that say the same as `server_config`."""
        operator, system = self._key(_OPERATOR), self._index.accounts[SYSTEM].key
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
        key = self._key(name, Kind.ACCOUNT)
        self._index.accounts.setdefault(name, Account(key=key.public))

    def _user(
        self, name: str, account: str, permissions: Permissions, tags: Iterable[str] = ()
    ) -> None:
        if name in self._index.users and self.creds_of(name).exists():
            return
        key = self._write_creds(name, account, permissions, tags)
        self._index.users[name] = User(account=account, key=key)

    def _write_creds(
        self, name: str, account: str, permissions: Permissions, tags: Iterable[str]
    ) -> str:
        user = KeyPair.new(Kind.USER)
        token = user_token(self._key(account), user.public, name, permissions, [*tags])
        self._write(self.creds_of(name), creds(token, user).encode(), _SECRET)
        return user.public

    def _account_token(
        self, operator: KeyPair, lender: KeyPair, name: str, account: Account
    ) -> str:
        tenant = name.startswith(tenant_token(""))
        borrowed = [lent(lender, account.key, one) for one in imports(name[1:])] if tenant else []
        return account_token(
            operator,
            account.key,
            name,
            TENANT_LIMITS if tenant else Limits(storage=name == _SERVICES),
            exports=EXPORTS if name == _SERVICES else (),
            imports=borrowed,
            revoked=account.revoked,
        )

    def _key(self, name: str, kind: Kind | None = None) -> KeyPair:
        """Return a key of the folder; one of `kind` is made if it is not there."""
        path = self.folder / "keys" / f"{name}.nk"
        if kind is not None and not path.exists():
            self._write(path, f"{KeyPair.new(kind).seed}\n".encode(), _SECRET)
        try:
            return KeyPair.read(path.read_text().strip())
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"{path}: {error}", field="auth") from error

    def _certificates(self, hosts: Sequence[str]) -> None:
        ca_path, server_path, server_key = self.tls_files("server")
        ca_key = ca_path.with_suffix(".key")
        if not ca_path.exists():
            made = certificates.authority("Skelgraph NATS CA")
            self._write(ca_key, made.key_pem, _SECRET)
            self._write(ca_path, made.certificate_pem, _PUBLIC)
        ca = certificates.Signed.read(ca_path.read_bytes(), ca_key.read_bytes())
        if not server_path.exists():
            self._write_signed(certificates.server(ca, hosts), server_path, server_key)
        for name in self._index.users if self.tls == "mutual" else ():
            _, path, key = self.tls_files(name)
            if not path.exists():
                self._write_signed(certificates.client(ca, name), path, key)

    def _write_signed(self, signed: certificates.Signed, path: Path, key: Path) -> None:
        self._write(key, signed.key_pem, _SECRET)
        self._write(path, signed.certificate_pem, _PUBLIC)

    def _tls_config(self) -> str:
        if self.tls == "none":
            return ""
        ca, certificate, key = (json.dumps(str(path)) for path in self.tls_files("server"))
        verify = f", ca_file: {ca}, verify: true" if self.tls == "mutual" else ""
        return f"tls {{ cert_file: {certificate}, key_file: {key}, timeout: 5{verify} }}\n"

    def _save(self) -> None:
        index = orjson.dumps(self._index.model_dump(), option=orjson.OPT_INDENT_2)
        self._write(self.folder / "auth.json", index, _SECRET)
        conf = self.server_config(self.folder / "jwt")
        self._write(self.folder / "nats.conf", conf.encode(), _SECRET)
        values = orjson.dumps(self.helm_values(), option=orjson.OPT_INDENT_2)
        self._write(self.folder / "helm-values.yaml", values, _SECRET)
        secrets = b"\n---\n".join(map(orjson.dumps, self.secrets()))
        self._write(self.folder / "k8s-secrets.yaml", secrets, _SECRET)

    def _read(self) -> Index:
        path = self.folder / "auth.json"
        try:
            return Index.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return Index()
        except (OSError, pydantic.ValidationError) as error:
            raise InvalidRequest(f"{path}: {error}", field="auth") from None

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

    def _make_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)

    def _write(self, path: Path, content: bytes, mode: int) -> None:
        draft = path.with_name(f".{path.name}.new")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as out:
            out.write(content)
        draft.replace(path)
        self.written.append(path)
