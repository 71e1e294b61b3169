"""A plan as it comes about: its nodes are published while it is still being written."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import structlog

from proto.errors import PlanContested
from proto.messages import (
    NodePlanned,
    NodeSpec,
    PlanCall,
    PlanCompleted,
    PlannerPool,
    RequestAccepted,
    Usage,
)
from services.planner.gate import Ending, decide, without_needs
from services.planner.parser import PlanItem, Planned, Shape, ShapeKind
from services.runtime import logs
from services.runtime.facts import EventLog

log = structlog.get_logger()


class Draft:
    """A plan as it comes about.

    Attributes:
        shape: the gate's word, once it is read.
        ending: how the plan has ended, so far.
        lines: of the nodes that are published.
        drops: nodes that an amendment leaves out of the answer.
        written_by: whose model wrote it; None as long as none did.
        calls: the engines' calls that are over.

    Args:
        events: where the nodes go.
        accepted: the request.
        headers: passed on with each fact.
        done: nodes that an earlier planner has published.
    """

    def __init__(
        self,
        events: EventLog,
        accepted: RequestAccepted,
        headers: dict[str, str],
        done: Sequence[NodePlanned],
    ) -> None:
        self.accepted = accepted
        self.headers = headers
        self.shape: ShapeKind | None = "graph" if done else None
        self.ending: Ending = "cut_off"
        self.nodes = [planned.node for planned in done]
        self.written = self.nodes[:]  # with the needs that the model gave them
        self.lines = [planned.line for planned in done]
        self.drops: Collection[int] = ()
        self.written_by: PlannerPool | None = None
        self.calls: list[PlanCall] = []
        self._events = events
        self._storing: asyncio.Task[None] | None = None

    @property
    def plan_ms(self) -> float:
        """Time in the engines so far."""
        return sum(call.engine_ms for call in self.calls)

    def take(self, items: Sequence[PlanItem], planned_ms: float) -> None:
        """Publish what is complete.

        Args:
            items: what was read.
            planned_ms: how long the engines have taken for it.

        Raises:
            PlanContested: another planner goes on with this plan; the model need not.
        """
        if self._storing and self._storing.done():
            self._storing.result()
        for item in items:
            if isinstance(item, Shape):
                self.shape = item.kind
            elif isinstance(item, Planned):
                self._publish(item, planned_ms)
            else:
                self.ending = "cut_off" if item.cut_off else "complete"

    async def stored(self) -> None:
        """Return when all published nodes are stored.

        Raises:
            PlanContested: another planner has published a node of ours before us.
        """
        if self._storing:
            await self._storing

    async def settled(self) -> None:
        """Return when nothing is being stored any more, whatever came of it."""
        if self._storing:
            await asyncio.gather(self._storing, return_exceptions=True)

    def completed(self) -> PlanCompleted:
        """Return the plan as it has ended."""
        stays = {node.id for node in kept(self.nodes, self.drops)}
        written = [node for node in self.written if node.id in stays]
        decision = decide(self.accepted.submitted.mode, self.shape, written, self.ending)
        last = self.calls[-1] if self.calls else None
        return PlanCompleted(
            request=self.accepted.request,
            mode=decision.mode,
            reason=decision.reason,
            nodes=decision.nodes,
            model=last.model if last else "",
            endpoint=last.endpoint if last else "",
            plan_ms=self.plan_ms,
            usage=sum((call.usage for call in self.calls), Usage()),
            written_by=self.written_by,
            calls=tuple(self.calls),
            polish=self.accepted.submitted.polish and decision.mode != "direct",
        )

    def _publish(self, item: Planned, planned_ms: float) -> None:
        submitted = self.accepted.submitted
        alone = submitted.mode == "sot" or "needs" in submitted.without
        node = without_needs(item.node) if alone else item.node
        planned = NodePlanned(
            request=self.accepted.request, node=node, line=item.line, planned_ms=planned_ms
        )
        self.nodes.append(node)
        self.lines.append(item.line)
        name = f"planned {planned.request}/{node.id}"
        self._storing = asyncio.create_task(self._store(planned, self._storing), name=name)
        logs.texts("node_line", line=item.line)
        log.info("node_planned", node=node.id, needs=node.needs, difficulty=node.difficulty)

    async def _store(self, planned: NodePlanned, before: asyncio.Task[None] | None) -> None:
        """Store a node after the one before it: whoever takes over finds no gap."""
        if before:
            await before
        if not await self._events.append(planned, headers=self.headers):
            raise PlanContested(f"node {planned.node.id}")


def kept(nodes: Sequence[NodeSpec], drops: Collection[int]) -> list[NodeSpec]:
    """Return the nodes that stay: a dropped one does if one that stays needs it."""
    needed: set[int] = set()
    stays: list[NodeSpec] = []
    for node in reversed(nodes):  # needs are earlier nodes: whoever needs it was looked at before
        if node.id not in drops or node.id in needed:
            stays.append(node)
            needed.update(node.needs)
    return stays[::-1]
