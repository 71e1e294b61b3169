"""The graphs that every system of this benchmark runs. Pure, and of no system's own types.

A shape's nodes are numbered from 1, as a plan's are. It is done when each of its nodes is, and the
one who started it knows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """A graph of nodes that do nothing.

    Args:
        name: in tables.
        needs: for each node, in order of their numbers from 1: the earlier nodes that must be done
            before it starts.
    """

    name: str
    needs: tuple[tuple[int, ...], ...]

    @property
    def nodes(self) -> range:
        """The nodes' numbers."""
        return range(1, len(self.needs) + 1)

    @property
    def depth(self) -> int:
        """Nodes on the longest path."""
        depth: dict[int, int] = {}
        for node in self.nodes:
            depth[node] = 1 + max((depth[need] for need in self.needs_of(node)), default=0)
        return max(depth.values(), default=0)

    def needs_of(self, node: int) -> tuple[int, ...]:
        """Return what `node` needs."""
        return self.needs[node - 1]

    def dependants(self) -> dict[int, tuple[int, ...]]:
        """Return for each node those that need it."""
        found: dict[int, list[int]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            for need in self.needs_of(node):
                found[need].append(node)
        return {node: tuple(others) for node, others in found.items()}


def chain(length: int) -> Shape:
    """Return nodes of which each needs the one before."""
    return Shape(f"chain of {length}", tuple((n - 1,) if n > 1 else () for n in _up_to(length)))


def fan_out(width: int) -> Shape:
    """Return nodes that need nothing."""
    return Shape(f"fan-out of {width}", tuple(() for _ in _up_to(width)))


def diamond(width: int) -> Shape:
    """Return one node, `width` nodes that need it, and one that needs all of those."""
    middle = tuple(range(2, width + 2))
    return Shape(f"diamond of {width}", ((), *((1,) for _ in middle), middle))


def _up_to(count: int) -> range:
    if count < 1:
        raise ValueError(f"{count}: at least one node")
    return range(1, count + 1)


#: What is run by default: the chains and fan-outs of every table.
CHAINS = tuple(chain(length) for length in (1, 2, 3, 4, 8, 16, 32))
FAN_OUTS = tuple(fan_out(width) for width in (2, 4, 8, 16, 32, 64))
#: Many of these at once are the load of "nodes per second".
LOAD = chain(8)
