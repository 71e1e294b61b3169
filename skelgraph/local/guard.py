"""Tie a process to its parent, so that not even `kill -9` of the supervisor leaves one behind.

Run as a program (`python -I -S guard.py PARENT_PID PROGRAM …`) it becomes PROGRAM, tied to
PARENT_PID; it stands on the standard library alone, so that it costs 10-20 ms. A program of
its own rather than `preexec_fn`, which may deadlock in a process with threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_LOOK_S = 0.25


def command(argv: Sequence[str]) -> list[str]:
    """Return a command that runs a program tied to the process that calls this."""
    program = shutil.which(argv[0]) or argv[0]  # `execv` looks nowhere
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), program, *argv[1:]]


def tie_to_parent(parent_pid: int) -> bool:
    """Have the kernel kill this process when its parent ends; false where it cannot (not Linux).

    The kernel means the parent's *thread* that started this process: start children from a
    thread that lives as long as the parent does. The tie survives `execve`.
    """
    if sys.platform != "linux":
        return False
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before the tie held
        os.kill(os.getpid(), signal.SIGKILL)
    return True


def run_watched(parent_pid: int, argv: list[str]) -> int:
    """Run a program until it or the parent ends; return its exit status (negative: a signal)."""
    child = subprocess.Popen(argv)  # noqa: S603 - what our own supervisor asked for

    def pass_on(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    while child.poll() is None:
        if os.getppid() != parent_pid:
            child.kill()
        time.sleep(_LOOK_S)
    return child.wait()


def main() -> None:
    """Become the program named on the command line, tied to the parent."""
    parent_pid, argv = int(sys.argv[1]), sys.argv[2:]
    try:
        if tie_to_parent(parent_pid):
            os.execv(argv[0], argv)  # noqa: S606 - see above
        sys.exit(run_watched(parent_pid, argv))
    except OSError as error:
        sys.exit(f"{argv[0]} cannot be run: {error.strerror}")


if __name__ == "__main__":
    main()
