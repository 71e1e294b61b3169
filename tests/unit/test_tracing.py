"""Traces: off costs nothing and imports nothing; on, every process finds the same places."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from proto.errors import EngineTimedOut
from services.runtime import tracing
from services.runtime.span import NOTHING, Span
from services.runtime.trace_ids import Trace, own_traceparent

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-00"}


class Recorder:
    """A backend that keeps what it gets, and samples as the caller does."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def samples(self, trace_id: int, caller: int, *, caller_sampled: bool) -> bool:
        return caller_sampled if caller else True

    def emit(self, span: Span) -> None:
        self.spans.append(span)

    def close(self) -> None:
        """Nothing is buffered."""


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    tracing.use(recorder)
    yield recorder
    tracing.use(None)


def test_without_a_word_in_the_environment_no_sdk_is_imported() -> None:
    code = (
        "import sys; from services.runtime import tracing;"
        "import services.planner.__main__, services.worker.__main__, services.gateway.__main__,"
        "services.assembler.__main__; tracing.start('a', 'b');"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_off_everything_is_the_same_nothing() -> None:
    assert tracing.trace_of("r1", HEADERS) is None
    assert tracing.submitting("r1", HEADERS) is NOTHING
    assert tracing.serving("GET", "") is NOTHING
    assert tracing.child("chat") is NOTHING
    with tracing.current() as span:
        span.note(mode="sgd")
        span.fail("busy")
    assert NOTHING.headers({"a": "b"}) == {"a": "b"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, False),
    ],
)
def test_the_environment_turns_traces_on(environment: dict[str, str], wanted: bool) -> None:
    assert tracing.is_wanted(environment) is wanted


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
)
def test_what_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=f"{variable}: '{value}'"):
        tracing.start("planner", "planner-1")


@given(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), st.integers(0, 999))
def test_every_process_finds_the_same_places(request_id: str, node: int) -> None:
    one = Trace(int(TRACE, 16), request_id)
    another = Trace(int(TRACE, 16), request_id, int(CALLER, 16))
    assert (one.root, one.node(node)) == (another.root, another.node(node))
    assert len({one.root, one.node(node), one.node(node + 1)}) == 3


def test_a_trace_is_the_callers_or_follows_from_the_request(recorder: Recorder) -> None:
    given_one = tracing.trace_of("r1", HEADERS)
    assert given_one == Trace(int(TRACE, 16), "r1", int(CALLER, 16))
    made_up = {"traceparent": own_traceparent("r1")}
    own = tracing.trace_of("r1", made_up)
    assert own == tracing.trace_of("r1", {}) == tracing.trace_of("r1", {"traceparent": "garbage"})
    assert own is not None
    assert own.caller == 0


@pytest.mark.parametrize(
    "traceparent",
    ["00-" + "0" * 32 + f"-{CALLER}-01", f"00-{TRACE}-" + "0" * 16 + "-01", "ff" + "-1" * 3, "é"],
)
def test_an_impossible_parent_is_none(recorder: Recorder, traceparent: str) -> None:
    assert tracing.trace_of("r1", {"traceparent": traceparent}) == tracing.trace_of("r1", {})


def test_what_is_not_sampled_is_not_recorded(recorder: Recorder) -> None:
    assert tracing.trace_of("r1", NOT_SAMPLED) is None
    assert tracing.submitting("r1", NOT_SAMPLED) is NOTHING
    assert tracing.serving("GET", NOT_SAMPLED["traceparent"]) is NOTHING


def test_a_span_is_the_parent_of_what_begins_within_it(recorder: Recorder) -> None:
    with tracing.submitting("r1", HEADERS) as outer:
        inner = tracing.child("chat", kind="client")
        assert tracing.traceparent() == outer.headers()["traceparent"]
        assert structlog.contextvars.get_contextvars()["trace_id"] == TRACE
        inner.end()
    assert tracing.traceparent() is None
    assert structlog.contextvars.get_contextvars() == {}
    chat, submit = recorder.spans
    assert (chat.parent, submit.parent) == (submit.span_id, int(CALLER, 16))
    assert chat.headers()["traceparent"] == f"00-{TRACE}-{chat.span_id:016x}-01"


def test_an_error_is_told_by_its_code_and_never_by_its_text(recorder: Recorder) -> None:
    with pytest.raises(EngineTimedOut), tracing.submitting("r1", {}):
        raise EngineTimedOut("CANARY")
    with pytest.raises(RuntimeError), tracing.submitting("r1", {}):
        raise RuntimeError("CANARY")
    assert [span.error for span in recorder.spans] == ["engine_timed_out", "RuntimeError"]
    assert "CANARY" not in str([span.attributes for span in recorder.spans])


def test_a_span_ends_once_and_never_before_it_began(recorder: Recorder) -> None:
    span = tracing.submitting("r1", {})
    span.end(at=1.0)
    span.end()
    (told,) = recorder.spans
    assert told.end_at == told.start_at
