"""Who is served next, how wide a request may be, and when to plan at all; pure.

A policy sees what the services can know: expected lengths, never the true ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from bench.simulate.work import Question
from services.assembler.schedule import TOKEN_S, rank
from services.planner.saturation import FULL

#: Smaller goes first; two ranks of one policy can be compared.
Rank = tuple[float, ...]


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
    """Nodes a slot in each pool: queued, running and held; infinite for one that is not there."""

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


def due(ready: Ready, now_s: float) -> Rank:
    """By arrival, moved by expected work: back for what the request has left, forward for its path.

    Who waits gains on all who come later, so nobody waits for ever.
    """
    return (rank(ready.arrived_s, ready.left_tokens, ready.path_tokens), ready.ready_s)


def due_by_work(ready: Ready, now_s: float) -> Rank:
    """As `due`, with more weight: what the services did at first."""
    moved_s = (ready.left_tokens - 2 * ready.path_tokens) * TOKEN_S
    return (ready.tenant_nodes, ready.arrived_s + moved_s, ready.ready_s)


def fair_due(ready: Ready, now_s: float) -> Rank:
    """The tenant with the fewest nodes under way first, then `due`."""
    return (ready.tenant_nodes, *due(ready, now_s))


def plans_always(question: Question, load: Load) -> bool:
    """The gate's word decides, whatever the load."""
    return True


def direct_when_full(question: Question, load: Load) -> bool:
    """No planning call when every pool that nodes could go to is full."""
    return min(load.large, load.small) < FULL


def direct_when_large_full(question: Question, load: Load) -> bool:
    """No planning call when the large pool is full."""
    return load.large < FULL


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

_HELD: Final = Policy(name="held", hold=1.0, order=due)
#: What the services do (ADR 0025).
OURS: Final = Policy(
    name="ours: held to 1.25, fair, due, direct when full",
    hold=1.25,
    order=fair_due,
    gate=direct_when_full,
    fair_planning=True,
)

#: What is compared by default, the baselines first; ours and what it is with one thing changed.
POLICIES: Final[tuple[Policy, ...]] = (
    DIRECT,
    EAGER,
    Policy(name="eager, two bands"),
    replace(_HELD, name="held, oldest request", order=oldest_request),
    replace(_HELD, name="held, one each (width by slack)", order=one_each),
    replace(_HELD, name="held, longest path", order=longest_path),
    replace(_HELD, name="held, near the end", order=least_left),
    OURS,
    replace(OURS, name="ours, held to 1.0", hold=1.0),
    replace(OURS, name="ours, more by work", order=due_by_work),
    replace(OURS, name="ours, not fair", order=due, fair_planning=False),
    replace(OURS, name="ours, planned also when full", gate=plans_always),
    replace(OURS, name="ours, direct when large full", gate=direct_when_large_full),
    replace(OURS, name="ours, easy nodes spill over", spills=True),
    replace(OURS, name="ours, planned as they come", fair_planning=False),
)
