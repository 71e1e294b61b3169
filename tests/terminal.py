"""A program at a terminal: a pseudo-terminal, and a screen to read what stands on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import pexpect
import pyte


class Terminal:
    """Runs a program at a terminal of its own; a context manager that leaves nothing running.

    Args:
        argv: the program and its arguments.
        env: its whole environment.
        rows: lines of the screen.
        columns: cells of a line.
    """

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], *, rows: int = 24, columns: int = 100
    ) -> None:
        self._screen = pyte.HistoryScreen(columns, rows, history=5000, ratio=1)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self._child = pexpect.spawn(
            argv[0], list(argv[1:]), env=dict(env), dimensions=(rows, columns), timeout=60
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.close(force=True)

    @property
    def lines(self) -> list[str]:
        """The lines on the screen now."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """What stands on the screen now, and what has scrolled off it."""
        gone = [
            "".join(line[column].data for column in range(self._screen.columns)).rstrip()
            for line in self._screen.history.top
        ]
        return "\n".join([*gone, *self.lines]).rstrip()

    def until(self, holds: Callable[[str], bool], timeout_s: float = 60) -> str:
        """Read on until the text fulfils a condition; return the screen as it is then."""
        limit_s = time.monotonic() + timeout_s
        while not holds(self.text):
            if not self._read() and not holds(self.text):
                raise AssertionError(f"the program ended; on the screen:\n{self.text}")
            if time.monotonic() > limit_s:
                raise AssertionError(f"not in {timeout_s} s; on the screen:\n{self.text}")
        return "\n".join(self.lines).rstrip()

    def wait(self, timeout_s: float = 60) -> int:
        """Read on until the program ends, and return its exit code."""
        limit_s = time.monotonic() + timeout_s
        while self._read():
            if time.monotonic() > limit_s:
                raise AssertionError(f"not ended; on the screen:\n{self.text}")
        self._child.close()
        status = self._child.exitstatus
        return status if status is not None else -(self._child.signalstatus or 0)

    def enter(self, line: str) -> None:
        """Type a line."""
        self._child.sendline(line)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._child.sendintr()

    def _read(self) -> bool:
        """Take what is there; return False at the end."""
        try:
            data = self._child.read_nonblocking(65536, timeout=0.2)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += data
        self._stream.feed(data)
        return True
