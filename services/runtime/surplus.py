"""What has come for no slot: kept for a while, in case one is free soon, and begun by turns.

A worker keeps it for a moment: several consumers were asked for the same slot. A planner keeps
more, for longer: what waits is in the order in which it came, whosever it is, and only who looks
ahead can let the owners take turns (ADR 0031).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from services.runtime.pull import Delivery

#: A message that came without a free slot is kept, or offered again, after this long.
BOUNCE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Turns:
    """How those whose messages wait for a slot take turns.

    Args:
        ahead: messages that are kept beyond the slots, while there are more than slots.
        keep_s: for how long; then another process may have them.
        owner_of: whose a message is.
        refuse: ends one that is too many, and its owner's latest; its slot is nobody's.
    """

    ahead: int
    keep_s: float
    owner_of: Callable[[Delivery], str]
    refuse: Callable[[Delivery], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Kept:
    """A message that waits here for a slot.

    Args:
        delivery: it.
        place: its consumer's, the most urgent first.
        owner: whose it is.
        due: when it is given back.
    """

    delivery: Delivery
    place: int
    owner: str
    due: asyncio.TimerHandle


class Surplus:
    """The messages that one process keeps.

    Args:
        give_back: called with a message whose time is over.
    """

    def __init__(self, give_back: Callable[[Delivery], None]) -> None:
        self._give_back = give_back
        self._kept: dict[int, Kept] = {}
        #: When each owner's last was begun, in turns; while any are kept.
        self._turns: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, delivery: Delivery, place: int, owner: str, keep_s: float) -> None:
        """Keep a message for so long."""
        due = asyncio.get_running_loop().call_later(keep_s, self._over, delivery.stream_seq)
        self._kept[delivery.stream_seq] = Kept(delivery, place, owner, due)

    def take(self, stream_seq: int) -> Delivery | None:
        """Keep the message at this position no longer, and return it."""
        if kept := self._kept.pop(stream_seq, None):
            kept.due.cancel()
            return kept.delivery
        return None

    def take_all(self) -> list[Delivery]:
        """Keep none any longer."""
        return [one for seq in list(self._kept) if (one := self.take(seq))]

    def next(self, running: Mapping[str, int]) -> Delivery | None:
        """Take what is begun next: of the owner with the fewest running, and the longest since its
        last turn, the most urgent and then the first message.
        """
        if not self._kept:
            self._turns.clear()
            return None

        def order(seq: int) -> tuple[int, int, int, int]:
            kept = self._kept[seq]
            return running.get(kept.owner, 0), self._turns.get(kept.owner, 0), kept.place, seq

        chosen = min(self._kept, key=order)
        self._turns[self._kept[chosen].owner] = max(self._turns.values(), default=0) + 1
        return self.take(chosen)

    def too_many(self, most: int) -> Delivery | None:
        """Take the latest message of the owner with the most, if more than `most` are kept.

        One that comes again is spared: it may have been begun.
        """
        if len(self._kept) <= most:
            return None
        fresh = {seq: kept for seq, kept in self._kept.items() if kept.delivery.times == 1}
        if not fresh:
            return None
        counts = Counter(kept.owner for kept in self._kept.values())
        return self.take(max(fresh, key=lambda seq: (counts[fresh[seq].owner], seq)))

    def _over(self, stream_seq: int) -> None:
        if delivery := self.take(stream_seq):
            self._give_back(delivery)


def is_ours(delivery: Delivery, ack_wait_s: float) -> bool:
    """Whether a marked message cannot have gone to another yet."""
    return time.monotonic() - delivery.marked_at < ack_wait_s
