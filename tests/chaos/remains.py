"""What must be left of a run: nothing but the living, and those as they were.

Tasks are not counted: no metric tells their number. What they hold is: connections, consumers,
open files, memory, and work in flight.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from proto.names import Stream
from tests.chaos.evidence import Evidence
from tests.chaos.violations import Violation
from tests.chaos.watch import Growth

#: Memory of a long-lived process may grow by the larger of the two after its first third, as
#: caches fill.
GROWTH_MIB: Final = 15.0
GROWTH_SHARE: Final = 0.20
FILES: Final = 12


def queues_are_empty(evidence: Evidence) -> Iterator[Violation]:
    for queue, subjects in evidence.left.items():
        for subject in subjects:
            yield Violation("queue not empty", f"{queue}: {subject}")
    for consumer, (unacked, undelivered) in evidence.held.items():
        if unacked or undelivered:
            detail = f"{consumer}: {unacked} unacked, {undelivered} undelivered"
            yield Violation("consumer not done", detail)


def nothing_is_in_flight(evidence: Evidence) -> Iterator[Violation]:
    for name, kinds in evidence.gauges.items():
        for kind, value in kinds.items():
            if value:
                yield Violation("gauge not at 0", f"{name}: {kind} is {value:g}")
    for engine, count in evidence.open_streams.items():
        if count:
            yield Violation("connection left open", f"{engine}: {count}")


def processes_stay_well(evidence: Evidence) -> Iterator[Violation]:
    watch = evidence.watch
    for death in watch.deaths if watch else ():
        yield Violation("died by itself", death)
    for failure in evidence.failures:
        yield Violation("harness", failure)
    for one in watch.growth() if watch else ():
        if one.role.startswith(("nats", "engine")):
            continue  # caches and connections grow with the load; and they are not ours
        yield from _grown(one, requests_between(evidence, one.warm_at, one.last_at))


def _grown(one: Growth, requests: int) -> Iterator[Violation]:
    if one.last_mib - one.warm_mib > max(GROWTH_MIB, GROWTH_SHARE * one.warm_mib):
        grew = f"{one.role}: {one.warm_mib:.0f} → {one.last_mib:.0f} MiB"
        yield Violation("memory grows", f"{grew}, {one.kib_each(requests)} ({requests})")
    if one.last_files > one.warm_files + FILES:
        files = f"{one.role}: {one.warm_files:.0f} → {one.last_files:.0f} open files"
        yield Violation("files leak", files)


def requests_between(evidence: Evidence, begin: float, end: float) -> int:
    """Return how many requests ended in a time."""
    ends = [sent.ended_at for sent in evidence.sent.values() if sent.ended_at]
    return sum(begin <= at <= end for at in ends)


def nobody_is_connected_still(evidence: Evidence) -> Iterator[Violation]:
    for name, count in evidence.connections.items():
        if name not in evidence.expected:
            yield Violation("connection left", f"{name} at NATS, {count} times")
        elif count > 1:
            yield Violation("connection left", f"{name} has {count} connections to NATS")
    for name in sorted(evidence.expected - evidence.connections.keys()):
        yield Violation("not connected", f"{name} runs, and NATS does not know it")


def no_consumer_is_left(evidence: Evidence) -> Iterator[Violation]:
    for name in evidence.consumers_left:
        yield Violation("consumer left", f"{name} of {Stream.EVENTS}")
