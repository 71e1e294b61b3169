"""Where the answer goes: stdout, in whatever portions suit what reads it."""

from __future__ import annotations

import os
import stat
import sys
from typing import TextIO

from services.runtime.order import Grain
from skelgraph.draw import printable


def grain_for(stream: TextIO) -> Grain:
    """Return the portions that suit `stream`.

    A person watches a terminal, so tokens; a program may act on what it reads from a pipe, so
    whole nodes; nobody watches a file, so all at the end, which is never wrong.
    """
    if stream.isatty():
        return "tokens"
    return "whole" if stat.S_ISREG(os.fstat(stream.fileno()).st_mode) else "nodes"


def is_same_terminal(one: TextIO, other: TextIO) -> bool:
    """Return whether both are the same terminal, so that they must take turns."""
    try:
        return os.ttyname(one.fileno()) == os.ttyname(other.fileno())
    except (OSError, ValueError):
        return False


class Outlet:
    """Writes text to a stream at once; control characters never reach a terminal.

    `BrokenPipeError` is raised when the reader has gone.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._at_line_start = True

    def write(self, text: str) -> None:
        """Write `text`."""
        if not text:
            return
        self._stream.write(printable(text) if self._is_terminal else text)
        self._stream.flush()
        self._at_line_start = text.endswith("\n")

    def finish(self) -> None:
        """End the last line."""
        if not self._at_line_start:
            self.write("\n")


def discard_stdout() -> None:
    """Send what is still buffered nowhere, after its reader has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
