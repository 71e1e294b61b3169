"""An endpoint is slow only next to others; a call is late only next to calls before it."""

from __future__ import annotations

import pytest

from services.runtime.pace import FirstTokens, Pace


def pace(first_s: float, gap_s: float, streams: int = 10) -> Pace:
    one = Pace()
    for _ in range(streams):
        one.first.add(first_s)
        for _ in range(20):
            one.gap.add(gap_s)
    return one


@pytest.mark.parametrize(
    ("mine", "outlier"),
    [
        (pace(0.3, 0.03), False),
        (pace(0.6, 0.06), False),
        (pace(3.0, 0.03), True),
        (pace(0.3, 0.3), True),
        (pace(3.0, 0.3, streams=2), False),
    ],
    ids=["alike", "twice as slow", "late first tokens", "slow tokens", "not enough seen"],
)
def test_an_outlier_is_far_from_the_median_of_the_others(mine: Pace, outlier: bool) -> None:
    assert mine.is_outlier([pace(0.3, 0.03), pace(0.35, 0.03), pace(0.3, 0.04)]) is outlier


def test_fast_engines_do_not_make_one_another_outliers_by_milliseconds() -> None:
    assert not pace(0.05, 0.01).is_outlier([pace(0.005, 0.001)])


def test_alone_nobody_is_an_outlier() -> None:
    assert not pace(100, 10).is_outlier([])
    assert not pace(100, 10).is_outlier([Pace()])


def test_a_mean_is_plain_at_first_and_follows_later() -> None:
    one = Pace().first
    for value in (1.0, 2.0, 3.0):
        one.add(value)
    assert one.value == pytest.approx(2.0)
    for _ in range(200):
        one.add(10.0)
    assert one.value == pytest.approx(10.0, rel=0.01)


def test_without_hedging_no_call_is_ever_late() -> None:
    times = FirstTokens(0, 0.05)
    for _ in range(100):
        times.add(1.0)
    assert times.late_after_s() is None


def test_a_call_is_late_after_the_percentile_of_those_before_it() -> None:
    times = FirstTokens(90, 0.05)
    for n in range(19):
        times.add(n / 10)
    assert times.late_after_s() is None
    for n in range(19, 100):
        times.add(n / 10)
    assert times.late_after_s() == pytest.approx(9.0)


def test_hedges_are_a_share_of_the_calls() -> None:
    times = FirstTokens(95, 0.05)
    hedges = 0
    for _ in range(2000):
        times.add(1.0)
        hedges += times.may_hedge()
    assert 0.045 * 2000 <= hedges <= 0.05 * 2000 + FirstTokens.MOST_SAVED
