from types import SimpleNamespace

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.datasets import Feature
from robot_rl.datasets.statistics import merge, summarise
from robot_rl.policies import PolicyError
from robot_rl.policies.normalizer import CONSTANT, Normalizer

VALUES = st.floats(-50, 50, width=32)


def fitted(rows: np.ndarray, mode: str, representation: str = "vector") -> Normalizer:
    size = rows.shape[1]
    statistics = merge({name: value[None] for name, value in summarise(rows).items()})
    normalizer = Normalizer(size)
    normalizer.fit([Feature("x", (size,), representation=representation)], [statistics], mode)  # type: ignore[arg-type]
    return normalizer


@given(
    rows=arrays.arrays(np.float32, (20, 3), elements=VALUES),
    mode=st.sampled_from(["min_max", "mean_std", "quantile", "none"]),
)
@settings(max_examples=60, deadline=None)
def test_round_trip(rows: np.ndarray, mode: str) -> None:
    normalizer = fitted(rows, mode)
    raw = torch.from_numpy(rows)
    torch.testing.assert_close(normalizer.unnormalize(normalizer.normalize(raw)), raw, atol=1e-4, rtol=1e-5)


@given(rows=arrays.arrays(np.float32, (20, 2), elements=VALUES))
@settings(max_examples=60, deadline=None)
def test_min_max_reaches_exactly_the_unit_range(rows: np.ndarray) -> None:
    normalised = fitted(rows, "min_max").normalize(torch.from_numpy(rows)).numpy()
    varies = np.ptp(rows.astype(float), axis=0) >= CONSTANT
    assert np.allclose(normalised.max(axis=0)[varies], 1, atol=1e-2)
    assert np.allclose(normalised.min(axis=0)[varies], -1, atol=1e-2)
    assert (np.abs(normalised[:, ~varies]) <= CONSTANT).all()


def test_mean_std_and_quantile_against_numpy() -> None:
    rows = np.random.default_rng(0).normal([1.0, -3.0], [0.5, 7.0], (4000, 2))
    standard = fitted(rows, "mean_std").normalize(torch.from_numpy(rows)).numpy()
    assert np.allclose(standard.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(standard.std(axis=0), 1, atol=1e-5)
    low, high = np.quantile(rows, [0.01, 0.99], axis=0)
    ends = fitted(rows, "quantile").normalize(torch.tensor(np.stack([low, high]), dtype=torch.float32))
    assert np.allclose(ends.numpy(), [[-1, -1], [1, 1]], atol=0.05)


@pytest.mark.parametrize(
    ("representation", "rotation"),
    [("position_quaternion", slice(3, 7)), ("position_rotation_6d", slice(3, 9)), ("quaternion", slice(0, 4))],
)
def test_rotations_keep_their_value(representation: str, rotation: slice) -> None:
    size = {"position_quaternion": 7, "position_rotation_6d": 9, "quaternion": 4}[representation]
    rows = np.random.default_rng(0).normal(3, 2, (50, size)).astype(np.float32)
    normalised = fitted(rows, "min_max", representation).normalize(torch.from_numpy(rows)).numpy()
    assert (normalised[:, rotation] == rows[:, rotation]).all()
    position = np.delete(normalised, np.r_[rotation], axis=1)
    assert np.abs(position).max(initial=0) <= 1 + 1e-5


def test_a_constant_element_is_only_centred() -> None:
    rows = np.full((10, 1), 5.0)
    for mode in ("min_max", "mean_std", "quantile"):
        normalizer = fitted(rows, mode)
        assert normalizer.normalize(torch.tensor([[5.0], [5.001]])).flatten().tolist() == pytest.approx(
            [0, 0.001], abs=1e-5
        )


def test_statistics_that_do_not_fit_are_refused() -> None:
    wrong = SimpleNamespace(mean=np.zeros(4), std=np.ones(4), min=np.zeros(4), max=np.ones(4))
    with pytest.raises(PolicyError, match="expected 3 elements, got 4"):
        Normalizer(3).fit([Feature("x", (3,))], [wrong], "min_max")
    broken = SimpleNamespace(mean=np.zeros(3), std=np.ones(3), min=np.array([0, np.nan, 0]), max=np.ones(3))
    with pytest.raises(PolicyError, match="not finite"):
        Normalizer(3).fit([Feature("x", (3,))], [broken], "min_max")
