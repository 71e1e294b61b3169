"""Places that callers of several owners share."""

from __future__ import annotations

from collections import Counter
from typing import Final

#: When a caller that found no place may try again; another process may have one.
FULL_RETRY_S: Final = 1.0


class Room:
    """So many places, of which one owner cannot have all.

    An owner may have as many as are free beside its own: one alone gets half, two get a third
    each, and whoever comes next finds some. Those without an owner are the deployment's own
    users, who may have all.

    Args:
        most: how many places there are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()
        #: Places that are taken.
        self.taken = 0

    def take(self, owner: str) -> bool:
        """Take a place; return whether there was one."""
        own = self._taken[owner] if owner else 0
        if own >= self._most - self.taken:
            return False
        self._taken[owner] += 1
        self.taken += 1
        return True

    def leave(self, owner: str) -> None:
        """Give a place back."""
        self.taken -= 1
        self._taken[owner] -= 1
        if not self._taken[owner]:
            del self._taken[owner]
