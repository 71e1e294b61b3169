"""The JavaScript example's packages: locked without a host, and loud where they cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

REACHED = "mkdir -p node_modules && touch node_modules/.package-lock.json"
OFFLINE = "echo 'npm error code EAI_AGAIN' >&2; exit 1"
BROKEN = "echo 'npm error code EUSAGE: lock file and package.json are not in sync' >&2; exit 1"


def install(folder: Path, npm: str | None, times: int = 1) -> subprocess.CompletedProcess[str]:
    """Run the script with an npm that does just this, so many times; return the last."""
    programs = folder / "bin"
    programs.mkdir()
    for name, content in (("node", "exit 0"), ("npm", npm)):
        if content is not None:
            (programs / name).write_text(f"#!/bin/sh\necho $0 $1 >>calls\n{content}\n")
            (programs / name).chmod(0o755)
    for tool in ("dirname", "find", "mkdir", "touch"):
        (programs / tool).symlink_to(shutil.which(tool) or "")
    for name in ("install.sh", "package-lock.json"):
        shutil.copy(EXAMPLES / name, folder)
    os.utime(folder / "package-lock.json", (1, 1))
    argv = ("/bin/sh", str(folder / "install.sh"))
    env = {"PATH": str(programs)}
    for _ in range(times):
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    return done


@pytest.mark.parametrize(
    ("npm", "code", "said"),
    [
        (REACHED, 0, ""),
        (OFFLINE, 0, "!!! NOT TESTED: docs/examples/client.mjs: npm's registry cannot be reached"),
        (None, 0, "!!! NOT TESTED: docs/examples/client.mjs: there is no npm"),
        (BROKEN, 1, "npm error code EUSAGE"),
    ],
)
def test_what_cannot_be_had_is_said_and_what_is_broken_fails(
    tmp_path: Path, npm: str | None, code: int, said: str
) -> None:
    done = install(tmp_path, npm)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert bool(done.stderr) == bool(said)


def test_packages_that_are_there_are_not_fetched_again(tmp_path: Path) -> None:
    assert install(tmp_path, REACHED, times=2).returncode == 0
    assert (tmp_path / "calls").read_text().splitlines() == [f"{tmp_path}/bin/npm ci"]


def test_the_lock_names_no_registry() -> None:
    lock = (EXAMPLES / "package-lock.json").read_text()
    assert "integrity" in lock
    assert "resolved" not in lock
    assert "://" not in lock
