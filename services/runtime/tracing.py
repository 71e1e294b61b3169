"""Traces: one a request, across every process that it passes (ADR 0026).

This is the seam. It knows nothing of OpenTelemetry, which `services.runtime.otel` imports, and
only where the environment asks for traces; else each function here returns at once.
"""

from __future__ import annotations

import functools
import os
import secrets
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from proto.names import Header
from services.runtime import trace_ids
from services.runtime.span import (
    NOTHING,
    Attribute,
    Backend,
    Bound,
    Kind,
    NoSpan,
    Span,
    current_span,
    names,
    recording,
)
from services.runtime.trace_ids import Trace

if TYPE_CHECKING:
    from services.runtime.work import Job


_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def is_on() -> bool:
    """Whether traces are recorded."""
    return recording.backend is not None


def is_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment asks for traces: it names an exporter or an endpoint."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if exporter := environment.get("OTEL_TRACES_EXPORTER", "").strip():
        return exporter != "none"
    return any(environment.get(name) for name in _ENDPOINTS)


def start(service: str, replica: str) -> None:
    """Record traces from now on, if the environment asks for them.

    Args:
        service: name of this service.
        replica: name of this process.

    Raises:
        ValueError: the environment asks for what there is not; names the variable.
    """
    if is_wanted():
        # The SDK takes 15 MiB and a third of a second: only who wants traces pays.
        from services.runtime.otel import OpenTelemetry

        use(OpenTelemetry(service, replica))


def use(backend: Backend | None) -> None:
    """Record traces with `backend` from now on; with None no longer."""
    recording.backend = backend
    _trace.cache_clear()


def stop() -> None:
    """Send what is left and record no more; may block for a few seconds."""
    backend = recording.backend
    use(None)
    if backend:
        backend.close()


def use_clock(clock: Callable[[], float]) -> None:
    """Take the time of spans from `clock`: NATS's, so that processes agree."""
    recording.clock = clock


def now() -> float:
    """Seconds since the epoch, by the clock of the spans."""
    return recording.clock()


def since(monotonic: float) -> float:
    """Return the time of spans at which `time.monotonic()` was `monotonic`."""
    return now() - (time.monotonic() - monotonic)


def trace_of(request: str, headers: Mapping[str, str]) -> Trace | None:
    """Return the trace of a request; None if it is not recorded.

    Args:
        request: its id.
        headers: of any of its messages, which all have its `traceparent` if it has one.
    """
    if recording.backend is None:
        return None
    return _trace(request, headers.get(Header.TRACEPARENT, ""))


@functools.lru_cache(maxsize=4096)
def _trace(request: str, traceparent: str) -> Trace | None:
    if recording.backend is None:
        return None
    trace_id, caller, sampled = trace_ids.read(traceparent) or (
        trace_ids.own_trace(request),
        0,
        False,
    )
    trace = Trace(trace_id, request, caller)
    if caller == trace.root:  # nobody's span: its client made it up
        trace = Trace(trace_id, request)
    recorded = recording.backend.samples(trace_id, trace.caller, caller_sampled=sampled)
    return trace if recorded else None


def handling(
    name: str, job: Job, request: str, *, node: int | None = None, **about: Attribute
) -> NoSpan:
    """Return the span of the work on a job; reports how long the job has waited.

    Args:
        name: of the work.
        job: received just now.
        request: whose it is.
        node: of the request, if it is one's.
        about: attributes `skelgraph.<name>`.
    """
    if recording.backend is None:
        return NOTHING
    trace = trace_of(request, job.delivery.headers)
    if trace is None:
        return NOTHING
    parent = trace.root if node is None else trace.node(node)
    about["deliveries"] = job.delivery.times
    waited = Span(trace, "queue", parent=parent, start_at=job.delivery.stored_at, kind="consumer")
    span = Span(trace, name, parent=parent, start_at=job.received_at)
    if node is not None:
        about["node"] = node
    span.note(**about)
    slot_wait_s = max(0.0, min(job.slot_free_since, job.received_at) - job.delivery.stored_at)
    waited.note(**about, slot_wait_ms=round(slot_wait_s * 1000, 3))
    waited.end(job.received_at)
    return span


def within(request: str, headers: Mapping[str, str]) -> NoSpan | Bound:
    """Return a context in which logs name the trace of a request."""
    if recording.backend is None:
        return NOTHING
    trace = trace_of(request, headers)
    return Bound(names(trace, trace.root)) if trace else NOTHING


def submitting(request: str, headers: Mapping[str, str]) -> NoSpan:
    """Return the span of handing a request to the queue."""
    if recording.backend is None:
        return NOTHING
    trace = trace_of(request, headers)
    if trace is None:
        return NOTHING
    return Span(trace, "submit", parent=trace.caller or trace.root, kind="producer")


def serving(name: str, traceparent: str) -> NoSpan:
    """Return the span of an HTTP request, part of the trace of `traceparent` or of a new one."""
    if recording.backend is None:
        return NOTHING
    fresh = (int.from_bytes(secrets.token_bytes(16)), 0, False)
    trace_id, caller, sampled = trace_ids.read(traceparent) or fresh
    if not recording.backend.samples(trace_id, caller, caller_sampled=sampled):
        return NOTHING
    return Span(Trace(trace_id, "", caller), name, parent=caller, kind="server")


def child(name: str, *, kind: Kind = "internal", start_at: float | None = None) -> NoSpan:
    """Return a span below the one in whose context this is called; nothing without one."""
    if recording.backend is None:
        return NOTHING
    parent = current_span.get()
    if parent is None:
        return NOTHING
    return Span(parent.trace, name, parent=parent.span_id, kind=kind, start_at=start_at)


def current() -> NoSpan:
    """Return the span in whose context this is called."""
    return NOTHING if recording.backend is None else current_span.get() or NOTHING


def traceparent() -> str | None:
    """Return the W3C Trace Context of the span in whose context this is called."""
    span = None if recording.backend is None else current_span.get()
    return span.traceparent if span else None
