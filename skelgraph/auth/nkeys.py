"""Keys as NATS writes them: Ed25519, base32 with a type and a checksum (nats-io/nkeys)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from nacl.signing import SigningKey

_SEED: Final = 18 << 3
_SEED_BYTES: Final = 32
_CHECK_BYTES: Final = 2


class Kind(IntEnum):
    """What a key stands for; its public form begins with the letter of the name."""

    OPERATOR = 14 << 3
    ACCOUNT = 0
    USER = 20 << 3


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key that signs, of an operator, an account or a user."""

    kind: Kind
    signing: SigningKey

    @classmethod
    def new(cls, kind: Kind) -> Self:
        """Return a fresh key."""
        return cls(kind, SigningKey.generate())

    @classmethod
    def read(cls, seed: str) -> Self:
        """Return the key of `seed`.

        Raises:
            ValueError: it is no seed, or one with a letter wrong.
        """
        raw = _decoded(seed)
        if len(raw) != 2 + _SEED_BYTES or raw[0] & 0xF8 != _SEED:
            raise ValueError("not the seed of a NATS key")
        return cls(Kind((raw[0] & 7) << 5 | raw[1] >> 3), SigningKey(raw[2:]))

    @property
    def public(self) -> str:
        """The public key; it names what the key stands for."""
        return _encoded(bytes([self.kind]) + bytes(self.signing.verify_key))

    @property
    def seed(self) -> str:
        """The secret, from which `read` makes the key again."""
        head = bytes([_SEED | self.kind >> 5, (self.kind & 31) << 3])
        return _encoded(head + bytes(self.signing))

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data`."""
        return self.signing.sign(data).signature


def _encoded(raw: bytes) -> str:
    check = binascii.crc_hqx(raw, 0).to_bytes(_CHECK_BYTES, "little")  # CRC-16/XMODEM
    return base64.b32encode(raw + check).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    try:
        whole = base64.b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error as error:
        raise ValueError("not the seed of a NATS key") from error
    raw, check = whole[:-_CHECK_BYTES], whole[-_CHECK_BYTES:]
    if binascii.crc_hqx(raw, 0).to_bytes(_CHECK_BYTES, "little") != check:
        raise ValueError("a NATS key with a letter wrong")
    return raw
