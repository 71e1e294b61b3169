"""The files of a deployment's keys: where each is, and how it is written.

Files with secrets are for their owner only (0600, folders 0700); each file is written whole or not
at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proto.errors import InvalidRequest
from skelgraph.auth.nkeys import KeyPair, Kind

_SECRET: Final = 0o600
_PUBLIC: Final = 0o644


class Folder:
    """One deployment's files.

    Args:
        path: where they are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        #: Files that this object has written, in order.
        self.written: list[Path] = []

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from changing it meanwhile; they wait for their turn."""
        if not self.path.exists():  # it is made by whoever changes it, or is an error
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def creds(self, user: str) -> Path:
        """Where a user's credentials are."""
        return self.path / "creds" / f"{user}.creds"

    def tls(self, user: str) -> tuple[Path, Path, Path]:
        """Where the CA's certificate and a user's certificate and key are."""
        folder = self.path / "tls"
        return folder / "ca.crt", folder / f"{user}.crt", folder / f"{user}.key"

    def make(self, *names: str) -> None:
        """Make folders in it that nobody else may enter."""
        for folder in (self.path / name for name in names):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)

    def key(self, name: str) -> KeyPair:
        """Return the key of the operator or of an account.

        Raises:
            InvalidRequest: it is not there, or is not a key.
        """
        path = self._key_path(name)
        try:
            return KeyPair.read(path.read_text().strip())
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"{path}: {error}", field="auth") from error

    def make_key(self, name: str, kind: Kind) -> KeyPair:
        """Return a key as `key` does; a fresh one is made if it is not there."""
        path = self._key_path(name)
        if not path.exists():
            self.write_secret(path, f"{KeyPair.new(kind).seed}\n".encode())
        return self.key(name)

    def write_secret(self, path: Path, content: bytes) -> None:
        """Write what its owner alone may read."""
        self._write(path, content, _SECRET)

    def write_public(self, path: Path, content: bytes) -> None:
        """Write what anybody may read."""
        self._write(path, content, _PUBLIC)

    def _key_path(self, name: str) -> Path:
        return self.path / "keys" / f"{name}.nk"

    def _write(self, path: Path, content: bytes, mode: int) -> None:
        # A file of its own (0600): what an earlier try has left may be open to others.
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(content)
                os.fchmod(out.fileno(), mode)
                out.flush()
                os.fsync(out.fileno())
            Path(draft).replace(path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
        _sync(path.parent)
        self.written.append(path)


def _sync(folder: Path) -> None:
    """Have a name that was given survive a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
