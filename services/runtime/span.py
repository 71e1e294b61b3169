"""A span of a trace: what it is told while it is under way, and to whom it is reported."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Protocol, Self

import structlog

from proto.errors import SkelgraphError
from proto.names import Header
from services.runtime.trace_ids import Trace

Attribute = str | int | float | bool | Sequence[str]
Kind = Literal["internal", "server", "client", "producer", "consumer"]


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
        self.start_at = recording.clock() if start_at is None else start_at
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
        if self._ended or recording.backend is None:
            return
        self._ended = True
        # Clocks of several machines: a span that ends before it began is drawn by nobody.
        self.end_at = max(self.start_at, recording.clock() if at is None else at)
        recording.backend.emit(self)

    def headers(self, given: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return headers that make what follows from a message or call a child of this span."""
        return {**(given or {}), Header.TRACEPARENT.value: self.traceparent}

    @property
    def traceparent(self) -> str:
        """It, as W3C Trace Context."""
        return f"00-{self.trace.trace_id:032x}-{self.span_id:016x}-01"

    def __enter__(self) -> Self:
        self._token = current_span.set(self)
        self._bound = structlog.contextvars.bind_contextvars(**names(self.trace, self.span_id))
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
            current_span.reset(self._token)
        self.end()


class Backend(Protocol):
    """What records traces."""

    def samples(self, trace_id: int, caller: int, *, caller_sampled: bool) -> bool:
        """Return whether a trace is to be recorded; `caller` is 0 where it begins."""

    def emit(self, span: Span) -> None:
        """Take a span that has ended; must not block."""

    def close(self) -> None:
        """Send what is left, within a few seconds; may block."""


@dataclass(slots=True)
class Recording:
    """Whether this process records traces, and by which clock."""

    #: None: nothing is recorded.
    backend: Backend | None = None
    clock: Callable[[], float] = time.time


recording: Final = Recording()
#: The span in whose context something runs.
current_span: Final[ContextVar[Span | None]] = ContextVar("span", default=None)


class Bound:
    """A context whose logs have some fields more."""

    __slots__ = ("_fields", "_tokens")

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields
        self._tokens: Mapping[str, Token[object]] = {}

    def __enter__(self) -> None:
        self._tokens = structlog.contextvars.bind_contextvars(**self._fields)

    def __exit__(self, *_: object) -> None:
        structlog.contextvars.reset_contextvars(**self._tokens)


def names(trace: Trace, span_id: int) -> dict[str, str]:
    """Return what logs say of a span."""
    return {"trace_id": f"{trace.trace_id:032x}", "span_id": f"{span_id:016x}"}
