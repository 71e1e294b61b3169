"""What is shown to a NATS server: credentials files, and the certificates of TLS.

A credentials file holds the user's JWT, and a seed to sign the server's challenge with. nats-py
reads it with the package `nkeys`, which comes as source only: an image without a compiler and
pip's build isolation takes wheels. A seed is base32 of two bytes of type, the Ed25519 seed and a
checksum (nats-io/nkeys).
"""

from __future__ import annotations

import base64
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from nacl.signing import SigningKey

_BLOCK: Final = re.compile(r"-{3,}[^\n]*?BEGIN[^\n]*?-{3,}\s*\n([^\n]+)\n\s*-{3,}")
_SEED: Final = slice(2, 34)
_SEED_CHARS: Final = 58
_TENANT_TAG: Final = "tenant:"
#: Where replies go unless the credentials say otherwise.
INBOX: Final = "_INBOX"


@dataclass(frozen=True, slots=True)
class Access:
    """What a client shows to NATS, and by what it knows NATS.

    Args:
        creds: path of a credentials file, if the server wants one.
        ca: path of the certificates that sign the server's; by default the system's.
        cert: path of the certificate that the client shows (mutual TLS).
        key: path of that certificate's key.
    """

    creds: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def tls(self) -> ssl.SSLContext | None:
        """Return the context of TLS; None where nothing is said of it.

        Raises:
            ValueError: a file cannot be read or holds something else.
        """
        if not self.ca and not self.cert:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"certificates for NATS: {error}") from error
        return context


class Tls:
    """The context of TLS, made anew when one of its files is another one.

    Args:
        access: names the files.

    Raises:
        ValueError: a file cannot be read or holds something else.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._seen = self._stamps()
        self.context = access.tls()

    def renewed(self) -> bool:
        """Make the context anew if it is time; false while the files do not fit together."""
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        try:
            self.context = self._access.tls()
        except ValueError:  # half of it is written
            return False
        self._seen = stamps
        return True

    def _stamps(self) -> list[int]:
        named = (self._access.ca, self._access.cert, self._access.key)
        paths = [Path(one) for one in named if one]
        return [path.stat().st_mtime_ns for path in paths if path.exists()]


class Credentials:
    """A credentials file; read anew at each connect, so that a renewed one counts.

    Args:
        path: of the file, as `nsc` and `skelgraph auth` write it.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._shown = ""

    def jwt(self) -> bytearray:
        """Return the user's JWT; raises `ValueError` if the file is no credentials file."""
        self._shown = self._read()[0]
        return bytearray(self._shown.encode())

    def sign(self, nonce: str) -> bytes:
        """Return the signature of the server's challenge, in base64; raises as `jwt` does."""
        seed = self._read()[1]
        if len(seed) != _SEED_CHARS:
            raise ValueError(f"{self._path}: the seed is not one of a NATS key")
        raw = base64.b32decode(seed.encode() + b"=" * (-len(seed) % 8))
        return base64.b64encode(SigningKey(raw[_SEED]).sign(nonce.encode()).signature)

    def renewed(self) -> bool:
        """Whether the file holds another JWT than was last shown; false while it cannot be read."""
        try:
            return bool(self._shown) and self._read()[0] != self._shown
        except (OSError, ValueError):
            return False

    def inbox(self) -> str:
        """Return the prefix under which replies may be heard; raises as `jwt` does."""
        granted = self._granted("sub")
        own = (one for one in granted if one.startswith(f"{INBOX}.") and one.endswith(".>"))
        return next(own, f"{INBOX}.>").removesuffix(".>")

    def tenant(self) -> str:
        """Return whose tenant's they are; empty if they are a service's. Raises as `jwt` does."""
        tags = self._claims().get("tags")
        named = (str(tag) for tag in tags) if isinstance(tags, list) else iter(())
        found = (tag for tag in named if tag.startswith(_TENANT_TAG))
        return next(found, "").removeprefix(_TENANT_TAG)

    def _granted(self, direction: str) -> list[str]:
        said = self._claims().get(direction)
        allowed = said.get("allow") if isinstance(said, dict) else None
        return [str(one) for one in allowed] if isinstance(allowed, list) else []

    def _claims(self) -> dict[str, object]:
        """Return what the JWT says of the user, unchecked: the server checks it."""
        _, _, rest = self._read()[0].partition(".")
        body, _, _ = rest.partition(".")
        try:
            claims = orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except ValueError as error:
            raise ValueError(f"{self._path}: the JWT cannot be read") from error
        nats = claims.get("nats") if isinstance(claims, dict) else None
        return nats if isinstance(nats, dict) else {}

    def _read(self) -> tuple[str, str]:
        found = _BLOCK.findall(self._path.read_text())
        if len(found) != 2:
            raise ValueError(f"{self._path} is not a NATS credentials file")
        return found[0].strip(), found[1].strip()
