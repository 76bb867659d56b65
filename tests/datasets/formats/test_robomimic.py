"""robomimic's HDF5: round trips, files as robomimic makes them, and damaged ones."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from robot_rl.datasets import EpisodeStore, StoreError
from robot_rl.datasets.check import check
from robot_rl.datasets.formats import robomimic
from robot_rl.datasets.formats.trajectory import ImportFailed

ENV_ARGS = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20, "robots": ["Panda"]}}


def make_theirs(path: Path, lengths: tuple[int, ...] = (4, 7), next_obs: bool = True) -> Path:
    """A file with the groups, attributes and datasets that robomimic's documentation lists."""
    draw = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(lengths)
        data.attrs["env_args"] = json.dumps(ENV_ARGS)
        for number, steps in enumerate(lengths):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = steps
            demo.attrs["model_file"] = "<mujoco/>"
            demo["actions"] = draw.uniform(-1, 1, (steps, 7))
            demo["states"] = draw.normal(size=(steps, 5))
            demo["rewards"] = np.eye(steps)[-1]
            demo["dones"] = np.eye(steps, dtype=np.int64)[-1]
            rows = {"robot0_eef_pos": draw.normal(size=(steps + 1, 3))}
            rows["agentview_image"] = draw.integers(0, 255, (steps + 1, 12, 10, 3), np.uint8)
            for name, values in rows.items():
                demo[f"obs/{name}"] = values[:-1]
                if next_obs:
                    demo[f"next_obs/{name}"] = values[1:]
        file["mask/train"] = np.array([b"demo_1"])
    return path


def test_round_trip(store: EpisodeStore, tmp_path: Path, same: Callable[..., None]) -> None:
    robomimic.write(store, tmp_path / "out.hdf5")
    back = robomimic.read(tmp_path / "out.hdf5", tmp_path / "back.zarr").store
    assert not check(back)
    same(back, store)


def test_what_is_written_is_laid_out_as_robomimic_reads_it(store: EpisodeStore, tmp_path: Path) -> None:
    robomimic.write(store, tmp_path / "out.hdf5", env_args=ENV_ARGS, masks={"valid": [2]})
    with h5py.File(tmp_path / "out.hdf5") as file:
        assert json.loads(file["data"].attrs["env_args"]) == ENV_ARGS
        assert file["data"].attrs["total"] == store.num_steps
        assert [name.decode() for name in file["mask/valid"]] == ["demo_2"]
        assert [name.decode() for name in file["mask/successful"]] == ["demo_0", "demo_2"]
        for episode in store:
            demo = file[f"data/demo_{episode.index}"]
            assert demo.attrs["num_samples"] == episode.length == len(demo["actions"])
            assert demo["dones"][:].tolist() == [0] * (episode.length - 1) + [1]
            np.testing.assert_array_equal(demo["next_obs/top"][-1], episode.observation["top"][-1])
            np.testing.assert_array_equal(demo["obs/joint_position"], episode.observation["joint_position"][:-1])
            np.testing.assert_array_equal(demo["states"], episode.sim_state[:-1])


@pytest.mark.parametrize("next_obs", [True, False])
def test_their_files(tmp_path: Path, next_obs: bool) -> None:
    path = make_theirs(tmp_path / "low.hdf5", next_obs=next_obs)
    made = robomimic.read(path, tmp_path / "in.zarr", encoding="png").store
    assert not check(made)
    assert (made.contract.name, made.contract.rate_hz) == ("Lift", 20.0)
    with h5py.File(path) as file:
        for episode in made:
            demo = file[f"data/demo_{episode.index}"]
            np.testing.assert_array_equal(episode.observation["agentview_image"][:-1], demo["obs/agentview_image"])
            np.testing.assert_allclose(episode.action, demo["actions"], atol=1e-7)
            np.testing.assert_array_equal(episode.sim_state[:-1], demo["states"])
            final = demo["next_obs/robot0_eef_pos"][-1] if next_obs else demo["obs/robot0_eef_pos"][-1]
            np.testing.assert_allclose(episode.observation["robot0_eef_pos"][-1], final, atol=1e-6)
            assert episode.success
            assert ("final_row" in episode.facts) != next_obs
    robomimic.write(made, tmp_path / "again.hdf5")
    with h5py.File(path) as theirs, h5py.File(tmp_path / "again.hdf5") as ours:
        assert json.loads(ours["data"].attrs["env_args"]) == ENV_ARGS
        np.testing.assert_array_equal(ours["data/demo_1/states"], theirs["data/demo_1/states"])
        np.testing.assert_array_equal(
            ours["data/demo_1/obs/agentview_image"], theirs["data/demo_1/obs/agentview_image"]
        )


def test_a_mask_chooses(tmp_path: Path) -> None:
    path = make_theirs(tmp_path / "low.hdf5")
    assert robomimic.read(path, tmp_path / "one.zarr", mask="train").store.lengths.tolist() == [7]
    with pytest.raises(StoreError, match="there are: train"):
        robomimic.read(path, tmp_path / "two.zarr", mask="test")
    robomimic.write(robomimic.read(path, tmp_path / "all.zarr").store, tmp_path / "again.hdf5")
    with h5py.File(path) as theirs, h5py.File(tmp_path / "again.hdf5") as ours:
        assert ours["mask/train"][:].tolist() == theirs["mask/train"][:].tolist()


def test_all_bad_demonstrations_are_named_and_the_others_imported_on_request(tmp_path: Path) -> None:
    path = make_theirs(tmp_path / "low.hdf5", (4, 5, 6, 7))
    with h5py.File(path, "a") as file:
        file["data/demo_1/actions"][2, 3] = np.nan
        del file["data/demo_3/obs/robot0_eef_pos"]
    with pytest.raises(ImportFailed) as failed:
        robomimic.read(path, tmp_path / "in.zarr")
    assert [name for name, _ in failed.value.bad] == ["demo_1", "demo_3"]
    assert "finite" in str(failed.value)
    assert "robot0_eef_pos" in str(failed.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["low.hdf5"]
    made = robomimic.read(path, tmp_path / "in.zarr", skip_bad=True)
    assert made.store.lengths.tolist() == [4, 6]
    assert len(made.bad) == 2


def test_what_is_no_data_set_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        robomimic.read(tmp_path / "none.hdf5", tmp_path / "x.zarr")
    (tmp_path / "text.hdf5").write_text("hello")
    with pytest.raises(StoreError, match="not readable as HDF5"):
        robomimic.read(tmp_path / "text.hdf5", tmp_path / "x.zarr")
    h5py.File(tmp_path / "empty.hdf5", "w").close()
    with pytest.raises(StoreError, match="no group `data`"):
        robomimic.read(tmp_path / "empty.hdf5", tmp_path / "x.zarr")
