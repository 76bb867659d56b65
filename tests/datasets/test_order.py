from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.datasets import order
from robot_rl.datasets.order import Order


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 150), min_size=1, max_size=3),
    run=st.integers(1, 9),
    spread=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_every_epoch_of_every_store_is_a_permutation(sizes, run, spread, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "SPREAD", spread)
        drawn = Order(sizes, [size / sum(sizes) for size in sizes], seed, True, run)
        stores, windows = drawn.draw(np.arange(3 * sum(sizes) + len(sizes)))
        middle = drawn.draw(np.arange(sum(sizes) // 2, sum(sizes) + 1))
    for store, size in enumerate(sizes):
        mine = windows[stores == store]
        for epoch in range(len(mine) // size):
            assert sorted(mine[epoch * size : (epoch + 1) * size]) == list(range(size))
    np.testing.assert_array_equal(middle[0], stores[sum(sizes) // 2 : sum(sizes) + 1])
    np.testing.assert_array_equal(middle[1], windows[sum(sizes) // 2 : sum(sizes) + 1])


@pytest.mark.parametrize("size", [8192, 8200, 16_500, 100_000])
def test_the_windows_of_a_run_come_many_batches_apart(size):
    run = 8
    windows = Order([size], [1.0], 3, True, run).draw(np.arange(size))[1]
    places = np.empty(size, np.int64)
    places[windows] = np.arange(size)
    apart = places[np.arange(1, size)] - places[:-1]
    steps, counts = np.unique(apart, return_counts=True)
    usual = steps[counts > size / 100]  # within a run; from one run to the next it is anything
    assert counts[counts > size / 100].sum() > 0.85 * size
    assert order.SPREAD / 2 <= usual.min() <= usual.max() <= order.SPREAD


def test_a_batch_is_drawn_from_the_whole_store():
    windows = Order([100_000], [1.0], 3, True, 8).draw(np.arange(96_000))[1].reshape(-1, 64)
    spans = windows.max(1) - windows.min(1)
    assert (spans > 80_000).mean() > 0.99
    assert all(len(set(batch)) == 64 for batch in windows)


def test_runs_begin_elsewhere_in_each_epoch():
    size, run = 8000, 8
    windows = Order([size], [1.0], 0, True, run).draw(np.arange(6 * size))[1].reshape(6, size)
    begins = {tuple(np.unique(epoch[:100] % run)) for epoch in windows}
    assert all(len(begin) <= 2 for begin in begins)
    assert len(begins) > 2


def test_without_runs_windows_are_drawn_independently():
    windows = Order([50_000], [1.0], 1, True).draw(np.arange(50_000))[1]
    places = np.empty(50_000, np.int64)
    places[windows] = np.arange(50_000)
    assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 0.03
