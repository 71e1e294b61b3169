"""The graphs of the overhead benchmark are what their names say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.overhead.shapes import Shape, chain, diamond, fan_out

SIZES = st.integers(1, 64)
SHAPES = SIZES.flatmap(lambda n: st.sampled_from([chain(n), fan_out(n), diamond(n)]))


@given(SIZES)
def test_a_chain_is_as_deep_as_long_and_a_fan_out_flat(size: int) -> None:
    assert (chain(size).depth, len(chain(size).nodes)) == (size, size)
    assert (fan_out(size).depth, len(fan_out(size).nodes)) == (1, size)
    assert (diamond(size).depth, len(diamond(size).nodes)) == (3, size + 2)


@given(SHAPES)
def test_nodes_need_earlier_ones_only_and_dependants_are_the_reverse(shape: Shape) -> None:
    assert all(need < node for node in shape.nodes for need in shape.needs_of(node))
    forth = {(need, node) for node in shape.nodes for need in shape.needs_of(node)}
    back = {(need, node) for need, nodes in shape.dependants().items() for node in nodes}
    assert forth == back


def test_a_shape_without_nodes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        chain(0)
