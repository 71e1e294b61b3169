"""The kinds of fault: which there are in a run, and how often each is drawn. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.chaos.options import Options

#: Kinds of fault, and how often each is drawn.
WEIGHTS: Final[dict[str, int]] = {
    "kill_planner": 3,
    "kill_assembler": 4,
    "kill_worker": 5,
    "term_planner": 1,
    "term_assembler": 2,
    "term_worker": 2,
    "freeze_planner": 2,
    "freeze_assembler": 3,
    "freeze_worker": 3,
    "scale_down": 1,
    "scale_up": 2,
    "join_assembler": 3,
    "kill_nats": 2,
    "freeze_nats": 1,
    "kill_nats_leader": 2,
    "kill_nats_follower": 2,
    "freeze_nats_follower": 2,
    "unpin_partition": 3,
    "kill_engine": 2,
    "engine_slow": 3,
    "engine_hang": 1,
    "engine_hang_mid": 1,
    "engine_busy": 1,
    "engine_error": 1,
    "engine_garbage": 1,
    "engine_cut": 1,
    "engine_pool_error": 1,
    "client_vanishes": 1,
}
_SCRIPTED_ONLY: Final = "engine_"
_CLUSTER_ONLY: Final = frozenset({"kill_nats_leader", "kill_nats_follower", "freeze_nats_follower"})
_SINGLE_ONLY: Final = frozenset({"freeze_nats"})


@dataclass
class Fault:
    """What was done, to whom, and from when to when (seconds since the epoch)."""

    kind: str
    target: str
    at: float
    until: float = 0.0

    def touches(self, begin: float, end: float, *, after_s: float = 0.0) -> bool:
        """Whether it, or the `after_s` seconds after it, fall between `begin` and `end`."""
        return self.at <= end and max(self.at, self.until) + after_s >= begin


def kinds(options: Options) -> dict[str, int]:
    """Return the kinds of fault of a run, with their weights.

    Raises:
        ValueError: the options name an unknown kind.
    """
    if unknown := {*options.only, *options.without} - WEIGHTS.keys():
        raise ValueError(f"unknown kinds of fault: {', '.join(sorted(unknown))}")
    elsewhere = _SINGLE_ONLY if options.profile == "cluster" else _CLUSTER_ONLY
    return {
        kind: weight
        for kind, weight in WEIGHTS.items()
        if (not options.only or kind in options.only)
        and kind not in options.without
        and (options.engine == "scripted" or not kind.startswith(_SCRIPTED_ONLY))
        and kind not in elsewhere
    }
