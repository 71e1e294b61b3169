"""A pool's endpoints: which one a call goes to, and which ones are left out for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

import structlog

from proto.errors import EngineError, EngineOverloaded, EngineRejected, EngineUnavailable
from services.runtime.calls import ChatCall, EngineLimits
from services.runtime.dialects import Dialect
from services.runtime.engine import EngineClient, EngineStream
from services.runtime.engine_http import base_url

log = structlog.get_logger()

#: How long an endpoint is left out after its first failure; doubles with each further one.
FIRST_EJECTION_S: Final = 1.0
LONGEST_EJECTION_S: Final = 60.0

Clock = Callable[[], float]


def ejection_s(failures: int) -> float:
    """Return how long an endpoint is left out after this many failures in a row."""
    return min(LONGEST_EJECTION_S, FIRST_EJECTION_S * 2.0 ** min(failures - 1, 30))


def weight(key: str, url: str) -> bytes:
    """Return the weight of `url` for `key`: the endpoint of highest weight has the key.

    Rendezvous hashing: an endpoint that comes or goes moves only the keys that it has.
    """
    return blake2b(f"{key}\n{url}".encode(), digest_size=8).digest()


class Endpoint:
    """One endpoint's health, as its streams show it.

    An endpoint that fails is ejected for a time that grows. Then one stream is let through:
    if it is answered, the endpoint is back, else it is ejected for longer.
    """

    def __init__(self, client: EngineClient, clock: Clock) -> None:
        self.client = client
        self.url = client.url
        self.in_flight = 0
        self.failures = 0
        self.failed_at = float("-inf")
        self._clock = clock
        self._ejected_until = float("-inf")
        self._on_trial = False

    @property
    def eligible(self) -> bool:
        """Whether a stream may go to it now."""
        if not self.failures:
            return True
        return not self._on_trial and self._clock() >= self._ejected_until

    def started(self) -> None:
        """Note that a stream was entered."""
        self.in_flight += 1
        self._on_trial = bool(self.failures)

    def answered(self, started_at: float) -> None:
        """Note that the engine has sent text or an end."""
        if self.failures and started_at >= self.failed_at:
            self.failures, self._on_trial = 0, False
            log.info("endpoint_restored", endpoint=self.url)

    def ended(self, started_at: float, failure: EngineError | None) -> None:
        """Note that a stream was left, and learn from how."""
        self.in_flight -= 1
        # What began before the last failure tells nothing new: a crash ends many at once.
        if started_at < self.failed_at:
            return
        self._on_trial = False
        if failure and not isinstance(failure, EngineRejected | EngineOverloaded):
            self._fail(failure)

    def _fail(self, failure: EngineError) -> None:
        self.failures += 1
        self.failed_at = self._clock()
        out_s = ejection_s(self.failures)
        self._ejected_until = self.failed_at + out_s
        log.warning("endpoint_ejected", endpoint=self.url, error=failure.code, ejected_s=out_s)


def choose(endpoints: Sequence[Endpoint], key: str, avoid: str | None) -> Endpoint:
    """Return the endpoint that a call with `key` goes to.

    Of those that are not ejected, rather another than `avoid`; if all are ejected, the one
    whose failure is the longest ago.
    """
    eligible = [endpoint for endpoint in endpoints if endpoint.eligible]
    others = [endpoint for endpoint in eligible if endpoint.url != avoid]
    if chosen := others or eligible:
        return max(chosen, key=lambda endpoint: weight(key, endpoint.url))
    elsewhere = [endpoint for endpoint in endpoints if endpoint.url != avoid]
    return min(elsewhere or endpoints, key=lambda endpoint: endpoint.failed_at)


class EnginePool:
    """The engines of one pool.

    Args:
        urls: of the servers, with or without `/v1`; at least one.
        api_key: their key.
        model: name to send; by default what each engine's dialect wants.
        dialect: of all of them; asked of each if None.
        limits: how long each may take.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        api_key: str | None = None,
        model: str | None = None,
        dialect: Dialect | None = None,
        limits: EngineLimits | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        if not urls:
            raise ValueError("a pool has at least one endpoint")
        bases = dict.fromkeys(base_url(url) for url in urls)
        clients = [
            EngineClient(url, api_key=api_key, model=model, dialect=dialect, limits=limits)
            for url in bases
        ]
        self.endpoints = tuple(Endpoint(client, clock) for client in clients)

    @property
    def in_flight(self) -> int:
        """How many streams are open."""
        return sum(endpoint.in_flight for endpoint in self.endpoints)

    def stream(
        self,
        call: ChatCall,
        *,
        key: str,
        avoid: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> EngineStream:
        """Return the reply to `call`; it is sent when the stream is entered.

        Args:
            call: what is asked.
            key: calls with the same key go to the same endpoint, for its prefix cache.
            avoid: URL of an endpoint to be passed over if there is another.
            headers: to send with it, such as `traceparent`.
        """
        endpoint = choose(self.endpoints, key, base_url(avoid) if avoid else None)
        return endpoint.client.stream(call, headers=headers, watcher=endpoint)

    async def check(self) -> None:
        """Return as soon as one endpoint is healthy.

        Raises:
            EngineError: none is; the error of the one that answered last.
        """
        checks = {
            asyncio.create_task(endpoint.client.check(), name=f"check {endpoint.url}")
            for endpoint in self.endpoints
        }
        try:
            await _first_success(checks)
        finally:
            for check in checks:
                check.cancel()
            await asyncio.gather(*checks, return_exceptions=True)

    async def close(self) -> None:
        """Close all connections; streams that are open break off."""
        for endpoint in self.endpoints:
            await endpoint.client.close()


async def _first_success(checks: set[asyncio.Task[None]]) -> None:
    failure: EngineError = EngineUnavailable("no endpoint")
    for check in asyncio.as_completed(checks):
        try:
            return await check
        except EngineError as error:
            failure = error
    raise failure
