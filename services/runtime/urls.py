"""The URLs by which engines are named. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

#: Stands before the URL of a name whose addresses are the endpoints.
DNS: Final = "dns+"
DEFAULT_PORT: Final = 80


def base_url(url: str) -> str:
    """Return `url` of an engine without the path of a route, as `http://host:port`.

    Raises:
        ValueError: it is not an http or https URL of a host.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"an engine's URL begins with http:// or https://, not {url!r}")
    _read(url, url)
    bare = url.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    return bare.removesuffix("/v1").rstrip("/")


@dataclass(frozen=True, slots=True)
class Name:
    """A DNS name whose every address is an endpoint."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Name:
        """Read `dns+http://host:port`.

        Raises:
            ValueError: it is not of this form. TLS is refused: certificates are made out to
                names, and the connections go to addresses.
        """
        if not url.startswith(f"{DNS}http://"):
            raise ValueError(f"a name to be resolved begins with dns+http://, not {url!r}")
        parts = _read(url.removeprefix(DNS), url)
        if parts.path.rstrip("/") not in ("", "/v1"):
            raise ValueError(f"{url!r} has a path; a name to be resolved has none")
        host = parts.hostname or ""
        try:
            host.encode("idna")  # as the resolver does
        except UnicodeError as error:
            raise ValueError(f"{url!r} is no DNS name: {error}") from None
        return cls(host, parts.port or DEFAULT_PORT)


def check(url: str) -> None:
    """Return if `url` may stand for engines.

    Raises:
        ValueError: it may not; says why.
    """
    if url.startswith(DNS):
        Name.of(url)
    elif url.startswith(("http://", "https://")):
        base_url(url)
    else:
        raise ValueError(f"{url!r} is not an http://, https:// or dns+http:// address")


def _read(url: str, named: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{named!r} is no address: {error}") from None
    if not parts.hostname:
        raise ValueError(f"{named!r} names no host")
    if port == 0 or parts.query or parts.fragment:
        raise ValueError(f"{named!r} is not of the form http://host:port")
    return parts
