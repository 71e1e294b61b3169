"""Traces: one a request, across every process that it passes (ADR 0026).

This is the seam. It knows nothing of OpenTelemetry, which `services.runtime.otel` imports, and
only where the environment asks for traces; else each function here returns at once.

The trace of a request, its root's span id and those of its nodes follow from the request's id and
its `traceparent`. So every process knows them without being told, whoever was killed before,
and two processes that tell of the same span tell of one.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Protocol, Self

import structlog

from proto.errors import SkelgraphError
from proto.names import Header

if TYPE_CHECKING:
    from services.runtime.work import Job

Attribute = str | int | float | bool | Sequence[str]
Kind = Literal["internal", "server", "client", "producer", "consumer"]

#: W3C Trace Context, version 00; without ids of zeros, which are none.
_TRACEPARENT: Final = re.compile(
    r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})\Z"
)
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


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
        return _id(f"{self.trace_id:032x} request {self.request}", 8)

    def node(self, node: int) -> int:
        """Span id of one of its nodes."""
        return _id(f"{self.trace_id:032x} request {self.request} node {node}", 8)


class NoSpan:
    """A span that is not recorded; what a span can be told."""

    __slots__ = ()

    def rename(self, name: str) -> None:
        """Call it otherwise: its name was not known at its start."""

    def note(self, **about: Attribute | None) -> None:
        """Add attributes `skelgraph.<name>`; None is left out."""

    def put(self, attributes: Mapping[str, Attribute | None]) -> None:
        """Add attributes under their full names; None is left out."""

    def fail(self, code: str) -> None:
        """Mark it as failed, with an error code; never with a text."""

    def end(self, at: float | None = None) -> None:
        """Report it, ended at `at` (seconds since the epoch) or now. A second end is none."""

    def headers(self, given: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return headers that make what follows from a message or call a child of this span."""
        return dict(given or {})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""


NOTHING: Final = NoSpan()


class Span(NoSpan):
    """A span under way. As a context it is the parent of what begins within it, and logs name it.

    Args:
        trace: that it is part of.
        name: of few kinds; what differs from request to request is in attributes.
        parent: span id; 0 for the root.
        span_id: its own; a fresh one if 0.
        start_at: in seconds since the epoch; now if None.
        kind: its role in a call, as OpenTelemetry has it.
        links: span ids of the same trace on which it builds.
    """

    __slots__ = (
        "_bound",
        "_ended",
        "_token",
        "attributes",
        "end_at",
        "error",
        "kind",
        "links",
        "name",
        "parent",
        "span_id",
        "start_at",
        "trace",
    )

    def __init__(
        self,
        trace: Trace,
        name: str,
        *,
        parent: int,
        span_id: int = 0,
        start_at: float | None = None,
        kind: Kind = "internal",
        links: Sequence[int] = (),
    ) -> None:
        self.trace = trace
        self.name = name
        self.parent = parent
        self.span_id = span_id or int.from_bytes(secrets.token_bytes(8))
        self.start_at = now() if start_at is None else start_at
        self.end_at = self.start_at
        self.kind: Kind = kind
        self.links = tuple(links)
        self.attributes: dict[str, Attribute] = {}
        self.error: str | None = None
        self._ended = False
        self._token: Token[Span | None] | None = None
        self._bound: Mapping[str, Token[object]] = {}
        if trace.request:
            self.attributes["skelgraph.request"] = trace.request

    def rename(self, name: str) -> None:
        """Call it otherwise: its name was not known at its start."""
        self.name = name

    def note(self, **about: Attribute | None) -> None:
        """Add attributes `skelgraph.<name>`; None is left out."""
        self.put({f"skelgraph.{name}": value for name, value in about.items()})

    def put(self, attributes: Mapping[str, Attribute | None]) -> None:
        """Add attributes under their full names; None is left out."""
        self.attributes.update(
            {name: value for name, value in attributes.items() if value is not None}
        )

    def fail(self, code: str) -> None:
        """Mark it as failed, with an error code; never with a text."""
        self.error = code
        self.attributes["error.type"] = code

    def end(self, at: float | None = None) -> None:
        """Report it, ended at `at` (seconds since the epoch) or now. A second end is none."""
        if self._ended or _backend is None:
            return
        self._ended = True
        # Clocks of several machines: a span that ends before it began is drawn by nobody.
        self.end_at = max(self.start_at, now() if at is None else at)
        _backend.emit(self)

    def headers(self, given: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return headers that make what follows from a message or call a child of this span."""
        return {**(given or {}), Header.TRACEPARENT.value: self.traceparent}

    @property
    def traceparent(self) -> str:
        """It, as W3C Trace Context."""
        return f"00-{self.trace.trace_id:032x}-{self.span_id:016x}-01"

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        self._bound = structlog.contextvars.bind_contextvars(**_names(self.trace, self.span_id))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and self.error is None:
            self.fail(error.code if isinstance(error, SkelgraphError) else type(error).__name__)
        structlog.contextvars.reset_contextvars(**self._bound)
        if self._token:
            _current.reset(self._token)
        self.end()


class Backend(Protocol):
    """What records traces."""

    def samples(self, trace_id: int, caller: int, *, caller_sampled: bool) -> bool:
        """Return whether a trace is to be recorded; `caller` is 0 where it begins."""

    def emit(self, span: Span) -> None:
        """Take a span that has ended; must not block."""

    def close(self) -> None:
        """Send what is left, within a few seconds; may block."""


_backend: Backend | None = None
_clock: Callable[[], float] = time.time
_current: ContextVar[Span | None] = ContextVar("span", default=None)


def is_on() -> bool:
    """Whether traces are recorded."""
    return _backend is not None


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
    global _backend
    _backend = backend
    _trace.cache_clear()


def stop() -> None:
    """Send what is left and record no more; may block for a few seconds."""
    backend = _backend
    use(None)
    if backend:
        backend.close()


def use_clock(clock: Callable[[], float]) -> None:
    """Take the time of spans from `clock`: NATS's, so that processes agree."""
    global _clock
    _clock = clock


def now() -> float:
    """Seconds since the epoch, by the clock of the spans."""
    return _clock()


def since(monotonic: float) -> float:
    """Return the time of spans at which `time.monotonic()` was `monotonic`."""
    return now() - (time.monotonic() - monotonic)


def trace_of(request: str, headers: Mapping[str, str]) -> Trace | None:
    """Return the trace of a request; None if it is not recorded.

    Args:
        request: its id.
        headers: of any of its messages, which all have its `traceparent` if it has one.
    """
    if _backend is None:
        return None
    return _trace(request, headers.get(Header.TRACEPARENT, ""))


@functools.lru_cache(maxsize=4096)
def _trace(request: str, traceparent: str) -> Trace | None:
    if _backend is None:
        return None
    trace_id, caller, sampled = _read(traceparent) or (_own_trace(request), 0, False)
    trace = Trace(trace_id, request, caller)
    if caller == trace.root:  # nobody's span: its client made it up
        trace = Trace(trace_id, request)
    recorded = _backend.samples(trace_id, trace.caller, caller_sampled=sampled)
    return trace if recorded else None


def own_traceparent(request: str) -> str:
    """Return the W3C Trace Context of a request whose caller has none.

    It is not marked as sampled: whoever records decides that, and all of them alike.
    """
    trace = Trace(_own_trace(request), request)
    return f"00-{trace.trace_id:032x}-{trace.root:016x}-00"


def _own_trace(request: str) -> int:
    return _id(f"trace {request}", 16)


def _read(traceparent: str) -> tuple[int, int, bool] | None:
    parts = _TRACEPARENT.match(traceparent)
    if not parts:
        return None
    return int(parts[1], 16), int(parts[2], 16), bool(int(parts[3], 16) & 1)


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
    if _backend is None:
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


def within(request: str, headers: Mapping[str, str]) -> NoSpan | _Bound:
    """Return a context in which logs name the trace of a request."""
    if _backend is None:
        return NOTHING
    trace = trace_of(request, headers)
    return _Bound(_names(trace, trace.root)) if trace else NOTHING


def submitting(request: str, headers: Mapping[str, str]) -> NoSpan:
    """Return the span of handing a request to the queue."""
    if _backend is None:
        return NOTHING
    trace = trace_of(request, headers)
    if trace is None:
        return NOTHING
    return Span(trace, "submit", parent=trace.caller or trace.root, kind="producer")


def serving(name: str, traceparent: str) -> NoSpan:
    """Return the span of an HTTP request, part of the trace of `traceparent` or of a new one."""
    if _backend is None:
        return NOTHING
    fresh = (int.from_bytes(secrets.token_bytes(16)), 0, False)
    trace_id, caller, sampled = _read(traceparent) or fresh
    if not _backend.samples(trace_id, caller, caller_sampled=sampled):
        return NOTHING
    return Span(Trace(trace_id, "", caller), name, parent=caller, kind="server")


def child(name: str, *, kind: Kind = "internal", start_at: float | None = None) -> NoSpan:
    """Return a span below the one in whose context this is called; nothing without one."""
    if _backend is None:
        return NOTHING
    parent = _current.get()
    if parent is None:
        return NOTHING
    return Span(parent.trace, name, parent=parent.span_id, kind=kind, start_at=start_at)


def current() -> NoSpan:
    """Return the span in whose context this is called."""
    return NOTHING if _backend is None else _current.get() or NOTHING


def traceparent() -> str | None:
    """Return the W3C Trace Context of the span in whose context this is called."""
    span = None if _backend is None else _current.get()
    return span.traceparent if span else None


class _Bound:
    """A context whose logs have some fields more."""

    __slots__ = ("_fields", "_tokens")

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields
        self._tokens: Mapping[str, Token[object]] = {}

    def __enter__(self) -> None:
        self._tokens = structlog.contextvars.bind_contextvars(**self._fields)

    def __exit__(self, *_: object) -> None:
        structlog.contextvars.reset_contextvars(**self._tokens)


def _names(trace: Trace, span_id: int) -> dict[str, str]:
    return {"trace_id": f"{trace.trace_id:032x}", "span_id": f"{span_id:016x}"}


def _id(text: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size]) or 1
