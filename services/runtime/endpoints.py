"""A pool of engines: many endpoints that behave as one.

What is known of the endpoints is this process's own view. Each process bounds, ejects and limits by
what it sees itself, and needs nobody for it: with P processes an endpoint has at most
`load_factor x mean + P` streams, as each rounds up once, and an endpoint that fails is found out P
times. The rank of the endpoints for a key is the same everywhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import Final

import structlog

from proto.errors import EngineError, EngineOverloaded, EngineUnavailable
from services.runtime import metrics
from services.runtime.balance import PoolPolicy, place, rank
from services.runtime.calls import ChatCall, EngineLimits
from services.runtime.dialects import Dialect
from services.runtime.discovery import Directory, Lookup, addresses
from services.runtime.endpoint import Clock, Endpoint
from services.runtime.engine import EngineClient
from services.runtime.pace import FirstTokens
from services.runtime.pool_stream import PoolStream
from services.runtime.turns import Turns
from services.runtime.urls import base_url

log = structlog.get_logger()

#: How often the endpoints are looked at while a call waits; how long a name may take.
LOOK_EVERY_S: Final = 0.5
LEAST_LOOK_S: Final = 0.05
RESOLVE_S: Final = 5.0


class EnginePool:
    """The engines of one pool.

    Args:
        urls: of the servers, with or without `/v1`, or `dns+http://name:port`; at least one.
        api_key: their key.
        model: name to send; by default what each engine's dialect wants.
        dialect: of all of them; asked of each if None.
        limits: how long each may take.
        policy: how calls are spread, and how much of them.
        clock: monotonic seconds.
        lookup: the addresses of a host; that of the system by default.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        api_key: str | None = None,
        model: str | None = None,
        dialect: Dialect | None = None,
        limits: EngineLimits | None = None,
        policy: PoolPolicy | None = None,
        clock: Clock = time.monotonic,
        lookup: Lookup = addresses,
    ) -> None:
        self.limits = limits or EngineLimits()
        self.policy = policy or PoolPolicy()
        self.first_tokens = FirstTokens(self.policy.hedge_percentile, self.policy.hedge_share)
        self._clock = clock
        self._client = partial(
            EngineClient, api_key=api_key, model=model, dialect=dialect, limits=limits
        )
        self._directory = Directory(urls, lookup)
        self._endpoints: dict[str, Endpoint] = {}
        self._leaving: set[Endpoint] = set()
        self._turns = Turns()
        self._tasks: set[asyncio.Task[None]] = set()
        self._looked_at = float("-inf")
        self._watching: asyncio.Task[None] | None = None
        self._resolving: asyncio.Task[None] | None = None
        self._resolved: asyncio.Event | None = None
        self._update()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints as they are now."""
        return tuple(self._endpoints.values())

    @property
    def in_flight(self) -> int:
        """How many streams are open, or about to be."""
        return sum(one.in_flight for one in (*self.endpoints, *self._leaving))

    def stream(
        self,
        call: ChatCall,
        *,
        key: str,
        avoid: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> PoolStream:
        """Return the reply to `call`; it is sent when the stream is entered.

        Args:
            call: what is asked.
            key: calls with the same key go to the same endpoint, for its prefix cache.
            avoid: URL of an endpoint to be passed over if there is another.
            headers: to send with it, such as `traceparent`.
        """
        passed_over = base_url(avoid) if avoid else None
        return PoolStream(self, call, key=key, avoid=passed_over, headers=headers)

    def likely(self, key: str, avoid: str | None) -> str:
        """Return where a call with `key` would go now; empty if no endpoint is known yet."""
        chosen = self._choose(key, {avoid} if avoid else set())
        ranked = rank(self.endpoints, key)
        return chosen.url if chosen else ranked[0].url if ranked else ""

    async def take(self, key: str, avoid: Collection[str], timeout_s: float) -> Endpoint:
        """Return an endpoint for a call, waiting for room; give it back with `release`.

        Args:
            key: of the call.
            avoid: URLs that are passed over if there is another.
            timeout_s: how long to wait for room.

        Raises:
            EngineOverloaded: there was no room in time.
            EngineUnavailable: the pool has no endpoint.
        """
        await self._known()
        self.look()
        chosen = None if self._turns else self._choose(key, avoid)
        chosen = chosen or await self._in_turn(key, avoid, time.monotonic() + timeout_s)
        self._give(chosen)
        return chosen

    def try_take(self, key: str, avoid: Collection[str]) -> Endpoint | None:
        """Return another endpoint for a call if one has room at once."""
        chosen = self._choose(key, avoid)
        if chosen is None or chosen.url in avoid:
            return None
        self._give(chosen)
        return chosen

    def release(self, endpoint: Endpoint) -> None:
        """Take a stream off `endpoint`."""
        endpoint.release()
        if endpoint.gone and not endpoint.in_flight:
            self._leaving.discard(endpoint)
            self.spawn(endpoint.client.close(), f"close {endpoint.url}")

    def look(self) -> None:
        """Leave out who is silent or slow, and ask those left out whether they are well."""
        now = self._clock()
        if now - self._looked_at < LEAST_LOOK_S:
            return
        self._looked_at = now
        for endpoint in self.endpoints:
            endpoint.look([other for other in self.endpoints if other is not endpoint])
            if endpoint.due:
                endpoint.checking()
                endpoint.client.forget()
                self.spawn(_check(endpoint), f"check {endpoint.url}")
            elif endpoint.to_be_asked:
                self.spawn(_ask(endpoint, endpoint.asking()), f"ask {endpoint.url}")

    async def check(self) -> None:
        """Return as soon as one endpoint is healthy.

        Raises:
            EngineError: none is; the error of the one that answered last.
        """
        await self._known()
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
        tasks = [*self._tasks, *([self._resolving] if self._resolving else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for endpoint in (*self.endpoints, *self._leaving):
            await endpoint.client.close()

    def _choose(self, key: str, avoid: Collection[str]) -> Endpoint | None:
        """Return the endpoint for a call; if all are left out, that which has been for longest."""
        everyone = self.endpoints
        if any(one.eligible for one in everyone):
            return place(everyone, key, load_factor=self.policy.load_factor, avoid=avoid)
        roomy = [one for one in everyone if one.in_flight < one.limit]
        roomy = [one for one in roomy if one.url not in avoid] or roomy
        return min(roomy, key=lambda one: one.ejected_at, default=None)

    async def _in_turn(self, key: str, avoid: Collection[str], deadline: float) -> Endpoint:
        """Wait until there is room; at most for as long as endpoints go without a look."""
        ticket = self._turns.arrive()
        try:
            while (left_s := deadline - time.monotonic()) > 0:
                await self._turns.wait(ticket, min(LOOK_EVERY_S, left_s))
                self.look()
                if chosen := self._choose(key, avoid):
                    return chosen
        finally:
            self._turns.leave(ticket)
        raise EngineOverloaded("every engine of the pool has as many streams as it takes")

    async def _known(self) -> None:
        """Return when the endpoints are known; keeps resolving names from then on.

        Raises:
            EngineUnavailable: no name has resolved yet.
        """
        if not self._directory.has_names:
            return
        if self._resolving is None or self._resolving.done():
            self._resolved = asyncio.Event()
            self._resolving = asyncio.create_task(self._resolve(self._resolved), name="resolve")
            self._resolving.add_done_callback(_notice)
        if not self._endpoints and self._resolved:
            await self._resolved.wait()
        if not self._endpoints:
            raise EngineUnavailable("no name of the pool resolves")

    async def _resolve(self, resolved: asyncio.Event) -> None:
        while True:
            try:
                await self._directory.look(RESOLVE_S)
                self._update()
            finally:
                resolved.set()  # whoever waits is to be told, whatever happened
            await asyncio.sleep(self.policy.resolve_every_s)

    def _update(self) -> None:
        """Take up who is new and let go who is gone; streams that are open go on."""
        urls = self._directory.urls()
        if not urls and self._endpoints:
            return
        for url in urls:
            if url not in self._endpoints:
                self._endpoints[url] = self._joined(url)
        for url in self._endpoints.keys() - set(urls):
            self._leave(self._endpoints.pop(url))

    def _joined(self, url: str) -> Endpoint:
        endpoint = Endpoint(self._client(url), self.policy, self._clock)
        endpoint.roomier = self._turns.call
        metrics.ENDPOINT_IN_FLIGHT.labels(url).set(0)
        metrics.ENDPOINT_HEALTHY.labels(url).set(1)
        if self._directory.has_names:
            log.info("endpoint_joined", endpoint=url)
        return endpoint

    def _leave(self, endpoint: Endpoint) -> None:
        log.info("endpoint_left", endpoint=endpoint.url, in_flight=endpoint.in_flight)
        endpoint.gone = True
        metrics.ENDPOINT_IN_FLIGHT.remove(endpoint.url)
        metrics.ENDPOINT_HEALTHY.remove(endpoint.url)
        if endpoint.in_flight:
            self._leaving.add(endpoint)
        else:
            self.spawn(endpoint.client.close(), f"close {endpoint.url}")

    def _give(self, endpoint: Endpoint) -> None:
        endpoint.take()
        if self._watching is None or self._watching.done():
            self._watching = self.spawn(self._watch(), "watch endpoints")

    async def _watch(self) -> None:
        """Look at the endpoints while they have streams, whether or not new calls come."""
        while self.in_flight:
            await asyncio.sleep(min(LOOK_EVERY_S, self.policy.silent_after_s / 4))
            self.look()

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Run `work` beside the calls, until the pool is closed."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_notice)
        return task


async def _ask(endpoint: Endpoint, asked_at: float) -> None:
    try:
        await endpoint.client.check()
    except EngineError as error:
        log.info("endpoint_not_well", endpoint=endpoint.url, error=error.code)
    else:
        endpoint.well(asked_at)


async def _check(endpoint: Endpoint) -> None:
    try:
        await endpoint.client.check()
    except EngineError as error:
        endpoint.checked(error)
    else:
        endpoint.checked(None)


def _notice(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("task_failed", task=task.get_name(), exc_info=error)


async def _first_success(checks: set[asyncio.Task[None]]) -> None:
    failure: EngineError = EngineUnavailable("no endpoint")
    for check in asyncio.as_completed(checks):
        try:
            return await check
        except EngineError as error:
            failure = error
    raise failure
