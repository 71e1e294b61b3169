"""An endpoint is left out when it fails, is silent or slow, and finds its way back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.errors import (
    EngineCutOff,
    EngineError,
    EngineOverloaded,
    EngineRejected,
    EngineTimedOut,
    EngineUnavailable,
    PromptTooLong,
)
from services.runtime.balance import PoolPolicy, rank
from services.runtime.calls import ChatCall, Limit, Went
from services.runtime.endpoint import FAILURES, LONGEST_EJECTION_S, Endpoint, ejection_s
from services.runtime.endpoints import EnginePool
from services.runtime.engine import EngineClient

CALL = ChatCall(messages=(), max_tokens=1)
POLICY = PoolPolicy(silent_after_s=10)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def endpoints(number: int, clock: Clock) -> list[Endpoint]:
    return [Endpoint(EngineClient(f"http://e-{n}:80"), POLICY, clock) for n in range(number)]


def went(started_at: float, failure: EngineError | None = None, *, complete: bool = False) -> Went:
    first_at = started_at if complete else None
    return Went(started_at, first_at, first_at, 0, complete=complete, failure=failure)


def run(endpoint: Endpoint, clock: Clock, failure: EngineError | None = None) -> None:
    """Let one stream of two seconds go through `endpoint`, to its end or to `failure`."""
    endpoint.take()
    started_at = clock()
    endpoint.started(started_at)
    clock.now += 2
    if failure is None:
        endpoint.heard(started_at, clock(), None)
    endpoint.ended(went(started_at, failure, complete=failure is None))
    endpoint.release()


def come_back(endpoint: Endpoint, clock: Clock) -> None:
    """Let the time pass for which `endpoint` is left out, and let it say that it is well."""
    while not endpoint.due:
        clock.now += 0.5
    endpoint.checking()
    endpoint.checked(None)


@pytest.mark.parametrize("kind", [EngineUnavailable, EngineTimedOut])
def test_one_that_does_not_answer_is_left_out_at_once(
    kind: type[EngineError], clock: Clock
) -> None:
    (bad,) = endpoints(1, clock)
    run(bad, clock, kind())
    assert not bad.eligible


@pytest.mark.parametrize("kind", [EngineCutOff, EngineError])
def test_one_that_fails_at_a_prompt_is_left_out_if_it_goes_on_so(
    kind: type[EngineError], clock: Clock
) -> None:
    (bad,) = endpoints(1, clock)
    for _ in range(FAILURES - 1):
        run(bad, clock, kind())
    assert bad.eligible
    run(bad, clock)
    for _ in range(FAILURES):
        assert bad.eligible
        run(bad, clock, kind())
    assert not bad.eligible


@pytest.mark.parametrize("kind", [EngineRejected, PromptTooLong, EngineOverloaded])
def test_a_refusal_is_not_the_endpoints_fault(kind: type[EngineError], clock: Clock) -> None:
    (good,) = endpoints(1, clock)
    for _ in range(2 * FAILURES):
        run(good, clock, kind())
    assert good.eligible


def test_overload_takes_streams_off_an_endpoint(clock: Clock) -> None:
    (busy,) = endpoints(1, clock)
    before = busy.limit
    run(busy, clock, EngineOverloaded())
    assert busy.limit < before


def test_it_is_asked_before_it_is_tried_and_tried_before_it_is_back(clock: Clock) -> None:
    (bad,) = endpoints(1, clock)
    run(bad, clock, EngineUnavailable())
    due = [bad.due]
    clock.now += ejection_s(1)
    due.append(bad.due)
    bad.checking()
    assert [*due, bad.due] == [False, True, False]
    assert not bad.eligible
    bad.checked(None)
    seen = [bad.eligible]
    bad.take()
    bad.started(clock())
    seen.append(bad.eligible)
    bad.heard(clock(), clock(), None)
    assert [*seen, bad.eligible] == [True, False, True], "one stream at a time, then many"


def test_one_that_is_not_well_when_asked_is_left_out_for_longer(clock: Clock) -> None:
    (bad,) = endpoints(1, clock)
    run(bad, clock, EngineUnavailable())
    clock.now += ejection_s(1)
    bad.checking()
    bad.checked(EngineUnavailable())
    clock.now += ejection_s(1)
    assert not bad.due
    clock.now += ejection_s(2) - ejection_s(1)
    assert bad.due


def test_a_trial_that_fails_ejects_for_longer(clock: Clock) -> None:
    (bad,) = endpoints(1, clock)
    run(bad, clock, EngineUnavailable())
    come_back(bad, clock)
    run(bad, clock, EngineCutOff())
    clock.now += ejection_s(1)
    assert not bad.due
    clock.now += ejection_s(2)
    assert bad.due


def test_a_trial_that_is_left_before_an_answer_proves_nothing(clock: Clock) -> None:
    (bad,) = endpoints(1, clock)
    run(bad, clock, EngineUnavailable())
    come_back(bad, clock)
    bad.take()
    bad.started(clock())
    bad.ended(went(clock()))
    bad.release()
    assert bad.eligible


def test_a_trial_that_never_began_may_be_had_again(clock: Clock) -> None:
    (bad,) = endpoints(1, clock)
    run(bad, clock, EngineUnavailable())
    come_back(bad, clock)
    bad.take()
    bad.release()
    assert bad.eligible


def test_ejection_grows_to_a_limit() -> None:
    times_s = [ejection_s(times) for times in range(1, 100)]
    assert times_s == sorted(times_s)
    assert times_s[0] < times_s[1] < times_s[-1] == LONGEST_EJECTION_S


def test_a_crash_that_ends_many_streams_counts_once(clock: Clock) -> None:
    (bad,) = endpoints(1, clock)
    for _ in range(50):
        bad.take()
    for _ in range(50):
        clock.now += 0.01
        bad.ended(went(100.0, EngineUnavailable()))
        bad.release()
    clock.now = 100.01 + ejection_s(1)
    assert bad.due
    assert bad.in_flight == 0


def test_one_that_sends_nothing_to_anybody_is_left_out(clock: Clock) -> None:
    hung, other = endpoints(2, clock)
    hung.take()
    clock.now += POLICY.silent_after_s / 2
    wanted = [hung.to_be_asked]
    hung.asking()
    assert [*wanted, hung.to_be_asked] == [True, False], "once is enough"
    clock.now += POLICY.silent_after_s / 2
    hung.look([other])
    seen = [hung.eligible]
    clock.now += 0.1
    hung.look([other])
    assert [*seen, hung.eligible] == [True, False]
    assert hung.fell_silent


def test_one_that_owes_first_tokens_only_and_is_well_is_busy(clock: Clock) -> None:
    busy, other = endpoints(2, clock)
    busy.take()
    for _ in range(10):
        clock.now += POLICY.silent_after_s / 2
        busy.well(busy.asking())
        busy.look([other])
    assert busy.eligible


def test_one_that_was_not_asked_is_not_taken_for_silent(clock: Clock) -> None:
    busy, other = endpoints(2, clock)
    busy.take()
    clock.now += 10 * POLICY.silent_after_s
    busy.look([other])
    assert busy.eligible


def test_one_that_breaks_off_in_the_middle_is_silent_however_well_it_says_it_is(
    clock: Clock,
) -> None:
    hung, other = endpoints(2, clock)
    hung.take()
    hung.heard(clock(), clock(), None)
    clock.now += POLICY.silent_after_s + 0.1
    assert not hung.to_be_asked
    hung.look([other])
    assert not hung.eligible


@pytest.mark.parametrize(
    ("limit", "had_s", "blamed"),
    [
        ("total", 600, False),
        ("first_token", 29, False),
        ("first_token", 31, True),
        ("between_tokens", 1, True),
        (None, 0, True),
    ],
)
def test_a_limit_that_passed_for_others_reasons_is_not_its_fault(
    limit: Limit | None, had_s: float, blamed: bool, clock: Clock
) -> None:
    (one,) = endpoints(1, clock)
    one.take()
    began = clock()
    clock.now += had_s
    one.ended(Went(began, None, None, 0, complete=False, failure=EngineTimedOut(), limit=limit))
    assert one.eligible is not blamed


def test_a_token_for_anybody_is_a_sign_of_life(clock: Clock) -> None:
    busy, other = endpoints(2, clock)
    busy.take()
    busy.take()
    for _ in range(10):
        clock.now += POLICY.silent_after_s / 2
        busy.heard(100.0, clock(), 0.1)
        busy.look([other])
    assert busy.eligible


def test_an_idle_endpoint_is_not_silent(clock: Clock) -> None:
    idle, other = endpoints(2, clock)
    clock.now += 1000
    idle.look([other])
    idle.take()
    idle.look([other])
    assert idle.eligible


def test_the_last_endpoint_is_never_left_out_for_being_silent_or_slow(clock: Clock) -> None:
    hung, other = endpoints(2, clock)
    run(other, clock, EngineUnavailable())
    hung.take()
    clock.now += 1000
    hung.look([other])
    hung.look([])
    assert hung.eligible


def pace(endpoint: Endpoint, clock: Clock, first_s: float, gap_s: float, streams: int) -> None:
    for _ in range(streams):
        endpoint.heard(clock() - first_s, clock(), None)
        for _ in range(20):
            endpoint.heard(0, clock(), gap_s)


def test_one_far_slower_than_the_others_is_left_out_until_it_has_shown_its_pace(
    clock: Clock,
) -> None:
    slow, *others = endpoints(3, clock)
    for other in others:
        pace(other, clock, 0.2, 0.02, streams=10)
    pace(slow, clock, 2.0, 0.2, streams=10)
    slow.look(others)
    assert not slow.eligible
    come_back(slow, clock)
    slow.take()
    slow.started(clock())
    slow.heard(clock(), clock(), None)
    assert not slow.eligible, "its first token alone does not tell its pace"
    slow.ended(went(clock(), complete=True))
    assert slow.eligible


def test_one_that_was_slow_is_judged_by_its_next_stream(clock: Clock) -> None:
    slow, *others = endpoints(3, clock)
    for other in others:
        pace(other, clock, 0.2, 0.02, streams=10)
    pace(slow, clock, 2.0, 0.2, streams=10)
    slow.look(others)
    come_back(slow, clock)
    slow.take()
    slow.started(clock())
    pace(slow, clock, 2.0, 0.2, streams=1)
    slow.look(others)
    assert not slow.eligible
    clock.now += ejection_s(1)
    assert not slow.due, "for longer than the first time"


def test_at_most_half_of_a_pool_is_left_out_for_being_slow(clock: Clock) -> None:
    pool = endpoints(4, clock)
    for number, one in enumerate(pool):
        pace(one, clock, 10.0**number, 10.0 ** (number - 1), streams=10)
    for one in reversed(pool):
        one.look([other for other in pool if other is not one])
    assert sum(one.eligible for one in pool) >= 2


def test_if_all_are_left_out_that_which_has_been_for_longest_is_used(clock: Clock) -> None:
    pool = EnginePool([f"http://e-{n}:80" for n in range(3)], clock=clock)
    for endpoint in pool.endpoints:
        run(endpoint, clock, EngineUnavailable())
    first, second, _ = pool.endpoints
    assert pool.likely("any", None) == first.url
    assert pool.likely("any", first.url) == second.url


def test_the_same_key_goes_to_the_same_endpoint(clock: Clock) -> None:
    pool = EnginePool([f"http://e-{n}:80" for n in range(4)], clock=clock)
    found = {pool.stream(CALL, key="k").endpoint for _ in range(20)}
    assert found == {rank(pool.endpoints, "k")[0].url}


def test_the_avoided_endpoint_is_passed_over_if_there_is_another(clock: Clock) -> None:
    pool = EnginePool(["http://a:1", "http://b:1"], clock=clock)
    first = pool.stream(CALL, key="k").endpoint
    assert pool.stream(CALL, key="k", avoid=f"{first}/v1/").endpoint != first
    alone = EnginePool(["http://a:1"], clock=clock)
    assert alone.stream(CALL, key="k", avoid="http://a:1").endpoint == "http://a:1"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ok", "fail", "left", "busy", "look", "wait"]), st.integers(0, 3)
        ),
        max_size=80,
    )
)
def test_whatever_happens_an_endpoint_can_come_back(history: list[tuple[str, int]]) -> None:
    clock = Clock()
    pool = endpoints(4, clock)
    failures: dict[str, EngineError | None] = {
        "fail": EngineUnavailable(),
        "busy": EngineOverloaded(),
        "ok": None,
    }
    for what, number in history:
        endpoint = pool[number]
        if what in failures:
            run(endpoint, clock, failures[what])
        elif what == "left":
            endpoint.take()
            endpoint.release()
        elif what == "look":
            endpoint.look([other for other in pool if other is not endpoint])
        clock.now += 0.5
    for endpoint in pool:
        assert endpoint.in_flight == 0
        if not endpoint.eligible:
            come_back(endpoint, clock)
            run(endpoint, clock)
        assert endpoint.eligible
