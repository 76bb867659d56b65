import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from robot_rl.sim.arm_model import load_arm_model
from robot_rl.sim.spec import SpecError, available


@pytest.mark.parametrize(
    "robot", ["panda", "ur5e_2f140", "ur5e_panda_hand", pytest.param("sawyer", marks=pytest.mark.slow)]
)
def test_gripper_tables_agree_with_the_pads(robot):
    scene = load_arm_model("lift", robot, 20.0)
    scene.reset(0)
    model, data, arm = scene.model, scene.data, scene.arms[0]
    pads = scene.environment.robots[0].gripper["right"].important_geoms
    model.opt.gravity[:] = 0
    gap = np.empty(6)
    for opening in np.linspace(arm.gripper.opening[0], arm.gripper.max_opening, 4):
        data.ctrl[arm.gripper.actuators] = arm.gripper.commands_of(np.array([opening]))[0]
        for _ in range(500):
            data.qpos[model.jnt_qposadr[arm.joints]] = arm.home
            data.qvel[model.jnt_dofadr[arm.joints]] = 0
            mujoco.mj_step(model, data)
        distance = min(
            mujoco.mj_geomDistance(model, data, model.geom(left).id, model.geom(right).id, 1.0, gap)
            for left in pads["left_fingerpad"]
            for right in pads["right_fingerpad"]
        )
        assert arm.gripper.opening_of(data.qpos) == pytest.approx(distance, abs=0.003)
        assert distance == pytest.approx(opening, abs=0.006)


@pytest.mark.parametrize("robot", [name for name in available("robot") if name != "panda"])
def test_other_robots_stand_in_a_scene(robot):
    scene = load_arm_model("lift", robot, 20.0)
    (arm,) = scene.arms
    assert arm.robot == robot
    assert len(arm.joint_names) == len(arm.motors) == arm.dof == len(arm.limits["lower"])
    lower, upper = (np.asarray(arm.limits[key]) for key in ("lower", "upper"))
    assert ((arm.home > lower) & (arm.home < upper)).all()
    limited = scene.model.jnt_limited[arm.joints].astype(bool)
    assert (lower >= scene.model.jnt_range[arm.joints, 0] - 1e-3)[limited].all()
    assert (upper <= scene.model.jnt_range[arm.joints, 1] + 1e-3)[limited].all()


def test_resets_depend_on_the_seed_alone():
    scene = load_arm_model("stack", "panda", 20.0)
    scene.reset(1)
    first = scene.data.qpos.copy()
    scene.reset(2)
    assert not np.array_equal(first, scene.data.qpos)
    scene.environment.rng.normal(size=5)
    np.random.seed(3)  # noqa: NPY002
    scene.reset(1)
    np.testing.assert_array_equal(first, scene.data.qpos)


def test_number_of_robots_has_to_fit():
    with pytest.raises(SpecError, match="task 'lift' takes 1 robots, got 2: panda, ur5e"):
        load_arm_model("lift", ["panda", "ur5e"], 20.0)
    with pytest.raises(SpecError, match="no robot 'r2d2'; there are: iiwa, kinova3, panda"):
        load_arm_model("lift", "r2d2", 20.0)


def test_robosuite_is_silent_and_leaves_the_environment_alone():
    script = (
        "import os; from robot_rl.sim.arm_model import load_arm_model; load_arm_model('lift', 'panda', 20.0);"
        "assert 'MUJOCO_GL' not in os.environ"
    )
    environment = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_robosuite_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "robosuite", None)
    with pytest.raises(SpecError, match=r"pip install --no-deps robosuite==1\.5\.2"):
        load_arm_model("lift", "panda", 20.0)
