"""The comparison with other systems: graphs go in order, figures are those of the rounds."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from bench.overhead.peers import figures
from bench.overhead.peers.figures import Round
from bench.overhead.peers.peer import by_tasks
from bench.overhead.peers.systems import KINDS, MODULES
from bench.overhead.shapes import Shape, chain, diamond, fan_out

SIZES = st.integers(1, 12)
SHAPES = SIZES.flatmap(lambda n: st.sampled_from([chain(n), fan_out(n), diamond(n)]))


@given(SHAPES)
def test_a_node_is_called_once_and_after_all_that_it_needs(shape: Shape) -> None:
    called: list[int] = []

    async def call(node: int) -> None:
        assert set(shape.needs_of(node)) <= set(called)
        await asyncio.sleep(0)
        called.append(node)

    done_at = asyncio.run(by_tasks(shape, call))
    assert sorted(called) == list(shape.nodes)
    assert all(
        done_at[need - 1] <= done_at[n - 1] for n in shape.nodes for need in shape.needs_of(n)
    )


def test_hops_are_the_times_between_results_in_milliseconds() -> None:
    told = {"graphs": [{"total_ms": 9.5, "done_at": [1.0, 1.002, 1.005]}]}
    assert [round(one, 6) for one in figures.hops_of(told)] == [2.0, 3.0]
    assert figures.total_of(told) == 9.5


def test_ratios_are_of_the_same_round_and_above_one_where_ours_is_ahead() -> None:
    ours = [Round([1], [2], [4], 1000, 100), Round([2], [4], [8], 500, 200)]
    theirs = [Round([3], [2], [2], 500, 50), Round([6], [4], [4], 250, 100)]
    row = figures.ratios({"ours": ours, "theirs": theirs}, "ours").splitlines()[-1]
    assert row == (
        "| theirs | 3.00 (3.00–3.00) | 1.00 (1.00–1.00) | 0.50 (0.50–0.50)"
        " | 2.00 (2.00–2.00) | 0.50 (0.50–0.50) |"
    )


def test_a_system_that_failed_is_told_with_its_reason_and_has_no_row() -> None:
    shown = figures.figures({"ours": [Round([1], [2], [4], 9, 8)], "lost": []}, {"lost": "why"})
    assert "| lost" not in shown
    assert shown.endswith("lost failed: why")


def test_of_each_system_the_table_says_what_it_is() -> None:
    assert MODULES.keys() < KINDS.keys()
