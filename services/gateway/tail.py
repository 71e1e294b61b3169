"""The end of the event log, read once a process and handed to whoever follows a request.

One reader for all streams (ADR 0014). Its position makes joining exact: register, then read what
was stored up to there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

import structlog

from proto.errors import QueueUnavailable
from proto.names import Subjects, request_and_kind_of
from services.gateway.accounts import MINUTE_S, Accounts
from services.runtime.connection import Connection
from services.runtime.fact_reader import PAUSE_S, LogReader, stored_entries
from services.runtime.facts import LogEntry, StoredFact, fact_of

log = structlog.get_logger()

OnFact = Callable[[StoredFact], None]

#: Kinds of facts that accounts are made of.
_COUNTED: Final = frozenset({"accepted", "plan", "decoded", "end"})


class Tail:
    """Hands each fact to those that follow its request, and to the accounts.

    Args:
        connection: an open connection.
        accounts: are told of every request's facts.
    """

    def __init__(self, connection: Connection, accounts: Accounts) -> None:
        self._connection = connection
        self._accounts = accounts
        self._followers: dict[str, list[OnFact]] = {}
        self._reader = LogReader(connection, "tail", self._received, since=time.time() - MINUTE_S)

    @property
    def last_seq(self) -> int:
        """Position of the last fact that was handed on."""
        return self._reader.last_seq

    async def run(self) -> None:
        """Read for ever."""
        await self._reader.run()

    async def caught_up(self) -> None:
        """Return when all that is stored has been read."""
        await self._reader.caught_up.wait()

    @contextlib.contextmanager
    def following(self, request: str, on_fact: OnFact) -> Iterator[None]:
        """Call `on_fact` with each fact of `request` from now on."""
        followers = self._followers.setdefault(request, [])
        followers.append(on_fact)
        try:
            yield
        finally:
            followers.remove(on_fact)
            if not followers:
                del self._followers[request]

    def _received(self, entry: LogEntry) -> None:
        request, kind = request_and_kind_of(entry.subject)
        followers = self._followers.get(request)
        if not followers and kind not in _COUNTED:
            return
        stored = fact_of(entry)
        if stored is None:
            return
        self._accounts.fold(stored.fact, stored.stored_at)
        for on_fact in tuple(followers or ()):
            on_fact(stored)


async def read_history(connection: Connection, accounts: Accounts, since: float) -> None:
    """Tell `accounts` which requests were accepted and ended since then; returns when all is read.

    Whatever is read twice, because NATS went away meanwhile, is folded once.
    """
    anybodys, tenants = (Subjects.facts_of(any_id).removesuffix(">") for any_id in ("*", "*.*"))
    for kind in ("accepted", "end"):
        for begin in (anybodys, tenants):
            await _fold_all(connection, accounts, f"{begin}{kind}", since)
    log.info("history_read")


async def _fold_all(connection: Connection, accounts: Accounts, subjects: str, at: float) -> None:
    while True:
        try:
            async for entry in stored_entries(connection, subjects, since=at):
                at = entry.stored_at
                if stored := fact_of(entry):
                    accounts.fold(stored.fact, stored.stored_at)
        except QueueUnavailable as error:
            log.info("history_waits_for_nats", error=error.message)
            await asyncio.sleep(PAUSE_S)
        else:
            return
