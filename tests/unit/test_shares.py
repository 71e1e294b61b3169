"""However assemblers come and go, each partition has one, and they are shared out evenly."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto.messages import PartitionsClaimed
from services.assembler.shares import EXPIRES_S, ORPHAN_S, Shares

SETTLE_S = 3.0
TELL_EVERY_S = 0.5
#: When the server takes a silent owner's pin away.
PIN_TIMEOUT_S = 2.0
#: Longest that letting go takes: pulls run out, and what is at hand is finished.
GOING_S = 1.5


@dataclass
class Member:
    """An assembler, as far as its partitions go."""

    name: str
    shares: Shares
    asked: set[int] = field(default_factory=set)
    going: set[int] = field(default_factory=set)
    alive: bool = True
    #: When its last word arrives: NATS keeps the order of what one says.
    told_s: float = 0.0


class World:
    """Assemblers, words between them that take their time, and a server that pins partitions.

    Args:
        partitions: how many there are.
        busy: those that have events, and so are pinned to somebody.
        seed: of all delays.
    """

    def __init__(self, partitions: int, busy: set[int], seed: int) -> None:
        self.partitions = partitions
        self.busy = busy
        self.random = Random(seed)
        self.now_s = 0.0
        self.members: dict[str, Member] = {}
        self.pins: dict[int, str] = {}
        self.given = 0
        self.bound = 0
        #: Since when a busy partition has had nobody, and the longest that one had.
        self.longest_without_s = 0.0
        self._without_since_s: dict[int, float] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._names = itertools.count(1)

    @property
    def alive(self) -> list[Member]:
        return [one for one in self.members.values() if one.alive]

    def owned(self, member: Member) -> set[int]:
        return {one for one in member.asked if self.pins.get(one) == member.name}

    def join(self) -> Member:
        name = f"{self.random.randrange(100)}-{next(self._names)}"
        member = Member(name, Shares(name, self.partitions, SETTLE_S))
        self.members[name] = member
        self.bound += self.partitions // len(self.alive)
        self._after(0, lambda: self._turn(member))
        return member

    def kill(self, member: Member) -> None:
        member.alive = False

        def unpin() -> None:
            for partition, name in list(self.pins.items()):
                if name == member.name:
                    del self.pins[partition]

        self._after(PIN_TIMEOUT_S, unpin)

    def leave(self, member: Member) -> None:
        self._tell(member, leaving=True)
        for partition in set(member.asked):
            self._let_go(member, partition)
        member.alive = False

    def run(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, happens = heapq.heappop(self._events)
            happens()
            self._pin()
        self.now_s = until_s

    def _after(self, seconds: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_s + seconds, next(self._order), happens))

    def _turn(self, member: Member) -> None:
        if not member.alive:
            return
        owned = self.owned(member)
        moves = member.shares.moves(owned, member.asked - owned, self.now_s)
        member.asked |= moves.take
        for partition in moves.leave:
            self._let_go(member, partition)
        owned = self.owned(member)
        if moves.gives and not member.going and owned:
            self.given += 1
            self._let_go(member, self.random.choice(sorted(owned)))
        self._tell(member)
        self._after(TELL_EVERY_S, lambda: self._turn(member))

    def _let_go(self, member: Member, partition: int) -> None:
        member.asked.discard(partition)
        member.going.add(partition)

        def gone() -> None:
            member.going.discard(partition)
            if partition not in member.asked and self.pins.get(partition) == member.name:
                del self.pins[partition]

        self._after(self.random.uniform(0, GOING_S), gone)

    def _tell(self, member: Member, *, leaving: bool = False) -> None:
        owned = self.owned(member)
        word = PartitionsClaimed(
            source=member.name,
            owned=() if leaving else tuple(owned),
            asked=() if leaving else tuple(member.asked - owned),
            leaving=leaving,
        )
        member.told_s = max(member.told_s, self.now_s + self.random.uniform(0, 0.1))
        delay_s = member.told_s - self.now_s
        for other in self.members.values():
            self._after(delay_s, partial(self._hear, other, word))

    def _hear(self, member: Member, word: PartitionsClaimed) -> None:
        member.shares.heard(word, self.now_s)

    def _pin(self) -> None:
        for partition in self.busy - self.pins.keys():
            if asking := [one for one in self.alive if partition in one.asked]:
                self.pins[partition] = self.random.choice(asking).name
        alive = {one.name for one in self.members.values() if one.alive}
        for partition in self.busy:
            if self.pins.get(partition) in alive or not alive:
                self._without_since_s.pop(partition, None)
            else:
                since_s = self._without_since_s.setdefault(partition, self.now_s)
                self.longest_without_s = max(self.longest_without_s, self.now_s - since_s)


def is_even(world: World) -> bool:
    counts = [len(one.asked) for one in world.alive]
    return max(counts) - min(counts) <= 1


def claimed(world: World) -> list[int]:
    return sorted(itertools.chain.from_iterable(one.asked for one in world.alive))


#: What happens, and how long until the next thing does.
STEPS = st.lists(
    st.tuples(st.sampled_from(["join", "kill", "leave"]), st.floats(0, 12)), max_size=8
)


@settings(max_examples=40)
@given(
    partitions=st.integers(1, 24), idle=st.sets(st.integers(0, 23)), steps=STEPS, seed=st.integers()
)
def test_whoever_comes_and_goes_the_shares_end_up_even_after_few_moves(
    partitions: int, idle: set[int], steps: list[tuple[str, float]], seed: int
) -> None:
    world = World(partitions, set(range(partitions)) - idle, seed)
    world.join()
    for what, wait_s in steps:
        if what == "join":
            world.join()
        elif len(world.alive) > 1:
            leaver = world.random.choice(world.alive)
            world.kill(leaver) if what == "kill" else world.leave(leaver)
        world.run(wait_s)
    world.run(SETTLE_S + EXPIRES_S + partitions * (GOING_S + 2 * TELL_EVERY_S) + ORPHAN_S)
    assert claimed(world) == list(range(partitions))
    assert is_even(world)
    assert world.given <= world.bound
    calm = world.given
    world.run(20)
    assert (world.given, claimed(world)) == (calm, list(range(partitions)))


def settled(members: int, partitions: int = 8) -> World:
    """Return a world in which so many have shared out busy partitions."""
    world = World(partitions, set(range(partitions)), seed=members)
    for _ in range(members):
        world.join()
    world.run(30)
    assert is_even(world)
    return world


def test_the_first_has_all_partitions_at_once() -> None:
    world = World(8, set(), seed=1)
    world.join()
    world.run(0)
    assert claimed(world) == list(range(8))


@pytest.mark.parametrize("members", [2, 3, 5])
def test_what_a_dead_one_had_is_with_the_others_in_about_the_time_of_its_pin(members: int) -> None:
    world = settled(members)
    before = world.given
    world.longest_without_s = 0.0
    world.kill(world.alive[0])
    world.run(PIN_TIMEOUT_S + 2 * TELL_EVERY_S)
    assert claimed(world) == list(range(8))
    assert world.longest_without_s <= PIN_TIMEOUT_S + TELL_EVERY_S
    assert is_even(world)
    assert world.given == before


def test_what_one_that_leaves_had_is_asked_for_at_once() -> None:
    world = settled(2)
    world.leave(world.alive[0])
    world.run(2 * TELL_EVERY_S)
    assert claimed(world) == list(range(8))


def test_nobody_gives_up_what_it_owns_before_the_others_have_stayed() -> None:
    world = settled(1)
    world.join()
    world.run(SETTLE_S - 0.1)
    assert world.given == 0
    world.run(20)
    assert world.given == 4


def test_one_that_comes_and_goes_moves_nothing() -> None:
    world = settled(2)
    before = world.given
    for _ in range(5):
        flighty = world.join()
        world.run(SETTLE_S / 2)
        world.leave(flighty)
        world.run(SETTLE_S / 2)
    assert world.given == before
    assert is_even(world)


def test_after_nats_was_away_nobody_is_taken_for_dead() -> None:
    shares = Shares("a", 4, SETTLE_S)
    shares.heard(PartitionsClaimed(source="b", owned=(2, 3)), 0.0)
    assert shares.moves({0, 1}, set(), 0.5).take == set()
    shares.nobody_was_silent(10.0)
    assert shares.moves({0, 1}, set(), 10.5).take == set()
    assert shares.moves({0, 1}, set(), 20.0).take == {2, 3}


def test_what_two_ask_for_is_left_to_whom_it_is_pinned() -> None:
    shares = Shares("b", 2, SETTLE_S)
    shares.heard(PartitionsClaimed(source="a", asked=(0, 1)), 0.0)
    moves = shares.moves({0}, {1}, 0.1)
    assert moves.leave == {1}
    assert not moves.gives
