"""KEDA's arithmetic on a real server: the lag it sees, the replicas it asks for, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.autoscale.keda import ConsumerUnknown, Trigger, lag_of, read_jsz
from proto.names import Band, Pool, Stream, Subjects, node_consumer
from services.runtime import logs
from tests.chaos.scaling import Course, rise_and_fall, scale, scalings, summary
from tests.conftest import Runtime
from tests.processes import Inbox


async def test_the_scalers_query_tells_what_waits_and_what_runs(runtime: Runtime) -> None:
    consumer = node_consumer(Pool.SMALL, Band.NORMAL)
    trigger = Trigger("normal", "$G", Stream.NODES, consumer, 6)
    endpoint = runtime.server.monitor_url.removeprefix("http://")
    for node in range(7):
        subject = Subjects.node(Pool.SMALL, Band.NORMAL, "request", node, 1)
        await runtime.publisher.publish(subject, b"{}")
    assert lag_of(read_jsz(endpoint, "$G"), trigger) == 7
    async with Inbox(runtime, Stream.NODES, consumer) as inbox:
        got = await inbox.wait_for(7)
        # Held by a worker: it is not to be scaled away from under it.
        assert lag_of(read_jsz(endpoint, "$G"), trigger) == 7
        for delivery in got[:3]:
            await delivery.ack()
        await runtime.connection.api("INFO")  # the acks were taken before this was answered
        assert lag_of(read_jsz(endpoint, "$G"), trigger) == 4
    with pytest.raises(ConsumerUnknown):
        lag_of(read_jsz(endpoint, "NOBODY"), trigger)


def test_the_manifests_scale_what_is_deployed() -> None:
    found = scalings(time_scale=1)
    assert set(found) == {"planner", "worker-large", "worker-small"}
    for pool in Pool:
        consumers = {one.consumer for one in found[f"worker-{pool}"].triggers}
        assert consumers == {node_consumer(pool, band) for band in Band}


def test_a_course_is_as_long_and_as_steep_as_it_says() -> None:
    course = rise_and_fall(peak=4, seconds=100)
    assert course.length_s == 100
    assert (course.rate(5), course.rate(40), course.rate(90)) == (0.4, 4, 0.4)
    assert Course([(0, 0), (10, 10)]).rate(5) == 5


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_replicas_follow_the_load_and_nothing_is_lost(tmp_path: Path) -> None:
    logs.configure("error", "console")
    outcome, scaler = await scale(tmp_path, rise_and_fall(peak=6, seconds=40), time_scale=40)
    print(summary(outcome, scaler))
    assert outcome.violations == []
    assert outcome.answered == len(outcome.evidence.sent)
    for name, scaling in scaler.scalings.items():
        course = [one.wanted[name] for one in scaler.samples]
        assert course[-1] == scaling.minimum
        if name != "planner":
            assert max(course) > scaling.minimum
