"""`make audit` fails for a hole and for a broken auditor, and never for want of a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

SCRIPT = Path(__file__).parents[2] / "requirements" / "audit.py"

FINE = {"name": "fine", "version": "1", "vulns": []}
HOLE = {"name": "leaky", "version": "2", "vulns": [{"id": "PYSEC-1"}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}
#: The end of what pip-audit 2.10 says without a network.
OFFLINE = """\
Traceback (most recent call last):
requests.exceptions.ConnectionError: HTTPSConnectionPool(host='service', port=443): Max retries
"""


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], **environment}
    argv = (sys.executable, str(SCRIPT), str(folder))
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


def audited(folder: Path, said: str, stderr: str, code: int) -> subprocess.CompletedProcess[str]:
    """Run the audit with a pip-audit that says just this."""
    program = folder / "bin" / "pip-audit"
    program.parent.mkdir()
    (folder / "out").write_text(said)
    (folder / "err").write_text(stderr)
    program.write_text(f"#!/bin/sh\ncat {folder}/out\ncat {folder}/err >&2\nexit {code}\n")
    program.chmod(0o755)
    (folder / ".done").touch()
    return run(folder)


def report(*packages: object) -> str:
    return json.dumps({"dependencies": packages})


_CASES: Final[list[tuple[str, str, int, int, str]]] = [
    (report(FINE, UNKNOWN), "", 0, 0, "0 known holes; 4 of 8 audited"),
    (report(FINE, HOLE), "Found 1 known vulnerability", 1, 1, "4 known holes; 8 of 8 audited"),
    (report(UNKNOWN), "", 0, 0, "NOT audited: nothing could be asked for"),
    ("", OFFLINE, 1, 0, "NOT audited: nothing could be asked for"),
    ("", "pip-audit: error: unrecognized arguments", 2, 1, ""),
    ("", "ModuleNotFoundError: No module named 'pip_audit'", 1, 1, ""),
    ("no report", "", 0, 1, ""),
    (report(FINE), "", 3, 1, ""),
]


@pytest.mark.parametrize(
    ("said", "stderr", "code", "expected", "last"),
    _CASES,
)
def test_a_hole_and_a_broken_auditor_fail_and_silence_does_not(
    tmp_path: Path, said: str, stderr: str, code: int, expected: int, last: str
) -> None:
    done = audited(tmp_path, said, stderr, code)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (expected, [last] if last else [])
    if "leaky" in said:
        assert "runtime.txt: leaky 2 PYSEC-1" in done.stdout
    if not last:
        assert stderr in done.stderr


def test_without_a_network_the_auditor_is_not_installed_and_nothing_fails(tmp_path: Path) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    done = run(tmp_path / "audit", PIP_CONFIG_FILE=os.devnull, **nowhere)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("NOT audited: nothing could be asked for\n")


def test_an_auditor_that_is_not_what_was_locked_fails(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    lock = (SCRIPT.parent / "audit.txt").read_text().splitlines()
    name, version = lock[1].split(" ")[0].split("==")
    (wheels / f"{name.replace('-', '_')}-{version}-py3-none-any.whl").write_bytes(b"another")
    found = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    done = run(tmp_path / "audit", PIP_CONFIG_FILE=os.devnull, **found)
    assert (done.returncode, "DO NOT MATCH THE HASHES" in done.stderr) == (1, True), done.stderr
