"""Which endpoint of a pool a call goes to: bounded-load rendezvous hashing, and its bounds. Pure.

A call goes to the endpoint that ranks first for its key, unless that endpoint has its share
already: `ceil(load_factor x mean)` streams, the mean being over the endpoints that can take a
stream, the new one included. Then it goes to the next in rank. So the calls of a request meet the
prefix that its first call left in an engine's cache, and no endpoint runs hot for it. An endpoint
that joins or leaves moves only the keys that rank it first.

Sources: Thaler and Ravishankar 1998 (rendezvous hashing); Mirrokni, Thorup and Zadimoghaddam 2016
(consistent hashing with bounded loads).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """How a pool treats its endpoints. Times are in seconds.

    Args:
        load_factor: how many times the mean number of streams an endpoint may have; 1 is
            even spread, more is more affinity.
        max_in_flight: most streams an endpoint is ever given by this process.
        silent_after_s: an endpoint that sends nothing to anybody for so long is left out.
        overload_wait_s: how long a call that every endpoint refused for overload is tried again.
        hedge_percentile: a call without a token after this percentile of the first-token times
            is sent to a second endpoint as well; 0 never does.
        hedge_share: most hedges, as a share of all calls.
        resolve_every_s: how often a name is resolved anew.
    """

    load_factor: float = 1.25
    max_in_flight: int = 128
    silent_after_s: float = 10.0
    overload_wait_s: float = 10.0
    hedge_percentile: float = 0.0
    hedge_share: float = 0.05
    resolve_every_s: float = 5.0


class Candidate(Protocol):
    """What is to be known of an endpoint in order to choose it."""

    @property
    def url(self) -> str:
        """Its address, the same in every process."""

    @property
    def in_flight(self) -> int:
        """Streams that it has."""

    @property
    def limit(self) -> int:
        """Streams that it may have."""

    @property
    def eligible(self) -> bool:
        """Whether a stream may go to it."""


C = TypeVar("C", bound=Candidate)


def weight(key: str, url: str) -> bytes:
    """Return the weight of `url` for `key`: endpoints rank by it, the highest first."""
    return blake2b(f"{key}\n{url}".encode(errors="replace"), digest_size=8).digest()


def bound(load_factor: float, streams: int, endpoints: int) -> int:
    """Return how many of `streams` one of `endpoints` may have at most."""
    return math.ceil(load_factor * streams / endpoints)


def rank(endpoints: Sequence[C], key: str) -> list[C]:
    """Return `endpoints`, that which a call with `key` goes to first in front."""
    return sorted(endpoints, key=lambda endpoint: weight(key, endpoint.url), reverse=True)


def place(
    endpoints: Sequence[C], key: str, *, load_factor: float, avoid: Collection[str] = ()
) -> C | None:
    """Return the endpoint that a call with `key` goes to; None if all have what they may have.

    Args:
        endpoints: of the pool.
        key: calls with the same key go to the same endpoint if they can.
        load_factor: how many times the mean an endpoint may have, at least 1.
        avoid: URLs that are passed over if there is another.
    """
    free = [one for one in endpoints if one.eligible and one.in_flight < one.limit]
    free = [one for one in free if one.url not in avoid] or free
    if not free:
        return None
    streams = sum(one.in_flight for one in free) + 1
    most = bound(load_factor, streams, len(free))
    return next((one for one in rank(free, key) if one.in_flight < most), None)
