"""Policies side by side: the same arrivals for all of them, several seeds; pure.

*Load* is that of the baseline: 1.0 is as many requests a second as the large pool completes when
it answers all of them directly and is never idle. The small pool comes on top of that; `Policy`
rows whose name says so give the baseline the small pool's cards instead.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from bench.simulate.figures import Answered, Figures, figures, told
from bench.simulate.policies import DIRECT, Policy
from bench.simulate.work import Arrival, Arrivals, Question, arrivals
from bench.simulate.world import Asked, Deployment, World

#: A flood: one tenant asks ten times as much as each of the three others.
FLOOD: Final = (("flood", 10.0), ("a", 1.0), ("b", 1.0), ("c", 1.0))
ONE_TENANT: Final = (("", 1.0),)
_COLUMNS: Final = (
    "policy", "mean s", "p50 s", "p99 s", "first token s", "slowdown",
    "mean of direct", "p99 of direct",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What comes, at which load.

    Args:
        load: of the baseline.
        kind: how requests come.
        tenants: each with its weight.
        adaptive: whether easy nodes go to the small pool; if not, there is only the large one.
        count: requests of a run.
    """

    load: float
    kind: Arrivals = "poisson"
    tenants: Sequence[tuple[str, float]] = ONE_TENANT
    adaptive: bool = True
    count: int = 200

    @property
    def title(self) -> str:
        """As a heading."""
        pools = "both pools" if self.adaptive else "large pool only"
        whose = ", one tenant floods" if len(self.tenants) > 1 else ""
        return f"load {self.load:g}, {self.kind}, {pools}{whose}"


#: The baseline busy; the large pool alone, busy and full; both pools, with a tenant that floods.
SCENARIOS: Final = (
    Scenario(load=0.8),
    Scenario(load=0.8, adaptive=False),
    Scenario(load=0.95, adaptive=False),
    Scenario(load=1.8, tenants=FLOOD),
    Scenario(load=4.0, tenants=FLOOD),
)


def capacity(deployment: Deployment, questions: Sequence[Question]) -> float:
    """Return how many requests a second the large pool answers directly when it is never idle."""
    slots = deployment.large_endpoints * deployment.slots
    random = Random("capacity")
    backlog = [Arrival(0.0, "", random.choice(questions)) for _ in range(max(300, 8 * slots))]
    ends = sorted(one.ended_s or 0.0 for one in World(deployment, DIRECT, backlog).run())
    first, last = len(ends) // 5, 4 * len(ends) // 5
    return (last - first) / (ends[last] - ends[first])


def with_small_cards(deployment: Deployment) -> Deployment:
    """Return a deployment without a small pool whose cards are the large one's.

    A large endpoint has four cards and a small one has one.
    """
    more = deployment.small_endpoints // 4
    return replace(deployment, large_endpoints=deployment.large_endpoints + more, small_endpoints=0)


def arriving(
    scenario: Scenario, questions: Sequence[Question], rate: float, seed: int
) -> list[Arrival]:
    """Return the arrivals of one run; they follow from the seed alone."""
    return arrivals(
        Random(f"arrivals {seed}"),
        questions,
        rate=rate,
        count=scenario.count,
        kind=scenario.kind,
        tenants=scenario.tenants,
    )


def run(
    deployment: Deployment,
    policy: Policy,
    scenario: Scenario,
    questions: Sequence[Question],
    rate: float,
    seed: int,
) -> Figures:
    """Return what `policy` comes to in one run."""
    coming = arriving(scenario, questions, rate, seed)
    policy = replace(policy, adaptive=scenario.adaptive)
    asked = World(deployment, policy, coming).run()
    token_s = deployment.large.step_s(1, 0)
    found = figures([_answered(one, token_s) for one in asked])
    if len(scenario.tenants) == 1:
        return found
    flood = scenario.tenants[0][0]
    light = [one for one in coming if one.tenant != flood]
    alone = World(deployment, policy, light).run()
    return replace(found, of_alone=mean_s(asked, flood) / mean_s(alone, flood))


def mean_s(asked: Sequence[Asked], without: str) -> float:
    """Return the mean answer time of all tenants but one."""
    others = [one for one in asked if one.arrival.tenant != without]
    return statistics.fmean((one.ended_s or 0.0) - one.arrival.at_s for one in others)


def table(rows: Sequence[tuple[str, Sequence[Figures]]], tenants: Sequence[str] = ()) -> list[str]:
    """Return a Markdown table; the first row is what the ratios refer to."""
    baseline = rows[0][1]
    head = [*_COLUMNS, *(f"mean of {tenant} s" for tenant in tenants)]
    head += ["the others, of alone"] if tenants else []
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, found in rows:
        cells = [
            name,
            told([one.mean_s for one in found]),
            told([one.p50_s for one in found]),
            told([one.p99_s for one in found]),
            told([one.first_s for one in found]),
            told([one.slowdown for one in found]),
            told([one.mean_s / base.mean_s for one, base in zip(found, baseline, strict=True)]),
            told([one.p99_s / base.p99_s for one, base in zip(found, baseline, strict=True)]),
            *(told([one.tenants_s.get(tenant, 0.0) for one in found]) for tenant in tenants),
            *([_of_alone(found)] if tenants else []),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _of_alone(found: Sequence[Figures]) -> str:
    known = [one.of_alone for one in found if not math.isnan(one.of_alone)]
    return told(known) if known else "–"


def _answered(asked: Asked, token_s: float) -> Answered:
    if asked.ended_s is None or asked.first_s is None:
        raise RuntimeError(f"request {asked.number} has not ended")
    came_s = asked.arrival.at_s
    alone_s = asked.arrival.question.direct_tokens * token_s
    return Answered(asked.arrival.tenant, asked.ended_s - came_s, asked.first_s - came_s, alone_s)
