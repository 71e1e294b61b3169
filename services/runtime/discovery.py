"""The addresses behind a pool's URLs: as they stand, or what a headless DNS name has now."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

import structlog

from services.runtime.urls import DNS, Name, base_url

log = structlog.get_logger()

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]


async def addresses(host: str, port: int) -> Sequence[str]:
    """Return the addresses of `host`, as they stand in a URL.

    Raises:
        OSError: it cannot be resolved now.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    hosts = [(family, str(where[0])) for family, *_, where in found]
    return [f"[{host}]" if family == socket.AF_INET6 else host for family, host in hosts]


class Directory:
    """The endpoints that a pool's URLs stand for.

    Args:
        urls: `http://…`, `https://…` or `dns+http://name:port`; at least one.
        lookup: the addresses of a host; that of the system by default.

    Raises:
        ValueError: a URL is none of these.
    """

    def __init__(self, urls: Sequence[str], lookup: Lookup = addresses) -> None:
        if not urls:
            raise ValueError("a pool has at least one endpoint")
        self._fixed = [base_url(url) for url in urls if not url.startswith(DNS)]
        self._names = [Name.of(url) for url in urls if url.startswith(DNS)]
        self._found: dict[Name, list[str]] = {}
        self._lookup = lookup

    @property
    def has_names(self) -> bool:
        """Whether anything is to be resolved."""
        return bool(self._names)

    def urls(self) -> list[str]:
        """Return the endpoints as they were found last, each once."""
        found = [url for name in self._names for url in self._found.get(name, [])]
        return list(dict.fromkeys([*self._fixed, *found]))

    async def look(self, timeout_s: float) -> None:
        """Resolve all names anew; of one that does not resolve, the last addresses stay."""
        await asyncio.gather(*(self._look(name, timeout_s) for name in self._names))

    async def _look(self, name: Name, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                hosts = await self._lookup(name.host, name.port)
        except (OSError, TimeoutError) as error:
            log.warning("name_not_resolved", host=name.host, error=str(error) or "timed out")
            return
        self._found[name] = sorted(f"http://{host}:{name.port}" for host in set(hosts))
