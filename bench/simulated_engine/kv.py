"""The blocks of keys and values of an engine, shared by prefix; pure.

A block is known by its key, a hash of its tokens and of all tokens before it. Blocks that no
sequence holds stay until their room is needed; the one that was let go first goes first, and
of one sequence the last. So what is cached is always closed under prefixes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field


def block_keys(tokens: Sequence[int], block_tokens: int, before: Sequence[int] = ()) -> list[int]:
    """Return the keys of all whole blocks of `tokens`, those in `before` known already."""
    keys = list(before)
    key = keys[-1] if keys else 0
    for start in range(len(keys) * block_tokens, len(tokens) - block_tokens + 1, block_tokens):
        key = hash((key, *tokens[start : start + block_tokens]))
        keys.append(key)
    return keys


@dataclass(slots=True)
class Lease:
    """What a sequence holds: shared blocks, from the first on, and blocks of its own."""

    shared: list[int] = field(default_factory=list)
    own: int = 0

    @property
    def blocks(self) -> int:
        """How many there are in all."""
        return len(self.shared) + self.own


class KvCache:
    """All blocks of an engine.

    Args:
        blocks: how many there are.
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.evictions = 0
        self._own = 0
        self._holders: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def held(self) -> int:
        """Blocks that sequences hold."""
        return self._own + len(self._holders)

    @property
    def cached(self) -> frozenset[int]:
        """Keys of all blocks that can be shared."""
        return frozenset(self._holders) | frozenset(self._idle)

    def match(self, keys: Sequence[int]) -> int:
        """Return how many leading blocks of `keys` are there."""
        for number, key in enumerate(keys):
            if key not in self._holders and key not in self._idle:
                return number
        return len(keys)

    def take(self, shared: Sequence[int], own: int) -> Lease | None:
        """Return a lease on blocks that are there and on new ones; None if there is no room.

        Args:
            shared: keys of blocks that `match` found.
            own: how many new ones.
        """
        idle = sum(key in self._idle for key in shared)
        if own > self.blocks - self.held - idle:
            return None
        for key in shared:
            self._hold(key)
        lease = Lease(shared=list(shared))
        self._add(lease, own)
        return lease

    def grow(self, lease: Lease, blocks: int) -> bool:
        """Add new blocks to `lease`; false if there is no room."""
        if blocks > self.blocks - self.held:
            return False
        self._add(lease, blocks)
        return True

    def publish(self, lease: Lease, keys: Sequence[int]) -> None:
        """Let others share the lease's leading blocks, which are `keys`.

        A block that is there already is shared from now on, and the own one goes.
        """
        for key in keys[len(lease.shared) : lease.blocks]:
            lease.own -= 1
            self._own -= 1
            self._hold(key)
            lease.shared.append(key)

    def free(self, lease: Lease) -> None:
        """Give all blocks of `lease` back."""
        for key in reversed(lease.shared):
            self._holders[key] -= 1
            if not self._holders[key]:
                del self._holders[key]
                self._idle[key] = None
        self._own -= lease.own
        lease.shared, lease.own = [], 0

    def _hold(self, key: int) -> None:
        self._idle.pop(key, None)
        self._holders[key] = self._holders.get(key, 0) + 1

    def _add(self, lease: Lease, blocks: int) -> None:
        lease.own += blocks
        self._own += blocks
        while self.held + len(self._idle) > self.blocks:
            self._idle.popitem(last=False)
            self.evictions += 1
