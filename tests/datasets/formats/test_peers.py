"""LeRobot's and robomimic's own loaders read what is exported; each needs an environment of its own, named by

    ROBOT_RL_LEROBOT=peer/bin/python ROBOT_RL_ROBOMIMIC=other/bin/python pytest tests/datasets/formats/test_peers.py

docs/data.md says how to make them.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_rl.datasets import EpisodeStore
from robot_rl.datasets.formats import lerobot, lerobot_writer, robomimic

from .conftest import LENGTHS, identity

PEERS = Path(__file__).parent / "peers"
LEROBOT, ROBOMIMIC = os.environ.get("ROBOT_RL_LEROBOT"), os.environ.get("ROBOT_RL_ROBOMIMIC")


def read(python: str | None, script: str, path: Path, *arguments: str) -> tuple[dict[str, Any], Any]:
    """What the peer says and the arrays it found."""
    found = path.parent / "found.npz"
    command = [str(python), str(PEERS / script), str(path), str(found), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=path.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), np.load(found)


@pytest.mark.slow
@pytest.mark.skipif(not LEROBOT, reason="ROBOT_RL_LEROBOT names no Python with lerobot")
@pytest.mark.parametrize("files", ["one", "several"])
@pytest.mark.parametrize("video", [False, True])
def test_lerobot_reads_every_frame(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, video: bool, files: str
) -> None:
    if files == "several":
        for name, value in (("DATA_MB", 1e-4), ("VIDEO_MB", 1e-4), ("CHUNK_FILES", 2)):
            monkeypatch.setattr(lerobot_writer, name, value)
    lerobot.write(store, tmp_path / "lerobot", video=video)
    about, found = read(LEROBOT, "lerobot_reads.py", tmp_path / "lerobot")
    assert (about["episodes"], about["lengths"]) == (len(store), list(LENGTHS))
    assert about["tasks"] == ["lift it"] * sum(LENGTHS)
    assert about["features"]["observation.images.top"] == ("video" if video else "image")
    action = np.concatenate([episode.action for episode in store])
    np.testing.assert_array_equal(found["action"], action)
    state = [np.hstack([e.observation[n][:-1] for n in ("joint_position", "opening")]) for e in store]
    np.testing.assert_array_equal(found["observation.state"], np.concatenate(state))
    places = [(number, step) for number, length in enumerate(LENGTHS) for step in range(length)]
    pictures = np.rint(found["observation.images.top"].transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    assert [identity(picture) for picture in pictures] == places
    if not video:
        wanted = np.concatenate([episode.observation["top"][:-1] for episode in store])
        np.testing.assert_array_equal(pictures, wanted)
    for index, (number, step) in enumerate(places):
        history = found["windows/observation.images.top"][index].transpose(0, 2, 3, 1) * 255
        assert [identity(picture) for picture in history] == [(number, max(step - 1, 0)), (number, step)]
        steps = step + np.arange(4)
        np.testing.assert_array_equal(found["windows/action_is_pad"][index], steps >= LENGTHS[number])
        rows = index - step + np.minimum(steps, LENGTHS[number] - 1)
        np.testing.assert_array_equal(found["windows/action"][index], action[rows])
    np.testing.assert_allclose(found["stats/action/mean"], action.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["stats/action/std"], action.std(0), rtol=1e-5)
    assert found["stats/observation.images.top/mean"].shape == (3, 1, 1)


@pytest.mark.slow
@pytest.mark.skipif(not ROBOMIMIC, reason="ROBOT_RL_ROBOMIMIC names no Python with robomimic")
def test_robomimic_reads_every_demonstration(store: EpisodeStore, tmp_path: Path) -> None:
    store.annotate(0, masks=["train"])
    store.annotate(2, masks=["train", "best"])
    robomimic.write(store, tmp_path / "a.hdf5")
    with_states = store.layout.sim_state_size
    assert with_states
    keys = list(store.contract.observation)
    about, found = read(ROBOMIMIC, "robomimic_reads.py", tmp_path / "a.hdf5", *keys)
    assert about["demos"] == [f"demo_{number}" for number in range(len(store))]
    assert about["masks"] == {"best": ["demo_2"], "successful": ["demo_0", "demo_2"], "train": ["demo_0", "demo_2"]}
    assert about["shapes"]["top"] == [3, 16, 16]
    assert about["windows"] == sum(LENGTHS)
    for episode in store:
        demo = f"demo_{episode.index}"
        np.testing.assert_array_equal(found[f"{demo}/actions"], episode.action)
        np.testing.assert_array_equal(found[f"{demo}/rewards"], episode.reward)
        for key in keys:
            rows = episode.observation[key]
            np.testing.assert_array_equal(found[f"{demo}/obs/{key}"], rows[:-1], key)
            np.testing.assert_array_equal(found[f"{demo}/next_obs/{key}"], rows[1:], key)


@pytest.mark.slow
@pytest.mark.skipif(not ROBOMIMIC, reason="ROBOT_RL_ROBOMIMIC names no Python with robomimic and robosuite")
def test_robomimic_makes_the_environment_and_restores_its_states(tmp_path: Path) -> None:
    from robot_rl import cli

    path, exported = tmp_path / "l.zarr", tmp_path / "l.hdf5"
    words = ["collect", "task=lift", "source=expert", "episodes=1", f"output={path}", "sim_state=true", "workers=1"]
    assert cli.main(words) == 0
    assert cli.main(["data", "convert", str(path), str(exported), "--to", "robomimic"]) == 0
    about, found = read(ROBOMIMIC, "robomimic_reads.py", exported, "joint_position", "cube_pose")
    assert about["environment"] == "Lift"
    joints = EpisodeStore.open(path)[0].observation["joint_position"]
    np.testing.assert_allclose(found["reset_to"], joints[:-1], atol=1e-6)
