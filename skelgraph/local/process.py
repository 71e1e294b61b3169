"""One child process: started in a session of its own, watched, asked to end, then made to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skelgraph.local import guard, ports
from skelgraph.local.errors import NotReady, ProcessDied

_LOOK_S = 0.05
_TAIL_LINES = 8
_TAIL_BYTES = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """What to run and when it counts as ready: `GET ready_path` on `port` says 200."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    port: int
    ready_path: str
    ready_timeout_s: float = 30.0
    stop_timeout_s: float = 5.0


class Child:
    """A child process that ends when this process does, however this process ends.

    Start it from the main thread (see `guard.tie_to_parent`). It has a session of its own, so
    Ctrl-C reaches the supervisor only. Its end is looked for by polling, which needs neither a
    thread per child nor an event loop, so that tests may use it without one.
    """

    def __init__(self, spec: ProcessSpec, log_path: Path) -> None:
        self.spec = spec
        self.log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._group_left = False

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self.alive else None

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process; its output is appended to the log file."""
        self._spawn()

    def _spawn(self, keep_open: tuple[int, ...] = ()) -> None:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - what the specification names
                guard.command(self.spec.argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | dict(self.spec.env),
                start_new_session=True,
                pass_fds=keep_open,
            )
        self._group_left = True

    async def ready(self) -> None:
        """Wait until it answers.

        Raises:
            ProcessDied: It ended instead; with the last lines of its log.
            NotReady: It did not answer in `ready_timeout_s`.
        """
        limit_s = time.monotonic() + self.spec.ready_timeout_s
        while not await asyncio.to_thread(self._answers):
            self._check(limit_s)
            await asyncio.sleep(_LOOK_S)

    def wait_ready(self) -> None:
        """Do what `ready` does, without an event loop."""
        limit_s = time.monotonic() + self.spec.ready_timeout_s
        while not self._answers():
            self._check(limit_s)
            time.sleep(_LOOK_S)

    def _answers(self) -> bool:
        return self.alive and ports.http_status(self.spec.port, self.spec.ready_path) == 200

    def _check(self, limit_s: float) -> None:
        if not self.alive:
            raise ProcessDied(self.obituary())
        if time.monotonic() > limit_s:
            waited = f"{self.spec.name} after {self.spec.ready_timeout_s:g} s"
            raise NotReady(f"{waited}; log {self.log_path}{self._last_lines()}")

    async def ended(self) -> None:
        """Wait until it has ended."""
        while self.alive:  # noqa: ASYNC110 - see the class
            await asyncio.sleep(_LOOK_S)

    def obituary(self) -> str:
        """Say who ended, how, and the last lines of the log."""
        return f"{self.spec.name} {self._how_ended()}; log {self.log_path}{self._last_lines()}"

    def _how_ended(self) -> str:
        status = self._process.returncode if self._process else None
        if status is not None and status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    def _last_lines(self) -> str:
        lines = self.tail()
        return ":\n  " + "\n  ".join(lines) if lines else " (empty)"

    def tail(self) -> list[str]:
        """Return the last lines of the log."""
        with contextlib.suppress(FileNotFoundError), self.log_path.open("rb") as file:
            file.seek(max(0, self.log_path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
            return list(deque(lines, maxlen=_TAIL_LINES))
        return []

    async def stop(self) -> bool:
        """Ask it to end, and kill what is left after `stop_timeout_s`; false if it was killed."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self.spec.stop_timeout_s):
                await self.ended()
        except TimeoutError:
            return False
        finally:
            self.kill()
        return True

    def kill(self) -> None:
        """End the process and all of its group at once, and wait for its end."""
        self.signal(signal.SIGKILL)
        self._group_left = False  # from here on its number may belong to somebody else
        if self._process is not None:
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and all of its group."""
        if self._process is not None and self._group_left:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
