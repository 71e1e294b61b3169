"""What traces cost: `python -m bench.tracing_cost`.

Off: nanoseconds of each call that services make, beside an empty function's. On: the processor
time of a span, made, ended, batched and sent to a receiver of OTLP in another process' place: a
thread of this one, whose own time is measured beside and taken off.
"""

from __future__ import annotations

import os
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from bench.collector import Collector
from proto.messages import Usage
from services.runtime import call_span, tracing
from services.runtime.calls import ChatCall, Completion, Went
from services.runtime.pull import Delivery
from services.runtime.trace_ids import own_traceparent
from services.runtime.work import Job

CALLS: Final = 200_000
SPANS: Final = 4_000
HEADERS: Final = {"traceparent": own_traceparent("r1")}


def _job() -> Job:
    delivery = object.__new__(Delivery)  # without a message: none is asked for
    delivery.stored_at, delivery.times = 1000.0, 1
    return Job(delivery, 10.0, 1000.5, 1000.2)


def _nothing() -> None:
    """Do nothing."""


def _handled(job: Job) -> None:
    with tracing.handling("attempt", job, "r1", node=1, attempt=1, pool="small"):
        pass


def off_ns() -> dict[str, float]:
    """Return the time of each call site where traces are off, an empty call's taken off."""
    job = _job()
    sites: dict[str, Callable[[], object]] = {
        "`with handling(…)`: a node or a plan": lambda: _handled(job),
        "`child(…)`: an engine's call": lambda: tracing.child("chat", kind="client"),
        "`trace_of(…)`: an end": lambda: tracing.trace_of("r1", HEADERS),
        "`within(…)`: an event": lambda: tracing.within("r1", HEADERS),
        "`current().note(…)`": lambda: tracing.current().note(mode="sgd"),
    }
    floor = _ns(lambda: _nothing())
    return {name: max(0.0, _ns(site) - floor) for name, site in sites.items()}


def _ns(call: Callable[[], object]) -> float:
    return min(timeit.repeat(call, timer=time.process_time, number=CALLS, repeat=5)) / CALLS * 1e9


def on_us() -> float:
    """Return the processor time of a span that is recorded and exported."""
    with Collector() as collector:
        os.environ.update(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                "OTEL_BSP_MAX_QUEUE_SIZE": str(2 * SPANS),
            }
        )
        tracing.start("bench", "bench-1")
        began_s = time.process_time()
        for number in range(SPANS // 4):
            with tracing.submitting(f"r{number}", {}):
                _call()
        tracing.stop()
        spent_s = time.process_time() - began_s
        got = len(collector.spans)
        read_s = _reading_s(collector.bodies)
    if got != SPANS:
        raise RuntimeError(f"{got} of {SPANS} spans came")
    return (spent_s - read_s) / SPANS * 1e6


def _call() -> None:
    """Report an engine's call: three spans, with all attributes."""
    now = time.monotonic()
    went = Went(now - 1, now - 0.5, now, 100, complete=True, failure=None)
    done = Completion("stop", Usage(prompt_tokens=10, generated_tokens=5), "m", "http://e:1")
    call_span.end(
        call_span.begin(),
        ChatCall((), 100),
        went,
        done,
        url="http://e:1",
        model="m",
        provider="tgi",
    )


def _reading_s(bodies: list[bytes]) -> float:
    """Return what the receiver's reading of what came costs, done once more by itself."""
    again = Collector()
    began_s = time.process_time()
    for body in bodies:
        again._take(body)
    return time.process_time() - began_s


def report() -> str:
    """Return the table."""
    rows = [f"| off: {name} | {ns:.0f} ns |" for name, ns in off_ns().items()]
    rows.append(f"| on: a span, exported | {on_us():.0f} µs of CPU |")
    rows.append(f"| load of the machine | {os.getloadavg()[0]:.1f} |")
    return "\n".join(["| what | cost |", "| --- | --- |", *rows])


def main(
    report_to: Annotated[Path | None, typer.Option("--report", help="Markdown")] = None,
) -> None:
    """Measure, and print a table."""
    table = report()
    print(table)
    if report_to:
        report_to.write_text(table + "\n")


if __name__ == "__main__":
    typer.run(main)
