"""Request-reply for callers that follow no facts: submit, answer, await, cancel as a tenant."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest
from nats.aio.msg import Msg

from proto import channels
from proto.codec import MAX_REQUEST_BYTES, decode, encode
from proto.errors import Busy, InvalidRequest, RequestIdTaken, RequestTooLarge, UnknownRequest
from proto.messages import (
    AnswerPending,
    CancelOutcome,
    ErrorInfo,
    RequestAccepted,
    RequestCreated,
    RequestFailed,
    SubmitRequest,
)
from proto.names import (
    ANSWER,
    SUBMIT,
    Header,
    Stream,
    Subjects,
    in_tenant,
    new_request_id,
    of_tenant,
)
from services.assembler.asking import Asking
from services.assembler.ledger import Ledger
from services.assembler.service import Commands
from services.runtime import metrics
from services.runtime.client import Client
from services.runtime.ends import Ends
from services.runtime.responder import Responder
from services.runtime.streams import StreamLimits, provision
from skelgraph.local.nats import NatsServer
from tests.conftest import PARTITIONS, Runtime
from tests.facts import answered
from tests.processes import Services

MOST_WAITING = 2
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One for all these tests, each of which has request ids of its own."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def nats_server(server: NatsServer) -> NatsServer:
    return server


@pytest.fixture
def mine() -> str:
    return new_request_id()


@pytest.fixture
async def caller(runtime: Runtime, another: Runtime) -> AsyncIterator[Runtime]:
    """A caller, on a connection of its own; `runtime` answers as an assembler does."""
    client = Client(runtime.connection, runtime.publisher)
    ends = Ends(runtime.connection, runtime.events)
    asking, responder = Asking(client, ends, MOST_WAITING), Responder(runtime.connection)
    ledger = Ledger(runtime.connection, runtime.publisher, runtime.events)
    await responder.answer(channels.SUBMIT_COMMAND, asking.submit, tenants=True)
    await responder.answer(channels.ANSWER_COMMAND, asking.answer, tenants=True)
    await responder.answer(channels.AWAIT_COMMAND, asking.await_answer, tenants=True)
    await responder.answer(channels.CANCEL_COMMAND, Commands(ledger, client).cancel, tenants=True)
    await runtime.connection.api("INFO")  # the subscriptions have arrived before
    yield another
    ends.close()
    await responder.close(2)
    assert waiting() == 0


def waiting() -> float:
    return float(metrics.IN_FLIGHT.labels("waiting_caller")._value.get())


async def ask(caller: Runtime, subject: str, **body: object) -> Msg:
    return await caller.connection.request(subject, json.dumps(body).encode(), timeout_s=10)


def asking(caller: Runtime, subject: str = ANSWER, **body: object) -> asyncio.Task[Msg]:
    return asyncio.create_task(ask(caller, subject, **body))


async def until_waiting(count: int) -> None:
    async with asyncio.timeout(5):
        while waiting() != count:  # noqa: ASYNC110  # a gauge
            await asyncio.sleep(0.005)


async def end(runtime: Runtime, request: str) -> None:
    assert await runtime.events.append(answered(request))


async def queued(runtime: Runtime, request: str) -> Msg:
    """Return a queued request when it is there."""
    subject = f"$JS.API.DIRECT.GET.{Stream.REQUESTS}.{Subjects.request(request)}"
    async with asyncio.timeout(5):
        while True:
            reply = await runtime.connection.request(subject, timeout_s=2)
            if not (reply.headers or {}).get("Status"):
                return reply
            await asyncio.sleep(0.01)


async def take_up(runtime: Runtime, request: str) -> None:
    """Do what a planner does with a queued request."""
    subject = Subjects.request(request)
    submitted = decode(SubmitRequest, (await queued(runtime, request)).data)
    await runtime.events.append(
        RequestAccepted(request=request, submitted=submitted, submitted_at=1.0, deadline_at=2e9)
    )
    await runtime.connection.api(f"STREAM.PURGE.{Stream.REQUESTS}", {"filter": subject})


def error_in(reply: Msg) -> ErrorInfo:
    info = decode(ErrorInfo, reply.data)
    headers = reply.headers or {}
    assert headers[Header.SERVICE_ERROR_CODE] == info.code
    assert headers[Header.SERVICE_ERROR]
    return info


# --- submit ---------------------------------------------------------------------------


async def test_submit_stores_a_request_with_its_trace_and_replies_with_its_id(
    caller: Runtime,
) -> None:
    body, trace = b'{"question": "why?", "mode": "sgd"}', {"traceparent": TRACE}
    reply = await caller.connection.nc.request(SUBMIT, body, timeout=5, headers=trace)
    created = decode(RequestCreated, reply.data)
    assert created.outcome == "created"
    stored = await queued(caller, created.request)
    assert decode(SubmitRequest, stored.data) == SubmitRequest(question="why?", mode="sgd")
    assert (stored.headers or {})[Header.TRACEPARENT] == TRACE


@pytest.mark.parametrize("taken_up", [False, True])
async def test_the_same_request_twice_is_one_and_another_under_its_id_is_refused(
    caller: Runtime, taken_up: bool, mine: str
) -> None:
    outcomes = []
    for _ in range(2):
        reply = await ask(caller, SUBMIT, request=mine, question="why?")
        outcomes.append(decode(RequestCreated, reply.data).outcome)
        if taken_up and len(outcomes) == 1:
            await take_up(caller, mine)
    assert outcomes == ["created", "known"]
    refused = error_in(await ask(caller, SUBMIT, request=mine, question="why not?"))
    assert (refused.code, refused.field) == (RequestIdTaken.code, "request")


async def test_a_full_queue_is_busy_and_says_when_to_try_again(caller: Runtime) -> None:
    await provision(caller.connection, StreamLimits(partitions=PARTITIONS, max_queued_requests=1))
    await ask(caller, SUBMIT, question="why?")
    for subject in (SUBMIT, ANSWER):
        refused = error_in(await ask(caller, subject, question="why?"))
        assert refused.code == Busy.code
        assert refused.retryable
        assert refused.retry_after_s


@pytest.mark.parametrize("subject", [SUBMIT, ANSWER])
async def test_what_is_not_valid_is_refused_by_name(caller: Runtime, subject: str) -> None:
    for body, field in (
        ({"question": "why?", "colour": 1}, "colour"),
        ({"question": 7}, "question"),
        ({"question": "  "}, "question"),
        ({}, "question"),
        ({"question": "why?", "request": "a.b"}, "request"),
        ({"question": "why?", "owner": "me"}, "owner"),
        ({"question": "why?", "requeued_from": "r0"}, "requeued_from"),
        ({"question": "why?", "sampling": {"seed": -1}}, "sampling.seed"),
        ({"question": "why?", "wait_s": 1e9}, "wait_s"),
    ):
        refused = error_in(await ask(caller, subject, **body))
        assert (refused.code, refused.field) == (InvalidRequest.code, field)
    for data, code in (
        (b"", InvalidRequest.code),
        (b"\xff{", InvalidRequest.code),
        (b"[1]", InvalidRequest.code),
        (b'"' + b"x" * MAX_REQUEST_BYTES + b'"', RequestTooLarge.code),
    ):
        reply = await caller.connection.request(subject, data, timeout_s=5)
        assert error_in(reply).code == code


async def test_a_field_named_like_a_header_stays_in_the_body(caller: Runtime) -> None:
    reply = await ask(caller, SUBMIT, **{"question": "why?", "x\r\nNats-Msg-Id: 1": 1})
    assert error_in(reply).field == "x\r\nNats-Msg-Id: 1"
    assert set(reply.headers or {}) == {Header.SERVICE_ERROR, Header.SERVICE_ERROR_CODE}


async def test_no_reply_is_sent_to_where_it_would_be_a_fact_or_a_command(
    caller: Runtime, mine: str
) -> None:
    body = json.dumps({"question": "why?", "request": mine}).encode()
    for reply in (caller.events.subjects.end("victim"), Subjects.stop("victim"), "$JS.API.INFO"):
        for subject in (SUBMIT, ANSWER, Subjects.answer("nobody"), Subjects.cancel("nobody")):
            await caller.connection.publish(subject, body, reply=reply)
    later = await ask(caller, SUBMIT, question="why?")  # commands are heard in order
    assert decode(RequestCreated, later.data).outcome == "created"
    assert not await caller.events.knows("victim")
    with pytest.raises(UnknownRequest):
        await Client(caller.connection, caller.publisher).state(mine)


async def test_an_end_that_is_anothers_is_nobodys(caller: Runtime, mine: str) -> None:
    forged = encode(answered("another"))
    await ask(caller, SUBMIT, question="why?", request=mine)
    await caller.publisher.publish(caller.events.subjects.end(mine), forged)
    reply = await ask(caller, Subjects.answer(mine), wait_s=0.2)
    assert decode(AnswerPending, reply.data).request == mine


# --- answer ---------------------------------------------------------------------------


async def test_callers_under_one_id_get_the_one_answer_as_it_is_stored(
    caller: Runtime, mine: str
) -> None:
    asked = [asking(caller, request=mine, question="why?") for _ in range(MOST_WAITING)]
    await until_waiting(MOST_WAITING)
    await take_up(caller, mine)
    await end(caller, mine)
    replies = {(await one).data for one in asked}
    assert replies == {encode(answered(mine))}
    later = await ask(caller, ANSWER, request=mine, question="why?")
    assert {later.data} == replies


async def test_an_end_without_an_answer_is_the_answer(caller: Runtime, mine: str) -> None:
    asked = asking(caller, request=mine, question="why?")
    await until_waiting(1)
    refused = RequestFailed(request=mine, error=ErrorInfo.of(Busy(retry_after_s=5.0)))
    await caller.events.append(refused)
    assert decode(RequestFailed, (await asked).data) == refused
    again = await ask(caller, Subjects.answer(mine))  # no planner has taken it up
    assert decode(RequestFailed, again.data) == refused


async def test_who_has_waited_long_enough_is_told_how_to_go_on(caller: Runtime) -> None:
    reply = await ask(caller, ANSWER, question="why?", wait_s=0.05)
    pending = decode(AnswerPending, reply.data)
    await take_up(caller, pending.request)
    asked = asking(caller, Subjects.answer(pending.request))
    await until_waiting(1)
    await end(caller, pending.request)
    assert (await asked).data == encode(answered(pending.request))


async def test_nobody_waits_for_what_is_unknown(caller: Runtime, mine: str) -> None:
    assert error_in(await ask(caller, Subjects.answer(mine))).code == UnknownRequest.code
    assert error_in(await ask(caller, Subjects.answer("x" * 65))).field == "request"


async def test_waiting_callers_are_bounded_keep_nobody_waiting_and_leave_nothing(
    caller: Runtime,
) -> None:
    gone = [asking(caller, question="why?", wait_s=0.5) for _ in range(MOST_WAITING)]
    await until_waiting(MOST_WAITING)
    refused = error_in(await ask(caller, ANSWER, question="why?"))
    assert (refused.code, refused.retry_after_s) == (Busy.code, 1.0)
    assert (await ask(caller, Subjects.cancel("r9"))).data == encode(
        CancelOutcome(request="r9", outcome="unknown")
    )
    for one in gone:
        one.cancel()
    await until_waiting(0)


async def test_the_end_reaches_its_caller_although_nats_was_away(
    runtime: Runtime, caller: Runtime, mine: str
) -> None:
    inbox: asyncio.Queue[Msg] = asyncio.Queue()
    await caller.connection.subscribe("_INBOX.mine", inbox.put)
    body = json.dumps({"question": "why?", "request": mine}).encode()
    await caller.connection.publish(ANSWER, body, reply="_INBOX.mine")
    await take_up(caller, mine)
    await until_waiting(1)
    runtime.server.restart()
    await end(caller, mine)
    async with asyncio.timeout(5):
        assert (await inbox.get()).data == encode(answered(mine))


# --- tenants --------------------------------------------------------------------------


async def test_no_tenant_takes_all_places_of_those_that_wait(caller: Runtime) -> None:
    def waits(owner: str) -> asyncio.Task[Msg]:
        return asking(caller, of_tenant(ANSWER, owner), question="why?", wait_s=0.5)

    first = waits("acme")
    await until_waiting(1)
    assert error_in(await waits("acme")).code == Busy.code
    other = waits("bolt")
    await until_waiting(2)
    for one in (first, other):
        assert decode(AnswerPending, (await one).data)


async def test_commands_that_find_no_place_are_refused_and_those_of_others_are_not(
    runtime: Runtime, another: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.runtime.responder.MOST_QUEUED", 7)
    may_go_on, responder = asyncio.Event(), Responder(runtime.connection)

    async def slow(_: Msg) -> bytes:
        await may_go_on.wait()
        return b"{}"

    await responder.answer(channels.SUBMIT_COMMAND, slow, most=1, tenants=True)
    await runtime.connection.api("INFO")
    flood = [asking(another, of_tenant(SUBMIT, "acme")) for _ in range(20)]
    done, waiting_still = await asyncio.wait(flood, timeout=1)
    assert {error_in(one.result()).code for one in done} == {Busy.code}
    assert len(waiting_still) == 4  # half of the places
    other = asking(another, of_tenant(SUBMIT, "bolt"))
    may_go_on.set()
    assert [(await one).data for one in (*waiting_still, other)] == [b"{}"] * 5
    await responder.close(1)


async def test_a_request_is_its_owners_only(caller: Runtime, mine: str) -> None:
    def of(owner: str, subject: str) -> str:
        return of_tenant(subject, owner)

    refused = error_in(await ask(caller, of("acme", SUBMIT), request=mine, question="why?"))
    assert (refused.code, refused.field) == (InvalidRequest.code, "request")
    mine = in_tenant("acme", mine)
    await ask(caller, of("acme", SUBMIT), request=mine, question="why?")
    await take_up(caller, mine)
    stored = (await caller.events.read(mine))[0].fact
    assert isinstance(stored, RequestAccepted)
    assert stored.submitted.owner == "acme"
    for other in (of("other", Subjects.answer(mine)), Subjects.answer(mine)):
        assert error_in(await ask(caller, other)).code == UnknownRequest.code
    for subject, code in (
        (of("other", ANSWER), InvalidRequest.code),
        (ANSWER, RequestIdTaken.code),
    ):
        assert error_in(await ask(caller, subject, request=mine, question="why?")).code == code
    for owner, outcome in (("other", "unknown"), ("acme", "cancelled")):
        reply = await ask(caller, of(owner, Subjects.cancel(mine)))
        assert decode(CancelOutcome, reply.data).outcome == outcome
    ended = await ask(caller, of("acme", Subjects.answer(mine)))
    assert decode(RequestFailed, ended.data).error.code == "cancelled"


# --- as a process: discovery, and its end ---------------------------------------------


async def test_an_assembler_is_found_and_lets_no_caller_hang_when_it_ends(
    runtime: Runtime, another: Runtime, tmp_path: Path, mine: str
) -> None:
    async with AsyncExitStack() as stack:
        child = await Services(stack, runtime, tmp_path / "logs").start("assembler")
        ping = orjson.loads((await ask(another, "$SRV.PING")).data)
        assert ping["type"] == "io.nats.micro.v1.ping_response"
        asked = asking(another, question="why?", request=mine)
        await ask(another, SUBMIT, question=7)
        one = f"{ping['name']}.{ping['id']}"
        info = orjson.loads((await ask(another, f"$SRV.INFO.{one}")).data)
        found = {at["name"]: at for at in info["endpoints"] if "tenant" not in at["subject"]}
        assert {name: at["subject"] for name, at in found.items()} == {
            channel.name: channel.pattern for channel in channels.COMMANDS
        }
        assert found["submit"]["metadata"]["request_schema"] == "urn:skelgraph:v1:CreateRequest"
        stats = orjson.loads((await ask(another, f"$SRV.STATS.{ping['name']}")).data)
        submits = next(at for at in stats["endpoints"] if at["subject"] == SUBMIT)
        assert (submits["num_requests"], submits["num_errors"]) == (1, 1)
        assert submits["last_error"] == InvalidRequest.code
        assert submits["average_processing_time"] == submits["processing_time"] > 0
        await child.stop()
        assert decode(AnswerPending, (await asked).data).request == mine
