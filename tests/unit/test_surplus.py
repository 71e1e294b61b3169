"""Whoever floods, the others' messages are begun in their turn."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg

from services.runtime.pull import Delivery
from services.runtime.surplus import Surplus

KEEP_S = 60.0


def delivery(seq: int, times: int = 1) -> Delivery:
    reply = f"$JS.ACK.stream.consumer.{times}.{seq}.{seq}.0.0"
    return Delivery(cast("Any", None), Msg(cast("Any", None), subject="s", reply=reply))


def kept(owners: str) -> Surplus:
    """Messages of owners named by a letter each, in the order in which they came."""
    surplus = Surplus(lambda _: None)
    for seq, owner in enumerate(owners, 1):
        surplus.keep(delivery(seq), 0, owner, KEEP_S)
    return surplus


def begun(surplus: Surplus, owners: str, slots: int) -> str:
    """Return whose message is begun, one after another, while each ends before the next begins."""
    running: Counter[str] = Counter()
    order: list[str] = []
    while one := surplus.next(running):
        order.append(owners[one.stream_seq - 1])
        running[order[-1]] += 1
        if len(order) >= slots:
            running[order[-slots]] -= 1
    return "".join(order)


async def test_without_other_owners_it_is_first_come_first_served() -> None:
    surplus = kept("aaaa")
    taken = [one.stream_seq for _ in range(4) if (one := surplus.next({}))]
    assert taken == [1, 2, 3, 4]
    assert surplus.next({}) is None


@given(flood=st.integers(0, 60), others=st.text("bcd", max_size=6), slots=st.integers(1, 4))
async def test_a_flood_delays_another_owner_by_a_turn_and_not_by_its_length(
    flood: int, others: str, slots: int
) -> None:
    owners = "a" * flood + others
    order = begun(kept(owners), owners, slots)
    assert sorted(order) == sorted(owners)
    # As many of the flood's as run at once, and one a turn of all who wait.
    for owner in set(others):
        assert order[: order.index(owner)].count("a") <= slots + len(set(others))


async def test_the_latest_of_the_owner_with_most_is_too_many() -> None:
    surplus = kept("abaab")
    assert surplus.too_many(5) is None
    assert [one.stream_seq for _ in range(3) if (one := surplus.too_many(2))] == [4, 5, 3]


async def test_what_comes_again_is_not_too_many() -> None:
    surplus = Surplus(lambda _: None)
    for seq in (1, 2):
        surplus.keep(delivery(seq, times=2), 0, "a", KEEP_S)
    surplus.keep(delivery(3), 0, "b", KEEP_S)
    first = surplus.too_many(1)
    assert first
    assert first.stream_seq == 3
    assert surplus.too_many(1) is None
