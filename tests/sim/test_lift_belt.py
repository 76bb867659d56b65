"""The belt carries the cube evenly, shows how fast it is, and leaves the rest of Lift as it is."""

import mujoco
import numpy as np
import pytest

from robot_rl import sim


@pytest.fixture(scope="module")
def env():
    made = sim.make("lift_belt")
    yield made
    made.close()


def ride(env, seed, steps=60):
    """Observations of a robot that stands still."""
    observation, _ = env.reset(seed=seed)
    rows, rest = [observation], env.rest_action()
    for _ in range(steps):
        rows.append(env.step(rest)[0])
    return {name: np.array([row[name] for row in rows], float) for name in observation}


@pytest.mark.parametrize("seed", range(3))
def test_the_cube_moves_along_at_the_speed_that_is_observed(env, seed):
    rows = ride(env, seed)
    y = rows["cube_pose"][:, 1]
    speed = np.polyfit(np.arange(len(y)) / env.contract.rate_hz, y, 1)[0]
    low, high = env.task["arguments"]["speed"]
    assert low <= speed <= high
    np.testing.assert_allclose(rows["cube_velocity"][1:], np.outer(np.ones(len(y) - 1), [0, speed, 0]), atol=0.016)
    np.testing.assert_allclose(rows["cube_velocity"][5:, 1], speed, rtol=1e-3)
    np.testing.assert_allclose(np.diff(rows["cube_pose"][5:, 1]) * env.contract.rate_hz, speed, rtol=1e-3)
    np.testing.assert_allclose(np.ptp(rows["cube_pose"][5:, [0, 2]], axis=0), 0, atol=1e-5)


def test_speed_and_start_fill_their_ranges_and_follow_from_the_seed(env):
    drawn = np.array([
        (observation["cube_velocity"][1], observation["cube_pose"][1])
        for observation, _ in (env.reset(seed=seed) for seed in range(100))
    ])
    for values, (low, high) in zip(drawn.T, (env.task["arguments"][key] for key in ("speed", "start")), strict=True):
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high
    first, second = (env.reset(seed=7)[0] for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def test_leaning_on_the_belt_does_not_slow_it(env):
    env.reset(seed=0)
    belt, cube = env.data.joint("belt_slide"), env.data.body("cube_main").id
    speed = float(belt.qvel[0])
    rest = env.rest_action()
    env.data.xfrc_applied[cube, :3] = [0.0, -20.0, -20.0]
    for _ in range(20):
        env.step(rest)
    env.data.xfrc_applied[:] = 0
    assert belt.qvel[0] == pytest.approx(speed, rel=0.2)
    assert belt.qpos[0] == pytest.approx(speed * env.time, rel=0.2)


def test_success_is_four_centimetres_above_the_belt(env):
    env.reset(seed=1)
    joint = env.data.joint("cube_joint0")
    resting = None
    for _ in range(10):
        env.step(env.rest_action())
    resting = joint.qpos[2]
    half_a_side = resting - 0.812
    assert half_a_side == pytest.approx(0.021, abs=0.002)
    for height, success in ((0.812 + 0.039, False), (0.812 + 0.041, True)):
        joint.qpos[2] = height
        env.refresh()
        assert env.success is success


def test_states_are_restored_with_the_motion(env):
    env.reset(seed=2)
    rest = env.rest_action()
    for _ in range(5):
        env.step(rest)
    state = env.get_state()
    one = [env.step(rest)[0]["cube_pose"] for _ in range(5)]
    env.reset(seed=3)
    env.set_state(state)
    two = [env.step(rest)[0]["cube_pose"] for _ in range(5)]
    np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_both_steppers_agree_while_the_cube_rides():
    spec = {"task": "lift_belt", "controller": "ee_delta"}
    one, two = sim.make({**spec, "stepper": "fast"}), sim.make({**spec, "stepper": "robosuite"})
    generator = np.random.default_rng(0)
    one.reset(seed=4)
    two.reset(seed=4)
    for _ in range(20):
        action = generator.uniform(-1, 1, 7)
        one.step(action)
        two.step(action)
        np.testing.assert_allclose(one.data.qpos, two.data.qpos, atol=1e-9)
    one.close()
    two.close()


def test_observed_velocities_are_mujocos(env):
    env.reset(seed=5)
    joint = env.data.joint("cube_joint0")
    joint.qvel[:] = [0.3, -0.2, 0.1, 1.0, 2.0, -3.0]
    env.refresh()
    motion = np.empty(6)
    mujoco.mj_objectVelocity(env.model, env.data, mujoco.mjtObj.mjOBJ_BODY, env.data.body("cube_main").id, motion, 0)
    base = env.data.xmat[env.arm_model.arms[0].base].reshape(3, 3)
    np.testing.assert_allclose(env.observe()["cube_velocity"], base.T @ motion[3:], atol=1e-6)
    feature = env.contract.observation["cube_velocity"]
    assert (feature.shape, feature.unit, feature.frame) == ((3,), "m/s", "base")


def test_the_expert_catches_the_cube():
    from robot_rl.sim.expert import make_expert

    env = sim.make("lift_belt")
    expert, lengths = make_expert(env), []
    for seed in range(10):
        env.reset(seed=seed)
        expert.reset()
        lengths.append(next(step for step in range(1, 101) if env.step(expert.act())[2]))
    env.close()
    assert max(lengths) < 45
