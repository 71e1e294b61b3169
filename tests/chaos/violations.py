"""A promise that was not kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept: which check found it, and what it found."""

    check: str
    detail: str
    request: str | None = None
