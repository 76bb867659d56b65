from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robot_rl.cli import compose
from robot_rl.collect import CollectError, main
from robot_rl.datasets import EpisodeStore
from robot_rl.sim.arm import ArmEnv
from robot_rl.sim.multiplication import (
    LIFTED,
    SPEED,
    TURN_SPEED,
    MultiplicationError,
    bridge,
    cut,
    grasp,
    moved,
    nearest_symmetry,
    read_demonstrations,
    subtasks_of,
    transform_of,
)


def _pose(generator: np.random.Generator) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(random_state=int(generator.integers(2**31))).as_matrix()
    matrix[:3, 3] = generator.uniform(-1, 1, 3)
    return matrix


def _collect(task: str, output: Path, *overrides: str) -> int:
    return main(compose("collect", [f"task={task}", f"output={output}", "workers=1", *overrides]))


@pytest.fixture(scope="module")
def lifts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("multiplication") / "lift.zarr"
    assert _collect("lift", path, "episodes=6", "first_seed=50000") == 0
    return path


def test_an_object_that_did_not_move_changes_nothing() -> None:
    generator = np.random.default_rng(0)
    frame, poses = _pose(generator), np.stack([_pose(generator) for _ in range(5)])
    np.testing.assert_allclose(moved(poses, frame, frame), poses, atol=1e-12)


def test_poses_move_rigidly_with_the_object() -> None:
    generator = np.random.default_rng(1)
    frame, new, poses = _pose(generator), _pose(generator), np.stack([_pose(generator) for _ in range(5)])
    ours = moved(poses, frame, new)
    for pose, got in zip(poses, ours, strict=True):
        # In the object's frame, by rotations and translations apart.
        before = Rotation.from_matrix(frame[:3, :3]).inv()
        local, turn = before.apply(pose[:3, 3] - frame[:3, 3]), before * Rotation.from_matrix(pose[:3, :3])
        after = Rotation.from_matrix(new[:3, :3])
        np.testing.assert_allclose(got[:3, 3], after.apply(local) + new[:3, 3], atol=1e-12)
        np.testing.assert_allclose(got[:3, :3], (after * turn).as_matrix(), atol=1e-12)
    rigid = _pose(generator)
    np.testing.assert_allclose(moved(poses, frame, rigid @ new), rigid @ ours, atol=1e-12)


def test_symmetry_turns_least() -> None:
    def about_z(degrees: float) -> np.ndarray:
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
        return matrix

    for turns, left in ((1, 100.0), (4, 10.0), (0, 0.0)):
        turned = about_z(130.0) @ nearest_symmetry(about_z(30.0), about_z(130.0), turns)
        np.testing.assert_allclose(turned, about_z(30.0 + left), atol=1e-12)


def test_a_bridge_is_straight_smooth_and_no_faster_than_allowed() -> None:
    generator = np.random.default_rng(2)
    start, end = _pose(generator), _pose(generator)
    way = np.stack([start, *bridge(start, end, 0.05), end])
    along = (end[:3, 3] - start[:3, 3]) / np.linalg.norm(end[:3, 3] - start[:3, 3])
    steps = np.diff(way[:, :3, 3], axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    np.testing.assert_allclose(steps, lengths[:, None] * along, atol=1e-9)
    turns = Rotation.from_matrix(way[1:, :3, :3]) * Rotation.from_matrix(way[:-1, :3, :3]).inv()
    np.testing.assert_allclose(turns.magnitude() / lengths, turns.magnitude()[0] / lengths[0], rtol=1e-6)
    fastest = max(lengths.max() / SPEED, turns.magnitude().max() / TURN_SPEED) / 0.05
    assert 0.95 < fastest <= 1 + 1e-9
    assert max(lengths[0], lengths[-1]) < 0.01 * lengths.max()
    assert len(bridge(start, start, 0.05)) == 0


def test_the_grasp_that_holds_is_found_after_one_that_slipped() -> None:
    openings = np.array([0.06] * 4 + [0.0] * 3 + [0.06] * 3 + [0.0] * 6 + [0.06] * 2)
    positions = np.zeros((len(openings) + 1, 3))
    positions[6:, 2] = 0.3 * LIFTED
    positions[13:, 2] = 2.0 * LIFTED
    assert grasp(openings, positions) == (10, 13)
    with pytest.raises(MultiplicationError, match="never goes"):
        grasp(openings, np.zeros_like(positions))


def test_cut_gives_each_object_its_rows_and_its_pose() -> None:
    openings = np.array([0.06] * 10 + [0.0] * 10)
    targets = np.tile(np.eye(4), (20, 1, 1))
    targets[:10, 2, 3] = np.linspace(0.36, 0.0, 10)
    can = np.tile([0.5, 0.1, 0.0, 1.0, 0.0, 0.0, 0.0], (21, 1))
    can[15:, 2] = 2 * LIFTED
    first, second = cut([{"object": "can", "until": "grasped"}, {"object": None}], targets, openings, {"can": can})
    # Of steps of 4 cm, the last row further than 10 cm from the grasp is the one at 12 cm.
    np.testing.assert_allclose(first.poses[:, 2, 3], [0.12, 0.08, 0.04, *[0.0] * 6], atol=1e-9)
    assert len(second.poses) == 5
    np.testing.assert_array_equal(first.frame, transform_of(can[0]))
    np.testing.assert_array_equal(second.frame, np.eye(4))
    np.testing.assert_array_equal(second.openings, openings[15:])


@pytest.mark.slow
@pytest.mark.parametrize("controller", ["joint_position", "ee_pose"])
def test_lifts_are_multiplied(tmp_path: Path, lifts: Path, controller: str) -> None:
    source = lifts
    if controller != "joint_position":
        source = tmp_path / "source.zarr"
        assert _collect("lift", source, "episodes=6", "first_seed=50000", f"controller={controller}") == 0
    output = tmp_path / "many.zarr"
    keys = ["source=multiply", f"demonstrations={source}", f"controller={controller}", "noise=0.3"]
    assert _collect("lift", output, "episodes=4", *keys) == 0
    made = EpisodeStore.open(output)
    assert made.contract == EpisodeStore.open(source).contract
    assert len(made.select(success=True, source="multiply")) >= 3
    for episode in made:
        assert episode.facts["source_episode"] in range(6)
        assert episode.facts["demonstrations"] == str(source)
        assert 0 < np.abs(episode.action - episode.policy_action).max() < 0.5


def test_errors_come_before_any_work(tmp_path: Path, lifts: Path) -> None:
    output = tmp_path / "out.zarr"
    with pytest.raises(CollectError, match="needs demonstrations="):
        _collect("lift", output, "source=multiply")
    with pytest.raises(CollectError, match="no such folder"):
        _collect("lift", output, "source=multiply", "demonstrations=nowhere.zarr")
    with pytest.raises(CollectError, match="another store"):
        _collect("lift", lifts, "source=multiply", f"demonstrations={lifts}")
    with pytest.raises(MultiplicationError, match="door has no subtasks"):
        _collect("door", output, "source=multiply", f"demonstrations={lifts}")
    assert not output.exists()


def test_demonstrations_have_to_fit_the_environment(tmp_path: Path, lifts: Path) -> None:
    assert len(read_demonstrations(str(lifts), ArmEnv("lift"))) == 6
    with pytest.raises(MultiplicationError, match="none of its 0 episodes is a success of the task pick_place_can"):
        read_demonstrations(str(_empty(tmp_path / "can.zarr")), ArmEnv("pick_place_can"))
    with pytest.raises(MultiplicationError, match="does not satisfy"):
        read_demonstrations(str(lifts), ArmEnv({"task": "lift", "controller": "ee_pose"}))
    with pytest.raises(MultiplicationError, match="choose controller="):
        read_demonstrations(str(lifts), ArmEnv({"task": "lift", "controller": "ee_delta"}))
    blind = tmp_path / "blind.zarr"
    EpisodeStore.create(blind, ArmEnv({"task": "lift", "observation": ["joint_position"]}).contract)
    with pytest.raises(MultiplicationError, match="no observation cube_pose"):
        read_demonstrations(str(blind), ArmEnv("lift"))


def test_recordings_of_a_robot_serve_as_well(tmp_path: Path, lifts: Path) -> None:
    """Its contract has other bounds and another name, its store neither states nor an environment."""
    store = EpisodeStore.open(lifts)
    action = {name: replace(each, lower=(), upper=()) for name, each in store.contract.action.items()}
    contract = replace(store.contract, name="panda", action=action)
    path = tmp_path / "robot.zarr"
    EpisodeStore.create(path, contract)
    old = store[0]
    with EpisodeStore.append(path, contract) as writer, writer.episode("lift", "teleop") as episode:
        for row, command in enumerate(old.action):
            episode.add({name: values[row] for name, values in old.observation.items()}, command)
        episode.finish({name: values[-1] for name, values in old.observation.items()}, success=True)
    env = ArmEnv("lift")
    [made], first = read_demonstrations(str(path), env), read_demonstrations(str(lifts), env)[0]
    for one, other in zip(made.segments, first.segments, strict=True):
        np.testing.assert_array_equal(one.poses, other.poses)
        np.testing.assert_array_equal(one.frame, other.frame)


def test_subtasks_name_objects_of_their_task() -> None:
    for task in ("lift", "stack", "pick_place_can", "nut_assembly_square"):
        env = ArmEnv(task)
        assert {each["object"] for each in subtasks_of(task)} - {None} <= set(env.object_poses())


def _empty(path: Path) -> Path:
    """A store of the can's contract without an episode."""
    EpisodeStore.create(path, ArmEnv("pick_place_can").contract)
    return path


@pytest.mark.parametrize("task", ["drone/hover", "gym/CartPole-v1", "push_t"])
def test_only_tasks_of_arms_have_subtasks(task):
    with pytest.raises(MultiplicationError, match=f"demonstrations of {task} cannot .* expected a task of an arm"):
        subtasks_of(task)
