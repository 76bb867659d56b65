"""Resampling: rows that were there, pictures that show the same, and all facts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from robot_rl.datasets import Contract, EpisodeStore, StoreError
from robot_rl.datasets.check import check
from robot_rl.datasets.resample import View, resample, rows_at


def test_half_the_rate_takes_every_second_row(store: EpisodeStore, tmp_path: Path) -> None:
    made = resample(store, tmp_path / "half.zarr", rate_hz=store.contract.rate_hz / 2)
    assert not check(made)
    for ours, theirs in zip(made, store, strict=True):
        assert ours.length == round(theirs.length / 2)
        rows = [*range(0, 2 * ours.length, 2), theirs.length]
        for name in store.contract.observation:
            np.testing.assert_array_equal(ours.observation[name], theirs.observation[name][rows])
        np.testing.assert_array_equal(ours.action, theirs.action[rows[:-1]])
        np.testing.assert_allclose(ours.timestamp["control"], theirs.timestamp["control"][rows])
        assert ours.reward.sum() == theirs.reward.sum()
        assert ours.facts["origin"] == {
            "store": store.path.name, "id": store.provenance["id"], "episode": theirs.index,
        }  # fmt: skip
        assert {key: value for key, value in ours.facts.items() if key != "origin"} == theirs.facts


@pytest.mark.parametrize("rate", [7.0, 20.0, 30.0, 50.0])
def test_any_rate_keeps_the_duration_and_invents_nothing(store: EpisodeStore, tmp_path: Path, rate: float) -> None:
    made = resample(store, tmp_path / "other.zarr", rate_hz=rate)
    assert not check(made)
    for ours, theirs in zip(made, store, strict=True):
        assert abs(ours.length / rate - theirs.length / store.contract.rate_hz) <= 0.5 / rate + 1e-9
        known = {row.tobytes() for row in theirs.observation["wrist"]}
        assert {row.tobytes() for row in ours.observation["wrist"]} <= known
        np.testing.assert_array_equal(ours.observation["wrist"][-1], theirs.observation["wrist"][-1])
        assert ours.reward.sum() == pytest.approx(theirs.reward.sum())
        assert (np.diff(ours.timestamp["control"]) > 0).all()


def test_rows_at_hold_the_latest() -> None:
    assert rows_at(4, 0.5).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert rows_at(7, 3).tolist() == [0, 3, 7]
    assert rows_at(1, 10).tolist() == [0, 1]


def test_a_point_keeps_its_direction_through_crop_and_scale(store: EpisodeStore) -> None:
    feature = replace(
        store.contract.cameras["wrist"], shape=(48, 64, 3), calibration={"fx": 60, "fy": 62, "cx": 31.5, "cy": 23.5}
    )
    view = View(crop=(8, 16, 32, 40), size=(16, 20))
    new = view.feature(feature)
    assert new.shape == (16, 20, 3)
    picture = np.zeros((1, 48, 64, 3), np.uint8)
    picture[0, 20:22, 30:32] = 255  # its centre is at row 20.5, column 30.5
    row, column = (np.argwhere(view.apply(picture)[0, :, :, 0] == 255))[0]
    old = (30.5 - feature.calibration["cx"]) / feature.calibration["fx"]
    assert (column - new.calibration["cx"]) / new.calibration["fx"] == pytest.approx(old, abs=1e-6)
    old = (20.5 - feature.calibration["cy"]) / feature.calibration["fy"]
    assert (row - new.calibration["cy"]) / new.calibration["fy"] == pytest.approx(old, abs=1e-6)


def test_pictures_are_scaled_and_depth_keeps_measured_values(store: EpisodeStore, tmp_path: Path) -> None:
    views = {name: View(size=(4, 4)) for name in store.contract.cameras}
    made = resample(store, tmp_path / "small.zarr", views=views, encoding="raw")
    expected = cv2.resize(store[0].observation["wrist"][1], (4, 4), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(made[0].observation["wrist"][1], expected)
    assert set(made[0].observation["range"].ravel()) <= set(store[0].observation["range"].ravel())
    assert made.layout.encoding == {"wrist": "raw", "range": "raw"}


@pytest.mark.parametrize(
    ("view", "camera"),
    [
        (View(), [8, 8]),
        (View(size=(4, 4)), [4, 4]),
        (View(crop=(0, 2, 8, 4)), [8, 4]),
        (View(crop=(0, 2, 8, 4), size=(4, 2)), [4, 2]),
        (View(size=(4, 8)), None),
        (View(crop=(2, 2, 4, 4)), None),
        (View(crop=(0, 0, 8, 4)), None),
    ],
)
def test_the_environment_follows_where_a_simulator_can(
    contract: Contract, tmp_path: Path, view: View, camera: list[int] | None
) -> None:
    environment = {"task": "lift", "rate_hz": 20, "horizon": 101, "cameras": {"wrist": [8, 8], "other": [3, 5]}}
    store = EpisodeStore.create(tmp_path / "a.zarr", contract, {"environment": environment})
    made = resample(store, tmp_path / "b.zarr", rate_hz=10.0, views={"wrist": view})
    expected = {"other": [3, 5]} if camera is None else {"wrist": camera, "other": [3, 5]}
    assert made.provenance["environment"] == {"task": "lift", "rate_hz": 10, "horizon": 50, "cameras": expected}
    back = resample(made, tmp_path / "c.zarr", rate_hz=40.0)
    assert back.provenance["environment"] == {"task": "lift", "rate_hz": 40, "horizon": 200, "cameras": expected}


def test_what_does_not_fit_leaves_nothing(store: EpisodeStore, tmp_path: Path) -> None:
    for arguments, message in (
        ({"rate_hz": 0.0}, "positive"),
        ({"views": {"elbow": View(size=(4, 4))}}, "no such camera"),
        ({"views": {"wrist": View(crop=(0, 0, 9, 9))}}, "does not lie within"),
        ({"views": {"wrist": View(size=(0, 4))}}, "positive height"),
        ({"encoding": "gif"}, "none of"),
    ):
        with pytest.raises(StoreError, match=message):
            resample(store, tmp_path / "new.zarr", **arguments)
    assert [path.name for path in tmp_path.iterdir()] == [store.path.name]


def test_deltas_of_another_rate_are_refused(store: EpisodeStore, tmp_path: Path) -> None:
    name, feature = next(iter(store.contract.action.items()))
    delta = replace(feature, mode="delta", relative_to="measured")
    contract = replace(store.contract, action={**store.contract.action, name: delta})
    made = EpisodeStore.create(tmp_path / "deltas.zarr", contract)
    with pytest.raises(StoreError, match=f"{name} of .* only absolute actions"):
        resample(made, tmp_path / "other.zarr", rate_hz=2 * contract.rate_hz)
    assert [path.name for path in tmp_path.iterdir() if path.name != store.path.name] == ["deltas.zarr"]
    resample(made, tmp_path / "other.zarr", rate_hz=contract.rate_hz)


def test_an_interrupted_resampling_leaves_nothing(store: EpisodeStore, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    progress: Callable[[int, int], None] = interrupt
    with pytest.raises(KeyboardInterrupt):
        resample(store, tmp_path / "new.zarr", progress=progress)
    assert [path.name for path in tmp_path.iterdir()] == [store.path.name]
