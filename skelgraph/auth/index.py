"""The index of a deployment's keys (auth.json): who there is, by public key; no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import orjson
import pydantic

from proto.errors import InvalidRequest

Tls = Literal["none", "server", "mutual"]


class Account(pydantic.BaseModel):
    """An account's public key, and the users whose credentials are void."""

    key: str
    #: Public key of a user, and the time up to which tokens for it are void.
    revoked: dict[str, int] = {}


class User(pydantic.BaseModel):
    """A user's public key, and those that it had before."""

    account: str
    key: str
    #: Replaced and not yet revoked.
    former: list[str] = []
    #: Digest of what its credentials allow; empty in files of before there was one.
    granted: str = ""


class Index(pydantic.BaseModel):
    """The content of auth.json."""

    accounts: dict[str, Account] = {}
    users: dict[str, User] = {}
    tls: Tls = "none"

    @classmethod
    def read(cls, path: Path) -> Index:
        """Return what a file says; an empty one if there is none.

        Raises:
            InvalidRequest: it is not an index.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, pydantic.ValidationError) as error:
            raise InvalidRequest(f"{path}: {error}", field="auth") from None

    def content(self) -> bytes:
        """Return what the file is to hold."""
        return orjson.dumps(self.model_dump(), option=orjson.OPT_INDENT_2)
