"""`python -m bench.evaluate`: records, judges and reports; see docs/evaluation.md."""

from __future__ import annotations

from bench.evaluate import (  # noqa: F401 - they add their commands
    ablate_command,
    judge_commands,
    pack_command,
    record_command,
    report_command,
    simulate_command,
)
from bench.evaluate.app import app

if __name__ == "__main__":
    app()
