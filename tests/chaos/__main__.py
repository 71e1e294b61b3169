"""`python -m tests.chaos`: load, faults by seed, an audit. Exit code 1 on any violation."""

from __future__ import annotations

import asyncio
import sys

from services.runtime import logs
from tests.chaos.options import parse
from tests.chaos.report import report
from tests.chaos.run import run, say


def main() -> int:
    """Run and report; return the exit code: 1 for a violation, 130 for Ctrl-C."""
    options = parse()
    logs.configure("error", "console")
    say(
        f"chaos: seed {options.seed}, {options.requests} requests in {options.minutes:g} min,"
        f" {options.faults_per_minute:g} faults a minute, {options.profile},"
        f" {options.engine} engines"
    )
    try:
        result = asyncio.run(run(options, say))
    except KeyboardInterrupt:
        say(f"stopped; nothing runs any more (seed {options.seed})")
        return 130
    print(report(result))
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
