"""The event log keeps the first of each fact and gives back all of a request."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime

import pytest

from proto.codec import encode
from proto.errors import NotProvisioned
from proto.messages import Fact
from services.runtime.facts import EventLog
from services.runtime.streams import StreamLimits, check_provisioned, provision
from tests.conftest import ACK_WAIT_S, PARTITIONS, Runtime
from tests.facts import REQUEST, accepted, answered, decoded, failed, plan, planned


async def test_a_fact_is_stored_once(runtime: Runtime, another: Runtime) -> None:
    ours, theirs = decoded(1, text="Ours."), decoded(1, text="Theirs.")
    assert await runtime.events.append(ours)
    assert not await another.events.append(theirs)
    assert [stored.fact for stored in await runtime.events.read(REQUEST)] == [ours]


async def test_all_facts_of_a_request_come_back_in_order_and_no_others(runtime: Runtime) -> None:
    facts: list[Fact] = [
        accepted(),
        planned(1),
        planned(2, [1]),
        plan([1, 2]),
        failed(1),
        decoded(1, attempt=2),
    ]
    for fact in facts:
        await runtime.events.append(fact, headers={"traceparent": "00-a-b-01"})
    await runtime.events.append(accepted("r1x"))
    stored = await runtime.events.read(REQUEST)
    assert [one.fact for one in stored] == facts
    assert {one.headers["traceparent"] for one in stored} == {"00-a-b-01"}
    assert [one.stored_at for one in stored] == sorted(one.stored_at for one in stored)


async def test_an_unknown_request_has_no_facts(runtime: Runtime) -> None:
    assert await runtime.events.read("nobody") == []
    assert not await runtime.events.has_ended("nobody")


async def test_a_fact_of_a_newer_version_is_passed_over_and_the_others_come_back(
    runtime: Runtime,
) -> None:
    await runtime.events.append(accepted())
    subject = runtime.events.subjects.planned(REQUEST, 7)
    await runtime.publisher.publish(subject, b'{"type":"NodePondered"}')
    await runtime.events.append(planned(8))
    kinds = [stored.fact.type for stored in await runtime.events.read(REQUEST)]
    assert kinds == ["RequestAccepted", "NodePlanned"]


async def test_what_stands_under_the_subject_of_another_fact_is_none(runtime: Runtime) -> None:
    subjects = runtime.events.subjects
    await runtime.events.append(accepted())
    for subject, body in (
        (subjects.decoded(REQUEST, 1), answered(REQUEST)),
        (subjects.decoded(REQUEST, 2), decoded(3)),
        (subjects.failed(REQUEST, 2, 1), failed(2, attempt=2)),
        (subjects.end(REQUEST), answered("r2")),
    ):
        await runtime.publisher.publish(subject, encode(body), first=True)
    assert [one.fact for one in await runtime.events.read(REQUEST)] == [accepted()]
    assert not await runtime.events.has_ended(REQUEST)


async def test_a_full_log_keeps_its_writers_waiting_and_loses_nothing(runtime: Runtime) -> None:
    limits = StreamLimits(partitions=PARTITIONS, ack_wait_s=ACK_WAIT_S, events_max_bytes=4096)
    await provision(runtime.connection, limits)
    number = 0
    while number < 100:
        waiting = asyncio.create_task(runtime.events.append(decoded(number, text="x" * 500)))
        done, _ = await asyncio.wait([waiting], timeout=0.5)
        if not done:
            break
        number += 1
    assert 0 < number < 100
    await provision(runtime.connection, limits.model_copy(update={"events_max_bytes": 10**6}))
    assert await asyncio.wait_for(waiting, 10)
    assert len(await runtime.events.read(REQUEST)) == number + 1


async def test_provisioning_again_keeps_what_is_stored(runtime: Runtime) -> None:
    await runtime.events.append(accepted())
    limits = StreamLimits(partitions=PARTITIONS, ack_wait_s=ACK_WAIT_S, max_queued_requests=5)
    await provision(runtime.connection, limits)
    assert len(await runtime.events.read(REQUEST)) == 1


async def test_a_service_with_other_partitions_than_the_log_is_told_so(runtime: Runtime) -> None:
    await check_provisioned(runtime.connection, PARTITIONS)
    with pytest.raises(NotProvisioned, match="SKELGRAPH_PARTITIONS"):
        await check_provisioned(runtime.connection, 1)


async def test_a_fact_says_what_it_is_in_headers_where_that_is_asked_for(runtime: Runtime) -> None:
    log = EventLog(runtime.connection, runtime.publisher, PARTITIONS, cloud_events=True)
    assert await log.append(decoded(2), headers={"traceparent": "00-a-b-01"})
    assert not await runtime.events.append(decoded(2))
    headers = dict((await runtime.events.read("r1"))[0].headers)
    assert headers["traceparent"] == "00-a-b-01"
    assert abs(datetime.fromisoformat(headers.pop("ce-time")).timestamp() - time.time()) < 60
    assert {name: value for name, value in headers.items() if name.startswith("ce-")} == {
        "ce-specversion": "1.0",
        "ce-id": log.subjects.decoded("r1", 2).removeprefix("skelgraph.v1."),
        "ce-source": "/skelgraph",
        "ce-type": "skelgraph.v1.NodeDecoded",
        "ce-subject": "r1",
    }
    await runtime.events.append(planned(3))
    plain = (await runtime.events.read("r1"))[1].headers
    assert not any(name.startswith("ce-") for name in plain)
