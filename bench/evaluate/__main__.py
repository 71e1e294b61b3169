"""`python -m bench.evaluate`: records, judges and reports; see docs/evaluation.md."""

from __future__ import annotations

from bench.evaluate.commands import app

if __name__ == "__main__":
    app()
