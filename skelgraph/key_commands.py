"""Makes API keys for the gateway."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from proto.errors import InvalidRequest
from services.gateway import keys

#: Nobody else need know who has keys.
_MODE: Final = 0o600


async def new(owner: str, file: Path | None, limits: Mapping[str, int | None]) -> int:
    """Print a fresh key, and its entry of a keys file or where that was added.

    Raises:
        InvalidRequest: the owner's name is not valid, or the file is no keys file.
    """
    key = keys.new_key()
    entry = keys.entry(owner, key, limits)
    if file is None:
        print(entry, file=sys.stderr)
        print("the lines above belong into the keys file; the key itself:", file=sys.stderr)
    else:
        _add(file, entry)
        print(f"added to {file}; the key itself, which is kept nowhere:", file=sys.stderr)
    print(key)
    return 0


def _add(file: Path, entry: str) -> None:
    """Put the old lines and the new ones in the file's place at once."""
    try:
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        text = f"{before.rstrip()}\n\n{entry}".lstrip()
        keys.parse(text)
        draft = file.with_name(f".{file.name}.new")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE), "w") as out:
            if file.exists():
                _look_like(out.fileno(), file.stat())
            out.write(text)
        draft.replace(file)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{file}: {error}", field="file") from None


def _look_like(draft: int, old: os.stat_result) -> None:
    """Give the draft owner and mode of the file whose place it takes: who reads it still can."""
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(draft, old.st_uid, old.st_gid)
    os.fchmod(draft, stat.S_IMODE(old.st_mode))
