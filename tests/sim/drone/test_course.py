import numpy as np
import pytest

from robot_rl import sim
from robot_rl.sim.drone import episode, expert
from robot_rl.sim.drone.course import make_course
from robot_rl.sim.drone.spec import load

CENTER, OPENING, FRAME, RADIUS = np.array([1.0, 2.0, 1.0]), 0.4, 0.16, 0.05


def cross(yaw: float, across: float, height: float, backwards: bool = False, reach: float = 0.1):
    """A step straight through the plane of the gate, off its centre by `across` and `height`."""
    ahead, side = np.array([np.cos(yaw), np.sin(yaw), 0]), np.array([-np.sin(yaw), np.cos(yaw), 0])
    point = CENTER + across * side + height * np.array([0, 0, 1])
    ends = [point - reach * ahead, point + 0.5 * reach * ahead]
    before, after = reversed(ends) if backwards else ends
    return episode.cross(np.append(CENTER, yaw), *before, *after, OPENING, FRAME, RADIUS)


@pytest.mark.parametrize("yaw", [0.0, 0.7, -2.5, np.pi])
def test_a_gate_is_passed_touched_or_missed(yaw):
    assert cross(yaw, 0.0, 0.0) == (True, False, pytest.approx(0.15))
    assert cross(yaw, 0.1, -0.05) == (True, False, pytest.approx(0.05))
    assert cross(yaw, 0.17, 0.0)[:2] == (False, True)
    assert cross(yaw, 0.0, 0.38)[:2] == (False, True)
    assert cross(yaw, 0.5, 0.0)[:2] == (False, False)
    assert cross(yaw, 0.0, 0.0, backwards=True)[:2] == (False, False)


def test_a_step_before_the_gate_does_nothing():
    passed, hit, margin = episode.cross(
        np.append(CENTER, 0.0), *(CENTER - [0.5, 0, 0]), *(CENTER - [0.1, 0, 0]), OPENING, FRAME, RADIUS
    )
    assert not passed
    assert not hit
    assert np.isnan(margin)


def test_poles_are_hit_within_both_radii():
    poles = np.array([[1.0, 0.0], [3.0, 0.0]])
    assert [episode.touch(poles, x, y, 0.1) for x, y in ((1.09, 0.0), (1.11, 0.0), (3.0, 0.05))] == [True, False, True]


def test_a_corridor_bends_and_climbs_within_its_bounds_and_anew_for_each_seed():
    task = load("task", "drone/corridor")
    config, drawn = task["corridor"], [make_course(task, None, np.random.default_rng(seed)) for seed in range(30)]
    for course in drawn:
        points = np.concatenate([[course.start], course.centers])
        np.testing.assert_allclose(np.diff(points[:, 0]), config["spacing"])
        assert np.abs(np.diff(points[:, 1])).max() <= config["bend"]
        assert course.centers[:, 2].min() >= config["heights"][0]
        assert course.centers[:, 2].max() <= config["heights"][1]
        assert np.abs(course.yaws).max() <= np.arctan2(config["bend"], config["spacing"])
        np.testing.assert_allclose(course.finish - course.centers[-1], course.normals[-1])
    assert np.ptp([course.centers[-1, 1] for course in drawn]) > 1.0
    again = make_course(task, None, np.random.default_rng(3))
    np.testing.assert_array_equal(again.centers, drawn[3].centers)
    assert (make_course(task).yaws == 0).all()


@pytest.mark.slow
def test_the_expert_reaches_the_end_of_the_corridor_and_the_goal_is_seen():
    with sim.make_vector({"task": "drone/corridor", "randomization": "visual"}, 16) as venv:
        observation, info = venv.reset(seed=range(16))
        assert venv.contract.rate_hz == 20
        last = venv.world.gates[:, -1]
        ahead = np.stack([np.cos(last[:, 3]), np.sin(last[:, 3]), np.zeros(16)], 1)
        np.testing.assert_allclose(observation["position"] + observation["goal"], last[:, :3] + ahead, atol=1e-5)
        successes = 0
        while info["active"].any():
            *_, info = venv.step(expert.act(venv.world))
            successes += int(info["success"].sum())
    assert successes == 16


@pytest.mark.parametrize("way", [(0.0, 1.0), (0.0, -1.0), (1.0, 0.0)])
def test_who_leaves_the_corridor_is_lost(way):
    """Sideways between two arches, or straight on where it bends."""
    env = sim.make({"task": "drone/corridor", "controller": "velocity"})
    env.reset(seed=3)
    for _ in range(200):
        observation, _, terminated, truncated, info = env.step(np.array([*way, 0.0, 0.0], np.float32))
        if terminated or truncated:
            break
    assert terminated
    assert not info["success"]
    assert info["metrics"]["gates_passed"] < 7
    if way[0] == 0:
        assert 0.4 < abs(observation["position"][1]) < 0.8
