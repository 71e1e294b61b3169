"""Tells a running NATS what an operator says of its accounts: new tenants, void credentials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import nats.errors
import orjson

from proto.errors import QueueUnavailable
from services.runtime.connection import Connection

TIMEOUT_S: Final = 5.0


async def push(connection: Connection, tokens: Mapping[str, str]) -> None:
    """Have the servers take `tokens`, by account; returns when each is in force.

    Args:
        connection: an open connection as the user `system`.
        tokens: what the operator says of each account, by its public key.

    Raises:
        QueueUnavailable: a server does not answer, or does not take one; says what it said.
    """
    for account, token in tokens.items():
        told = await _asked(connection, "$SYS.REQ.CLAIMS.UPDATE", token.encode())
        # The first answer may be a yes of who stored it, before a no of who could not use it.
        held = await _asked(connection, f"$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP", b"")
        if held.decode(errors="replace") != token:
            raise QueueUnavailable(f"NATS did not take account {account}: {_said(told)}")


async def _asked(connection: Connection, subject: str, data: bytes) -> bytes:
    try:
        return (await connection.request(subject, data, timeout_s=TIMEOUT_S)).data
    except (nats.errors.Error, TimeoutError) as error:
        said = f"{subject}: {str(error) or 'no answer'}; is its resolver of type `full`?"
        raise QueueUnavailable(said) from error


def _said(told: bytes) -> str:
    answer = orjson.loads(told)
    part = answer.get("error") or answer.get("data") or {}
    return str(part.get("description") or part.get("message") or part)
