"""The mapping by its properties, on the Panda's and the SO-101's own kinematics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.teleop.device import ANGULAR_SPEED, LINEAR_SPEED, Reading
from robot_rl.hardware.teleop.mapping import Mapping, MappingError, Settings

PERIOD = 0.05
ROBOTS = {name: (RobotFile.load(name), RobotFile.load(name).kinematics()) for name in ("panda", "so101")}
PANDA, PANDA_KINEMATICS = ROBOTS["panda"]


def mapping_for(name="panda", **settings):
    robot, kinematics = ROBOTS[name]
    made = Mapping(robot.contract, kinematics, Settings(**{"smoothing": 0.0, **settings}), robot.gripper.opening)
    made.begin(np.array(robot.home), robot.gripper.opening)
    return made, np.array(robot.home)


def follow(mapping, joints, readings):
    """An arm that is always where it was told to be; its actions."""
    actions = []
    for reading in readings:
        actions.append(mapping.step(reading, joints, 0.05, PERIOD))
        joints = actions[-1][: len(joints)].astype(float)
    return joints, actions


def moved(name, joints):
    """Displacement [3] m and rotation vector [3] rad of the end-effector since home."""
    robot, kinematics = ROBOTS[name]
    start, end = kinematics.forward(np.array(robot.home)), kinematics.forward(joints)
    turns = [Rotation.from_quat(pose[3:], scalar_first=True) for pose in (start, end)]
    return end[:3] - start[:3], (turns[1] * turns[0].inv()).as_rotvec()


def twist(*values, **more):
    return Reading(0.0, twist=np.array(values, float), **more)


@pytest.mark.parametrize("axis", range(6))
def test_full_deflection_moves_at_full_speed_along_the_axis_of_the_base(axis):
    mapping, home = mapping_for(dead_band=0.1)
    values = np.eye(6)[axis] * ([LINEAR_SPEED] * 3 + [ANGULAR_SPEED] * 3)[axis]
    joints, _ = follow(mapping, home, [twist(*values)] * 10)
    np.testing.assert_allclose(np.concatenate(moved("panda", joints)), values * 10 * PERIOD, atol=2e-3)


@pytest.mark.parametrize("axis", range(3))
def test_an_arm_of_five_joints_goes_where_it_is_pushed_though_it_cannot_keep_its_direction(axis):
    mapping, home = mapping_for("so101")
    values = np.eye(6)[axis] * 0.1
    joints, _ = follow(mapping, home, [twist(*values)] * 10)
    shift, _ = moved("so101", joints)
    wanted = (0.1 - 0.05 * LINEAR_SPEED) / 0.95 * 10 * PERIOD
    np.testing.assert_allclose(shift, np.eye(3)[axis] * wanted, atol=3e-3)


@pytest.mark.parametrize(
    ("settings", "forward", "left", "up"),
    [
        ({"yaw": np.pi}, [-1, 0, 0], [0, -1, 0], [0, 0, 1]),
        ({"yaw": np.pi / 2}, [0, 1, 0], [-1, 0, 0], [0, 0, 1]),
        # A camera that looks straight down, the top of its picture towards +x.
        ({"frame": "camera", "camera": tuple(Rotation.from_euler("y", 90, degrees=True).as_quat(scalar_first=True))},
         [0, 0, -1], [0, 1, 0], [1, 0, 0]),
    ],
)  # fmt: skip
def test_frames_turn_the_axes_of_the_device(settings, forward, left, up):
    for axis, wanted in enumerate((forward, left, up)):
        mapping, home = mapping_for(dead_band=0.0, **settings)
        joints, _ = follow(mapping, home, [twist(*np.eye(6)[axis] * 0.2)] * 5)
        np.testing.assert_allclose(moved("panda", joints)[0], 0.2 * 5 * PERIOD * np.array(wanted), atol=1e-3)


def test_in_the_tool_frame_forward_is_along_the_fingers():
    mapping, home = mapping_for(frame="tool", dead_band=0.0)
    rotation = Rotation.from_quat(PANDA_KINEMATICS.forward(home)[3:], scalar_first=True).as_matrix()
    for axis, column in enumerate((2, 0, 1)):
        mapping.begin(home)
        joints, _ = follow(mapping, home, [twist(*np.eye(6)[axis] * 0.2)] * 5)
        np.testing.assert_allclose(moved("panda", joints)[0], 0.2 * 5 * PERIOD * rotation[:, column], atol=1e-3)


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6), st.floats(0, 0.5))
def test_the_dead_band_is_odd_continuous_and_keeps_full_deflection(values, band):
    mapping, _ = mapping_for(dead_band=band)
    scale = np.repeat([LINEAR_SPEED, ANGULAR_SPEED], 3)
    out = mapping._deflection(twist(*np.array(values) * scale))
    np.testing.assert_allclose(out, -mapping._deflection(twist(*-np.array(values) * scale)))
    assert (np.abs(out) <= np.abs(values) + 1e-9).all()
    assert (out[np.abs(values) <= band] == 0.0).all()
    np.testing.assert_allclose(mapping._deflection(twist(*scale)), 1.0)
    assert mapping.is_moved(twist(*np.array(values) * scale)) == out.any()


def test_at_rest_the_target_stays_whatever_the_measurement_does():
    mapping, home = mapping_for()
    generator = np.random.default_rng(0)
    actions = [mapping.step(twist(*[0] * 6), home + generator.normal(0, 1e-3, 7), 0.05, PERIOD) for _ in range(20)]
    np.testing.assert_array_equal(actions, np.tile(actions[0], (20, 1)))
    np.testing.assert_allclose(actions[0][:7], home, atol=1e-6)


def test_the_target_waits_for_an_arm_that_is_blocked():
    mapping, home = mapping_for(lead=0.05)
    actions = [mapping.step(twist(0.25, *[0] * 5), home, 0.05, PERIOD) for _ in range(40)]
    shift, _ = moved("panda", actions[-1][:7].astype(float))
    assert np.linalg.norm(shift) <= 0.051


@given(st.lists(st.tuples(*[st.floats(-1, 1)] * 6), min_size=1, max_size=8))
def test_no_reading_moves_the_target_faster_than_the_settings_say(readings):
    mapping, home = mapping_for(linear_speed=0.1, angular_speed=0.5)
    before = PANDA_KINEMATICS.forward(home)
    joints = home
    for values in readings:
        pose = np.concatenate([values[:3], [1.0, *values[3:]]])
        joints, _ = follow(mapping, joints, [Reading(0.0, target=pose)])
        now = PANDA_KINEMATICS.forward(joints)
        assert np.linalg.norm(now[:3] - before[:3]) <= 0.1 * PERIOD + 2e-3
        before = now


def test_the_robot_follows_how_a_pose_moves_while_the_clutch_is_held():
    mapping, home = mapping_for()
    turn = Rotation.from_euler("z", 0.1).as_quat(scalar_first=True)
    far = np.array([5.0, 6.0, 7.0, 1.0, 0.0, 0.0, 0.0])
    pushed = np.array([5.01, 6.0, 7.0, *turn])
    held = frozenset({"clutch"})
    readings = [Reading(0.0, pose=far), Reading(0.0, pose=far, buttons=held), Reading(0.0, pose=pushed, buttons=held)]
    joints, actions = follow(mapping, home, readings + readings[2:] * 3)
    np.testing.assert_allclose(actions[1][:7], home, atol=1e-6)
    shift, rotation = moved("panda", joints)
    np.testing.assert_allclose(shift, [0.01, 0, 0], atol=1e-3)
    np.testing.assert_allclose(rotation, [0, 0, 0.1], atol=1e-3)
    released, _ = follow(mapping, joints, [Reading(0.0, pose=far), Reading(0.0, pose=far, buttons=held)])
    np.testing.assert_allclose(released, joints, atol=1e-5)  # the hand went back, the robot did not


def test_the_robot_catches_up_with_a_leader_slowly_and_then_follows_at_once():
    mapping, home = mapping_for(joint_speed=0.5)
    leader = home + np.array([0.4, 0, 0, 0, 0, 0, 0])
    joints, actions = follow(mapping, home, [Reading(0.0, joint_position=leader)] * 20)
    steps = np.abs(np.diff([home, *(action[:7] for action in actions)], axis=0)).max(axis=1)
    assert steps.max() <= 0.5 * PERIOD + 0.05
    np.testing.assert_allclose(joints, leader, atol=1e-6)
    jump = leader + 0.2
    _, (action,) = follow(mapping, joints, [Reading(0.0, joint_position=jump)])
    np.testing.assert_allclose(action[:7], np.clip(jump, PANDA.limits.lower, PANDA.limits.upper), atol=1e-6)


def test_the_gripper_toggles_with_each_press_or_closes_while_the_button_is_held():
    for kind, wanted in (("toggle", [0, 0, 0, 0.08, 0.08]), ("hold", [0, 0, 0.08, 0, 0])):
        mapping, home = mapping_for(gripper=kind)
        presses = [True, True, False, True, True]
        readings = [twist(*[0] * 6, buttons=frozenset({"gripper"}) if press else frozenset()) for press in presses]
        _, actions = follow(mapping, home, readings)
        np.testing.assert_allclose([action[7] for action in actions], wanted, atol=1e-6)
    mapping, home = mapping_for()
    _, actions = follow(mapping, home, [twist(*[0] * 6, gripper=0.25)])
    assert actions[0][7] == pytest.approx(0.02)


def test_what_does_not_fit_is_refused():
    with pytest.raises(MappingError, match="frame"):
        Settings(frame="world")
    with pytest.raises(MappingError, match="lead"):
        Settings(lead=0.0)
    mapping, home = mapping_for()
    with pytest.raises(MappingError, match="6 joints"):
        mapping.step(Reading(0.0, joint_position=np.zeros(6)), home, 0.05, PERIOD)
