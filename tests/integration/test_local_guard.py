"""The guard as a program: on Linux the kernel's tie, elsewhere a watching parent."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from skelgraph.local import guard

WATCHED = """
import runpy, sys
tools = runpy.run_path(sys.argv[1])
sys.exit(tools["run_watched"](int(sys.argv[2]), sys.argv[3:]))
"""


def watched(parent_pid: int, *argv: str) -> list[str]:
    return [sys.executable, "-c", WATCHED, str(Path(guard.__file__)), str(parent_pid), *argv]


def test_the_status_of_the_program_is_passed_on() -> None:
    argv = [sys.executable, "-c", "import sys; sys.exit(7)"]
    for command in (guard.command(argv), watched(os.getpid(), *argv)):
        assert subprocess.run(command, timeout=10, check=False).returncode == 7


def test_a_program_of_a_parent_that_is_gone_does_not_run() -> None:
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    tied = guard.command(argv)
    tied[4] = "1"  # not the parent
    for command in (tied, watched(1, *argv)):
        assert subprocess.run(command, timeout=10, check=False).returncode != 0


def test_a_watched_program_gets_the_signal() -> None:
    said = "import signal; print('up', flush=True); signal.pause()"
    command = watched(os.getpid(), sys.executable, "-c", said)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"up\n"
        program.send_signal(signal.SIGTERM)
        assert program.wait(timeout=10) != 0


def test_a_program_that_does_not_exist_is_an_error() -> None:
    command = guard.command(["/no/such/program"])
    ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    assert ended.returncode != 0
    assert "/no/such/program" in ended.stderr
