"""A skeleton for eyes and for documents: a tree, or Mermaid. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from rich.tree import Tree

from proto.messages import NodeSpec, SkeletonDrafted
from skelgraph.draw import Glyphs, printable


def tree(drafted: SkeletonDrafted, glyphs: Glyphs) -> Tree:
    """Return the skeleton as a tree: each node below the deepest node that it needs."""
    depths = depth_of(drafted.nodes)
    root = Tree(Text(_headline(drafted, depths, glyphs)), hide_root=False)
    branches: dict[int, Tree] = {}
    for node in drafted.nodes:
        above = max(node.needs, key=lambda need: depths.get(need, 0), default=None)
        parent = root if above is None else branches.get(above, root)
        others = [need for need in node.needs if need != above]
        branches[node.id] = parent.add(_label(node, others, glyphs))
    return root


def mermaid(nodes: Sequence[NodeSpec]) -> str:
    """Return the skeleton as a Mermaid flowchart."""
    lines = ["flowchart TD"]
    for node in nodes:
        opened, closed = ("([", "])") if node.difficulty == "easy" else ("[", "]")
        lines.append(f'  n{node.id}{opened}"{node.id}. {_escaped(node.summary)}"{closed}')
    lines += [f"  n{need} --> n{node.id}" for node in nodes for need in node.needs]
    return "\n".join(lines)


def depth_of(nodes: Sequence[NodeSpec]) -> dict[int, int]:
    """Return each node's depth: 1 without needs, else one more than the deepest need."""
    depths: dict[int, int] = {}
    for node in nodes:
        depths[node.id] = 1 + max((depths.get(need, 0) for need in node.needs), default=0)
    return depths


def _headline(drafted: SkeletonDrafted, depths: dict[int, int], glyphs: Glyphs) -> str:
    plan = drafted.plan
    parts = [
        f"{drafted.mode} ({plan.why})",
        f"{len(drafted.nodes)} nodes, {max(depths.values(), default=0)} deep",
        f"planned in {plan.plan_ms / 1000:.1f} s, {plan.usage.generated_tokens} tokens",
    ]
    return f" {glyphs.dot} ".join(parts)


def _label(node: NodeSpec, others: Sequence[int], glyphs: Glyphs) -> Text:
    label = Text(f"{node.id} ", style="bold")
    label.append(printable(node.summary) or "the whole answer", style="not bold")
    label.append(f"  {node.difficulty}", style="not bold dim")
    if others:
        also = ", ".join(map(str, others))
        label.append(f"  {glyphs.back_arrow} also {also}", style="not bold dim")
    return label


def _escaped(text: str) -> str:
    return printable(text).replace("#", "#35;").replace('"', "#quot;").replace("\n", " ")
