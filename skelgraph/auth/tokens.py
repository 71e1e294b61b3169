"""NATS's JWTs, version 2: what an operator says of its accounts, and an account of its users.

A token names its subject by public key and is signed by the issuer's key (`ed25519-nkey`). The
server checks the chain user → account → operator; it knows the operator from its configuration.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import orjson

from services.runtime.connection import Json
from skelgraph.auth.nkeys import KeyPair

_VERSION: Final = 2
#: Without a limit; NATS takes 0 for "none at all".
UNLIMITED: Final = -1


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that a user may publish to and subscribe to; all others are refused."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    #: For how long it may answer whoever asks it, wherever the answer is to go; 0: not at all.
    respond_s: int = 0

    def claims(self) -> Json:
        """Return them as a user's token says them."""
        said: Json = {"pub": {"allow": [*self.publish]}, "sub": {"allow": [*self.subscribe]}}
        once: Json = {"max": 1, "ttl": self.respond_s * 1_000_000_000}
        return said | ({"resp": once} if self.respond_s else {})

    def digest(self) -> str:
        """Return what tells them from others, without saying them."""
        return hashlib.sha256(orjson.dumps(self.claims())).hexdigest()


@dataclass(frozen=True, slots=True)
class Shared:
    """A subject that one account lends to another: `service` answers, `stream` tells."""

    name: str
    #: As the lender knows it.
    subject: str
    type: Literal["service", "stream"]
    #: As the borrower knows it; empty: the same.
    local: str = ""
    #: For how long a service may answer; 0 is NATS's own two minutes.
    respond_s: int = 0
    #: Whether it replies more than once: NATS then remembers each request until its time is over.
    many: bool = False

    @property
    def known_as(self) -> str:
        """The subject in the borrower's account."""
        return self.local or self.subject


@dataclass(frozen=True, slots=True)
class Limits:
    """What an account may use; storage is JetStream's, and 0 is no JetStream at all."""

    connections: int = UNLIMITED
    subscriptions: int = UNLIMITED
    payload_bytes: int = UNLIMITED
    storage: bool = False
    imports: int = UNLIMITED
    exports: int = UNLIMITED

    def claims(self) -> Json:
        """Return them as an account's token says them."""
        stored = UNLIMITED if self.storage else 0
        jetstream = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), stored)
        return {
            "subs": self.subscriptions,
            "data": UNLIMITED,
            "payload": self.payload_bytes,
            "conn": self.connections,
            "leaf": 0,
            "imports": self.imports,
            "exports": self.exports,
            "wildcards": True,
            **jetstream,
        }


def operator_token(operator: KeyPair, name: str, system_account: str) -> str:
    """Return what the operator says of itself."""
    claims: Json = {"type": "operator", "system_account": system_account}
    return _signed(operator, operator.public, name, claims)


def account_token(
    operator: KeyPair,
    account: str,
    name: str,
    limits: Limits,
    *,
    exports: Sequence[Shared] = (),
    imports: Sequence[Json] = (),
    revoked: Mapping[str, int] | None = None,
) -> str:
    """Return what the operator says of the account with public key `account`.

    Args:
        operator: signs.
        account: the account's public key.
        name: for people.
        limits: what it may use.
        exports: what it lends to accounts that have its leave (`lent`).
        imports: what it has been lent.
        revoked: public keys of users, each with the time (seconds since the epoch) up to which
            tokens for it are void.
    """
    claims: Json = {"type": "account", "limits": limits.claims()}
    if exports:
        claims["exports"] = [_export(one) for one in exports]
    if imports:
        claims["imports"] = [*imports]
    if revoked:
        claims["revocations"] = dict(revoked)
    return _signed(operator, account, name, claims)


def lent(lender: KeyPair, borrower: str, shared: Shared) -> Json:
    """Return an account's import of what `lender` exports, with its leave for just this subject."""
    leave: Json = {"type": "activation", "subject": shared.subject, "kind": shared.type}
    said: Json = {
        "name": shared.name,
        "subject": shared.subject,
        "account": lender.public,
        "token": _signed(lender, borrower, shared.name, leave),
        "type": shared.type,
    }
    return said | ({"local_subject": shared.local} if shared.local else {})


def user_token(
    account: KeyPair, user: str, name: str, permissions: Permissions, tags: Sequence[str] = ()
) -> str:
    """Return what the account says of the user with public key `user`."""
    claims: Json = {
        "type": "user",
        "subs": UNLIMITED,
        "data": UNLIMITED,
        "payload": UNLIMITED,
        **permissions.claims(),
    }
    if tags:
        claims["tags"] = [*tags]
    return _signed(account, user, name, claims)


def creds(token: str, user: KeyPair) -> str:
    """Return a credentials file, as `nsc` writes it and every NATS client reads it."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )


def _export(shared: Shared) -> Json:
    said: Json = {"name": shared.name, "subject": shared.subject, "type": shared.type}
    kind = "Stream" if shared.many else "Singleton"
    answers: Json = {"response_type": kind} if shared.type == "service" else {}
    if shared.respond_s:
        answers["response_threshold"] = shared.respond_s * 1_000_000_000
    return said | {"token_req": True} | answers


def _signed(issuer: KeyPair, subject: str, name: str, claims: Json) -> str:
    said: Json = {
        "iat": int(time.time()),
        "iss": issuer.public,
        "name": name,
        "sub": subject,
        "nats": {**claims, "version": _VERSION},
    }
    digest = hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).digest()
    said["jti"] = base64.b32encode(digest).rstrip(b"=").decode()
    head = _base64(orjson.dumps({"typ": "JWT", "alg": "ed25519-nkey"}))
    body = f"{head}.{_base64(orjson.dumps(said))}"
    return f"{body}.{_base64(issuer.sign(body.encode()))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
