"""Bounded-load rendezvous hashing: affinity, its bound, and little movement."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from services.runtime.balance import bound, place, rank


@dataclass
class Box:
    """An endpoint without anything behind it."""

    url: str
    in_flight: int = 0
    limit: int = 1_000_000
    eligible: bool = True


def boxes(number: int) -> list[Box]:
    return [Box(f"http://10.0.0.{n}:80") for n in range(number)]


moves = st.lists(st.tuples(st.sampled_from(["come", "go"]), st.integers(0, 30)), max_size=150)


@given(st.integers(1, 9), st.floats(1, 4), moves)
def test_no_endpoint_is_given_more_than_its_share(
    number: int, load_factor: float, history: list[tuple[str, int]]
) -> None:
    endpoints = boxes(number)
    streams: list[Box] = []
    for what, which in history:
        if what == "go" and streams:
            streams.pop(which % len(streams)).in_flight -= 1
            continue
        chosen = place(endpoints, str(which), load_factor=load_factor)
        assert chosen is not None
        chosen.in_flight += 1
        streams.append(chosen)
        mean = len(streams) / number
        assert chosen.in_flight <= math.ceil(load_factor * mean)


@given(st.integers(1, 9), st.floats(1, 4), st.integers(0, 300))
def test_streams_that_only_come_never_exceed_the_bound_anywhere(
    number: int, load_factor: float, streams: int
) -> None:
    endpoints = boxes(number)
    for _ in range(streams):
        chosen = place(endpoints, "one hot key", load_factor=load_factor)
        assert chosen is not None
        chosen.in_flight += 1
    most = bound(load_factor, max(streams, 1), number)
    assert all(one.in_flight <= most for one in endpoints)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), min_size=1))
def test_whoever_can_take_a_stream_is_found_and_nobody_else(
    states: list[tuple[int, int, bool]],
) -> None:
    endpoints = [Box(f"http://{n}", *state) for n, state in enumerate(states)]
    able = [one for one in endpoints if one.eligible and one.in_flight < one.limit]
    chosen = place(endpoints, "k", load_factor=1.0)
    assert (chosen in able) if able else chosen is None


@given(st.text(), st.integers(2, 9))
def test_idle_endpoints_keep_to_the_rank_of_the_key(key: str, number: int) -> None:
    endpoints = boxes(number)
    assert place(endpoints, key, load_factor=1.25) is rank(endpoints, key)[0]


@given(st.lists(st.text(), min_size=1, max_size=50), st.integers(2, 9), st.data())
def test_an_endpoint_that_goes_moves_only_its_own_keys(
    keys: list[str], number: int, data: st.DataObject
) -> None:
    endpoints = boxes(number)
    gone = data.draw(st.sampled_from(endpoints))
    left = [one for one in endpoints if one is not gone]
    for key in keys:
        before, after = rank(endpoints, key)[0], rank(left, key)[0]
        assert after is before or before is gone


@given(st.lists(st.text(), min_size=1, max_size=50), st.integers(1, 8))
def test_an_endpoint_that_joins_takes_keys_and_moves_none_between_the_others(
    keys: list[str], number: int
) -> None:
    endpoints = boxes(number)
    joined = Box("http://10.0.1.1:80")
    for key in keys:
        before, after = rank(endpoints, key)[0], rank([*endpoints, joined], key)[0]
        assert after is before or after is joined


def test_keys_spread_over_the_endpoints() -> None:
    endpoints = boxes(4)
    first = [rank(endpoints, str(key))[0].url for key in range(1000)]
    assert all(180 < first.count(one.url) < 320 for one in endpoints)


def test_the_avoided_are_passed_over_if_there_is_another() -> None:
    endpoints = boxes(2)
    first = rank(endpoints, "k")[0]
    other = place(endpoints, "k", load_factor=1.25, avoid={first.url})
    assert other is not None
    assert other is not first
    assert place(endpoints[:1], "k", load_factor=1.25, avoid={endpoints[0].url}) is endpoints[0]


def test_a_full_endpoint_does_not_hold_the_others_down() -> None:
    small, big = Box("http://a", 2, limit=2), Box("http://b", 50)
    assert place([small, big], "k", load_factor=1.0) is big
