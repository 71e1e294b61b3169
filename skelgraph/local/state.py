"""How `skelgraph ask` in another terminal finds the stack that runs.

A stack holds a lock for as long as it lives, so a state file left by a killed one is never
taken for a running stack, whatever became of its pid.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import orjson
import pydantic

from services.runtime.credentials import Access
from skelgraph.auth.book import Book
from skelgraph.auth.permissions import OPERATOR
from skelgraph.local import folders
from skelgraph.local.errors import StackRunning


@dataclass(frozen=True, slots=True, kw_only=True)
class StackState:
    """A running stack: its supervisor's pid, its addresses, and each process's health port."""

    pid: int
    nats_url: str
    nats_monitor_url: str
    engine_urls: dict[str, list[str]]
    health_ports: dict[str, int]
    state_dir: Path
    gateway_url: str | None = None
    #: The folder of keys that it was started with.
    auth_dir: Path | None = None

    def access(self, given: Access, user: str = OPERATOR) -> Access:
        """Return what is shown to its NATS: what was given, else what `user` of its keys shows."""
        return given if given.creds or not self.auth_dir else Book(self.auth_dir).access(user)


_READER = pydantic.TypeAdapter(StackState)


def hold(state_dir: Path) -> IO[bytes]:
    """Claim the state folder for one stack; close the result to let it go.

    Raises:
        StackRunning: Another stack has it.
    """
    lock = folders.try_lock(_lock(state_dir))
    if lock is None:
        running = read(state_dir)
        who = f"pid {running.pid} at {running.nats_url}" if running else "it is just starting"
        raise StackRunning(f"{who}; folder {state_dir}")
    return lock


def write(state: StackState) -> None:
    """Make the stack known."""
    content = orjson.dumps(asdict(state), default=str)
    folders.write_atomically(_file(state.state_dir), content)


def forget(state_dir: Path) -> None:
    """Make the stack unknown again."""
    _file(state_dir).unlink(missing_ok=True)


def read(state_dir: Path) -> StackState | None:
    """Return the state that a folder holds, whether its stack still runs or not."""
    try:
        return _READER.validate_json(_file(state_dir).read_bytes())
    except (FileNotFoundError, pydantic.ValidationError):
        return None


def find_running(state_dir: Path | None = None) -> StackState | None:
    """Return the stack that runs now and is ready, None if none does."""
    folder = state_dir or folders.state_dir()
    state = read(folder)
    if state is None:
        return None
    free = folders.try_lock(_lock(folder))
    if free is None:
        return state
    free.close()
    return None


def _lock(state_dir: Path) -> Path:
    return state_dir / "stack.lock"


def _file(state_dir: Path) -> Path:
    return state_dir / "stack.json"
