"""Figures of plans: their shape by category, the checks on them, the gate as a classifier. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from proto.errors import PlanRejected
from proto.messages import Mode, NodeSpec
from services.planner.gate import Ending, decide, depth, is_near_chain, width
from services.planner.parser import End, PlanItem, PlanLimits, Planned, Shape
from services.planner.reading import PlanReader, point_of

#: Share of a category's questions that suit independent points, by the labels of SoT's authors
#: (Vicuna-80); the labels of the single questions are not published.
SUITS: Final[Mapping[str, float]] = {
    "generic": 1.0,
    "knowledge": 0.8,
    "common-sense": 0.8,
    "counterfactual": 1.0,
    "roleplay": 0.1,
    "writing": 0.0,
    "fermi": 0.0,
    "coding": 0.0,
    "math": 0.0,
}
#: From this share on a category counts as one that suits.
MAJORITY: Final = 0.5
#: Which a graph suits although independent points do not: no word of the gate is wrong here.
EITHER: Final = frozenset({"writing", "fermi"})
#: Points that share so much of their words may say the same.
NEAR_SHARE: Final = 0.6


@dataclass(frozen=True, slots=True)
class PlanText:
    """What a model wrote when it was asked for a plan.

    Args:
        question: the question's id.
        category: of the question.
        mode: as it was asked.
        constrained: whether the grammar held.
        text: the reply; up to the end of the plan, if that came.
        failed: code of the engine's error; empty if there was none.
        tokens: how many chunks came.
        plan_s: from the call to the plan's end.
    """

    question: str
    category: str
    mode: Mode
    constrained: bool
    text: str
    failed: str
    tokens: int
    plan_s: float


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """A plan, read as the planner reads one.

    Args:
        plan: what was written.
        ending: whether it is a plan, and whole.
        nodes: as they would be published.
        lines: of them.
        written: how many points the model wrote, repeated ones included.
        chain: whether the model wrote nearly a chain.
        decided: method and reason.
        decomposed: whether the answer would come from nodes.
    """

    plan: PlanText
    ending: Ending
    nodes: tuple[NodeSpec, ...]
    lines: tuple[str, ...]
    written: int
    chain: bool
    decided: str
    decomposed: bool


def read_plan(plan: PlanText, *, checked: bool, max_nodes: int) -> ReadPlan:
    """Return `plan` as the planner reads it, with or without its check on points."""
    reader = PlanReader(PlanLimits(max_nodes), checked=checked)
    items: list[PlanItem] = []
    ending: Ending = "unparsable"
    try:
        items += reader.feed(plan.text)
        items += reader.close()
        ending = "cut_off" if items[-1] == End(cut_off=True) else "complete"
    except PlanRejected:
        pass
    shape = next((item.kind for item in items if isinstance(item, Shape)), None)
    decision = decide(plan.mode, shape, reader.written, ending)
    planned = [item for item in items if isinstance(item, Planned)]
    return ReadPlan(
        plan=plan,
        ending=ending,
        nodes=tuple(item.node for item in planned),
        lines=tuple(item.line for item in planned),
        written=reader.lines,
        chain=is_near_chain(reader.written),
        decided=f"{decision.mode} ({decision.reason})",
        decomposed=decision.mode != "direct",
    )


# --- tables -----------------------------------------------------------------------------

Column = tuple[str, Callable[[Sequence[ReadPlan]], str]]


def _median(values: Iterable[float], digits: int = 0) -> str:
    found = list(values)
    return f"{statistics.median(found):.{digits}f}" if found else "–"


def _mean(values: Iterable[float], digits: int = 2) -> str:
    found = list(values)
    return f"{statistics.mean(found):.{digits}f}" if found else "–"


def _share(values: Iterable[bool]) -> str:
    found = list(values)
    return f"{100 * statistics.mean(found):.0f} %" if found else "–"


def _all_nodes(plans: Sequence[ReadPlan]) -> list[NodeSpec]:
    return [node for plan in plans for node in plan.nodes]


#: Two titles that share only these are not near to one another.
_EMPTY_WORDS: Final = frozenset(
    ("a", "an", "the", "of", "in", "on", "for", "to", "and", "with", "der", "die", "das", "und")
)


def near(nodes: Sequence[NodeSpec]) -> int:
    """Return how many nodes share most of their words with an earlier one."""
    points = [frozenset(point_of(node.summary)) - _EMPTY_WORDS for node in nodes]
    return sum(
        any(len(one & two) >= NEAR_SHARE * len(one | two) for two in points[:place])
        for place, one in enumerate(points)
    )


_GRAPH: Final[tuple[Column, ...]] = (
    ("nodes", lambda plans: _mean((float(len(p.nodes)) for p in plans), 1)),
    ("depth", lambda plans: _mean((float(depth(p.nodes)) for p in plans), 1)),
    ("width", lambda plans: _mean((float(width(p.nodes)) for p in plans), 1)),
    ("needs a node", lambda plans: _mean(float(len(n.needs)) for n in _all_nodes(plans))),
    ("left out", lambda plans: str(sum(p.written - len(p.nodes) for p in plans))),
    ("alike", lambda plans: str(sum(near(p.nodes) for p in plans))),
)
_SIZE: Final[tuple[Column, ...]] = (
    ("easy", lambda plans: _share(n.difficulty == "easy" for n in _all_nodes(plans))),
    ("budget a node", lambda plans: _mean((float(n.budget_tokens) for n in _all_nodes(plans)), 0)),
    (
        "budget in all",
        lambda plans: _median(float(sum(n.budget_tokens for n in p.nodes)) for p in plans),
    ),
    (
        "tokens a line",
        lambda plans: _mean((p.plan.tokens / max(1, p.written) for p in plans), 1),
    ),
)


def by_category(plans: Sequence[ReadPlan]) -> str:
    """Return the plans' shape by category, as Markdown: of those with nodes, where it says so."""
    head: list[Column] = [
        ("plans", lambda found: str(len(found))),
        ("whole", lambda found: str(sum(p.ending == "complete" for p in found))),
        ("direct", lambda found: str(sum(not p.decomposed for p in found))),
        ("plan tokens", lambda found: _median(float(p.plan.tokens) for p in found)),
    ]
    drawn = [(name, _of_graphs(figure)) for name, figure in (*_GRAPH, *_SIZE)]
    kinds = {"all": list(plans)}
    for plan in plans:
        kinds.setdefault(plan.plan.category, []).append(plan)
    rows = [(kind, *(f(found) for _, f in (*head, *drawn))) for kind, found in kinds.items()]
    return _markdown(("category", *(name for name, _ in (*head, *drawn))), rows)


def checks(on: Sequence[ReadPlan], off: Sequence[ReadPlan]) -> str:
    """Return the graphs with and without the check on points, side by side."""
    figures = [*_GRAPH, ("nearly chains", lambda plans: str(sum(p.chain for p in plans)))]
    rows = [(name, _of_graphs(f)(on), _of_graphs(f)(off)) for name, f in figures]
    return _markdown(("graphs", "checked", "as written"), rows)


def gate(plans: Sequence[ReadPlan]) -> str:
    """Return the gate's confusion by category, and its precision and recall by both labels."""
    counted = {plan.plan.category: [0, 0] for plan in plans}
    for plan in plans:
        counted[plan.plan.category][not plan.decomposed] += 1
    rows = [
        (category, f"{100 * SUITS[category]:.0f} %", str(taken), str(left))
        for category, (taken, left) in counted.items()
        if category in SUITS
    ]
    table = _markdown(("category", "suits", "decomposed", "direct"), rows)
    return "\n".join([table, "", _rates(counted, "sot"), _rates(counted, "sgd")])


def _rates(counted: Mapping[str, Sequence[int]], labels: Literal["sot", "sgd"]) -> str:
    """Return precision and recall of "decomposed", a category's label being its majority's."""
    judged = {
        category: (SUITS[category] >= MAJORITY, *counts)
        for category, counts in counted.items()
        if category in SUITS and not (labels == "sgd" and category in EITHER)
    }
    right = sum(taken for suits, taken, _ in judged.values() if suits)
    wrong = sum(taken for suits, taken, _ in judged.values() if not suits)
    missed = sum(left for suits, _, left in judged.values() if suits)
    spared = sum(left for suits, _, left in judged.values() if not suits)
    name = "SoT's labels" if labels == "sot" else "writing and Fermi not judged"
    return (
        f"- {name}: precision {_ratio(right, right + wrong)}, recall "
        f"{_ratio(right, right + missed)} ({right} rightly decomposed, {wrong} wrongly, "
        f"{missed} missed, {spared} rightly direct)"
    )


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "–"


def _of_graphs(
    figure: Callable[[Sequence[ReadPlan]], str],
) -> Callable[[Sequence[ReadPlan]], str]:
    return lambda plans: figure([plan for plan in plans if plan.nodes])


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
