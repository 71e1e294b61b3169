"""Where the local stack keeps its files, and the files themselves: atomic writes, locks."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

import platformdirs


def models_dir() -> Path:
    """Return the folder of the models: SKELGRAPH_MODELS_DIR, or the user's cache."""
    chosen = os.environ.get("SKELGRAPH_MODELS_DIR")
    return Path(chosen) if chosen else platformdirs.user_cache_path("skelgraph") / "models"


def state_dir() -> Path:
    """Return the folder of the running stack: SKELGRAPH_STATE_DIR, or the user's state folder."""
    chosen = os.environ.get("SKELGRAPH_STATE_DIR")
    return Path(chosen) if chosen else platformdirs.user_state_path("skelgraph")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file so that a reader sees all of it or what was there before."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            sync(file)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sync(file: IO[bytes]) -> None:
    """Force what was written to the disk."""
    file.flush()
    os.fsync(file.fileno())


def try_lock(path: Path) -> IO[bytes] | None:
    """Take an exclusive lock for as long as the returned file is open; None if it is held.

    The kernel drops the lock with the last process that holds the file, however that ended.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
