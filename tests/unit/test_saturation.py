"""When the load makes the gate go direct without a plan."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.messages import SubmitRequest
from proto.names import Pool
from services.planner.saturation import FULL, is_saturated
from services.runtime.pool_load import PoolLoad

FULL_POOL = PoolLoad(slots=4, released=5, held=3)
ROOM = PoolLoad(slots=4, released=4, held=0)
UNKNOWN = PoolLoad(slots=None, released=99, held=99)


def asked(**fields: object) -> SubmitRequest:
    return SubmitRequest.model_validate({"question": "?", **fields})


@pytest.mark.parametrize(
    ("large", "small", "saturated"),
    [
        (FULL_POOL, FULL_POOL, True),
        (FULL_POOL, ROOM, False),  # easy nodes take work off the large pool
        (ROOM, FULL_POOL, False),
        (FULL_POOL, UNKNOWN, True),  # nobody decodes there
        (UNKNOWN, FULL_POOL, False),
        (UNKNOWN, UNKNOWN, False),
    ],
)
def test_no_plan_where_every_pool_that_could_help_is_full(
    large: PoolLoad, small: PoolLoad, saturated: bool
) -> None:
    assert is_saturated(asked(), {Pool.LARGE: large, Pool.SMALL: small}) is saturated


def test_the_small_pool_does_not_count_for_requests_that_leave_it_out() -> None:
    loads = {Pool.LARGE: FULL_POOL, Pool.SMALL: ROOM}
    assert is_saturated(asked(adaptive=False), loads)


def test_nothing_heard_is_no_reason() -> None:
    assert not is_saturated(asked(), {})


@pytest.mark.parametrize("fields", [{"mode": "sgd"}, {"mode": "sot"}, {"dry_run": True}])
def test_who_asks_for_a_plan_gets_one(fields: dict[str, object]) -> None:
    assert not is_saturated(asked(**fields), dict.fromkeys(Pool, FULL_POOL))


@given(slots=st.integers(1, 50), nodes=st.integers(0, 200), more=st.integers(0, 200))
def test_more_load_never_makes_it_plan_again(slots: int, nodes: int, more: int) -> None:
    def saturated(held: int) -> bool:
        return is_saturated(asked(), dict.fromkeys(Pool, PoolLoad(slots, 0, held)))

    assert saturated(nodes) == (nodes / slots >= FULL)
    assert saturated(nodes + more) >= saturated(nodes)
