"""The schedule hands nodes over in the order that ADR 0025 says, whatever has happened before.

Beside it a plain one that keeps nothing but what is held and under way, and looks at all of it for
each node that it hands over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from proto.messages import Fact, NodePlanned, NodeSpec
from proto.names import Pool
from services.assembler.graph import Graph
from services.assembler.ranking import Ranking
from services.assembler.schedule import TOKEN_S, Held, Schedule
from services.runtime.pool_load import PoolLoad
from tests.facts import accepted, decoded, failed, plan

Key = tuple[str, int]  # request, node

#: Budgets of nodes: few, so that paths are often equally long.
BUDGETS = (10, 40, 70)
LIMITS: tuple[dict[str, int], ...] = ({}, {"max_tokens": 20})
MOST_NODES = 7


class Plain:
    """The order as it is written down."""

    def __init__(self) -> None:
        self.held: dict[Key, Held] = {}
        self.under_way: dict[Key, tuple[Pool, str]] = {}

    def take(self, pool: Pool, count: int) -> list[Key]:
        """Return the next nodes; they are under way then."""
        return [self._next(pool) for _ in range(min(count, len(self._of(pool))))]

    def _next(self, pool: Pool) -> Key:
        held, busy = self._of(pool), Counter(self.under_way.values())
        first: dict[str, float] = {}
        for one in held.values():
            first[one.owner] = min(rank(one), first.get(one.owner, rank(one)))
        owner = min(first, key=lambda one: (busy[pool, one], first[one], one))
        key = min(
            (key for key, one in held.items() if one.owner == owner),
            key=lambda key: (rank(held[key]), *key),
        )
        self.under_way[key] = (pool, self.held.pop(key).owner)
        return key

    def _of(self, pool: Pool) -> dict[Key, Held]:
        return {key: one for key, one in self.held.items() if one.pool is pool}


def rank(held: Held) -> float:
    graph = held.graph
    left = [node for node in graph.planned if node not in graph.decoded]
    if graph.answer_nodes == (0,):
        left = [0]
    left_tokens = sum(tokens(graph, node) for node in left)
    return graph.submitted_at + (left_tokens / 4 - path(graph, held.node)) * TOKEN_S


def tokens(graph: Graph, node: int) -> int:
    assert graph.accepted
    budget = graph.planned[node].node.budget_tokens if node else 400
    return min(budget, graph.accepted.submitted.sampling.max_tokens or budget)


def path(graph: Graph, node: int) -> int:
    below = [one for one, told in graph.planned.items() if node in told.node.needs]
    return tokens(graph, node) + max((path(graph, one) for one in below), default=0)


class Both:
    """Two schedules that are told the same."""

    def __init__(self) -> None:
        self.ours, self.plain = Schedule(1.0), Plain()
        self.graphs: dict[str, Graph] = {}
        self.untold: dict[str, Iterator[Fact]] = {}

    def open(self, number: int, facts: list[Fact]) -> None:
        request = f"r{number}"
        self.graphs[request], self.untold[request] = Graph(request), iter(facts)

    def told(self, fact: Fact) -> None:
        graph = self.graphs[fact.request]
        graph.fold(fact, 0.0)
        if fact.type in {"NodeDecoded", "NodeFailed"}:
            self.done((fact.request, fact.node))
        self.ours.moved(fact.request)
        for node in graph.due():
            held = Held(graph, node, graph.pool(node), 0.0, lambda _: None)
            self.ours.hold(held)
            self.plain.held[fact.request, node] = held

    def done(self, key: Key) -> None:
        self.ours.done(*key)
        self.plain.held.pop(key, None)
        self.plain.under_way.pop(key, None)

    def forget(self, request: str) -> None:
        self.ours.forget(request)
        for key in [*self.plain.held, *self.plain.under_way]:
            if key[0] == request:
                self.done(key)
        self.graphs.pop(request)

    def take(self, pool: Pool, count: int) -> None:
        busy = sum(of is pool for of, _ in self.plain.under_way.values())
        load = PoolLoad(slots=busy + count)
        ours = self.ours.take(pool, load)
        assert [(one.graph.request, one.node) for one in ours] == self.plain.take(pool, count)

    def agree(self) -> None:
        for pool in Pool:
            word = self.ours.load(pool, "")
            held = sum(one.pool is pool for one in self.plain.held.values())
            released = sum(of is pool for of, _ in self.plain.under_way.values())
            assert (word.held, word.released) == (held, released)


def facts_of(random: Random, number: int) -> list[Fact]:
    request, count = f"r{number}", random.randint(1, MOST_NODES)
    lines: list[Fact] = []
    for node in range(1, count + 1):
        needs = random.sample(range(1, node), random.randint(0, node - 1))
        spec = NodeSpec(
            id=node,
            summary="s",
            needs=tuple(needs),
            difficulty=random.choice(["easy", "hard"]),
            budget_tokens=random.choice(BUDGETS),
        )
        lines.append(NodePlanned(request=request, node=spec, line="l", planned_ms=1))
    if random.random() < 0.3:
        random.shuffle(lines)
    at, owner = random.choice([0.0, 0.5, 3.0]), random.choice(["", "a", "b"])
    asked = accepted(request, at=at, owner=owner, sampling=random.choice(LIMITS))
    nodes = random.choice([[*range(1, count + 1)], [*range(1, count + 1)], [0]])
    return [asked, *lines, plan(nodes, request=request)]


@settings(max_examples=40)
@given(st.randoms(use_true_random=False))
def test_nodes_are_handed_over_in_the_order_that_is_written_down(random: Random) -> None:
    both = Both()
    for number in range(random.randint(1, 5)):
        both.open(number, facts_of(random, number))
    for _ in range(random.randint(1, 60)):
        step(both, random)
        both.agree()
    for pool in Pool:
        both.take(pool, 99)


def step(both: Both, random: Random) -> None:
    what = random.choice(["fact", "fact", "fact", "result", "result", "take"])
    if what == "take":
        both.take(random.choice(list(Pool)), random.randint(1, 3))
    elif what == "fact":
        request = random.choice([*both.graphs, *both.untold])
        fact = next(both.untold[request], None)
        if request not in both.graphs:
            return
        if fact:
            both.told(fact)
        elif random.random() < 0.2:
            both.forget(request)
    elif both.plain.under_way:
        request, node = random.choice(sorted(both.plain.under_way))
        attempt = both.graphs[request].attempt(node)
        if random.random() < 0.3:
            both.told(failed(node, attempt, request=request))
        else:
            both.told(decoded(node, attempt, request=request))


@given(st.lists(st.tuples(st.integers(0, 9), st.one_of(st.none(), st.integers(0, 3)))))
def test_a_ranking_is_that_of_the_last_ranks(steps: list[tuple[int, int | None]]) -> None:
    ranking, plain = Ranking[int, int](), dict[int, int]()
    for item, rank_ in steps * 3:  # long enough to be tidied
        if rank_ is None:
            ranking.drop(item)
            plain.pop(item, None)
        else:
            ranking.put(item, rank_)
            plain[item] = rank_
        assert len(ranking) == len(plain)
        if plain:
            assert ranking.first() == min((r, i) for i, r in plain.items())
