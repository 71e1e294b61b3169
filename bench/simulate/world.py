"""The simulated deployment: engines that keep a timing model, planners, pools with slots.

Time is virtual. Each endpoint is a `Batch` of the simulated engine; a step is computed when it
begins, from who was there by then, and what it gave is handed out when it ends.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.simulate.policies import Load, Policy, Ready
from bench.simulate.work import END_TOKENS, WORD_TOKENS, Arrival, PlannedNode
from bench.simulated_engine.batching import Batch
from bench.simulated_engine.profiles import PROFILES, Profile
from bench.simulated_engine.sequences import TGI, Step
from bench.simulated_engine.sequences import Policy as Family
from bench.simulated_engine.sequences import Sequence as EngineSequence
from services.runtime.balance import place

#: Tokens of what stands before all plans, before all nodes, and of a question.
_PLAN_PREFIX: Final = 600
_NODE_PREFIX: Final = 350
_QUESTION: Final = 40
_INSTRUCTION: Final = 12
#: What the services expect of a text, as they cannot know.
NODE_EXPECTED: Final = 100.0
DIRECT_EXPECTED: Final = 400.0
_DIRECT: Final = PlannedNode(0, (), easy=False, line_tokens=0, tokens=0)
_LOAD_FACTOR: Final = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What serves.

    Args:
        large, small: engines' timing.
        large_endpoints, small_endpoints: how many there are.
        slots: nodes that each endpoint's workers decode at once.
        planner_slots: requests planned at once.
        family: how engines batch.
    """

    large: Profile = PROFILES["llama-70b-4xa100"]
    small: Profile = PROFILES["llama-8b-1xa100"]
    large_endpoints: int = 4
    small_endpoints: int = 4
    slots: int = 8
    planner_slots: int = 16
    family: Family = TGI


@dataclass(slots=True, eq=False)
class Asked:
    """A request under way."""

    number: int
    arrival: Arrival
    direct: bool = False
    planned: dict[int, PlannedNode] = field(default_factory=dict)
    plan_done: bool = False
    missing: dict[int, int] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    under_way: int = 0
    first_s: float | None = None
    ended_s: float | None = None
    _paths: dict[int, float] = field(default_factory=dict)

    @property
    def left_tokens(self) -> float:
        """Expected tokens of nodes that are not done."""
        return (
            DIRECT_EXPECTED if self.direct else NODE_EXPECTED * (len(self.planned) - len(self.done))
        )

    def path_tokens(self, node: int) -> float:
        """Expected tokens from `node` down the longest path of its dependants."""
        if self.direct:
            return DIRECT_EXPECTED
        if len(self._paths) != len(self.planned):
            self._paths = {}
            for id_ in sorted(self.planned, reverse=True):
                below = [self._paths[one.id] for one in self.planned.values() if id_ in one.needs]
                self._paths[id_] = NODE_EXPECTED + max(below, default=0.0)
        return self._paths[node]


@dataclass(slots=True, eq=False)
class Waiting:
    """A node that is held, or queued."""

    asked: Asked
    node: PlannedNode
    ready_s: float


class Endpoint:
    """An engine; `url`, `in_flight`, `limit` and `eligible` are what the balancing looks at."""

    eligible = True
    limit = 100_000

    def __init__(self, url: str, profile: Profile, family: Family) -> None:
        self.url = url
        self.in_flight = 0
        self.batch = Batch(profile, family)
        self.stepping = False


class PoolOfEngines:
    """The endpoints of a pool, its slots, its queue and what is held back from it."""

    def __init__(
        self, name: str, profile: Profile, endpoints: int, slots: int, family: Family
    ) -> None:
        self.endpoints = [Endpoint(f"{name}-{n}", profile, family) for n in range(endpoints)]
        self.slots = slots * endpoints
        self.running = 0
        self.queues: tuple[deque[Waiting], deque[Waiting]] = (deque(), deque())
        self.held: list[Waiting] = []
        self.of_tenant: Counter[str] = Counter()

    @property
    def handed_over(self) -> int:
        """Nodes that are queued or running."""
        return self.running + sum(map(len, self.queues))

    @property
    def load(self) -> float:
        """Nodes a slot, those held back included."""
        return (self.handed_over + len(self.held)) / self.slots if self.slots else float("inf")


class World:
    """Runs the arrivals through a deployment by a policy.

    Args:
        deployment: what serves.
        policy: by which it is scheduled.
        arrivals: in the order of time.
    """

    def __init__(self, deployment: Deployment, policy: Policy, arrivals: Sequence[Arrival]) -> None:
        self.deployment = deployment
        self.policy = policy
        self.now_s = 0.0
        family, slots = deployment.family, deployment.slots
        self.large = PoolOfEngines(
            "large", deployment.large, deployment.large_endpoints, slots, family
        )
        self.small = PoolOfEngines(
            "small", deployment.small, deployment.small_endpoints, slots, family
        )
        self.asked = [Asked(number, arrival) for number, arrival in enumerate(arrivals)]
        self._planning = 0
        self._unplanned: list[Asked] = []
        self._planning_of: Counter[str] = Counter()
        self._turns: dict[str, int] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._told: dict[EngineSequence, Callable[[int, bool], None]] = {}

    def run(self) -> list[Asked]:
        """Return all requests, each with its times, when the last has ended."""
        for asked in self.asked:
            self._at(asked.arrival.at_s, lambda one=asked: self._arrived(one))  # type: ignore[misc]
        while self._events:
            self.now_s, _, happens = heapq.heappop(self._events)
            happens()
        return self.asked

    def _at(self, at_s: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), happens))

    # --- planning -------------------------------------------------------------------

    def _arrived(self, asked: Asked) -> None:
        small = self.small.load if self.policy.adaptive else float("inf")
        load = Load(self.large.load, small)
        if not self.policy.plans or not self.policy.gate(asked.arrival.question, load):
            self._answer_directly(asked)
            return
        self._unplanned.append(asked)
        self._plan_next()

    def _plan_next(self) -> None:
        while self._unplanned and self._planning < self.deployment.planner_slots:
            asked = self._next_to_plan()
            self._planning += 1
            self._planning_of[asked.arrival.tenant] += 1
            self._plan(asked)

    def _next_to_plan(self) -> Asked:
        if not self.policy.fair_planning:
            return self._unplanned.pop(0)
        turns, planning = self._turns, self._planning_of
        chosen = min(
            self._unplanned,
            key=lambda one: (planning[one.arrival.tenant], turns.get(one.arrival.tenant, 0)),
        )
        self._unplanned.remove(chosen)
        turns[chosen.arrival.tenant] = max(turns.values(), default=0) + 1
        return chosen

    def _plan(self, asked: Asked) -> None:
        question = asked.arrival.question
        ends, total = [], WORD_TOKENS
        for node in question.nodes:
            total += node.line_tokens
            ends.append((total, node))
        total += END_TOKENS if question.nodes else 0
        lines = deque(ends)

        def told(generated: int, ended: bool) -> None:
            while lines and lines[0][0] <= generated:
                self._planned(asked, lines.popleft()[1])
            if ended:
                self._plan_ended(asked)

        prompt = [*range(_PLAN_PREFIX), *_unique(asked.number, 0, _QUESTION)]
        self._call(self.large, asked, prompt, total, told)

    def _planned(self, asked: Asked, node: PlannedNode) -> None:
        asked.planned[node.id] = node
        asked.missing[node.id] = sum(need not in asked.done for need in node.needs)
        if not asked.missing[node.id]:
            self._ready(asked, node)

    def _plan_ended(self, asked: Asked) -> None:
        self._planning -= 1
        self._planning_of[asked.arrival.tenant] -= 1
        asked.plan_done = True
        if not asked.planned:
            self._answer_directly(asked)
        else:
            self._end_if_done(asked)
        self._plan_next()

    def _answer_directly(self, asked: Asked) -> None:
        asked.direct = asked.plan_done = True
        asked.planned[0] = _DIRECT
        self._ready(asked, _DIRECT)

    # --- nodes ----------------------------------------------------------------------

    def _ready(self, asked: Asked, node: PlannedNode) -> None:
        pool = self._pool_of(node)
        pool.held.append(Waiting(asked, node, self.now_s))
        self._hand_over(pool)

    def _pool_of(self, node: PlannedNode) -> PoolOfEngines:
        if not node.easy or not self.policy.adaptive or not self.small.slots:
            return self.large
        if self.policy.spills and self.small.load > 1 > self.large.load:
            return self.large
        return self.small

    def _hand_over(self, pool: PoolOfEngines) -> None:
        """Release what the policy lets go, and start what has a slot."""
        most = float("inf") if self.policy.hold is None else self.policy.hold * pool.slots
        while pool.held and pool.handed_over < max(1.0, most):
            chosen = min(
                pool.held, key=lambda one: self.policy.order(self._seen(one, pool), self.now_s)
            )
            pool.held.remove(chosen)
            chosen.asked.under_way += 1
            pool.of_tenant[chosen.asked.arrival.tenant] += 1
            urgent = not self.policy.bands or bool(chosen.node.needs) or chosen.asked.direct
            pool.queues[0 if urgent else 1].append(chosen)
        while pool.running < pool.slots and (queue := pool.queues[0] or pool.queues[1]):
            self._start(pool, queue.popleft())

    def _seen(self, waiting: Waiting, pool: PoolOfEngines) -> Ready:
        asked = waiting.asked
        return Ready(
            ready_s=waiting.ready_s,
            arrived_s=asked.arrival.at_s,
            left_tokens=asked.left_tokens,
            path_tokens=asked.path_tokens(waiting.node.id),
            request_nodes=asked.under_way,
            tenant_nodes=pool.of_tenant[asked.arrival.tenant],
            direct=asked.direct,
        )

    def _start(self, pool: PoolOfEngines, waiting: Waiting) -> None:
        pool.running += 1
        asked, node = waiting.asked, waiting.node
        is_first = asked.direct or node.id == 1

        def told(generated: int, ended: bool) -> None:
            if is_first and asked.first_s is None:
                asked.first_s = self.now_s
            if ended:
                self._decoded(pool, asked, node)

        question = asked.arrival.question
        tokens = question.direct_tokens if asked.direct else node.tokens
        self._call(pool, asked, _prompt(asked, node), tokens, told)

    def _decoded(self, pool: PoolOfEngines, asked: Asked, node: PlannedNode) -> None:
        pool.running -= 1
        pool.of_tenant[asked.arrival.tenant] -= 1
        asked.under_way -= 1
        asked.done.add(node.id)
        for other in asked.planned.values():
            if node.id in other.needs:
                asked.missing[other.id] -= 1
                if not asked.missing[other.id]:
                    self._ready(asked, other)
        self._end_if_done(asked)
        self._hand_over(pool)

    def _end_if_done(self, asked: Asked) -> None:
        if asked.plan_done and len(asked.done) == len(asked.planned):
            asked.ended_s = self.now_s

    # --- engines --------------------------------------------------------------------

    def _call(
        self,
        pool: PoolOfEngines,
        asked: Asked,
        prompt: list[int],
        tokens: int,
        told: Callable[[int, bool], None],
    ) -> None:
        endpoint = place(pool.endpoints, str(asked.number), load_factor=_LOAD_FACTOR)
        if endpoint is None:
            raise RuntimeError("a pool without endpoints was asked")
        endpoint.in_flight += 1
        sequence = EngineSequence(
            prompt=prompt, reply=range(tokens), max_new_tokens=max(tokens, 200)
        )
        self._told[sequence] = told
        endpoint.batch.now_s = max(endpoint.batch.now_s, self.now_s)
        endpoint.batch.submit(sequence, self.now_s)
        if not endpoint.stepping:
            endpoint.stepping = True
            # In a moment, so that all that is called now is in the same step.
            self._at(self.now_s, lambda: self._step(endpoint))

    def _step(self, endpoint: Endpoint) -> None:
        step = endpoint.batch.step()
        if step is None:
            endpoint.stepping = False
            return
        self._at(endpoint.batch.now_s, lambda: self._stepped(endpoint, step))

    def _stepped(self, endpoint: Endpoint, step: Step) -> None:
        self._at(self.now_s, lambda: self._step(endpoint))
        for sequence, _ in step.produced:
            ended = sequence.ended_s is not None
            if ended:
                endpoint.in_flight -= 1
            told = self._told.pop(sequence) if ended else self._told[sequence]
            told(sequence.generated, ended)


def _prompt(asked: Asked, node: PlannedNode) -> list[int]:
    number = asked.number
    if asked.direct:
        return _unique(number, 0, _QUESTION)
    prompt = [*(-token for token in range(1, _NODE_PREFIX)), *_unique(number, 0, _QUESTION)]
    for line in asked.planned.values():
        prompt += _unique(number, 100 + line.id, line.line_tokens)
    for need in node.needs:
        prompt += _unique(number, 200 + need, asked.planned[need].tokens + _INSTRUCTION)
    return prompt + _unique(number, 300 + node.id, _INSTRUCTION)


def _unique(number: int, part: int, count: int) -> list[int]:
    """Return `count` tokens that only this part of this request has."""
    first = 1_000_000 * (1000 * number + part + 1)
    return list(range(first, first + count))
