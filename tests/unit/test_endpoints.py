"""A pool sticks to endpoints, leaves the failing ones out, and finds back to them."""

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
from services.runtime.calls import ChatCall
from services.runtime.endpoints import (
    LONGEST_EJECTION_S,
    Endpoint,
    EnginePool,
    choose,
    ejection_s,
    weight,
)

CALL = ChatCall(messages=(), max_tokens=1)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pool_of(number: int, clock: Clock) -> EnginePool:
    return EnginePool([f"http://engine-{n}:80" for n in range(number)], clock=clock)


def run(endpoint: Endpoint, clock: Clock, failure: EngineError | None = None) -> None:
    """Let one stream go through `endpoint`."""
    endpoint.started()
    if failure is None:
        endpoint.answered(clock())
    endpoint.ended(clock(), failure)


@given(st.text(), st.lists(st.uuids(), min_size=2, max_size=6, unique=True))
def test_an_endpoint_that_goes_moves_only_its_own_keys(key: str, ids: list[object]) -> None:
    urls = [f"http://{name}" for name in ids]
    first = max(urls, key=lambda url: weight(key, url))
    for gone in urls:
        left = [url for url in urls if url != gone]
        if gone != first:
            assert max(left, key=lambda url: weight(key, url)) == first


def test_keys_spread_over_the_endpoints(clock: Clock) -> None:
    pool = pool_of(4, clock)
    chosen = [choose(pool.endpoints, str(key), None).url for key in range(1000)]
    assert all(180 < chosen.count(endpoint.url) < 320 for endpoint in pool.endpoints)


def test_the_same_key_goes_to_the_same_endpoint(clock: Clock) -> None:
    pool = pool_of(4, clock)
    assert len({pool.stream(CALL, key="k").endpoint for _ in range(20)}) == 1


def test_the_avoided_endpoint_is_passed_over_if_there_is_another(clock: Clock) -> None:
    pool = pool_of(2, clock)
    first = pool.stream(CALL, key="k").endpoint
    assert pool.stream(CALL, key="k", avoid=f"{first}/v1/").endpoint != first
    alone = pool_of(1, clock)
    assert alone.stream(CALL, key="k", avoid="http://engine-0:80").endpoint == "http://engine-0:80"


@pytest.mark.parametrize("kind", [EngineUnavailable, EngineTimedOut, EngineCutOff, EngineError])
def test_an_endpoint_that_fails_is_left_out_and_tried_again(
    kind: type[EngineError], clock: Clock
) -> None:
    pool = pool_of(2, clock)
    bad = choose(pool.endpoints, "k", None)
    run(bad, clock, kind())
    assert choose(pool.endpoints, "k", None) is not bad
    clock.now += ejection_s(1)
    assert choose(pool.endpoints, "k", None) is bad
    run(bad, clock)
    assert choose(pool.endpoints, "k", None) is bad


@pytest.mark.parametrize("kind", [EngineRejected, PromptTooLong, EngineOverloaded])
def test_a_refusal_is_not_the_endpoints_fault(kind: type[EngineError], clock: Clock) -> None:
    pool = pool_of(2, clock)
    chosen = choose(pool.endpoints, "k", None)
    run(chosen, clock, kind())
    assert choose(pool.endpoints, "k", None) is chosen


def test_ejection_grows_to_a_limit() -> None:
    times_s = [ejection_s(failures) for failures in range(1, 100)]
    assert times_s == sorted(times_s)
    assert times_s[0] < times_s[1] < times_s[-1] == LONGEST_EJECTION_S


def test_a_crash_that_ends_many_streams_counts_once(clock: Clock) -> None:
    (endpoint,) = pool_of(1, clock).endpoints
    for _ in range(50):
        endpoint.started()
    for _ in range(50):
        clock.now += 0.01
        endpoint.ended(100.0, EngineCutOff())
    assert endpoint.failures == 1
    assert endpoint.in_flight == 0


def test_an_endpoint_on_trial_gets_one_stream_at_a_time(clock: Clock) -> None:
    pool = pool_of(2, clock)
    bad = choose(pool.endpoints, "k", None)
    run(bad, clock, EngineUnavailable())
    clock.now += ejection_s(1)
    bad.started()
    assert choose(pool.endpoints, "k", None) is not bad
    bad.answered(clock())
    assert choose(pool.endpoints, "k", None) is bad


def test_a_trial_that_fails_ejects_for_longer(clock: Clock) -> None:
    (endpoint,) = pool_of(1, clock).endpoints
    run(endpoint, clock, EngineUnavailable())
    clock.now += ejection_s(1)
    run(endpoint, clock, EngineUnavailable())
    clock.now += ejection_s(1)
    assert not endpoint.eligible
    clock.now += ejection_s(2) - ejection_s(1)
    assert endpoint.eligible


def test_a_trial_that_is_left_before_an_answer_proves_nothing(clock: Clock) -> None:
    (endpoint,) = pool_of(1, clock).endpoints
    run(endpoint, clock, EngineUnavailable())
    clock.now += ejection_s(1)
    endpoint.started()
    endpoint.ended(clock(), None)
    assert endpoint.failures == 1
    assert endpoint.eligible


def test_if_all_are_ejected_the_one_that_failed_longest_ago_is_used(clock: Clock) -> None:
    pool = pool_of(3, clock)
    for endpoint in pool.endpoints:
        clock.now += 0.1
        run(endpoint, clock, EngineUnavailable())
    assert choose(pool.endpoints, "any", None) is pool.endpoints[0]
    assert choose(pool.endpoints, "any", pool.endpoints[0].url) is pool.endpoints[1]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(0, 5)), max_size=60))
def test_in_flight_returns_to_zero_whatever_happens(
    history: list[tuple[int, bool, float]],
) -> None:
    clock = Clock()
    pool = pool_of(4, clock)
    for number, fails, passes_s in history:
        endpoint = pool.endpoints[number]
        endpoint.started()
        assert pool.in_flight == 1
        clock.now += passes_s
        endpoint.ended(clock.now, EngineUnavailable() if fails else None)
    assert pool.in_flight == 0


def test_one_url_in_two_forms_is_one_endpoint() -> None:
    pool = EnginePool(["http://a:1", "http://a:1/", "http://a:1/v1"])
    assert [endpoint.url for endpoint in pool.endpoints] == ["http://a:1"]


@pytest.mark.parametrize("urls", [[], ["a:1"], ["ftp://a"]])
def test_what_is_no_url_is_refused(urls: list[str]) -> None:
    with pytest.raises(ValueError, match=r"http://|at least one"):
        EnginePool(urls)
