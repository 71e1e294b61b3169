"""NATS credentials files: the user's JWT, and a seed to sign the server's challenge with.

nats-py reads them with the package `nkeys`, which comes as source only: an image without a compiler
and pip's build isolation takes wheels. A seed is base32 of two bytes of type, the Ed25519 seed and
a checksum (nats-io/nkeys).
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Final

from nacl.signing import SigningKey

_BLOCK: Final = re.compile(r"-{3,}[^\n]*?BEGIN[^\n]*?-{3,}\s*\n([^\n]+)\n\s*-{3,}")
_SEED: Final = slice(2, 34)


class Credentials:
    """A credentials file; read anew at each connect, so that a renewed one counts.

    Args:
        path: of the file, as `nsc` writes it.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def jwt(self) -> bytearray:
        """Return the user's JWT; raises `ValueError` if the file is no credentials file."""
        return bytearray(self._read()[0].encode())

    def sign(self, nonce: str) -> bytes:
        """Return the signature of the server's challenge, in base64."""
        padded = self._read()[1].encode()
        raw = base64.b32decode(padded + b"=" * (-len(padded) % 8))
        return base64.b64encode(SigningKey(raw[_SEED]).sign(nonce.encode()).signature)

    def _read(self) -> tuple[str, str]:
        found = _BLOCK.findall(self._path.read_text())
        if len(found) != 2:
            raise ValueError(f"{self._path} is not a NATS credentials file")
        return found[0].strip(), found[1].strip()
