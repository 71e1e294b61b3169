"""Asks for known holes in the locked packages, with pip-audit; offline it says so and is content.

`make audit` runs it. Exit code 1 only if a hole is known: a service that does not answer, or does
not know the packages, must not stop a build that has changed nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
#: What runs in production, and on a developer's machine for users.
LOCKS = ("runtime.txt", "local.txt")


def findings(lock: str) -> list[str]:
    """Return the known holes of what `lock` names; prints how much could be asked for."""
    program = Path(sys.executable).with_name("pip-audit")
    argv = (program, "-r", FOLDER / lock, "--disable-pip", "--timeout", "5", "-f", "json")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603  our own words
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"{lock}: skipped, the service does not answer")
        return []
    unknown = sum("skip_reason" in package for package in packages)
    print(f"{lock}: {len(packages) - unknown} of {len(packages)} packages audited")
    return [
        f"{lock}: {package['name']} {package['version']}: {hole['id']}"
        for package in packages
        for hole in package.get("vulns", ())
    ]


def main() -> int:
    """Audit all locks; return the exit code."""
    found = [hole for lock in LOCKS for hole in findings(lock)]
    print("\n".join(found) if found else "no known holes in what was audited")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
