"""Twin: the same states and motions as the in-process simulation, when Servo or Supervisor drive it from outside."""

import numpy as np
import pytest

from robot_rl import sim
from robot_rl.hardware.joint_reference import CommandError
from robot_rl.hardware.safety.proposal import Proposal
from robot_rl.hardware.safety.supervisor import Supervisor
from robot_rl.hardware.safety.supervisor_state import Observation, State, Watchdog
from robot_rl.hardware.twin.twin import Twin
from robot_rl.sim.kinematics import Kinematics
from robot_rl.sim.rotation import quaternion_to_6d
from robot_rl.sim.servo import Gripper, JointLimits, Servo

CONTROL = 0.05


@pytest.fixture(scope="module")
def twin():
    twin = Twin("lift")
    yield twin
    twin.close()


@pytest.fixture(scope="module", params=["joint_position", "ee_pose"])
def env(request):
    env = sim.make({"task": "lift", "controller": request.param})
    yield env
    env.close()


def poses(env, steps):
    """End-effector targets of a reach: down, sideways, turning, with the gripper closing."""
    start = env.state()["ee_pose"]
    for k in range(steps):
        phase = 0.5 - 0.5 * np.cos(np.pi * min(1.0, k / (steps - 10)))
        position = start[:3] + phase * np.array([0.06, 0.08, -0.12])
        turn = np.array([np.cos(0.3 * phase), 0.0, 0.0, np.sin(0.3 * phase)])
        w, x, y, z = start[3:]
        rotated = turn[0] * start[3:] + turn[3] * np.array([-z, -y, x, w])
        yield np.concatenate([position, quaternion_to_6d(rotated), [0.07 * (1 - phase)]])


def joints(env, steps):
    """Joint targets: every joint on a wave of its own."""
    start = env.state()["joint_position"]
    for k in range(steps):
        swing = 0.25 * np.sin(0.12 * k * np.array([1.0, 0.8, 1.1, 0.9, 1.2, 0.7, 1.3])) * min(1.0, k / 10)
        yield np.append(start + swing, 0.04 + 0.03 * np.cos(0.1 * k))


def assert_same_place(env, twin):
    there, here = env.state(), twin.state()
    assert np.linalg.norm(there["ee_pose"][:3] - here["ee_pose"][:3]) < 0.002
    turn = 2 * np.arccos(min(1.0, abs(there["ee_pose"][3:] @ here["ee_pose"][3:])))
    assert np.degrees(turn) < 1.0
    assert np.abs(there["gripper_opening"] - here["gripper_opening"]) < 0.002


def arm_of(env):
    return env.arm_model.arms[0]


def kinematics_of(env):
    arm, model = arm_of(env), env.model
    limits = JointLimits.from_mapping(arm.limits)
    names = [model.joint(joint).name for joint in arm.joints]
    return Kinematics(
        model, names, model.site(arm.site).name, model.body(arm.base).name, arm.home, limits.lower, limits.upper
    )  # fmt: skip


def supervised(env, rate, tick_rate):
    """The Supervisor of an environment's contract, driving at a command rate."""
    arm, contract = arm_of(env), env.contract
    servo = Servo(
        JointLimits.from_mapping(arm.limits), 1 / rate, CONTROL,
        kinematics_of(env) if "ee_pose" in contract.action else None,
    )  # fmt: skip
    gripper = Gripper(arm.gripper.max_opening, arm.gripper.speed, 1 / rate)
    home = env.state()["joint_position"]
    return Supervisor(contract, servo, home, gripper, (), Watchdog(), 1.0, round(rate / tick_rate))


@pytest.mark.parametrize(
    ("rate", "tick_rate", "trajectory"),
    [
        (500, 100, True),
        (100, 100, False),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in [(1000, 200, True), (100, 100, True), (1000, 1000, False), (500, 500, False)]
        ),
    ],
)
def test_tracks_like_the_simulation_through_the_supervisor(env, twin, rate, tick_rate, trajectory):
    env.reset(seed=7)
    twin.reset(7)
    began, now = twin.time, 0.0
    supervisor = supervised(env, rate, tick_rate)

    def tick():
        nonlocal now
        state = twin.state()
        command, _ = supervisor.tick(now, Observation(now, state["joint_position"], float(state["gripper_opening"][0])))
        if command is not None and trajectory:
            after = began + now + np.arange(1, len(command.position) + 1) / rate - twin.time
            twin.follow(after, *command[:3])
        elif command is not None:
            twin.follow_position(command.position[-1], 1 / rate)
        if command is not None:
            twin.move_gripper(float(command.gripper_opening[-1]))
        now = round(now + 1 / tick_rate, 9)
        twin.advance(began + now)

    tick()
    supervisor.home(now)
    while supervisor.status.state is State.HOMING:
        tick()
    lease = supervisor.acquire("test", "script", now)
    # The home pose is where the arm stood at the reset, so that both still stand in the same place.
    assert_same_place(env, twin)
    targets = poses(env, 60) if supervisor._pose_actions else joints(env, 60)
    for sequence, action in enumerate(targets):
        env.step(action)
        assert supervisor.propose(Proposal(lease.id, sequence, now, action), now) is None
        supervisor.heartbeat(lease.id, now)
        for _ in range(round(CONTROL * tick_rate)):
            tick()
        assert_same_place(env, twin)
    assert np.abs(env.state()["joint_position"] - supervisor._home).max() > 0.1  # it has moved at all


def test_equals_the_simulation_to_the_last_bits_when_the_servo_runs_at_the_physics_rate(twin):
    env = sim.make("lift")
    env.reset(seed=3)
    twin.reset(3)
    servo = Servo(JointLimits.from_mapping(arm_of(env).limits), 0.002, CONTROL)
    servo.reset(twin.state()["joint_position"])
    gripper = Gripper(arm_of(env).gripper.max_opening, arm_of(env).gripper.speed, 0.002)
    gripper.reset(float(twin.state()["gripper_opening"][0]))
    for action in joints(env, 40):
        env.step(action)
        servo.set_target(action[:7])
        gripper.set_target(float(action[7]))
        for _ in range(25):
            reference = servo.step()
            twin.follow(np.array([0.002]), *(row[None] for row in reference))
            twin.move_gripper(float(gripper.trajectory(1)[0]))
            twin.advance(twin.time + 0.002)
    for name, value in env.state().items():
        np.testing.assert_allclose(twin.state()[name], value, atol=1e-7, err_msg=name)


def test_reset_is_that_of_the_simulation_and_time_goes_on(twin):
    env = sim.make("lift")
    for seed in (11, 12, 11):
        before = twin.time
        twin.reset(seed)
        assert twin.seed == seed
        assert twin.time == before
        observation, _ = env.reset(seed=seed)
        for name, value in observation.items():
            np.testing.assert_array_equal(twin.state()[name].astype(np.float32), value)
        twin.advance(twin.time + 0.1)
        assert twin.time == pytest.approx(before + 0.1)


def test_holds_still_without_commands_and_after_the_last_one(twin):
    twin.reset(5)
    start = twin.state()["joint_position"]
    twin.advance(twin.time + 1.0)
    np.testing.assert_allclose(twin.state()["joint_position"], start, atol=1e-3)
    twin.follow(np.array([0.5]), (start + 0.05)[None], np.full((1, 7), 0.2), np.zeros((1, 7)))
    twin.advance(twin.time + 2.0)
    np.testing.assert_allclose(twin.state()["joint_position"], start + 0.05, atol=1e-3)
    assert np.abs(twin.state()["joint_velocity"]).max() < 1e-2


def test_refuses_to_jump_to_the_first_command_after_a_reset(twin):
    twin.reset(5)
    start = twin.state()["joint_position"]
    with pytest.raises(CommandError, match=r"0\.500 rad away"):
        twin.follow(np.array([0.01]), (start + 0.5)[None])
    with pytest.raises(CommandError, match="finite"):
        twin.follow(np.array([0.01]), start[None] * np.nan)
    with pytest.raises(CommandError, match="joints"):
        twin.follow(np.array([0.01]), start[None, :3])
    with pytest.raises(CommandError, match="finite"):
        twin.move_gripper(float("nan"))
    twin.advance(twin.time + 0.1)
    np.testing.assert_allclose(twin.state()["joint_position"], start, atol=1e-3)


def test_steps_are_whole_and_catch_up(twin):
    twin.reset(1)
    begin = twin.time
    assert [twin.advance(begin + t) for t in (0.001, 0.0025, 0.005, 0.005, 0.01, 0.0)] == [0, 1, 1, 0, 3, 0]
    assert twin.time == pytest.approx(begin + 0.01)


def test_begins_the_episode_anew_when_physics_diverges():
    twin = Twin("lift", seed=4)
    start = twin.state()["cube_pose"]
    twin.env.data.qvel[:] = 1e12
    twin.advance(0.1)
    assert twin.divergences == 1
    np.testing.assert_array_equal(twin.state()["cube_pose"], start)


def test_drives_two_arms():
    twin = Twin("two_arm_lift")
    start = twin.state()
    for arm in (0, 1):
        goal = start[f"robot{arm}_joint_position"] + 0.04 * (1 + arm)
        twin.follow(np.array([1.0]), goal[None], np.zeros((1, 7)), np.zeros((1, 7)), arm=arm)
    twin.advance(1.5)
    for arm in (0, 1):
        moved = twin.state()[f"robot{arm}_joint_position"] - start[f"robot{arm}_joint_position"]
        np.testing.assert_allclose(moved, 0.04 * (1 + arm), atol=2e-3)
    twin.close()


@pytest.mark.render
def test_pictures_are_those_of_the_simulation():
    spec = {"task": "lift", "cameras": {"agentview": [48, 64]}}
    twin, env = Twin(spec, seed=2), sim.make(spec)
    observation, _ = env.reset(seed=2)
    np.testing.assert_array_equal(twin.image("agentview"), observation["agentview"])
    twin.close()
    env.close()
