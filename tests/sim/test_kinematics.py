"""Kinematics: against MuJoCo's own on the whole model, finite differences, and random reachable poses."""

import mink
import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robot_rl.sim import kinematics
from robot_rl.sim.kinematics import Kinematics, KinematicsError
from robot_rl.sim.servo import JointLimits, Servo

# An arm like the Panda, turned and shifted in the world, with a finger and an object that do not belong to it.
ARM = """
<mujoco><compiler angle="radian"/><default><geom size="0.01" mass="0.1"/></default><worldbody>
 <body name="cube" pos="1 0 0"><freejoint/><geom/></body>
 <body name="base" pos="0.3 -0.2 0.5" euler="0 0 0.7"><geom/><body pos="0 0 0.333"><geom/>
 <joint name="a1" axis="0 0 1" range="-2.9 2.9"/><body euler="-1.5708 0 0"><geom/>
 <joint name="a2" axis="0 0 1" range="-1.76 1.76"/><body pos="0 -0.316 0" euler="1.5708 0 0"><geom/>
 <joint name="a3" axis="0 0 1" range="-2.9 2.9"/><body pos="0.0825 0 0" euler="1.5708 0 0"><geom/>
 <joint name="a4" axis="0 0 1" range="-3.07 -0.07"/><body pos="-0.0825 0.384 0" euler="-1.5708 0 0"><geom/>
 <joint name="a5" axis="0 0 1" range="-2.9 2.9"/><body euler="1.5708 0 0"><geom/>
 <joint name="a6" axis="0 0 1" range="-0.02 3.75"/><body pos="0.088 0 0" euler="1.5708 0 0"><geom/>
 <joint name="a7" axis="0 0 1" range="-2.9 2.9"/><body pos="0 0 0.2"><geom/><site name="tip" pos="0 0 0.01"/>
 <body name="finger"><joint name="slide" type="slide" axis="0 1 0"/><geom/></body>
 </body></body></body></body></body></body></body></body></body>
</worldbody></mujoco>"""
NAMES = [f"a{k}" for k in range(1, 8)]
HOME = np.array([0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8])


@pytest.fixture(scope="module")
def model():
    return mujoco.MjModel.from_xml_string(ARM)


@pytest.fixture
def arm(model):
    return Kinematics(model, NAMES, "tip", "base", home=HOME)


def random_positions(arm, count, spread=0.5):
    generator = np.random.default_rng(0)
    return [np.clip(HOME + generator.uniform(-spread, spread, 7), arm.lower, arm.upper) for _ in range(count)]


def shifted(pose, x, y):
    return pose + np.array([x, y, 0, 0, 0, 0, 0])


def pose_error(one, other):
    turn = Rotation.from_quat(one[3:], scalar_first=True) * Rotation.from_quat(other[3:], scalar_first=True).inv()
    return max(np.abs(one[:3] - other[:3]).max(), turn.magnitude())


def test_forward_agrees_with_the_whole_model(model, arm):
    data = mujoco.MjData(model)
    for position in random_positions(arm, 10):
        for name, angle in zip(NAMES, position, strict=True):
            data.joint(name).qpos = angle
        mujoco.mj_kinematics(model, data)
        base, tip = data.body("base"), data.site("tip")
        rotation = base.xmat.reshape(3, 3).T
        pose = arm.forward(position)
        np.testing.assert_allclose(pose[:3], rotation @ (tip.xpos - base.xpos), atol=1e-12)
        matrix = Rotation.from_quat(pose[3:], scalar_first=True).as_matrix()
        np.testing.assert_allclose(matrix, rotation @ tip.xmat.reshape(3, 3), atol=1e-12)


def test_jacobian_agrees_with_finite_differences(arm):
    for position in random_positions(arm, 3):
        jacobian = arm.jacobian(position)
        for joint, step in enumerate(np.eye(7) * 1e-6):
            ahead, back = arm.forward(position + step), arm.forward(position - step)
            turn = (
                Rotation.from_quat(ahead[3:], scalar_first=True) * Rotation.from_quat(back[3:], scalar_first=True).inv()
            )
            np.testing.assert_allclose(jacobian[:3, joint], (ahead[:3] - back[:3]) / 2e-6, atol=1e-7)
            np.testing.assert_allclose(jacobian[3:, joint], turn.as_rotvec() / 2e-6, atol=1e-6)


def test_joints_are_in_the_order_of_the_names(model, arm):
    turned = Kinematics(model, NAMES[::-1], "tip", "base", home=HOME[::-1])
    np.testing.assert_allclose(turned.forward(HOME[::-1]), arm.forward(HOME), atol=1e-12)
    np.testing.assert_allclose(turned.jacobian(HOME[::-1]), arm.jacobian(HOME)[:, ::-1], atol=1e-12)
    np.testing.assert_array_equal(turned.lower, arm.lower[::-1])


def test_inverse_finds_reachable_poses_within_the_joint_limits(arm):
    for position in random_positions(arm, 30):
        pose = arm.forward(position)
        found = HOME
        for _ in range(3):
            found = arm.inverse(pose, found)
        assert pose_error(arm.forward(found), pose) < 1e-4
        assert ((found >= arm.lower) & (found <= arm.upper)).all()


@pytest.mark.parametrize("reach", [0.02, 1.0])
def test_an_iteration_solves_minks_program(model, arm, monkeypatch, reach):
    monkeypatch.setattr(kinematics, "ITERATIONS", 1)
    for position in [*random_positions(arm, 10), np.array([0, 0.5, 0, -0.07, 0, 0.57, 0])]:
        pose = shifted(arm.forward(position), 0.02, -0.05)
        configuration = mink.Configuration(arm._model, position)
        frame = mink.FrameTask("end_effector", "site", 1.0, 1.0, lm_damping=kinematics.ERROR_DAMPING)
        frame.set_target(mink.SE3(np.roll(pose, 4)))
        posture = mink.PostureTask(arm._model, kinematics.POSTURE_COST, kinematics.POSTURE_GAIN)
        posture.set_target(HOME)
        limit = mink.ConfigurationLimit(arm._model, gain=1.0)
        limit.lower, limit.upper = np.maximum(arm.lower, position - reach), np.minimum(arm.upper, position + reach)
        smallest = np.linalg.svd(arm.jacobian(position))[1][-1]
        damping = kinematics.DAMPING**2 * max(0.0, 1 - (smallest / kinematics.SINGULAR) ** 2)
        step = mink.solve_ik(configuration, [frame, posture], 1.0, "daqp", damping, limits=[limit])
        np.testing.assert_allclose(arm.inverse(pose, position, np.full(7, reach)), position + step, atol=1e-9)


def test_inverse_depends_on_the_pose_more_than_on_the_start(arm):
    """The redundant elbow returns to the home posture, so that equal poses give nearly equal joint positions."""
    pose = arm.forward(HOME)
    pose[:3] += [0.05, -0.1, 0.05]
    found = random_positions(arm, 10, spread=0.3)
    for _ in range(60):
        found = [arm.inverse(pose, position) for position in found]
    assert np.ptp(found, axis=0).max() < 0.02


def test_a_pose_out_of_reach_is_approached_within_the_given_reach_and_without_chatter(arm):
    pose = arm.forward(HOME)
    position, reach = HOME, np.full(7, 0.1)
    steps = []
    for k in range(150):
        following = arm.inverse(shifted(pose, min(0.01 * k, 0.8), 0), position, reach)
        steps.append(np.abs(following - position).max())
        position = following
    assert max(steps) <= 0.1 + 1e-9
    assert max(steps[-20:]) < 0.01
    assert arm.forward(position)[0] > pose[0] + 0.2


def test_the_servo_follows_a_pose_stream_and_reaches_a_pose_given_once(model):
    limits = JointLimits(*model.jnt_range[1:8].T, np.full(7, 2.0), np.full(7, 10.0), np.full(7, 5000.0))
    arm = Kinematics(model, NAMES, "tip", "base", HOME, limits.lower, limits.upper)
    servo = Servo(limits, 0.002, kinematics=arm)
    servo.reset(HOME)
    start = arm.forward(HOME)
    for k in range(1, 40):
        target = shifted(start, 0.1 * np.sin(0.1 * k), 0.1 * (1 - np.cos(0.1 * k)))
        servo.set_pose_target(target)
        reached = servo.trajectory(25).position[-1]
        if k > 4:
            np.testing.assert_allclose(arm.forward(reached)[:3], target[:3], atol=1e-3)
    servo.set_pose_target(start)
    copy = Servo(limits, 0.002, kinematics=arm)
    copy.set_state(servo.get_state())
    stream = servo.trajectory(400).position
    assert pose_error(arm.forward(stream[-1]), start) < 2e-4
    assert np.abs(np.diff(stream, axis=0)).max() <= 2.0 * 0.002 * (1 + 1e-9)
    np.testing.assert_array_equal(copy.trajectory(400).position, stream)


@pytest.mark.parametrize(
    ("joints", "site", "base", "message"),
    [
        (["a1", "b2"], "tip", "base", "no joint b2; it has"),
        (NAMES, "top", "base", "no site top"),
        (NAMES, "tip", "socket", "no body socket"),
        (NAMES, "tip", "cube", "does not hang on"),
        ([*NAMES, "slide"], "tip", "base", "not between"),
    ],
)
def test_a_chain_that_is_not_there_is_named(model, joints, site, base, message):
    with pytest.raises(KinematicsError, match=message):
        Kinematics(model, joints, site, base)


def test_malformed_vectors_are_refused(arm):
    with pytest.raises(KinematicsError, match="expected 7 finite"):
        arm.forward(np.zeros(6))
    with pytest.raises(KinematicsError, match="seed"):
        arm.inverse(arm.forward(HOME), np.full(7, np.nan))
