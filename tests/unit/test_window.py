"""The limit of streams at an endpoint grows while it is used and shrinks at a refusal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.runtime.window import DECREASE, START, Window


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
            window.answered(in_flight)
        assert 1 <= window.limit <= most


def test_it_doubles_with_each_round_until_the_first_refusal() -> None:
    window = Window(1000)
    for _ in range(int(START)):
        window.answered(in_flight=window.limit)
    assert window.limit == 2 * START


def test_after_a_refusal_a_round_makes_room_for_one() -> None:
    window = Window(1000)
    assert window.refused(100, started_at=1.0, now=2.0)
    limit = window.limit
    for _ in range(limit + 1):
        window.answered(in_flight=limit)
    assert window.limit == limit + 1


def test_it_shrinks_from_what_was_open_not_from_what_was_allowed() -> None:
    window = Window(128)
    for _ in range(200):
        window.answered(128)
    window.refused(10, started_at=1.0, now=2.0)
    assert window.limit == int(10 * DECREASE)


def test_one_overload_that_many_streams_tell_of_shrinks_it_once() -> None:
    window = Window(100)
    assert window.refused(16, started_at=1.0, now=2.0)
    limit = window.limit
    assert not any(window.refused(16, started_at=1.5, now=2.0 + n) for n in range(20))
    assert window.limit == limit
    assert window.refused(limit, started_at=3.0, now=4.0)


def test_it_does_not_grow_unused() -> None:
    window = Window(100)
    for _ in range(100):
        window.answered(in_flight=3)
    assert window.limit == START


@given(st.integers(8, 60))
def test_it_settles_near_what_the_engine_takes(capacity: int) -> None:
    window, refusals = Window(128), 0
    for now in range(400):
        open_now = window.limit
        for _ in range(min(open_now, capacity)):
            window.answered(open_now)
        if open_now > capacity:
            refusals += window.refused(open_now, now - 0.5, now)
    assert capacity * DECREASE - 2 <= window.limit <= capacity + 2
    assert refusals < 400 / 3
