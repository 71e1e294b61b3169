"""Figures of plans: what the checks change, and the gate's precision and recall."""

from __future__ import annotations

from bench.evaluate.figures import SUITED
from bench.plan_figures import MAJORITY, SUITS, PlanText, by_category, checks, gate, near, read_plan

CHAIN = "graph\n1. A | easy short\n2. B | hard long needs 1\n3. a | easy\n4. C | easy needs 2\nend"
WIDE = "list\n1. A | easy short\n2. B | hard long\n3. C | easy\nend"


def plan(text: str, category: str = "generic") -> PlanText:
    return PlanText(
        question=text,
        category=category,
        mode="auto",
        constrained=True,
        text=text,
        failed="",
        tokens=40,
        plan_s=1.0,
    )


def rows(table: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()]
    return {line[0]: line[1:] for line in cells}


def test_a_plan_is_read_as_the_planner_reads_it() -> None:
    on = read_plan(plan(CHAIN), checked=True, max_nodes=12)
    off = read_plan(plan(CHAIN), checked=False, max_nodes=12)
    assert [node.needs for node in on.nodes] == [(), (1,), (2,)]
    assert [node.needs for node in off.nodes] == [(), (1,), (), (2,)]
    assert on.lines == (
        "1. A | easy short",
        "2. B | hard long needs 1",
        "3. C | easy medium needs 2",
    )
    assert (on.written, off.written, on.chain, off.chain) == (4, 4, True, True)
    table = rows(checks([on], [off]))
    assert table["depth"] == ["3.0", "3.0"]
    assert table["left out"] == ["1", "0"]
    assert table["alike"] == ["0", "1"]


def test_what_is_no_plan_counts_as_direct() -> None:
    bad = read_plan(plan("Sure!"), checked=True, max_nodes=12)
    assert (bad.ending, bad.decomposed, bad.nodes) == ("unparsable", False, ())
    cut = read_plan(plan(WIDE.removesuffix("end")), checked=True, max_nodes=12)
    assert (cut.ending, cut.decomposed) == ("cut_off", True)


def test_the_table_by_category_counts_the_graphs_only() -> None:
    read = [read_plan(plan(text), checked=True, max_nodes=12) for text in (WIDE, "code")]
    table = rows(by_category(read))
    figures = dict(zip(table["category"], table["all"], strict=True))
    assert (figures["plans"], figures["whole"], figures["direct"]) == ("2", "2", "1")
    assert (figures["nodes"], figures["easy"], figures["budget a node"]) == ("3.0", "67 %", "70")
    assert table["generic"] == table["all"]


def test_the_gate_is_judged_by_the_majority_of_a_category() -> None:
    asked = [(WIDE, "generic"), ("code", "knowledge"), (WIDE, "roleplay"), (WIDE, "fermi")]
    read = [read_plan(plan(text, category), checked=True, max_nodes=12) for text, category in asked]
    told = gate(read)
    assert "SoT's labels: precision 0.33, recall 0.50" in told
    assert "not judged: precision 0.50, recall 0.50" in told


def test_points_that_share_most_of_their_words_are_counted() -> None:
    text = "list\n1. Car rent | easy\n2. Van rent | easy\n3. Car rent now | easy\nend"
    assert near(read_plan(plan(text), checked=True, max_nodes=12).nodes) == 1


def test_who_suits_is_said_once() -> None:
    suited = {name for name, share in SUITS.items() if share >= MAJORITY}
    assert set(SUITED) == suited == {"generic", "knowledge", "common-sense", "counterfactual"}
