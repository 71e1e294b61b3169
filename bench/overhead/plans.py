"""A shape as the facts of a plan: what the benchmark tells where no planner does. Pure."""

from __future__ import annotations

from bench.overhead.shapes import Shape
from proto.messages import NodePlanned, NodeSpec, PlanCompleted


def plan_of(request: str, shape: Shape) -> list[NodePlanned | PlanCompleted]:
    """Return the lines of a plan of that shape, all of them hard, and that it is complete."""
    nodes = tuple(shape.nodes)
    plan = PlanCompleted(request=request, mode="sgd", reason="forced", nodes=nodes)
    return [*(_planned(request, shape, node) for node in nodes), plan]


def _planned(request: str, shape: Shape, node: int) -> NodePlanned:
    spec = NodeSpec(id=node, summary=f"step {node}", needs=shape.needs_of(node))
    needs = ",".join(map(str, spec.needs)) or "-"
    line = f"{node}. {spec.summary} | hard | {needs}"
    return NodePlanned(request=request, node=spec, line=line, planned_ms=0)
