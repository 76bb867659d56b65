from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.datasets.statistics import (
    EPISODE_LEVELS,
    Statistics,
    combine,
    levels,
    max_rank_error,
    merge,
    row_shapes,
    summarise,
)


def stacked(episodes: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The rows of some episodes, as a store keeps them."""
    rows = [summarise(episode) for episode in episodes]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def rank_error(values: np.ndarray, found: np.ndarray, q: float) -> float:
    """How far `q` lies outside the ranks that `found` has among `values` [N, D], the worst element."""
    below, upto = (values < found).mean(axis=0), (values <= found).mean(axis=0)
    return float(np.maximum(np.maximum(below - q, q - upto), 0).max())


def test_rows_have_their_fixed_width():
    rows = summarise(np.zeros((3, 7), np.float32))
    assert {name: row.shape for name, row in rows.items()} == row_shapes((7,))
    assert all(row.dtype == np.float64 for row in rows.values())


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=20),
    shape=st.sampled_from([(), (1,), (4,), (2, 3)]),
)
def test_merged_equals_numpy_over_all_rows(seed, lengths, shape):
    generator = np.random.default_rng(seed)
    episodes = [generator.normal(generator.normal() * 10, 2, (n, *shape)).astype(np.float32) for n in lengths]
    values = np.concatenate(episodes).astype(np.float64)
    merged = merge(stacked(episodes))
    assert merged.count == len(values)
    np.testing.assert_allclose(merged.mean, values.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(merged.std, values.std(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(merged.min, values.min(0))
    np.testing.assert_array_equal(merged.max, values.max(0))
    np.testing.assert_array_equal(merged.quantile(0), values.min(0))
    np.testing.assert_array_equal(merged.quantile(1), values.max(0))


@pytest.mark.parametrize("q", [0.0, 0.01, 0.1, 0.37, 0.5, 0.9, 0.99, 1.0])
def test_quantiles_keep_their_rank_over_unlike_episodes(q):
    generator = np.random.default_rng(0)
    episodes = [
        generator.normal(generator.normal(size=6) * 5, generator.uniform(0.01, 3, 6), (generator.integers(30, 300), 6))
        for _ in range(80)
    ]
    values = np.concatenate(episodes)
    assert rank_error(values, merge(stacked(episodes)).quantile(q), q) <= 0.005 < max_rank_error()


@settings(deadline=None, max_examples=40)
@given(
    data=st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=40), min_size=1, max_size=8),
    q=st.floats(0, 1),
)
def test_rank_error_is_bounded_for_repeated_values_and_short_episodes(data, q):
    episodes = [np.array(values, np.float64)[:, None] for values in data]
    values = np.concatenate(episodes)
    # Between the values of a short episode any interpolation lies up to one of its rows off.
    slack = len(episodes) / len(values)
    assert rank_error(values, merge(stacked(episodes)).quantile(q), q) <= max_rank_error() + slack


def test_small_spread_around_a_large_mean_survives():
    generator = np.random.default_rng(0)
    values = 1e9 + generator.normal(0, 1e-3, (10_000, 2))
    merged = merge(stacked(np.split(values, 50)))
    np.testing.assert_allclose(merged.std, (values - 1e9).std(0), rtol=1e-3)


def test_episodes_left_out_leave_no_trace():
    generator = np.random.default_rng(0)
    episodes = [generator.normal(size=(20, 3)) for _ in range(10)]
    spoilt = [*episodes, np.full((50, 3), 1e6)]
    kept = {name: rows[:10] for name, rows in stacked(spoilt).items()}
    for name, value in vars(merge(kept)).items():
        np.testing.assert_array_equal(value, getattr(merge(stacked(episodes)), name))


def test_combine_equals_merging_all_rows():
    generator = np.random.default_rng(0)
    left = [generator.normal(0, 1, (n, 2)) for n in (20, 35)]
    right = [generator.normal(5, 2, (n, 2)) for n in (40, 15, 60)]
    both = combine([merge(stacked(left)), merge(stacked(right))])
    values = np.concatenate(left + right)
    assert both.count == len(values)
    np.testing.assert_allclose(both.mean, values.mean(0))
    np.testing.assert_allclose(both.std, values.std(0))
    assert rank_error(values, both.quantile(0.3), 0.3) <= max_rank_error()


def test_combine_by_share():
    parts = [merge(stacked([np.full((n, 1), value)])) for n, value in ((10, 0.0), (990, 1.0))]
    np.testing.assert_allclose(combine(parts, [0.5, 0.5]).mean, 0.5)
    np.testing.assert_allclose(combine(parts, [3, 1]).std, np.sqrt(3 / 16))
    with pytest.raises(ValueError, match="positive weights"):
        combine(parts, [1, 0])


def test_json_restores_exactly():
    merged = merge(stacked([np.random.default_rng(0).normal(size=(20, 3))]))
    restored = Statistics.from_dict(json.loads(json.dumps(merged.to_dict())))
    for name, value in vars(merged).items():
        np.testing.assert_array_equal(getattr(restored, name), value)


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="at least one row"):
        summarise(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="choose at least one"):
        merge({name: np.zeros((0, *shape)) for name, shape in row_shapes((2,)).items()})
    with pytest.raises(ValueError, match="between 0 and 1"):
        merge(stacked([np.zeros((2, 1))])).quantile(95)


def test_levels_are_dense_at_the_tails():
    points = levels(EPISODE_LEVELS)
    assert points[0] == 0
    assert points[-1] == 1
    assert points[1] < 0.001
    np.testing.assert_allclose(points, 1 - points[::-1], atol=1e-15)
