"""The joints of a plan that may be polished, and of which of them something is to come. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from proto.names import joint_before


class PlanJoints:
    """The joints between the nodes of an answer.

    Args:
        nodes: in the order of the answer; none where nothing is polished.
    """

    __slots__ = ("_at", "meets", "open")

    def __init__(self, nodes: Sequence[int] = ()) -> None:
        #: Each with the nodes that meet there, in the order of the answer.
        self.meets = {joint_before(b): (a, b) for a, b in pairwise(nodes)}
        #: Those of which nothing has been decided.
        self.open = set(self.meets)
        self._at: dict[int, list[int]] = {}
        for joint, meet in self.meets.items():
            for node in (*meet, joint):
                self._at.setdefault(node, []).append(joint)

    def open_at(self, node: int) -> list[int]:
        """Return the open joints that a fact of `node` may concern; it may be one itself."""
        return [joint for joint in self._at.get(node, ()) if joint in self.open]
