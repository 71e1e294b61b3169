"""A receiver of traces: OTLP over HTTP, as a collector takes it (`POST /v1/traces`, protobuf)."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

Value = str | int | float | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ToldSpan:
    """A span as it was exported. Times are seconds since the epoch; ids are hexadecimal."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_at: float
    end_at: float
    attributes: dict[str, Value]
    links: tuple[str, ...]
    error: str

    @property
    def ms(self) -> float:
        """How long it took."""
        return (self.end_at - self.start_at) * 1000


class Collector:
    """Takes traces on a port of 127.0.0.1, within its context.

    Attributes:
        bodies: all that came, as bytes, for whoever looks for what must not be in it.
    """

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._spans: list[ToldSpan] = []
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._take))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The value of `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process is told so that it sends its traces here, and soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}

    @property
    def spans(self) -> list[ToldSpan]:
        """All spans so far, in the order of their start."""
        with self._changed:
            return sorted(self._spans, key=lambda span: (span.start_at, -span.end_at))

    def trace_with(self, name: str, limit_s: float = 15.0) -> list[ToldSpan]:
        """Return the spans of the first trace that has a span `name`, waiting for it.

        Raises:
            TimeoutError: there is none in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._find(name), limit_s):
                raise TimeoutError(f"no span {name!r} in {limit_s:g} s")
        found = self._find(name)
        return [span for span in self.spans if found and span.trace_id == found.trace_id]

    def _find(self, name: str) -> ToldSpan | None:
        return next((span for span in self._spans if span.name == name), None)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, body: bytes) -> None:
        told = ExportTraceServiceRequest.FromString(body)
        with self._changed:
            self.bodies.append(body)
            self._spans.extend(_spans(told))
            self._changed.notify_all()


def _handler(take: Callable[[bytes], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            take(gzip.decompress(body) if self.headers.get("Content-Encoding") else body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def _spans(told: ExportTraceServiceRequest) -> Iterable[ToldSpan]:
    for resource in told.resource_spans:
        service = str(_values(resource.resource.attributes)["service.name"])
        for scope in resource.scope_spans:
            yield from (_span(service, span) for span in scope.spans)


def _span(service: str, span: trace_pb2.Span) -> ToldSpan:
    failed = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    return ToldSpan(
        service=service,
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_at=span.start_time_unix_nano / 1e9,
        end_at=span.end_time_unix_nano / 1e9,
        attributes=_values(span.attributes),
        links=tuple(link.span_id.hex() for link in span.links),
        error=span.status.message or "error" if failed else "",
    )


def _values(attributes: Iterable[KeyValue]) -> dict[str, Value]:
    return {one.key: _value(one.value) for one in attributes}


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(one.string_value for one in value.array_value.values)
    found: Value = getattr(value, str(kind))
    return found
