"""Whether to plan at all, given the load of the pools. Pure.

A plan costs tokens of the large pool and saves time only where its nodes run at once. Where all
pools that they could go to are full, it is left out. A small pool with room is a reason to plan:
every easy node then takes work off the large one (ADR 0025).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from proto.messages import SubmitRequest
from proto.names import Pool
from services.runtime.pool_load import PoolLoad

#: Nodes a slot, those held back included, from which a pool is full.
FULL: Final = 2.0


def is_saturated(submitted: SubmitRequest, loads: Mapping[Pool, PoolLoad]) -> bool:
    """Say whether `submitted` is answered directly because of the load, without a plan.

    Only `auto` is; who asks for a method gets it. A pool whose slots are not known is not full.
    """
    if submitted.mode != "auto" or submitted.dry_run:
        return False
    large, small = loads.get(Pool.LARGE), loads.get(Pool.SMALL)
    usable = [large, small] if submitted.adaptive and small and small.slots else [large]
    return all(_is_full(load) for load in usable)


def _is_full(load: PoolLoad | None) -> bool:
    nodes_a_slot = load.nodes_a_slot if load else None
    return nodes_a_slot is not None and nodes_a_slot >= FULL
