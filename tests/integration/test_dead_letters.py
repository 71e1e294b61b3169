"""Dead letters: stored whatever ends their request, listed, shown, done again once, dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import nats.errors
import pytest

from proto.codec import decode, encode
from proto.errors import (
    Busy,
    InvalidRequest,
    LetterNotFound,
    QueueUnavailable,
    RequestGone,
    RequestOpen,
)
from proto.messages import (
    WITHHELD,
    CancelOutcome,
    CancelRequest,
    DeadLetter,
    ErrorInfo,
    Fact,
    RequestAccepted,
    RequestFailed,
    SubmitRequest,
)
from proto.names import (
    DROP_LETTER,
    LIST_LETTERS,
    REQUEUE_LETTER,
    SHOW_LETTER,
    Stream,
    Subjects,
    requeued_id,
)
from services.runtime.clock import ServerClock
from services.runtime.streams import StreamLimits, provision
from skelgraph.letters import LetterId, Letters, Wanted
from tests.conftest import ACK_WAIT_S, PARTITIONS, Runtime
from tests.facts import accepted, decoded, failed, plan, planned
from tests.processes import Services, end_of, submit, until_fact


@pytest.fixture
async def services(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        yield Services(stack, runtime, tmp_path / "logs")


async def die(runtime: Runtime, deadline_s: float = 600, request: str = "r1") -> None:
    """A request whose node 1 fails for good, while its direct answer is waited for."""
    clock = ServerClock()
    await clock.sync(runtime.connection)
    told: list[Fact] = [
        accepted(request, at=clock.now(), deadline_s=deadline_s),
        planned(1, request=request),
        failed(1, retryable=False, request=request),
    ]
    for fact in told:
        await runtime.events.append(fact)


async def close_letters(runtime: Runtime) -> None:
    """No dead letter can be stored from now on."""
    await runtime.connection.api(f"STREAM.DELETE.{Stream.DEAD}")


async def open_letters(runtime: Runtime) -> None:
    await provision(runtime.connection, StreamLimits(partitions=PARTITIONS, ack_wait_s=ACK_WAIT_S))


async def queued_direct_answer(runtime: Runtime) -> None:
    """Return when the assembler has acted upon the death."""
    async with asyncio.timeout(10):
        while not await _queued(runtime):  # noqa: ASYNC110  # a remote state
            await asyncio.sleep(0.02)


async def _queued(runtime: Runtime) -> bool:
    info = await runtime.connection.api(
        f"STREAM.INFO.{Stream.NODES}", {"subjects_filter": Subjects.nodes_of("r1")}
    )
    state = info["state"]
    assert isinstance(state, dict)
    return any(subject.endswith(".0.1") for subject in state.get("subjects") or ())


async def letter(runtime: Runtime, node: int = 1, limit_s: float = 15) -> DeadLetter:
    """Return the letter of a node of `r1` when it is there."""
    subject = f"$JS.API.DIRECT.GET.{Stream.DEAD}.{Subjects.dead('r1', node)}"
    async with asyncio.timeout(limit_s):
        while True:
            try:
                got = await runtime.connection.nc.request(subject, timeout=1)
            except nats.errors.NoRespondersError:
                got = None
            if got and got.data:
                return decode(DeadLetter, got.data)
            await asyncio.sleep(0.05)


async def cancel(runtime: Runtime) -> CancelOutcome:
    reply = await runtime.connection.nc.request(
        Subjects.cancel("r1"), encode(CancelRequest()), timeout=5
    )
    return decode(CancelOutcome, reply.data)


async def test_a_letter_is_stored_although_a_cancel_came_while_it_was_being_stored(
    runtime: Runtime, services: Services
) -> None:
    await services.start("assembler")
    await close_letters(runtime)
    await die(runtime)
    await queued_direct_answer(runtime)
    assert (await cancel(runtime)).outcome == "cancelled"
    await asyncio.sleep(0.5)  # the end's own event reaches the assembler
    await open_letters(runtime)
    assert (await letter(runtime)).attempts == 1


async def test_a_deadline_holds_and_no_letter_is_lost_although_none_can_be_stored(
    runtime: Runtime, services: Services
) -> None:
    await services.start("assembler")
    await close_letters(runtime)
    await die(runtime, deadline_s=1.0)
    end = await end_of(runtime, "r1", limit_s=6)
    assert isinstance(end, RequestFailed)
    assert end.error.code == "deadline_exceeded"
    await open_letters(runtime)
    assert (await letter(runtime)).attempts == 1


async def test_a_successor_stores_the_letter_of_a_request_that_was_cancelled_meanwhile(
    runtime: Runtime, services: Services
) -> None:
    first = await services.start("assembler")
    await close_letters(runtime)
    await die(runtime)
    await queued_direct_answer(runtime)
    assert (await cancel(runtime)).outcome == "cancelled"
    first.kill()
    await services.start("assembler")
    await open_letters(runtime)
    assert (await letter(runtime)).attempts == 1


# --- commands -------------------------------------------------------------------------

ONE = LetterId("r1", 1)


@pytest.fixture
def letters(runtime: Runtime) -> Letters:
    return Letters(runtime.connection)


async def fall_back(runtime: Runtime, request: str = "r1", *, retryable: bool = False) -> None:
    """A request that lost nodes 1 and 2 and was answered directly."""
    clock = ServerClock()
    await clock.sync(runtime.connection)
    attempts = range(1, 5) if retryable else [1]
    told: list[Fact] = [
        accepted(request, at=clock.now(), mode="sgd", max_nodes=5),
        planned(1, request=request),
        planned(2, request=request),
        plan([1, 2], request=request),
        *(failed(1, n, retryable=retryable, request=request) for n in attempts),
        failed(2, retryable=False, request=request),
        decoded(0, request=request, text="Direct."),
    ]
    for fact in told:
        await runtime.events.append(fact)
    await end_of(runtime, request)


async def listed(letters: Letters, *wanted: object) -> list[str]:
    filters = Wanted(*wanted)  # type: ignore[arg-type]
    return [str(LetterId(one.request, one.node)) async for one in letters.each(filters)]


async def queued_requests(runtime: Runtime) -> list[str]:
    info = await runtime.connection.api(
        f"STREAM.INFO.{Stream.REQUESTS}", {"subjects_filter": Subjects.request("*")}
    )
    state = info["state"]
    assert isinstance(state, dict)
    return [subject.rpartition(".")[2] for subject in state.get("subjects") or ()]


async def raw(runtime: Runtime, subject: str, body: bytes) -> ErrorInfo:
    """Send what no client of ours would, and return the error."""
    reply = await runtime.connection.nc.request(subject, body, timeout=5)
    return decode(ErrorInfo, reply.data)


async def test_letters_are_listed_without_texts_and_chosen_by_request_code_and_time(
    runtime: Runtime, services: Services, letters: Letters
) -> None:
    await services.start("assembler")
    await fall_back(runtime, "r1", retryable=True)
    await fall_back(runtime, "r2")
    (first, *_) = [one async for one in letters.each(Wanted())]
    assert (first.attempts, first.code, first.message) == (
        4,
        "engine_failed",
        "The engine failed: boom",
    )
    assert await listed(letters) == ["r1/1", "r1/2", "r2/1", "r2/2"]
    assert await listed(letters, "r2") == ["r2/1", "r2/2"]
    assert await listed(letters, None, "engine_failed") == ["r1/1"]
    assert await listed(letters, "nobody") == []
    since = min([one.died_at async for one in letters.each(Wanted("r2"))])
    assert await listed(letters, None, None, since) == ["r2/1", "r2/2"]
    assert await listed(letters, None, "engine_rejected", since) == ["r2/1", "r2/2"]


async def test_a_long_list_comes_in_bounded_pages_that_leave_nothing_out(
    runtime: Runtime, services: Services, letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Letters near the size limit, with errors that say as much as they may."""
    await services.start("assembler")
    await fall_back(runtime)
    sample = await letter(runtime)
    grown = sample.model_copy(
        update={
            "error": sample.error.model_copy(update={"message": "\x01" * 100_000}),
            "work": sample.work.model_copy(update={"question": "?" * 300_000}),
        }
    )
    for node in range(3, 43):
        body = encode(grown.model_copy(update={"node": node}))
        await runtime.publisher.publish(Subjects.dead("r1", node), body)
    monkeypatch.setattr("skelgraph.letters.MAX_LETTERS", 7)
    assert await listed(letters) == [f"r1/{node}" for node in range(1, 43)]
    assert await listed(letters, None, "no_such_code") == []
    few = [one async for one in letters.each(Wanted(), limit=10)]
    assert len(few) == 10
    assert {len(one.message) for one in few[2:]} == {300}


async def test_a_letter_is_shown_with_every_attempt_and_texts_only_when_asked_for(
    runtime: Runtime, services: Services, letters: Letters
) -> None:
    await services.start("assembler")
    await fall_back(runtime, retryable=True)
    shown = await letters.show(ONE, text=False)
    assert [one.attempt for one in shown.letter.history] == [1, 2, 3, 4]
    assert (shown.request_state, shown.end_code) == ("fell_back", None)
    assert shown.letter.submitted
    assert (shown.letter.submitted.question, shown.letter.submitted.max_nodes) == (WITHHELD, 5)
    assert "Why?" not in shown.model_dump_json()
    assert "point 1" not in shown.model_dump_json()
    whole = await letters.show(ONE, text=True)
    assert whole.letter == await letter(runtime)
    assert whole.letter.work.question == "Why?"
    with pytest.raises(LetterNotFound, match="r1/9"):
        await letters.show(LetterId("r1", 9), text=False)


async def test_a_requeued_letter_becomes_one_new_request_and_the_old_one_keeps_its_end(
    runtime: Runtime, services: Services, letters: Letters
) -> None:
    await services.start("assembler")
    await fall_back(runtime)
    end = (await runtime.events.read("r1"))[-1]
    done = await letters.requeue(ONE)
    assert (done.requeued_as, done.outcome) == (requeued_id("r1"), "requeued")
    again = [await letters.requeue(ONE), await letters.requeue(LetterId("r1", 2))]
    assert {(one.requeued_as, one.outcome) for one in again} == {
        (done.requeued_as, "already_requeued")
    }
    assert await queued_requests(runtime) == [done.requeued_as]
    stored = await runtime.connection.nc.request(
        f"$JS.API.DIRECT.GET.{Stream.REQUESTS}.{Subjects.request(done.requeued_as)}"
    )
    submitted = decode(SubmitRequest, stored.data)
    assert submitted == SubmitRequest(question="Why?", mode="sgd", max_nodes=5, requeued_from="r1")
    assert await listed(letters) == []
    assert (await runtime.events.read("r1"))[-1] == end


async def test_requeueing_at_once_from_many_places_stores_one_request(
    runtime: Runtime, services: Services, letters: Letters
) -> None:
    await services.start("assembler")
    await services.start("assembler")
    await fall_back(runtime)
    done = await asyncio.gather(*(letters.requeue(ONE) for _ in range(20)))
    assert {one.requeued_as for one in done} == {requeued_id("r1")}
    assert await queued_requests(runtime) == [requeued_id("r1")]


async def test_a_request_that_is_still_open_is_not_requeued(
    runtime: Runtime, services: Services, letters: Letters
) -> None:
    await services.start("assembler")
    await die(runtime)
    await letter(runtime)
    assert (await letters.show(ONE, text=False)).request_state == "open"
    with pytest.raises(RequestOpen):
        await letters.requeue(ONE)
    assert await listed(letters) == ["r1/1"]
    await cancel(runtime)
    assert (await letters.show(ONE, text=False)).end_code == "cancelled"
    assert (await letters.requeue(ONE)).outcome == "requeued"


async def test_a_letter_outlives_the_facts_of_its_request(
    runtime: Runtime, services: Services, letters: Letters
) -> None:
    await services.start("assembler")
    await fall_back(runtime)
    await runtime.connection.api(f"STREAM.PURGE.{Stream.EVENTS}")
    assert (await letters.show(ONE, text=False)).request_state == "gone"
    assert (await letters.requeue(ONE)).outcome == "requeued"


async def test_a_letter_of_an_older_version_is_requeued_while_its_request_is_kept(
    runtime: Runtime, services: Services, letters: Letters
) -> None:
    await services.start("assembler")
    await fall_back(runtime)
    for node in (3, 4):
        old = (await letter(runtime)).model_copy(
            update={"request": f"r{node}", "history": (), "submitted": None}
        )
        await runtime.publisher.publish(Subjects.dead(f"r{node}", 1), encode(old))
    submitted = SubmitRequest(question="And why?")
    known = RequestAccepted(request="r3", submitted=submitted, submitted_at=1, deadline_at=2)
    ended = RequestFailed(request="r3", error=ErrorInfo.of(QueueUnavailable()))
    for fact in (known, ended):
        await runtime.events.append(fact)
    assert (await letters.requeue(LetterId("r3", 1))).outcome == "requeued"
    with pytest.raises(RequestGone, match="too old"):
        await letters.requeue(LetterId("r4", 1))
    assert await listed(letters, "r4") == ["r4/1"]


async def test_a_full_queue_keeps_the_letter(
    runtime: Runtime, services: Services, letters: Letters
) -> None:
    await services.start("assembler")
    await fall_back(runtime)
    limits = StreamLimits(partitions=PARTITIONS, ack_wait_s=ACK_WAIT_S, max_queued_requests=1)
    await provision(runtime.connection, limits)
    await runtime.publisher.publish(Subjects.request("x"), b"{}")
    with pytest.raises(Busy):
        await letters.requeue(ONE)
    assert await listed(letters, "r1") == ["r1/1", "r1/2"]


async def test_a_nearly_full_log_keeps_the_letter(
    runtime: Runtime, services: Services, letters: Letters
) -> None:
    await services.start("assembler")
    await fall_back(runtime)
    limits = StreamLimits(partitions=PARTITIONS, ack_wait_s=ACK_WAIT_S, events_max_bytes=2048)
    await provision(runtime.connection, limits)
    with pytest.raises(Busy) as refused:
        await letters.requeue(ONE)
    assert refused.value.retry_after_s == 30
    assert await listed(letters, "r1") == ["r1/1", "r1/2"]


async def test_a_requeued_request_is_not_refused_over_capacity(
    runtime: Runtime, services: Services, letters: Letters
) -> None:
    await services.start("assembler")
    await fall_back(runtime)
    await die(runtime, request="open")
    urls = {"large_urls": "http://127.0.0.1:9"}
    await services.start("planner", max_open_requests="1", **urls)
    await submit(runtime, "new")
    end = await end_of(runtime, "new")
    assert isinstance(end, RequestFailed)
    assert end.error.code == "busy"
    again = (await letters.requeue(ONE)).requeued_as
    await until_fact(runtime, again, RequestAccepted)


async def test_dropping_is_for_one_letter_and_may_be_repeated(
    runtime: Runtime, services: Services, letters: Letters
) -> None:
    await services.start("assembler")
    await fall_back(runtime)
    assert (await letters.drop(ONE)).outcome == "dropped"
    assert (await letters.drop(ONE)).outcome == "unknown"
    assert await listed(letters) == ["r1/2"]
    with pytest.raises(LetterNotFound):
        await letters.requeue(ONE)


async def test_commands_are_answered_while_one_assembler_is_down_and_after_a_restart(
    runtime: Runtime, services: Services, letters: Letters
) -> None:
    first = await services.start("assembler")
    second = await services.start("assembler")
    await fall_back(runtime)
    first.kill()
    for _ in range(5):
        assert await listed(letters) == ["r1/1", "r1/2"]
    second.kill()
    with pytest.raises(QueueUnavailable, match="no assembler is running"):
        await letters.drop(ONE)
    await asyncio.to_thread(runtime.server.restart)
    await services.start("assembler")
    assert await listed(letters) == ["r1/1", "r1/2"]
    assert (await letters.drop(ONE)).outcome == "dropped"


@pytest.mark.parametrize("subject", [LIST_LETTERS, SHOW_LETTER, REQUEUE_LETTER, DROP_LETTER])
async def test_a_bad_command_is_refused_with_its_field(
    runtime: Runtime, services: Services, subject: str
) -> None:
    await services.start("assembler")
    one = b"" if subject == LIST_LETTERS else b', "request": "r1", "node": 1'
    error = await raw(runtime, subject, b'{"colour": 1%s}' % one)
    assert (error.code, error.field) == ("invalid_request", "colour")
    error = await raw(runtime, subject, b'{"request": "a.>", "node": 1}')
    assert (error.code, error.field) == ("invalid_request", "request")
    with pytest.raises(nats.errors.NoRespondersError):
        await raw(runtime, subject.replace("letter.", "letter.un"), b"{}")


def test_an_id_that_is_no_letter_is_refused() -> None:
    for bad in ("", "r1", "r1/", "/1", "r1/x", "r1/1000", "r1/-1", "r1/1/2", "r.1/1", "r1/²"):
        with pytest.raises(InvalidRequest):
            LetterId.parse(bad)
    assert LetterId.parse(str(ONE)) == ONE
