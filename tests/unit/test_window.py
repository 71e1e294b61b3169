"""The limit of streams at an endpoint grows while it is used and shrinks at a refusal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.runtime.window import DECREASE, HOLD_S, START, Window


@given(
    st.integers(1, 200),
    st.lists(st.tuples(st.booleans(), st.integers(0, 300), st.floats(0, 100)), max_size=100),
)
def test_it_stays_between_one_and_its_most(
    most: int, history: list[tuple[bool, int, float]]
) -> None:
    window, now = Window(most), 0.0
    for refused, in_flight, passes_s in history:
        now += passes_s
        if refused:
            window.refused(in_flight, now - passes_s, now)
        else:
            window.answered(in_flight, now)
        assert 1 <= window.limit <= most


def test_it_doubles_with_each_round_until_the_first_refusal() -> None:
    window = Window(1000)
    for _ in range(int(START)):
        window.answered(window.limit, 0.0)
    assert window.limit == 2 * START


def test_after_a_refusal_a_round_makes_room_for_one() -> None:
    window = Window(1000)
    assert window.refused(100, started_at=1.0, now=2.0)
    limit = window.limit
    for _ in range(limit + 1):
        window.answered(limit, 2.0 + HOLD_S)
    assert window.limit == limit + 1


def test_it_shrinks_from_what_was_open_not_from_what_was_allowed() -> None:
    window = Window(128)
    for _ in range(200):
        window.answered(128, 0.0)
    window.refused(10, started_at=1.0, now=2.0)
    assert window.limit == int(9 * DECREASE)


def test_one_overload_that_many_streams_tell_of_cuts_it_once() -> None:
    window = Window(100)
    assert window.refused(16, started_at=1.0, now=2.0)
    limit = window.limit
    assert not any(window.refused(16, started_at=1.5, now=2.0 + n) for n in range(20))
    assert window.limit == limit
    assert window.refused(limit, started_at=3.0, now=4.0)


def test_of_a_burst_that_was_refused_it_learns_what_was_taken() -> None:
    window = Window(100)
    for in_flight in range(16, 8, -1):  # 16 were sent at once, 8 were taken
        window.refused(in_flight, started_at=1.0, now=2.0)
    assert window.limit <= 8
    for _ in range(1000):
        window.answered(8, 3.0)
    assert window.limit == 8


def test_where_the_engine_refused_it_stops_short_for_a_while() -> None:
    window = Window(100)
    window.refused(11, started_at=1.0, now=2.0)
    for _ in range(1000):
        window.answered(window.limit, 2.0 + HOLD_S / 2)
    assert window.limit == 10
    for _ in range(11):
        window.answered(window.limit, 2.0 + HOLD_S)
    assert window.limit == 11


def test_it_does_not_grow_unused() -> None:
    window = Window(100)
    for _ in range(100):
        window.answered(3, 0.0)
    assert window.limit == START


@given(st.integers(1, 60))
def test_it_settles_at_what_the_engine_takes_and_is_hardly_ever_refused(capacity: int) -> None:
    window, refusals = Window(128), 0
    for now in range(600):
        open_now = window.limit
        taken = min(open_now, capacity)
        for in_flight in range(open_now, taken, -1):
            refusals += 1
            window.refused(in_flight, now - 0.5, now)
        for _ in range(taken):
            window.answered(taken, now)
    assert capacity * DECREASE - 1 <= window.limit <= capacity + 1
    assert refusals <= 64 + 600 / HOLD_S * 2
