"""OpenTelemetry behind the seam of `tracing`; imported only where traces are wanted.

What the SDK reads from the environment it reads itself: `OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_…`,
`OTEL_BSP_…`, `OTEL_EXPORTER_OTLP_…`.
"""

from __future__ import annotations

import os
import sys
import threading
from importlib import metadata
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from services.runtime.span import Span

#: A process that ends waits no longer than this for a collector.
CLOSE_S: Final = 3.0
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_NOT_SAMPLED: Final = TraceFlags(TraceFlags.DEFAULT)


class _Ids(RandomIdGenerator):
    """Gives the next span the ids that it has already."""

    def __init__(self) -> None:
        self.trace_id = self.span_id = 0

    def generate_trace_id(self) -> int:
        """Return the trace id of the span that is being made."""
        return self.trace_id

    def generate_span_id(self) -> int:
        """Return its span id."""
        return self.span_id


class OpenTelemetry:
    """Records with OpenTelemetry's SDK as the environment tells it to.

    Args:
        service: name of this service, unless `OTEL_SERVICE_NAME` says otherwise.
        replica: name of this process.

    Raises:
        ValueError: an unknown exporter or protocol; names the variable.
    """

    def __init__(self, service: str, replica: str) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME") or f"skelgraph-{service}"
        version = metadata.version("skelgraph")
        about = {"service.name": name, "service.instance.id": replica, "service.version": version}
        self._ids = _Ids()
        self._provider = TracerProvider(
            resource=Resource.create(about), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(_exporter()))
        self._tracer = self._provider.get_tracer("skelgraph", version)

    def samples(self, trace_id: int, caller: int, *, caller_sampled: bool) -> bool:
        """Return whether a trace is to be recorded."""
        context = _context(trace_id, caller, sampled=caller_sampled)
        result = self._provider.sampler.should_sample(context, trace_id, "request")
        return result.decision is Decision.RECORD_AND_SAMPLE

    def emit(self, span: Span) -> None:
        """Take a span that has ended."""
        trace_id = span.trace.trace_id
        self._ids.trace_id, self._ids.span_id = trace_id, span.span_id
        recorded = self._tracer.start_span(
            span.name,
            _context(trace_id, span.parent, sampled=True),
            SpanKind[span.kind.upper()],
            span.attributes,
            [Link(_place(trace_id, other, sampled=True)) for other in span.links],
            _nanoseconds(span.start_at),
        )
        if span.error:
            recorded.set_status(Status(StatusCode.ERROR, span.error))
        recorded.end(_nanoseconds(span.end_at))

    def close(self) -> None:
        """Send what is left, within a few seconds."""
        # A collector that is away would hold the SDK, and with it this process, for half a minute.
        closing = threading.Thread(target=self._provider.shutdown, name="close traces", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def _place(trace_id: int, span_id: int, *, sampled: bool) -> SpanContext:
    flags = _SAMPLED if sampled else _NOT_SAMPLED
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)


def _context(trace_id: int, parent: int, *, sampled: bool) -> Context:
    if not parent:
        return Context()
    return set_span_in_context(
        NonRecordingSpan(_place(trace_id, parent, sampled=sampled)), Context()
    )


def _exporter() -> SpanExporter:
    name = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if name == "console":
        return ConsoleSpanExporter(
            out=sys.stdout, formatter=lambda span: span.to_json(indent=None) + "\n"
        )
    if name != "otlp":
        raise ValueError(f"OTEL_TRACES_EXPORTER: {name!r} is none of otlp, console, none")
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = os.environ.get(variable, "http/protobuf")
        if protocol != "http/protobuf":
            raise ValueError(
                f"{variable}: {protocol!r} is not http/protobuf, which is all there is"
            )
    return OTLPSpanExporter()


def _nanoseconds(at: float) -> int:
    return int(at * 1e6) * 1000
