"""The client against a real nats-server: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from nats.aio.msg import Msg

from proto.codec import MAX_REQUEST_BYTES, decode, encode
from proto.errors import (
    Busy,
    Cancelled,
    InvalidRequest,
    NotProvisioned,
    QueueUnavailable,
    RequestTooLarge,
    UnknownRequest,
)
from proto.messages import (
    AnswerAssembled,
    CancelOutcome,
    CancelRequest,
    ErrorInfo,
    Fact,
    Preview,
    RequestFailed,
    SubmitRequest,
    TokensDecoded,
)
from proto.names import ANY_CANCEL, STREAM_SUBJECTS, Header, Stream, Subjects, request_of
from services.runtime.client import Client, make_request
from services.runtime.fact_reader import LogReader
from services.runtime.opening import open_client
from services.runtime.streams import StreamLimits, provision
from tests.conftest import Runtime
from tests.unit.test_order import REQUEST, answered, completed, decoded, planned, tokens

QUESTION = SubmitRequest(question="why?")


@pytest.fixture
async def client(runtime: Runtime) -> AsyncIterator[Client]:
    async with open_client([runtime.server.url]) as client:
        yield client


async def subscribed(runtime: Runtime, subject: str) -> asyncio.Queue[Msg]:
    """Return a queue of what comes on `subject` from now on; the server knows of it."""
    queue: asyncio.Queue[Msg] = asyncio.Queue()
    await runtime.connection.subscribe(subject, queue.put)
    await runtime.connection.api("INFO")
    return queue


async def read_message(runtime: Runtime, stream: Stream) -> dict[str, str]:
    message = await runtime.connection.nc.request(
        f"$JS.API.DIRECT.GET.{stream}", b'{"seq": 1}', timeout=2
    )
    return dict(message.headers or {})


# --- submit ---------------------------------------------------------------------------


async def test_a_request_is_stored_with_a_trace_of_its_own(
    runtime: Runtime, client: Client
) -> None:
    await client.submit(QUESTION, REQUEST)
    headers = await read_message(runtime, Stream.REQUESTS)
    assert headers["Nats-Subject"] == Subjects.request(REQUEST)
    version, trace, span, flags = headers[Header.TRACEPARENT].split("-")
    # Not marked as sampled: the services decide that, each of them alike.
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "00")


async def test_the_callers_trace_is_passed_on(runtime: Runtime, client: Client) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await client.submit(QUESTION, REQUEST, traceparent=given)
    assert (await read_message(runtime, Stream.REQUESTS))[Header.TRACEPARENT] == given


async def test_submitting_twice_is_submitting_once(runtime: Runtime, client: Client) -> None:
    await client.submit(QUESTION, REQUEST)
    await client.submit(QUESTION, REQUEST)
    info = await runtime.connection.api(f"STREAM.INFO.{Stream.REQUESTS}")
    state = info["state"]
    assert isinstance(state, dict)
    assert state["messages"] == 1


async def test_a_full_queue_is_busy_and_says_when_to_try_again(
    runtime: Runtime, client: Client
) -> None:
    await provision(runtime.connection, StreamLimits(partitions=2, max_queued_requests=1))
    await client.submit(QUESTION, REQUEST)
    with pytest.raises(Busy) as caught:
        await client.submit(QUESTION, "another")
    assert caught.value.retry_after_s


async def test_what_is_too_large_is_refused_before_anything_is_sent(client: Client) -> None:
    grown = SubmitRequest(question="?" + "\x01" * 99_999)  # six bytes each in JSON
    with pytest.raises(RequestTooLarge) as caught:
        await client.submit(grown, REQUEST)
    assert caught.value.field == "question"
    with pytest.raises(RequestTooLarge):
        make_request(question="x" * MAX_REQUEST_BYTES)
    with pytest.raises(UnknownRequest):
        await client.state(REQUEST)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"question": "  "}, "question"),
        ({"question": "x" * 100_001}, "question"),
        ({"question": "lone \udcff"}, "question"),
        ({"question": "why?", "mode": "wild"}, "mode"),
        ({"question": "why?", "sampling": {"top_p": 0}}, "sampling.top_p"),
        ({"question": "why?", "colour": "red"}, "colour"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make_request(**fields)
    assert caught.value.field == field


async def test_an_id_that_may_not_stand_in_a_subject_is_refused(client: Client) -> None:
    for bad in ("", "a.b", "a b", "*", "x" * 65):
        with pytest.raises(InvalidRequest):
            await client.submit(QUESTION, bad)
        with pytest.raises(InvalidRequest):
            await client.state(bad)


async def test_a_server_that_is_not_there_is_said_within_the_time_limit() -> None:
    with pytest.raises(QueueUnavailable):
        async with asyncio.timeout(5), open_client(["nats://127.0.0.1:9"], timeout_s=0.5):
            pass


async def test_missing_streams_are_said(runtime: Runtime, client: Client) -> None:
    await client.check()
    await runtime.connection.api(f"STREAM.DELETE.{Stream.EVENTS}")
    with pytest.raises(NotProvisioned):
        await client.check()
    with pytest.raises(NotProvisioned):
        async for _ in client.follow(REQUEST):
            pass


# --- follow ---------------------------------------------------------------------------


async def test_following_late_replays_all_facts_in_order_and_ends(
    runtime: Runtime, client: Client
) -> None:
    story: list[Fact] = [planned(1), completed(1), decoded(1, "One."), answered({1: "One."})]
    for fact in story:
        await runtime.events.append(fact)
    await runtime.events.append(planned(1).model_copy(update={"request": "other"}))
    assert [event async for event in client.follow(REQUEST)] == story


async def test_nothing_of_a_follower_stays_on_the_server(runtime: Runtime, client: Client) -> None:
    made = await subscribed(runtime, f"$JS.EVENT.ADVISORY.CONSUMER.CREATED.{Stream.EVENTS}.>")
    await runtime.events.append(answered({1: "One."}))
    assert [event async for event in client.follow(REQUEST)]
    await runtime.connection.api("INFO")
    assert made.empty()


async def test_following_hears_facts_and_previews_as_they_come(
    runtime: Runtime, client: Client
) -> None:
    await runtime.events.append(planned(1))
    preview = tokens(1, 0, "On")
    heard: list[Fact | Preview] = []
    async for event in client.follow(REQUEST):
        heard.append(event)
        if event == planned(1):
            await runtime.connection.publish(Subjects.live(REQUEST, 1), encode(preview))
            await runtime.connection.publish(Subjects.live(REQUEST, 1), b"not a preview")
        if event == preview:
            await runtime.events.append(answered({1: "One."}))
    assert heard == [planned(1), preview, answered({1: "One."})]


async def test_a_restart_of_nats_loses_and_doubles_nothing(
    runtime: Runtime, client: Client
) -> None:
    await runtime.events.append(planned(1))
    heard: list[Fact | Preview] = []
    async for event in client.follow(REQUEST):
        heard.append(event)
        if event == planned(1):
            await asyncio.to_thread(runtime.server.restart)  # kill -9, same store
            await runtime.events.append(completed(1))
        elif event == completed(1):
            await asyncio.to_thread(runtime.server.restart)
            await runtime.events.append(decoded(1, "One."))
            await runtime.events.append(answered({1: "One."}))
    assert heard == [planned(1), completed(1), decoded(1, "One."), answered({1: "One."})]


async def test_what_the_server_did_not_say_is_read_from_the_log(
    runtime: Runtime, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.runtime.fact_reader.CHECK_S", 0.2)
    monkeypatch.setattr("proto.names.Subjects.said_of", lambda _: "nothing.is.said.here")
    heard: list[Fact | Preview] = []
    await runtime.events.append(planned(1))
    async for event in client.follow(REQUEST):
        heard.append(event)
        if event == planned(1):
            await runtime.events.append(answered({1: "One."}))
    assert heard == [planned(1), answered({1: "One."})]


async def test_the_whole_log_is_read_once_and_in_order_through_gaps_and_a_restart(
    runtime: Runtime, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.runtime.fact_reader.BATCH", 7)
    entries: list[int] = []
    reader = LogReader(client.connection, "test", lambda entry: entries.append(entry.stream_seq))
    handed_on, lost = reader._heard, iter([True, False, False] * 100)
    monkeypatch.setattr(reader, "_heard", lambda msg: None if next(lost) else handed_on(msg))
    for node in range(20):
        await runtime.events.append(decoded(node, "x"))
    reading = asyncio.create_task(reader.run())
    await asyncio.wait_for(reader.caught_up.wait(), 5)
    assert entries == list(range(1, 21))
    for node in range(20, 60):
        if node == 40:
            await asyncio.to_thread(runtime.server.restart)
        await runtime.events.append(decoded(node, "x"))
    async with asyncio.timeout(20):
        while len(entries) < 60:  # noqa: ASYNC110  # the last word may be lost
            await asyncio.sleep(0.05)
    reading.cancel()
    await asyncio.wait([reading])
    assert entries == list(range(1, 61))


async def test_previews_that_nobody_reads_are_dropped_but_no_fact_is(
    runtime: Runtime, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.runtime.client.MAX_WAITING", 5)
    async with aclosing(client.follow(REQUEST)) as following:
        await runtime.events.append(planned(1))
        first = await anext(following)
        for offset in range(50):
            preview = encode(tokens(1, offset, "x"))
            await runtime.connection.publish(Subjects.live(REQUEST, 1), preview)
        await runtime.connection.api("INFO")
        await runtime.events.append(answered({1: "One."}))
        rest = [event async for event in following]
    assert first == planned(1)
    assert rest[-1] == answered({1: "One."})
    assert 0 < sum(isinstance(event, TokensDecoded) for event in rest) < 50


# --- state and cancel -----------------------------------------------------------------


async def test_the_state_of_a_request_is_what_is_stored_of_it(
    runtime: Runtime, client: Client
) -> None:
    with pytest.raises(UnknownRequest):
        await client.state(REQUEST)
    await client.submit(QUESTION, REQUEST)
    queued = await client.state(REQUEST)
    assert (queued.queued, queued.facts, queued.end) == (True, (), None)
    await runtime.events.append(planned(1))
    assert (await client.state(REQUEST)).end is None
    await runtime.events.append(answered({1: "One."}))
    assert isinstance((await client.state(REQUEST)).end, AnswerAssembled)


async def test_cancelling_without_an_assembler_says_so(client: Client) -> None:
    with pytest.raises(QueueUnavailable, match="no assembler is running"):
        await client.cancel(REQUEST)


async def test_a_cancel_reaches_an_assembler_and_brings_its_outcome(
    runtime: Runtime, client: Client
) -> None:
    async def answer(message: Msg) -> None:
        request = request_of(message.subject)
        reason = decode(CancelRequest, message.data).reason
        await runtime.events.append(
            RequestFailed(request=request, error=ErrorInfo.of(Cancelled(reason)))
        )
        outcome = CancelOutcome(request=request, outcome="cancelled")
        await runtime.connection.publish(message.reply, encode(outcome))

    await runtime.connection.subscribe(ANY_CANCEL, answer)
    await runtime.connection.api("INFO")
    assert (await client.cancel(REQUEST, "no more use")).outcome == "cancelled"
    end = (await client.state(REQUEST)).end
    assert isinstance(end, RequestFailed)
    assert end.error.message == "The request was cancelled: no more use"


async def test_an_error_of_the_assembler_comes_back_as_that_error(
    runtime: Runtime, client: Client
) -> None:
    async def refuse(message: Msg) -> None:
        error = ErrorInfo.of(InvalidRequest("too long", field="reason"))
        await runtime.connection.publish(message.reply, encode(error))

    await runtime.connection.subscribe(ANY_CANCEL, refuse)
    await runtime.connection.api("INFO")
    with pytest.raises(InvalidRequest) as caught:
        await client.cancel(REQUEST)
    assert (caught.value.field, caught.value.detail) == ("reason", "too long")


def test_the_stream_subjects_cover_what_a_client_submits() -> None:
    for request in ("x", "@acme.x"):
        begin = STREAM_SUBJECTS[Stream.REQUESTS].removesuffix(">")
        assert begin + request == Subjects.request(request)
