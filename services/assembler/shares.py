"""How the partitions are shared out among the assemblers. Pure.

Every assembler tells which partitions it has or asks for. From what all tell, each works out the
same shares, as even as can be: what nobody claims is asked for at once by whom it falls to; who has
more than its share gives one up when the same assemblers have been there for a while (ADR 0030).
Nothing here is needed for a request to be done once: the log sees to that. It is needed that each
partition has somebody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Final

from proto.messages import PartitionsClaimed

#: Three words may be lost; and the server takes a silent owner's pin away after 2 s.
EXPIRES_S: Final = 1.6
#: What nobody has claimed for so long is asked for by everybody: their views may differ.
ORPHAN_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Moves:
    """What one assembler does next.

    Args:
        take: partitions to ask for.
        leave: those that it asks for and that are others', or too many.
        gives: whether it is to give up one that it owns.
    """

    take: frozenset[int] = frozenset()
    leave: frozenset[int] = frozenset()
    gives: bool = False


class Shares:
    """What one assembler knows of all; the time is told to it, in seconds of one clock.

    Args:
        source: this assembler, as the others know it.
        partitions: how many there are.
        settle_s: for how long the same assemblers must have been there before one gives up a
            partition that it owns.
    """

    def __init__(self, source: str, partitions: int, settle_s: float) -> None:
        self._source = source
        self._all = frozenset(range(partitions))
        self._settle_s = settle_s
        self._words: dict[str, tuple[float, PartitionsClaimed]] = {}
        self._members_since_s: float | None = None
        self._unclaimed_since_s: dict[int, float] = {}

    def heard(self, word: PartitionsClaimed, now_s: float) -> bool:
        """Take a word of another in; return whether it says anything new."""
        if word.source == self._source:
            return False
        if word.leaving:
            return self._forget(word.source, now_s)
        _, before = self._words.get(word.source, (0.0, None))
        if before is None:
            self._members_since_s = now_s
        self._words[word.source] = (now_s, word)
        return word != before

    def nobody_was_silent(self, now_s: float) -> None:
        """Note that no word could be heard until now: NATS was away."""
        self._words = {source: (now_s, word) for source, (_, word) in self._words.items()}

    def moves(self, owned: Set[int], asked: Set[int], now_s: float) -> Moves:
        """Return what to do; not to be asked while NATS is away, and nobody can be heard.

        Args:
            owned: partitions that are pinned to us.
            asked: those that we ask for beside them.
            now_s: the time.
        """
        self._expire(now_s)
        holders = self._holders(owned, asked)
        unclaimed = self._all - holders.keys()
        counts = _counts(holders, {self._source, *self._words})
        surplus = max(0, counts[self._source] - _quota(counts, len(self._all), self._source))
        others = {one for one in asked if holders[one] != self._source}
        # What is only asked for costs nothing to leave.
        free = sorted(asked - others, reverse=True)[:surplus]
        return Moves(
            take=frozenset(self._due(unclaimed, counts) | self._orphans(unclaimed, now_s)),
            leave=frozenset(others.union(free)),
            gives=surplus > len(free) and not unclaimed and self._is_settled(now_s),
        )

    def _holders(self, owned: Set[int], asked: Set[int]) -> dict[int, str]:
        """Return who has each claimed partition: to whom it is pinned, else the first by name."""
        ours = PartitionsClaimed(source=self._source, owned=tuple(owned), asked=tuple(asked))
        words = sorted((ours, *(word for _, word in self._words.values())), key=_name, reverse=True)
        found: dict[int, str] = {}
        for claims in ("asked", "owned"):
            for word in words:
                found |= dict.fromkeys(self._all.intersection(getattr(word, claims)), word.source)
        return found

    def _due(self, unclaimed: Iterable[int], counts: Mapping[str, int]) -> set[int]:
        """Return those of the unclaimed that fall to us: each goes to who has fewest by then."""
        given = dict(counts)
        ours = set()
        for partition in sorted(unclaimed):
            to = min(given, key=lambda source: (given[source], source))
            given[to] += 1
            if to == self._source:
                ours.add(partition)
        return ours

    def _orphans(self, unclaimed: Set[int], now_s: float) -> set[int]:
        since_s = self._unclaimed_since_s
        self._unclaimed_since_s = {one: since_s.get(one, now_s) for one in unclaimed}
        return {one for one, at_s in self._unclaimed_since_s.items() if now_s - at_s >= ORPHAN_S}

    def _is_settled(self, now_s: float) -> bool:
        since_s = self._members_since_s
        return since_s is None or now_s - since_s >= self._settle_s

    def _expire(self, now_s: float) -> None:
        for source in [s for s, (at_s, _) in self._words.items() if now_s - at_s > EXPIRES_S]:
            self._forget(source, now_s)

    def _forget(self, source: str, now_s: float) -> bool:
        known = self._words.pop(source, None) is not None
        if known:
            self._members_since_s = now_s
        return known


def _counts(holders: Mapping[int, str], members: Iterable[str]) -> dict[str, int]:
    counts = dict.fromkeys(members, 0)
    for holder in holders.values():
        counts[holder] += 1
    return counts


def _quota(counts: Mapping[str, int], partitions: int, source: str) -> int:
    """Return how many `source` may keep: who has most has one more where it does not come out even.

    So the fewest move that can.
    """
    least, more = divmod(partitions, len(counts))
    order = sorted(counts, key=lambda one: (-counts[one], one))
    return least + (order.index(source) < more)


def _name(word: PartitionsClaimed) -> str:
    return word.source
