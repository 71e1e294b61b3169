"""Ids of traces and spans, which follow from a request's id and its `traceparent`.

So every process knows them without being told, whoever was killed before, and two processes that
tell of the same span tell of one (ADR 0026). Pure.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

#: W3C Trace Context, version 00; without ids of zeros, which are none.
_TRACEPARENT: Final = re.compile(
    r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})\Z"
)


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace that is recorded.

    Args:
        trace_id: of the trace.
        request: whose it is; empty where it began before there was a request.
        caller: span id of who asked; 0 if the trace begins with the request.
    """

    trace_id: int
    request: str
    caller: int = 0

    @property
    def root(self) -> int:
        """Span id of the request."""
        return span_id(f"{self.trace_id:032x} request {self.request}", 8)

    def node(self, node: int) -> int:
        """Span id of one of its nodes."""
        return span_id(f"{self.trace_id:032x} request {self.request} node {node}", 8)


def own_traceparent(request: str) -> str:
    """Return the W3C Trace Context of a request whose caller has none.

    It is not marked as sampled: whoever records decides that, and all of them alike.
    """
    trace = Trace(own_trace(request), request)
    return f"00-{trace.trace_id:032x}-{trace.root:016x}-00"


def own_trace(request: str) -> int:
    """Return the trace id of a request whose caller has none."""
    return span_id(f"trace {request}", 16)


def read(traceparent: str) -> tuple[int, int, bool] | None:
    """Return trace id, span id and whether it is sampled; None if it is no trace context."""
    parts = _TRACEPARENT.match(traceparent)
    if not parts:
        return None
    return int(parts[1], 16), int(parts[2], 16), bool(int(parts[3], 16) & 1)


def span_id(text: str, size: int) -> int:
    """Return an id of `size` bytes that follows from `text`, never 0."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size]) or 1
