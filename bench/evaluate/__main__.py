"""`python -m bench.evaluate`: records, judges and reports; see docs/evaluation.md."""

from __future__ import annotations

from bench.evaluate import record_command, simulate_command  # noqa: F401 - they add their commands
from bench.evaluate.app import app

if __name__ == "__main__":
    app()
