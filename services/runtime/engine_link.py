"""One engine endpoint as a process sees it: its connections, dialect, health, refused grammars."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import Final

import structlog

from proto.errors import EngineError, EngineRejected, EngineUnavailable
from services.runtime.calls import EngineLimits, Grammar
from services.runtime.dialects import PLAIN, Dialect
from services.runtime.engine_http import Wire, answering
from services.runtime.probing import probe
from services.runtime.urls import base_url

log = structlog.get_logger()

#: Refused grammars that are remembered; a planner has a few dozens.
MAX_REFUSED: Final = 256
#: An engine that says so takes no other grammar either. (Not: that some part of one is not.)
_NONE_AT_ALL: Final = re.compile(r"\bgrammars?( \w+){0,2} not supported", re.IGNORECASE)


class EngineLink:
    """One endpoint, but for its streams.

    Args:
        url: of the server, with or without `/v1`.
        api_key: its key. Never a token of Hugging Face that lies about in the environment.
        model: name to send; by default what the engine's dialect wants.
        dialect: of the engine; asked of it before the first call if None.
        limits: how long it may take.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        dialect: Dialect | None = None,
        limits: EngineLimits | None = None,
    ) -> None:
        self.url = base_url(url)
        self.model = model
        self.limits = limits or EngineLimits()
        self.wire = Wire(self.url, api_key=api_key, connect_s=self.limits.connect_s)
        self._given = dialect
        self._dialect = dialect
        self._served_model = dialect.served_model if dialect else ""
        self._probing: asyncio.Task[Dialect] | None = None
        self._refused: set[Grammar] = set()
        self._refuses_all = False
        self._closed = False

    @property
    def served_model(self) -> str:
        """The model's name as the engine told it; empty if it did not."""
        return self._served_model

    def forget(self) -> None:
        """Ask the engine anew before the next call: it may be another one now."""
        self._dialect = self._given
        self._refused.clear()
        self._refuses_all = False

    def takes(self, grammar: Grammar) -> bool:
        """Whether the engine has refused neither this grammar nor all of them."""
        return not self._refuses_all and grammar not in self._refused

    def learn(self, grammar: Grammar, refusal: EngineRejected) -> None:
        """Remember that the engine refused `grammar`, and took the call without it."""
        self._refuses_all = self._refuses_all or bool(_NONE_AT_ALL.search(refusal.message))
        if not self._refused:
            log.warning("grammar_refused", endpoint=self.url, error=refusal.message)
        if len(self._refused) < MAX_REFUSED:
            self._refused.add(grammar)

    async def dialect(self) -> Dialect:
        """Return how the engine wants to be spoken to; asks it once, if it tells.

        Callers share one question, and none waits for longer than its own limits: an engine
        that hangs delays nobody for the sake of somebody else.

        Raises:
            EngineUnavailable, EngineTimedOut, EngineRejected: it could not be asked; the next
                call asks again.
        """
        if self._closed:
            raise EngineUnavailable("the client is closed")
        if self._dialect is not None:
            return self._dialect
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._ask(), name=f"probe {self.url}")
            self._probing.add_done_callback(_seen)
        return await asyncio.shield(self._probing)

    async def check(self) -> None:
        """Return if the engine is healthy.

        Raises:
            EngineUnavailable: it cannot be reached, or says that it is not.
            EngineTimedOut: it did not answer in `check_s`.
            EngineRejected: it wants another key.
        """
        async with self.wire.http() as http, answering(self.url, self.limits.check_s):
            reply = await http.get(f"{self.url}/health")
            if reply.status_code in {404, 405}:
                reply = await http.get(f"{self.url}/v1/models")
        if not reply.is_success:
            raise EngineUnavailable(f"{self.url}: HTTP {reply.status_code}")
        await self.dialect()

    async def close(self) -> None:
        """Close all connections; streams that are open break off."""
        self._closed = True
        if self._probing:
            self._probing.cancel()
            with suppress(asyncio.CancelledError, EngineError):
                await self._probing
        await self.wire.close()

    async def _ask(self) -> Dialect:
        async with self.wire.http() as http, answering(self.url, self.limits.check_s):
            dialect = await probe(self.url, http)
        if dialect is None:
            return PLAIN  # for now: it has not told, and may do so later
        log.info("engine_found", endpoint=self.url, dialect=dialect.name)
        self._dialect, self._served_model = dialect, dialect.served_model
        return dialect


def _seen(task: asyncio.Task[Dialect]) -> None:
    """Take note of the error of a probe whose callers have all left."""
    if not task.cancelled():
        task.exception()
