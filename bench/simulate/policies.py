"""Who is served next, how wide a request may be, and when to plan at all; pure.

A policy sees what the services can know: expected lengths, never the true ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.simulate.work import Question

#: Smaller goes first; two ranks of one policy can be compared.
Rank = tuple[float, ...]
#: A held node of a request that has waited so long goes before all others.
PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Ready:
    """A node that could be decoded now, as a policy sees it.

    Args:
        ready_s: when its needs were met.
        arrived_s: when its request came.
        left_tokens: expected, of its request's nodes that are not done.
        path_tokens: expected, from this node down the longest path of its dependants.
        request_nodes: nodes of its request that are queued or running.
        tenant_nodes: nodes of its tenant that are queued or running, in this pool.
        direct: whether it is a whole answer.
    """

    ready_s: float
    arrived_s: float
    left_tokens: float
    path_tokens: float
    request_nodes: int
    tenant_nodes: int
    direct: bool


@dataclass(frozen=True, slots=True)
class Load:
    """Nodes a slot in each pool: queued, running and held; above 1 some wait."""

    large: float
    small: float


def first_come(ready: Ready, now_s: float) -> Rank:
    """The order of a queue."""
    return (ready.ready_s,)


def oldest_request(ready: Ready, now_s: float) -> Rank:
    """Requests in their order, the longest path first within one."""
    return (ready.arrived_s, -ready.path_tokens)


def one_each(ready: Ready, now_s: float) -> Rank:
    """Width by slack alone: all progress before any fans out."""
    return (ready.request_nodes, ready.ready_s)


def longest_path(ready: Ready, now_s: float) -> Rank:
    """The critical path first, whosever it is."""
    return (-ready.path_tokens, ready.ready_s)


def least_left(ready: Ready, now_s: float) -> Rank:
    """Requests near their end first, the longest path first within one."""
    return (ready.left_tokens, -ready.path_tokens, ready.ready_s)


def least_left_aged(ready: Ready, now_s: float) -> Rank:
    """The same, but nobody waits for ever."""
    late = now_s - ready.ready_s > PATIENCE_S
    return (0.0 if late else 1.0, ready.ready_s if late else 0.0, *least_left(ready, now_s))


def fair_least_left(ready: Ready, now_s: float) -> Rank:
    """The tenant with the fewest nodes under way first; then requests near their end."""
    late = now_s - ready.ready_s > PATIENCE_S
    if late:
        return (0.0, ready.ready_s)
    return (1.0, ready.tenant_nodes, *least_left(ready, now_s))


def plans_always(question: Question, load: Load) -> bool:
    """The gate's word decides, whatever the load."""
    return True


def direct_when_full(question: Question, load: Load) -> bool:
    """No planning call when both pools have more than two nodes a slot."""
    return min(load.large, load.small) < 2.0


def direct_when_large_full(question: Question, load: Load) -> bool:
    """No planning call when the large pool has more than two nodes a slot."""
    return load.large < 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A way to schedule.

    Args:
        name: short, for tables.
        plans: whether answers are decomposed at all.
        adaptive: whether easy nodes go to the small pool.
        hold: nodes a slot that are handed to a pool at most; the others stay with their graphs.
            All are handed over at once if None.
        order: of what is held.
        bands: whether nodes that build on others, and direct answers, have a queue of their own
            that is emptied first.
        gate: whether to plan, given the load.
        spills: whether easy nodes go to the large pool while only the small one is full.
        fair_planning: whether planners take turns between tenants.
    """

    name: str
    plans: bool = True
    adaptive: bool = True
    hold: float | None = None
    order: Callable[[Ready, float], Rank] = first_come
    bands: bool = True
    gate: Callable[[Question, Load], bool] = plans_always
    spills: bool = False
    fair_planning: bool = False


DIRECT: Final = Policy(name="direct, first come", plans=False, bands=False)
EAGER: Final = Policy(name="eager fan-out, one queue", bands=False)

#: What is compared by default, the baselines first.
POLICIES: Final[tuple[Policy, ...]] = (
    DIRECT,
    EAGER,
    Policy(name="eager, two bands"),
    Policy(name="held, first come", hold=1.0),
    Policy(name="held, oldest request", hold=1.0, order=oldest_request),
    Policy(name="held, one each (width by slack)", hold=1.0, order=one_each),
    Policy(name="held, longest path", hold=1.0, order=longest_path),
    Policy(name="held, near the end", hold=1.0, order=least_left),
    Policy(name="held, near the end, aged", hold=1.0, order=least_left_aged),
    Policy(name="held, fair, near the end", hold=1.0, order=fair_least_left, fair_planning=True),
)
