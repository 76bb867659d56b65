"""`robot-rl data convert` as it is typed, and what robomimic needs of our simulation."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from robot_rl import cli
from robot_rl.datasets import EpisodeStore

from .conftest import MakeStore


@pytest.mark.parametrize("to", ["lerobot", "robomimic", "diffusion_policy"])
def test_there_and_back_the_pictures_are_exact(
    reach_store: MakeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    path = reach_store(episodes=2, failures=1, cameras=("top",))
    foreign, back = tmp_path / f"foreign{'.hdf5' if to == 'robomimic' else ''}", tmp_path / "back.zarr"
    pictures = ["--pictures"] if to == "lerobot" else []
    assert cli.main(["data", "convert", str(path), str(foreign), "--to", to, *pictures]) == 0
    assert cli.main(["data", "convert", str(foreign), str(back)]) == 0
    assert f"from {to}" in capsys.readouterr().out
    for ours, theirs in zip(EpisodeStore.open(back), EpisodeStore.open(path), strict=True):
        np.testing.assert_array_equal(ours.observation["top"], theirs.observation["top"])
        np.testing.assert_array_equal(ours.action, theirs.action)
        assert ours.facts == theirs.facts


def test_mistakes_are_named(reach_store: MakeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(reach_store(episodes=1))
    for arguments, message in (
        ([path, "x"], "say by --to"),
        ([str(tmp_path / "nothing"), "x"], "there is nothing"),
        ([path, path, "--to", "robomimic"], "exists already"),
    ):
        assert cli.main(["data", "convert", *arguments]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_states_of_our_simulation_are_robosuites(tmp_path: Path) -> None:
    """robosuite itself, reset to an exported state, has the joint positions that were recorded."""
    from robot_rl.sim.arm_model import import_robosuite

    store, exported = tmp_path / "l.zarr", tmp_path / "l.hdf5"
    words = ["collect", "task=lift", "source=expert", "episodes=1", f"output={store}", "sim_state=true", "workers=1"]
    assert cli.main(words) == 0
    assert cli.main(["data", "convert", str(store), str(exported), "--to", "robomimic"]) == 0
    episode = EpisodeStore.open(store)[0]
    with h5py.File(exported) as file:
        meta = json.loads(file["data"].attrs["env_args"])
        states, xml = file["data/demo_0/states"][:], file["data/demo_0"].attrs["model_file"]
    env = import_robosuite().make(
        meta["env_name"], **{**meta["env_kwargs"], "has_offscreen_renderer": False, "use_camera_obs": False}
    )
    env.reset()
    env.reset_from_xml_string(env.edit_model_xml(xml))
    for step in (0, len(states) // 2, len(states) - 1):
        env.sim.set_state_from_flattened(states[step])
        env.sim.forward()
        joints = env.sim.data.qpos[env.robots[0]._ref_joint_pos_indexes]
        np.testing.assert_allclose(joints, episode.observation["joint_position"][step], atol=1e-6)
    env.close()
