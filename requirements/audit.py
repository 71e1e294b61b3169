"""Asks for known holes in the locked packages, with pip-audit: `python audit.py FOLDER`.

`make audit` runs it. FOLDER is the environment of pip-audit, made from audit.txt where it is not
there. Exit code 1 if a hole is known, or if the auditor is broken: what has not been asked is not
without holes. A machine without a network fails neither here nor in CI; then the last line says
that nothing, or how little, was audited.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
#: What runs in production, on users' machines, and where it is tested and built.
LOCKS = ("runtime.txt", "local.txt", "dev.txt", "build.txt")
#: What pip and pip-audit say where an index or the service cannot be reached, or does not serve.
_UNREACHABLE = re.compile(
    r"^(?:requests|urllib3)\.exceptions\.\w+|Could not connect|connection broken by"
    r"|No matching distribution found|HTTP error 5\d\d",
    re.MULTILINE,
)


class Unreachable(Exception):
    """There is no network, or nobody there who answers."""


class Broken(Exception):
    """The auditor has failed; what it said."""


def main(folder: Path) -> int:
    """Audit all locks; return the exit code."""
    counted = Counter[str]()
    try:
        program = auditor(folder)
        for lock in LOCKS:
            counted += report(lock, audited(program, lock))
    except Unreachable as error:
        print(f"not reached: {error}")
    except Broken as error:
        print(f"the auditor has failed:\n{error}", file=sys.stderr)
        return 1
    print(summary(counted))
    return 1 if counted["holes"] else 0


def auditor(folder: Path) -> Path:
    """Return the path of pip-audit in `folder`; install it if it is not there.

    Raises:
        Unreachable: its packages cannot be had.
        Broken: they cannot be installed.
    """
    lock, done = HERE / "audit.txt", folder / ".done"
    if not done.exists() or done.stat().st_mtime < lock.stat().st_mtime:
        venv.create(folder, clear=True)
        install = ("-m", "pip", "--python", folder, "--no-input", "install", "-q")
        made = _run(sys.executable, *install, "--require-hashes", "-r", lock)
        if made.returncode:
            raise failure(made.stderr)
        done.touch()
    return folder / "bin" / "pip-audit"


def audited(program: Path, lock: str) -> list[dict]:
    """Return what pip-audit says of each package of `lock`.

    Raises:
        Unreachable: the service does not answer.
        Broken: pip-audit has failed.
    """
    asked = ("-r", HERE / lock, "--disable-pip", "--timeout", "5", "-f", "json")
    done = _run(program, *asked)
    try:
        if done.returncode in {0, 1}:  # 1: it has found holes, or could not ask
            return json.loads(done.stdout)["dependencies"]
        raise ValueError(done.returncode)
    except (ValueError, KeyError):
        raise failure(done.stderr or f"no report, exit code {done.returncode}") from None


def failure(stderr: str) -> Exception:
    """Return what the words of a program that failed amount to."""
    if _UNREACHABLE.search(stderr) and "DO NOT MATCH THE HASHES" not in stderr:
        return Unreachable(stderr.strip().splitlines()[-1][:200])
    return Broken(stderr.strip())


def report(lock: str, packages: list[dict]) -> Counter[str]:
    """Print what is known of a lock's packages, and count it."""
    known = [one for one in packages if "skip_reason" not in one]
    holes = [(one["name"], one["version"], hole["id"]) for one in known for hole in one["vulns"]]
    print(f"{lock}: {len(known)} of {len(packages)} packages audited")
    for hole in holes:
        print(f"{lock}:", *hole)
    return Counter(asked=len(packages), known=len(known), holes=len(holes))


def summary(counted: Counter[str]) -> str:
    """Return the last line."""
    if not counted["known"]:
        return "NOT audited: nothing could be asked for"
    return f"{counted['holes']} known holes; {counted['known']} of {counted['asked']} audited"


def _run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        return subprocess.CompletedProcess(argv, 127, "", str(error))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
