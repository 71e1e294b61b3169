"""What is shown of a request at one moment: plain values, no logic but counting."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from proto.names import Pool


class NodeState(StrEnum):
    """What a node is doing."""

    #: Waits for the plan, or for nodes that it needs.
    PENDING = "pending"
    #: Waits for a slot of its pool.
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    #: An attempt failed, another one is to come.
    RETRY = "retry"
    FAILED = "failed"
    #: Not part of the answer, or of no more use since another node failed.
    SKIPPED = "skipped"
    #: The request ended before it was done.
    CANCELLED = "cancelled"


#: States in which a node needs to be seen when there is no room for all.
URGENT = frozenset({NodeState.RUNNING, NodeState.RETRY, NodeState.FAILED})


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the picture.

    Args:
        label: the node's id, or `plan`.
        summary: what it writes.
        state: what it is doing.
        waits_for: the needed nodes that are not done.
        needs: all needed nodes.
        pool: where it runs, once that is known.
        time_s: how long it ran, or has been running or queued.
        tokens: generated so far.
        rate: tokens per second, while it runs.
        note: what else is to be said.
    """

    label: str
    summary: str
    state: NodeState
    waits_for: tuple[int, ...] = ()
    needs: tuple[int, ...] = ()
    pool: Pool | None = None
    time_s: float | None = None
    tokens: int = 0
    rate: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """All that is shown at one moment: a header's figures, the plan's row, the nodes' rows."""

    request: str
    elapsed_s: float
    plan: Row
    nodes: tuple[Row, ...]

    def count(self, *states: NodeState) -> int:
        """How many nodes are in one of `states`."""
        return sum(row.state in states for row in self.nodes)

    @property
    def in_answer(self) -> int:
        """Nodes that are not skipped."""
        return len(self.nodes) - self.count(NodeState.SKIPPED)
