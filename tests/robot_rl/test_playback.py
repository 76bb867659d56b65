"""What was recorded, executed and seen again; the pictures are of cubes that lie where they lay."""

from pathlib import Path

import numpy as np
import pytest

from robot_rl import sim
from robot_rl.cli import compose
from robot_rl.collect import CollectError, main
from robot_rl.datasets import EpisodeStore
from robot_rl.datasets.origin import origin
from robot_rl.playback import PlaybackError


def _collect(output: Path, *overrides: str) -> int:
    return main(compose("collect", [f"output={output}", "workers=1", *overrides]))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two noisy episodes of 12 steps in scenes randomised lightly, with noise on what is observed."""
    path = tmp_path_factory.mktemp("playback") / "recorded.zarr"
    keys = ["environment={horizon: 12}", "episodes=2", "noise=0.3", "randomization=light", "first_seed=7"]
    assert _collect(path, *keys) == 0
    return path


@pytest.mark.slow
def test_replay_leads_through_the_same_states(
    tmp_path: Path, recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again.zarr"
    assert _collect(again, "source=replay", f"demonstrations={recorded}") == 0
    assert "2 of 2 replayed episodes went as recorded (largest deviation 0 " in capsys.readouterr().out
    before, after = EpisodeStore.open(recorded), EpisodeStore.open(again)
    assert len(after) == 2
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new.sim_state, old.sim_state)
        np.testing.assert_array_equal(new.action, old.action)
        np.testing.assert_array_equal(new.policy_action, old.policy_action)
        # Also the noise on it.
        np.testing.assert_array_equal(new.observation["cube_pose"], old.observation["cube_pose"])
        assert new.facts["randomization"] == old.facts["randomization"]
        assert (new.facts["source"], new.facts["source_episode"]) == ("expert", old.index)
        assert new.facts["origin"] == origin(old.store, old.index)


@pytest.mark.slow
def test_states_that_are_missed_are_named(tmp_path: Path, recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = tmp_path / "changed.zarr"
    before = EpisodeStore.open(recorded)
    provenance = {"environment": before.provenance["environment"]}
    store = EpisodeStore.create(changed, before.contract, provenance, sim_state_size=before.layout.sim_state_size)
    old = before[0]
    with EpisodeStore.append(changed, store.contract) as writer, writer.episode(task="lift", seed=7) as episode:
        for row, action in enumerate(old.action):
            there = {name: values[row] for name, values in old.observation.items()}
            # One action that was never executed.
            wrong = action + np.float32(0.02 if row == 5 else 0.0)
            episode.add(there, wrong, truncated=row == len(old) - 1, sim_state=old.sim_state[row])
        last = {name: values[-1] for name, values in old.observation.items()}
        episode.finish(last, success=False, sim_state=old.sim_state[-1], randomization=old.facts["randomization"])
    assert _collect(tmp_path / "again.zarr", "source=replay", f"demonstrations={changed}") == 1
    assert "0 of 1 replayed episodes went" in capsys.readouterr().out
    deviation = EpisodeStore.open(tmp_path / "again.zarr").facts(0)["deviation"]
    # At least a tenth of the way was gone, and no joint went further than told.
    assert 0.002 < deviation < 0.03


@pytest.mark.slow
def test_replay_in_scenes_drawn_anew(tmp_path: Path, recorded: Path) -> None:
    varied = tmp_path / "varied.zarr"
    keys = [
        "source=replay",
        f"demonstrations={recorded}",
        "randomization={joint_damping: {joints: robots, scale: [3, 3]}}",
    ]
    assert _collect(varied, *keys, "episodes=3") == 0
    after = EpisodeStore.open(varied)
    assert [after.facts(index)["source_episode"] for index in range(3)] == [0, 1, 0]
    np.testing.assert_array_equal(after[2].action, EpisodeStore.open(recorded)[0].action)
    assert all(after.facts(index)["deviation"] > 1e-4 for index in range(3))
    # Asked again, nothing is left to do.
    assert _collect(varied, *keys, "episodes=3") == 0
    assert len(EpisodeStore.open(varied)) == 3
    same = tmp_path / "same.zarr"
    same.symlink_to(recorded)
    with pytest.raises(CollectError, match="holds episodes made of"):
        _collect(varied, keys[0], f"demonstrations={same}", keys[2], "episodes=3")


@pytest.mark.slow
def test_render_shows_the_recorded_states_to_other_cameras(tmp_path: Path, recorded: Path) -> None:
    pictures = tmp_path / "pictures.zarr"
    cameras = {"agentview": [24, 32], "robot0_eye_in_hand": [16, 16]}
    keys = ["source=render", f"demonstrations={recorded}", "encoding=png"]
    assert _collect(pictures, *keys, "cameras={agentview: [24, 32], robot0_eye_in_hand: [16, 16]}") == 0
    before, after = EpisodeStore.open(recorded), EpisodeStore.open(pictures)
    env = sim.make({**before.provenance["environment"], "cameras": cameras})
    old, new = before[1], after[1]
    np.testing.assert_array_equal(new.action, old.action)
    np.testing.assert_array_equal(new.observation["cube_pose"], old.observation["cube_pose"])
    assert new.observation["agentview"].shape == (len(old) + 1, 24, 32, 3)
    # The episode itself, simulated as when it was recorded.
    env.reset(seed=old.facts["seed"], options={"randomization": old.facts["randomization"]})
    for row in range(4):
        for camera, size in cameras.items():
            np.testing.assert_array_equal(new.observation[camera][row], env.image(camera, *size))
        env.step(old.action[row])
    env.close()


@pytest.mark.slow
def test_render_draws_what_is_seen_alone(tmp_path: Path, recorded: Path) -> None:
    varied = tmp_path / "varied.zarr"
    keys = ["source=render", f"demonstrations={recorded}", "cameras={agentview: [24, 32]}", "randomization=full"]
    assert _collect(varied, *keys, "episodes=4") == 0
    before, after = EpisodeStore.open(recorded), EpisodeStore.open(varied)
    assert set(after.facts(0)["randomization"]) == {
        "light", "colour", "geom_colour", "texture", "camera_pose", "field_of_view"
    }  # fmt: skip
    first, again = after[0], after[2]
    assert first.facts["source_episode"] == again.facts["source_episode"] == 0
    joints = [env_positions(store, episode) for store, episode in ((before, before[0]), (after, first), (after, again))]
    np.testing.assert_array_equal(joints[1], joints[0])
    np.testing.assert_array_equal(joints[2], joints[0])
    one, other = (each.observation["agentview"].astype(int) for each in (first, again))
    assert np.abs(one - other).mean() > 5


def env_positions(store: EpisodeStore, episode: object) -> np.ndarray:
    """Joint positions of all rows of an episode."""
    env = sim.make({**store.provenance["environment"], "cameras": {}})
    return np.stack([env.positions(state) for state in episode.sim_state])  # type: ignore[attr-defined]


@pytest.mark.slow
def test_what_cannot_be_played_back_is_refused(tmp_path: Path, recorded: Path) -> None:
    output = tmp_path / "out.zarr"
    with pytest.raises(CollectError, match="source=render needs demonstrations="):
        _collect(output, "source=render")
    with pytest.raises(CollectError, match="another store"):
        _collect(recorded, "source=replay", f"demonstrations={recorded}")
    with pytest.raises(CollectError, match="until_success=True goes with source=expert or policy"):
        _collect(output, "source=replay", f"demonstrations={recorded}", "until_success=true")
    with pytest.raises(PlaybackError, match="recorded with robot panda, not ur5e"):
        _collect(output, "source=replay", f"demonstrations={recorded}", "robot=ur5e")
    stateless = tmp_path / "stateless.zarr"
    assert _collect(stateless, "environment={horizon: 2}", "episodes=1", "sim_state=false") == 0
    with pytest.raises(PlaybackError, match="source=replay makes episodes"):
        _collect(output, "source=render", f"demonstrations={stateless}")
    blind = tmp_path / "blind.zarr"
    keys = ["environment={horizon: 2}", "episodes=1", "sim_state=false", "observation=[cube_pose]"]
    assert _collect(blind, *keys) == 0
    with pytest.raises(PlaybackError, match="lacks states of the simulator and joint_position"):
        _collect(output, "source=replay", f"demonstrations={blind}")
    assert not output.exists()


@pytest.mark.slow
def test_without_states_an_episode_begins_as_it_was_observed(tmp_path: Path) -> None:
    """As in a session on the twin: no states, no environment, and the arm is not at home when the recording begins."""
    env, whole = sim.make("lift"), tmp_path / "whole.zarr"
    assert _collect(whole, "episodes=1", "first_seed=3") == 0
    [old] = EpisodeStore.open(whole)
    late, skipped = tmp_path / "late.zarr", 5
    store = EpisodeStore.create(late, env.contract)
    with EpisodeStore.append(late, store.contract) as writer, writer.episode("lift", "teleop", seed=3) as episode:
        for row in range(skipped, len(old)):
            there = {name: values[row] for name, values in old.observation.items()}
            episode.add(there, old.action[row], terminated=row == len(old) - 1)
        episode.finish({name: values[-1] for name, values in old.observation.items()}, success=True)
    again = tmp_path / "again.zarr"
    assert _collect(again, "source=replay", f"demonstrations={late}") == 0
    [new] = EpisodeStore.open(again)
    assert (new.success, new.facts["followed"], new.facts["source"]) == (True, True, "teleop")
    # The arm begins at rest here, and the cube where the seed puts it, 1 cm above the table.
    assert 1e-6 < new.facts["deviation"] < 0.1
    np.testing.assert_allclose(
        new.observation["joint_position"][0], old.observation["joint_position"][skipped], atol=1e-6
    )
    pictures = tmp_path / "pictures.zarr"
    assert _collect(pictures, "source=render", f"demonstrations={again}", "cameras={agentview: [24, 32]}") == 0
    assert EpisodeStore.open(pictures)[0].observation["agentview"].shape == (len(new) + 1, 24, 32, 3)


@pytest.mark.parametrize(
    ("task", "keys"),
    [
        ("peg", ["noise=0.3", "environment={horizon: 12}"]),
        pytest.param(
            "drone/gates", ["noise=0.05", "randomization=full", "environment={horizon: 40}"], marks=pytest.mark.slow
        ),
    ],
)
def test_lean_tasks_and_flights_go_as_recorded_and_are_seen(
    task: str, keys: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, again, seen = (tmp_path / f"{name}.zarr" for name in ("recorded", "again", "seen"))
    assert _collect(path, f"task={task}", "episodes=2", "first_seed=7", *keys) == 0
    assert _collect(again, "source=replay", f"demonstrations={path}") == 0
    assert "2 of 2 replayed episodes went as recorded (largest deviation 0 " in capsys.readouterr().out
    camera = "onboard" if task.startswith("drone") else "agentview"
    assert _collect(seen, "source=render", f"demonstrations={again}", f"cameras={{{camera}: [24, 32]}}") == 0
    before, after = EpisodeStore.open(path), EpisodeStore.open(seen)
    env = sim.make({**before.provenance["environment"], "cameras": {camera: [24, 32]}})
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new.sim_state, old.sim_state)
        env.reset(seed=old.facts["seed"], options={"randomization": old.facts.get("randomization")})
        for step, action in enumerate(old.action):
            there = env.observe()
            for name, values in old.observation.items():
                np.testing.assert_array_equal(new.observation[name][step], values[step])
                np.testing.assert_array_equal(there[name], values[step])
            picture = new.observation[camera][step].astype(int)
            assert np.abs(picture - there[camera]).mean() < 3  # of 255, JPEG
            env.step(action)
    env.close()


def test_pictures_of_a_flight_are_of_the_scene_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "recorded.zarr"
    assert _collect(path, "task=drone/hover", "episodes=1", "environment={horizon: 4}") == 0
    with pytest.raises(PlaybackError, match="leave randomization out"):
        _collect(tmp_path / "n.zarr", "source=render", f"demonstrations={path}", "randomization=visual")
