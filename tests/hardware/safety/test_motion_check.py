"""Checks against an arm whose poses and collisions are known by hand: two links of 0.5 m in a plane."""

import mujoco
import numpy as np
import pytest

from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.safety.motion_check import SelfCollision, WorkspaceBox
from robot_rl.sim.arm_model import load_arm_model
from robot_rl.sim.kinematics import Kinematics

ARM = """
<mujoco><compiler angle="radian"/><worldbody>
 <geom name="table" type="box" size="2 2 0.3"/>
 <body name="base"><geom name="socket" type="sphere" size="0.1"/>
  <body><joint name="a1" axis="0 0 1" range="-3 3"/><geom type="capsule" fromto="0.1 0 0 0.45 0 0" size="0.04"/>
   <body pos="0.5 0 0"><joint name="a2" axis="0 0 1" range="-3.1 3.1"/>
    <geom type="capsule" fromto="0.05 0 0 0.5 0 0" size="0.04"/><site name="tip" pos="0.5 0 0"/>
 </body></body></body></worldbody></mujoco>"""


@pytest.fixture(scope="module")
def model():
    return mujoco.MjModel.from_xml_string(ARM)


def test_the_box_holds_the_end_effector(model):
    box = WorkspaceBox(Kinematics(model, ["a1", "a2"], "tip", "base"), [0.2, -0.6, -0.1], [1.1, 0.6, 0.1])
    for a1, a2 in np.random.default_rng(0).uniform(-3, 3, (50, 2)):
        x, y = 0.5 * np.cos(a1) + 0.5 * np.cos(a1 + a2), 0.5 * np.sin(a1) + 0.5 * np.sin(a1 + a2)
        assert (box(np.array([[a1, a2]])) is None) == (0.2 <= x <= 1.1 and -0.6 <= y <= 0.6)
    with pytest.raises(ValueError, match="lower < upper"):
        WorkspaceBox(Kinematics(model, ["a1", "a2"], "tip", "base"), [0, 0, 0], [1, 0, 1])


def test_the_forearm_touches_the_base_when_it_folds_back(model):
    check = SelfCollision(model, ["a1", "a2"], "base", np.array([0.0, 1.0]))
    # The forearm's capsule (radius 0.04) passes the socket (radius 0.1) at the distance 0.5 sin(a2) while folded.
    for a1 in (-1.0, 0.0, 2.0):
        for a2 in (0.0, 1.5, -1.5, 2.6, -2.6):
            assert check(np.array([[a1, a2]])) is None
        for a2 in (2.95, -2.95):
            assert check(np.array([[a1, a2]])) == "self_collision"
    touch = np.arcsin((0.04 + 0.1 + 0.005) / 0.5)
    assert check(np.array([[0.0, np.pi - touch - 0.02]])) is None
    assert check(np.array([[0.0, np.pi - touch + 0.02]])) == "self_collision"
    assert model.geom_margin.max() == 0


def test_remembered_distances_never_pass_what_fresh_ones_forbid(model):
    """Motions one after the other, as they are planned: the answer is that of every position by itself."""
    generator = np.random.default_rng(1)
    home = np.array([0.0, 1.0])
    kinematics = Kinematics(model, ["a1", "a2"], "tip", "base")
    corners = [-0.7, -0.7, -0.1], [0.9, 0.8, 0.1]
    remembering = SelfCollision(model, ["a1", "a2"], "base", home), WorkspaceBox(kinematics, *corners)
    position, forbidden = home, 0
    for _ in range(300):
        goal = np.clip(position + generator.normal(0, 0.4, 2), [-2.9, -3.1], [2.9, 3.1])
        path = position + np.linspace(0, 1, 12)[:, None] * (goal - position)
        for check in remembering:
            fresh = (
                SelfCollision(model, ["a1", "a2"], "base", home)
                if check is remembering[0]
                else WorkspaceBox(kinematics, *corners)
            )
            alone = any(fresh(row[None]) for row in path)
            assert (check(path) is not None) == alone
            forbidden += alone
        position = goal
    assert 30 < forbidden < 500


def test_a_panda_is_judged_as_by_measuring_every_pair_in_every_position():
    """Against MuJoCo's own Python functions, without memory: random motions, many of which are forbidden."""
    scene = load_arm_model("lift", "panda", 20)
    model, arm = scene.model, scene.arms[0]
    names = [model.joint(joint).name for joint in arm.joints]
    base, site = model.body(arm.base).name, model.site(arm.site).name
    robot = RobotFile.load("panda")
    kinematics = Kinematics(model, names, site, base)
    box = WorkspaceBox(kinematics, [-0.6, -0.6, 0.0], [0.7, 0.6, 1.0])
    touch = SelfCollision(model, names, base, arm.home, margin=0.04)
    data, addresses = mujoco.MjData(model), [model.joint(name).qposadr[0] for name in names]

    def touches(position):
        data.qpos[addresses] = position
        mujoco.mj_kinematics(model, data)
        # Exactly zero is how MuJoCo's function fails, see the module.
        gaps = [mujoco.mj_geomDistance(model, data, *pair, 10.0, None) for pair in touch.pairs]
        return any(gap < 0.04 and gap != 0.0 for gap in gaps)

    def leaves(position):
        point = kinematics.forward(position)[:3]
        return not (box.lower <= point).all() or not (point <= box.upper).all()

    generator, seen = np.random.default_rng(0), set()
    position = np.array(arm.home)
    for _ in range(150):
        goal = generator.uniform(robot.limits.lower, robot.limits.upper)
        stride = min(1.0, generator.exponential(0.3))
        path = position + np.linspace(0, stride, 8)[:, None] * (goal - position)
        verdict = any(map(touches, path)), any(map(leaves, path))
        assert (touch(path) is not None, box(path) is not None) == verdict
        seen.add(verdict)
        position = path[-1] if not verdict[0] else np.array(arm.home)
    assert len(seen) == 4, seen


def test_no_joint_moves_the_end_effector_further_than_its_lever(model):
    kinematics = Kinematics(model, ["a1", "a2"], "tip", "base")
    np.testing.assert_allclose(kinematics.levers, [1.0, 0.5])
