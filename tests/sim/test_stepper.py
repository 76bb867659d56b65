import logging

import mujoco
import numpy as np
import pytest

from robot_rl import sim
from robot_rl.sim.arm_model import import_robosuite
from robot_rl.sim.stepper import follow_joints

CONTACT = mujoco.mjtDisableBit.mjDSBL_CONTACT


def robosuite_environment(name, robots, grippers="default"):
    robosuite = import_robosuite()
    logging.disable(logging.WARNING)
    try:
        environment = robosuite.make(
            name, robots=robots, gripper_types=grippers, control_freq=20, has_renderer=False,
            has_offscreen_renderer=False, use_camera_obs=False, hard_reset=False, ignore_done=True, renderer="mujoco",
            seed=0,
        )  # fmt: skip
        environment.reset()
    finally:
        logging.disable(logging.NOTSET)
    return environment


def reset_robosuite(environment, seed):
    environment.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
    environment.reset()


@pytest.mark.parametrize(
    ("name", "robosuite_name", "robot", "robosuite_robot", "contacts"),
    [
        ("lift", "Lift", "panda", "Panda", True),
        ("lift", "Lift", "ur5e_panda_hand", "UR5e", True),
        # The links of robosuite's Robotiq 2F-85 touch each other from the first step on, chaotically: in robosuite
        # itself, a finger displaced by 1e-14 rad is 8e-4 rad off after 15 of these actions, and the arm 7e-6 rad.
        # Parity can be told without contacts.
        ("lift", "Lift", "ur5e", "UR5e", False),
        pytest.param("two_arm_lift", "TwoArmLift", ["panda", "ur5e"], ["Panda", "UR5e"], False, marks=pytest.mark.slow),
    ],
)
def test_robosuites_own_step_gives_the_same_motion(name, robosuite_name, robot, robosuite_robot, contacts):
    gripper = "PandaGripper" if robot == "ur5e_panda_hand" else "default"
    environment = robosuite_environment(robosuite_name, robosuite_robot, gripper)
    env = sim.make({"task": name, "robot": robot, "controller": "ee_delta"})
    theirs = environment.sim.data._data
    if not contacts:
        environment.sim.model._model.opt.disableflags |= CONTACT
        env.model.opt.disableflags |= CONTACT
    joints = np.concatenate([env.model.jnt_qposadr[arm.joints] for arm in env.arm_model.arms])
    generator = np.random.default_rng(0)
    reset_robosuite(environment, 1)
    env.reset(seed=1)
    np.testing.assert_array_equal(env.data.qpos, theirs.qpos)
    for _ in range(50):
        action = generator.uniform(-1, 1, env.contract.action_dim)
        environment.step(action)
        env.step(action)
        np.testing.assert_allclose(env.data.qpos[joints], theirs.qpos[joints], atol=1e-9)
    np.testing.assert_allclose(env.data.qpos, theirs.qpos, atol=1e-8)


def test_first_steps_of_the_ur5e_agree_with_contacts():
    environment = robosuite_environment("Lift", "UR5e")
    env = sim.make({"task": "lift", "robot": "ur5e", "controller": "ee_delta"})
    reset_robosuite(environment, 1)
    env.reset(seed=1)
    for _ in range(3):
        action = np.array([0.5, -0.5, 0.2, 0.3, -0.3, 0.1, -1.0])
        environment.step(action)
        env.step(action)
    np.testing.assert_allclose(env.data.qpos[:6], environment.sim.data._data.qpos[:6], atol=1e-6)


def test_stepper_robosuite_is_robosuites_own_step():
    slow = sim.make({"task": "lift", "controller": "ee_delta", "stepper": "robosuite"})
    fast = sim.make({"task": "lift", "controller": "ee_delta"})
    assert slow.contract == fast.contract
    slow.reset(seed=5)
    fast.reset(seed=5)
    for action in np.random.default_rng(0).uniform(-1, 1, (10, 7)):
        seen, expected = slow.step(action)[0], fast.step(action)[0]
        for name in expected:
            np.testing.assert_allclose(seen[name], expected[name], atol=1e-6)


def test_follow_joints_is_computed_torque_and_mujocos_step():
    env = sim.make("lift")
    env.reset(seed=0)
    controller = env.controller
    physics, chains = controller._physics, controller._chains
    model, data = env.model, mujoco.MjData(env.model)
    state = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
    mujoco.mj_getState(model, env.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    generator = np.random.default_rng(1)
    position = data.qpos[:7] + generator.uniform(-0.02, 0.02, (10, 7))
    velocity, acceleration = generator.uniform(-0.2, 0.2, (2, 10, 7))
    fingers = np.tile([0.03, -0.03], (10, 1))
    follow_joints(physics, chains, position, velocity, acceleration, fingers, 40.0, 0.9)
    mass = np.empty((model.nv, model.nv))
    for step in range(10):
        mujoco.mj_step1(model, data)
        mujoco.mj_fullM(model, mass, data.qM)
        demand = (
            acceleration[step]
            + 2 * 0.9 * 40 * (velocity[step] - data.qvel[:7])
            + 40**2 * (position[step] - data.qpos[:7] - model.opt.timestep * data.qvel[:7])
        )
        low, high = model.actuator_ctrlrange[:7].T
        data.ctrl[:7] = np.clip(mass[:7, :7] @ demand + data.qfrc_bias[:7], low, high)
        data.ctrl[7:] = fingers[step]
        mujoco.mj_step2(model, data)
    np.testing.assert_allclose(env.data.qpos, data.qpos, atol=1e-12)
    np.testing.assert_allclose(env.data.qvel, data.qvel, atol=1e-9)
