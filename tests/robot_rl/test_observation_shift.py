"""Shift scores against SciPy and against distributions whose scores are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from scipy.stats import ks_2samp

from robot_rl.datasets import Contract, EpisodeStore, Feature
from robot_rl.observation_shift import RIDGE, Reference, read_rows, reference, shift

FEATURES = [Feature("joints", (2,), names=("a", "b")), Feature("lid", (1,))]


def rows(n: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    first = random.normal(3.0, 2.0, n)
    return np.stack([first, 0.5 * first + random.normal(0, 0.1, n), np.full(n, 0.25)], axis=1)


def test_the_training_data_have_not_shifted():
    trained = Reference.of(FEATURES, rows(20_000))
    scores = shift(trained, rows(20_000, seed=1))
    assert list(scores["elements"]) == ["joints.a", "joints.b", "lid"]
    for element in scores["elements"].values():
        assert abs(element["mean_shift"]) < 0.05
        assert element["ks"] < 0.03
    assert scores["elements"]["lid"] == {"mean_shift": 0.0, "spread_ratio": 0.0, "ks": 0.0}
    assert 0.005 < scores["mahalanobis"]["beyond_training"] < 0.02
    assert scores["mahalanobis"]["median"] == pytest.approx(scores["mahalanobis"]["training_median"], rel=0.03)


def test_elementwise_scores():
    trained, moved = rows(5_000), rows(3_000, seed=1)
    moved[:, 0] = 1.5 * moved[:, 0] + 1.0
    scores = shift(Reference.of(FEATURES, trained), moved)["elements"]["joints.a"]
    assert scores["mean_shift"] == pytest.approx((moved[:, 0].mean() - trained[:, 0].mean()) / trained[:, 0].std())
    assert scores["spread_ratio"] == pytest.approx(moved[:, 0].std() / trained[:, 0].std())
    assert scores["ks"] == pytest.approx(ks_2samp(trained[:, 0], moved[:, 0]).statistic, abs=0.025)


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_atoms_count_with_their_whole_mass(share):
    """A gripper that is open or closed: the distance of two such distributions is the difference of the shares."""
    trained, other = (np.arange(1000)[:, None] >= 1000 * s for s in (0.5, share))
    gripper = [Feature("gripper", (1,))]
    found = shift(Reference.of(gripper, trained * 0.04), other * 0.04)["elements"]["gripper"]["ks"]
    assert found == pytest.approx(abs(share - 0.5), abs=0.025)


def test_a_constant_that_moved_is_a_shift():
    trained, moved = rows(1_000), rows(1_000, seed=1)
    moved[:, 2] += 0.01
    scores = shift(Reference.of(FEATURES, trained), moved)
    assert scores["elements"]["lid"]["ks"] == 1.0
    assert scores["elements"]["lid"]["mean_shift"] == pytest.approx(100)
    assert scores["mahalanobis"]["beyond_training"] == 1.0


def test_a_broken_correlation_shows_only_in_the_mahalanobis_distance():
    trained, shuffled = rows(5_000), rows(5_000, seed=1)
    shuffled[:, 1] = shuffled[::-1, 1]
    scores = shift(Reference.of(FEATURES, trained), shuffled)
    assert max(element["ks"] for element in scores["elements"].values()) < 0.05
    assert scores["mahalanobis"]["beyond_training"] > 0.8


def test_the_distance_is_scipys():
    trained = rows(2_000)[:, :2]
    summary = Reference.of(FEATURES[:1], trained)
    covariance = np.cov(trained.T, bias=True) + RIDGE * np.diag(trained.var(axis=0))
    inverse = np.linalg.inv(covariance)
    expected = [mahalanobis(row, trained.mean(axis=0), inverse) / np.sqrt(2) for row in trained[:20]]
    np.testing.assert_allclose(summary.distance(trained[:20]), expected, rtol=1e-6)


def test_a_reference_survives_its_file(tmp_path):
    written = Reference.of(FEATURES, rows(100))
    written.write(tmp_path)
    read = Reference.read(tmp_path)
    assert (read.features, read.elements) == (("joints", "lid"), ("joints.a", "joints.b", "lid"))
    np.testing.assert_array_equal(read.correlation, written.correlation)
    np.testing.assert_array_equal(read.distances, written.distances)
    assert Reference.read(tmp_path / "elsewhere") is None


def test_rows_of_a_store(tmp_path):
    contract = Contract(
        "c", 10.0, {feature.name: feature for feature in FEATURES}, {"u": Feature("u", (1,), kind="action")}
    )
    store = EpisodeStore.create(tmp_path / "a.zarr", contract)
    all_rows = []
    with EpisodeStore.append(tmp_path / "a.zarr") as writer:
        for number, length in enumerate([4, 9, 2]):
            data = rows(length + 1, seed=number).astype(np.float32)
            with writer.episode() as episode:
                for row in data[:-1]:
                    episode.add({"joints": row[:2], "lid": row[2:]}, np.zeros(1, np.float32))
                episode.finish({"joints": data[-1, :2], "lid": data[-1, 2:]}, success=True)
            all_rows.append(data)
    store.refresh()
    np.testing.assert_array_equal(
        read_rows(store, [0, 2], ["joints", "lid"]), np.concatenate([all_rows[0], all_rows[2]])
    )
    np.testing.assert_array_equal(
        read_rows(store, [0, 1, 2], ["lid", "joints"], stride=4)[:, 1:], np.concatenate(all_rows)[::4, :2]
    )
    summary = reference([(store, np.arange(3))], ["joints"])
    np.testing.assert_allclose(summary.mean, np.concatenate(all_rows)[:, :2].mean(axis=0), rtol=1e-6)
    assert reference([(store, np.arange(3))], []) is None
