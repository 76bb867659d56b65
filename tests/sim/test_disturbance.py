"""Delays and noise against their plain definitions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robot_rl.datasets.contract import Contract
from robot_rl.sim.disturbance import Disturbance
from robot_rl.sim.spec import SpecError

CONTRACT = Contract.from_dict({
    "name": "test", "rate_hz": 20,
    "observation": {
        "joint_position": {"shape": [3]},
        "cube_pose": {"shape": [7], "representation": "position_quaternion"},
        "hand_pose": {"shape": [9], "representation": "position_rotation_6d"},
        "picture": {"shape": [6, 5, 3], "dtype": "uint8", "kind": "image"},
    },
    "action": {"joint_position": {"shape": [2]}},
})  # fmt: skip


def observation(step: int) -> dict[str, np.ndarray]:
    return {
        "joint_position": np.full(3, step, np.float32),
        "cube_pose": np.array([step, 0, 0, 0, 1, 0, 0], np.float32),
        "hand_pose": np.array([step, 0, 0, 1, 0, 0, 0, 1, 0], np.float32),
        "picture": np.full((6, 5, 3), 10 * step, np.uint8),
    }


def begun(config: dict, record: dict | None = None, seed: int = 0) -> Disturbance:
    disturbance = Disturbance(config, CONTRACT)
    record = disturbance.draw(np.random.default_rng(seed)) if record is None else record
    disturbance.begin(json.loads(json.dumps(record)), np.array([-1.0, -1.0]), observation(0))
    return disturbance


class TestDelay:
    @pytest.mark.parametrize("delay", [0, 1, 3])
    def test_actions_arrive_later_and_before_them_rest(self, delay):
        disturbance = begun({"action_delay": delay})
        executed = [disturbance.act(np.array([step, step]))[0] for step in range(5)]
        assert executed == [-1.0] * delay + list(range(5 - delay))

    def test_observations_are_old(self):
        disturbance = begun({"observation_delay": {"joint_position": 2, "picture": 1}})
        assert disturbance.observe(observation(0))["joint_position"][0] == 0
        seen = [disturbance.advance(observation(step)) for step in range(1, 6)]
        assert [int(each["joint_position"][0]) for each in seen] == [0, 0, 1, 2, 3]
        assert [int(each["picture"][0, 0, 0]) for each in seen] == [0, 10, 20, 30, 40]
        assert [int(each["cube_pose"][0]) for each in seen] == [1, 2, 3, 4, 5]

    def test_delays_are_drawn_from_their_interval(self):
        disturbance = Disturbance({"action_delay": [1, 3], "observation_delay": [0, 2]}, CONTRACT)
        records = [disturbance.draw(np.random.default_rng(seed)) for seed in range(60)]
        assert {record["action_delay"] for record in records} == {1, 2, 3}
        assert {record["observation_delay"]["picture"] for record in records} == {0, 1, 2}
        assert records[0]["observation_delay"].keys() == CONTRACT.observation.keys()

    def test_nothing_configured_changes_nothing(self):
        disturbance = begun({})
        assert disturbance.draw(np.random.default_rng(0)) == {}
        present = observation(3)
        seen = disturbance.advance(present)
        assert all(seen[name] is present[name] for name in present)
        assert disturbance.act(np.ones(2))[0] == 1


class TestNoise:
    def test_statistics(self):
        config = {"joint_position": 0.1, "*_pose": {"position": 0.01, "rotation": 0.05}, "picture": 2.0}
        disturbance = begun({"observation_noise": config})
        seen = [disturbance.advance(observation(4)) for _ in range(600)]
        stacked = {name: np.stack([each[name] for each in seen]).astype(float) for name in seen[0]}
        assert np.std(stacked["joint_position"] - 4) == pytest.approx(0.1, rel=0.1)
        assert np.std(stacked["cube_pose"][:, :3] - [4, 0, 0]) == pytest.approx(0.01, rel=0.1)
        assert np.std(stacked["picture"] - 40) == pytest.approx(2.0, rel=0.1)
        quaternions = np.roll(stacked["cube_pose"][:, 3:], -1, axis=-1)
        turns = Rotation.from_quat(quaternions) * Rotation.from_quat([1, 0, 0, 0]).inv()
        assert np.std(turns.as_rotvec()) == pytest.approx(0.05, rel=0.1)
        np.testing.assert_allclose(np.linalg.norm(quaternions, axis=-1), 1, atol=1e-6)
        assert (quaternions[:, 0] > 0).all(), "the largest component is positive"
        columns = stacked["hand_pose"][:, 3:].reshape(-1, 2, 3)
        np.testing.assert_allclose(columns @ columns.transpose(0, 2, 1), np.tile(np.eye(2), (600, 1, 1)), atol=1e-6)
        assert np.std(columns[:, 0, 1]) == pytest.approx(0.05, rel=0.1)

    def test_types_and_unnamed_features_stay(self):
        disturbance = begun({"observation_noise": {"picture": 50.0, "joint_position": 1.0}})
        present = observation(25)
        seen = disturbance.advance(present)
        for name, value in present.items():
            assert seen[name].dtype == value.dtype
            assert seen[name].shape == value.shape
        assert seen["cube_pose"] is present["cube_pose"]
        assert (present["picture"] == 250).all()

    def test_depends_on_seed_and_step_alone(self):
        config = {"observation_noise": {"joint_position": [0.1, 0.2]}}
        first, again, other = begun(config), begun(config), begun(config, seed=1)
        runs = [
            [each.advance(observation(step))["joint_position"][0] for step in range(4)]
            for each in (first, again, other)
        ]
        assert runs[0] == runs[1] != runs[2]
        once, twice = (first.observe(observation(9))["joint_position"] for _ in range(2))
        np.testing.assert_array_equal(once, twice)
        deviation = first.draw(np.random.default_rng(5))["observation_noise"]["deviation"]["joint_position"]["value"]
        assert 0.1 <= deviation <= 0.2


def test_arrays_belong_to_the_caller():
    """Neither an action buffer that is used again nor an observation that is changed comes back later."""
    config = {"action_delay": [2, 2], "observation_delay": {"joint_position": [1, 1], "picture": [0, 0]}}
    disturbance, buffer = begun(config), np.zeros(2)
    acted, seen = [], []
    for step in range(1, 6):
        buffer[:] = step
        acted.append(float(disturbance.act(buffer)[0]))
        given = observation(step)
        shown = disturbance.advance(given)
        seen.append((float(shown["joint_position"][0]), int(shown["picture"][0, 0, 0])))
        for value in (*given.values(), *shown.values()):
            value[:] = 99
        assert disturbance.observe(observation(step))["joint_position"][0] == step - 1
    assert acted == [-1.0, -1.0, 1.0, 2.0, 3.0]
    assert seen == [(step - 1, 10 * step) for step in range(1, 6)]


def test_state_continues_exactly():
    config = {
        "action_delay": 2,
        "observation_delay": {"joint_position": 1, "cube_pose": 3},
        "observation_noise": {"joint_position": 0.1},
    }
    disturbance = begun(config)
    for step in range(1, 4):
        disturbance.act(np.full(2, step))
        disturbance.advance(observation(step))
    state = disturbance.get_state()

    def future() -> list[np.ndarray]:
        found = []
        for step in range(4, 8):
            found.append(disturbance.act(np.full(2, step)))
            found += disturbance.advance(observation(step)).values()
        return found

    expected = future()
    disturbance.set_state(state, observation(3))
    np.testing.assert_array_equal(disturbance.get_state(), state)
    for value, other in zip(future(), expected, strict=True):
        np.testing.assert_array_equal(value, other)


def test_delayed_images_begin_anew_after_a_state_is_set():
    disturbance = begun({"observation_delay": {"picture": 2}})
    disturbance.set_state(disturbance.get_state(), observation(9))
    assert disturbance.advance(observation(10))["picture"][0, 0, 0] == 90


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"action_delay": [0, 1.5]}, r"action_delay: expected \[low, high\] in whole steps"),
        ({"action_delay": [2, 1]}, "0 <= low <= high"),
        ({"observation_delay": {"cube": 1}}, "no observation 'cube'; there are: joint_position, cube_pose"),
        ({"observation_noise": {"cube_pose": {"angle": 1}}}, "no part angle; there are: position, rotation"),
        ({"observation_noise": {"joint_position": {"rotation": 1}}}, "no part rotation; there are: value"),
        ({"observation_noise": {"joint_position": -1}}, "expected a deviation"),
        ({"observation_noise": {"joint_position": "much"}}, "expected a deviation"),
        ({"observation_noise": 0.1}, "observation_noise: expected {observation: value}, got 0.1"),
    ],
)
def test_misuse(config, message):
    with pytest.raises(SpecError, match=message):
        Disturbance(config, CONTRACT)
