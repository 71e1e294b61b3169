"""API keys: who asks, and how much that owner may ask at once.

The file holds sha256 digests. A key is 256 bits of randomness, so nobody can try them all and
a slow hash (bcrypt and its like, made for passwords) would only slow down every call.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proto.errors import InvalidRequest
from services.gateway.errors import InvalidApiKey

log = structlog.get_logger()

PREFIX: Final = "sk-skelgraph-"
_LOOK_S: Final = 2.0
_RANDOM_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and that owner's limits; None is no limit.

    Args:
        owner: whose requests these are; empty where no keys are asked for.
        max_in_flight: requests that may be open at once.
        tokens_per_minute: tokens (prompt and generated) of the last minute after which further
            requests are refused.
    """

    owner: str = ""
    max_in_flight: int | None = None
    tokens_per_minute: int | None = None


class _Key(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    owner: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    max_in_flight: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    key: tuple[_Key, ...] = ()


def new_key() -> str:
    """Return a fresh key."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def digest(key: str) -> str:
    """Return what the keys file holds of `key`."""
    return hashlib.sha256(key.encode()).hexdigest()


def entry(owner: str, key: str, limits: Mapping[str, int | None]) -> str:
    """Return the lines of a keys file that let `key` in.

    Raises:
        InvalidRequest: the owner's name or a limit is not valid.
    """
    lines = ["[[key]]", f'owner = "{owner}"', f'sha256 = "{digest(key)}"']
    lines += [f"{name} = {limit}" for name, limit in limits.items() if limit is not None]
    text = "\n".join([*lines, ""])
    parse(text)
    return text


def parse(text: str) -> dict[str, Caller]:
    """Return the callers of a keys file by their key's digest.

    Raises:
        InvalidRequest: it is not a keys file; says where.
    """
    try:
        read = _File.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequest(str(error), field="keys_file") from None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidRequest(f"{where}: {first['msg']}", field="keys_file") from None
    return {
        key.sha256: Caller(key.owner, key.max_in_flight, key.tokens_per_minute) for key in read.key
    }


class Keys:
    """The keys of a file, read again when it has changed.

    Args:
        path: the file; None lets everybody in.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._callers: dict[str, Caller] = {}
        self._seen: tuple[int, int, int] | None = None

    @property
    def wanted(self) -> bool:
        """Whether a key is asked for."""
        return self._path is not None

    def caller(self, authorization: str | None) -> Caller:
        """Return who asks by an `Authorization` header.

        Raises:
            InvalidApiKey: no key, or an unknown one.
        """
        if self._path is None:
            return Caller()
        scheme, _, key = (authorization or "").partition(" ")
        known = self._callers.get(digest(key.strip())) if scheme.lower() == "bearer" else None
        if known is None:
            raise InvalidApiKey
        return known

    def load(self) -> None:
        """Read the file, if there is one.

        Raises:
            InvalidRequest: it cannot be read or is no keys file.
        """
        if self._path is None:
            return
        try:
            state = self._path.stat()
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{self._path}: {error}", field="keys_file") from None
        self._seen = (state.st_mtime_ns, state.st_size, state.st_ino)
        self._callers = parse(text)
        log.info("keys_loaded", keys=len(self._callers))

    async def watch(self) -> None:
        """Read the file again when it has changed, for ever; a bad one changes nothing."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                if self._has_changed():
                    self.load()
            except InvalidRequest as error:
                log.error("keys_not_loaded", error=error.message)  # noqa: TRY400

    def _has_changed(self) -> bool:
        if self._path is None:
            return False
        try:
            state = self._path.stat()
        except OSError as error:  # between two versions of a mounted secret, perhaps
            log.warning("keys_file_missing", error=str(error))
            return False
        return (state.st_mtime_ns, state.st_size, state.st_ino) != self._seen
