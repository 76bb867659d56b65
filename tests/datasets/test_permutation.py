from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.datasets.permutation import permute


@given(size=st.integers(1, 3000), key=st.tuples(st.integers(0, 2**40), st.integers(0, 50)))
def test_every_item_comes_once(size, key):
    np.testing.assert_array_equal(np.sort(permute(np.arange(size), size, key)), np.arange(size))


@given(size=st.integers(1, 2**40), data=st.data())
def test_a_position_does_not_depend_on_the_others(size, data):
    positions = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)))
    together = permute(positions, size, (7,))
    assert ((together >= 0) & (together < size)).all()
    alone = [permute(np.array([position]), size, (7,))[0] for position in positions]
    np.testing.assert_array_equal(together, alone)


def test_all_orders_of_four_are_equally_likely():
    number = 4800
    counts = Counter(tuple(permute(np.arange(4), 4, (seed, 0))) for seed in range(number))
    # Pearson's statistic has 23 degrees of freedom: 49.7 is exceeded once in a thousand fair draws.
    assert sum((counts[order] - number / 24) ** 2 / (number / 24) for order in counts) < 49.7
    assert len(counts) == 24


@pytest.mark.parametrize("size", [1000, 2_000_000])
def test_neighbours_are_unrelated(size):
    order = permute(np.arange(min(size, 50_000)), size, (0, 0))
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 4 / np.sqrt(len(order))
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 4 / np.sqrt(len(order))
    assert (permute(np.arange(1000), size, (0, 1)) == permute(np.arange(1000), size, (0, 0))).mean() < 0.01


def test_shape_is_kept():
    assert permute(np.arange(6).reshape(2, 3), 10, (0,)).shape == (2, 3)
    assert permute(np.arange(0), 10, (0,)).shape == (0,)
