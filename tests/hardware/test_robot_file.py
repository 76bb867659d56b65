"""Robot files: shipped ones against data sheets and the simulation's contracts; every kind of mistake is told."""

import copy
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from robot_rl import sim
from robot_rl.datasets import Contract, ContractError
from robot_rl.datasets.contract import Feature
from robot_rl.hardware.alignment import Alignment
from robot_rl.hardware.px4.vehicle_file import load_robot
from robot_rl.hardware.robot_file import FOLDER, RobotFile, RobotFileError, Scale, shipped
from robot_rl.hardware.safety.supervisor_state import Observation, State

SHIPPED = ("panda", "so101", "ur5e")
SHEETS = {
    # Franka Control Interface documentation, "Limits for Panda".
    "panda": {
        "lower": [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973],
        "upper": [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973],
        "velocity": [2.1750, 2.1750, 2.1750, 2.1750, 2.6100, 2.6100, 2.6100],
        "acceleration": [15, 7.5, 10, 12.5, 15, 20, 20],
        "jerk": [7500, 3750, 5000, 6250, 7500, 10000, 10000],
    },
    # UR5e technical specifications: ±360°, 180°/s.
    "ur5e": {"lower": [-2 * np.pi] * 6, "upper": [2 * np.pi] * 6, "velocity": [np.pi] * 6},
    # STS3215: 0.222 s per 60°.
    "so101": {"velocity": [np.radians(60) / 0.222] * 5},
}


@pytest.fixture(scope="module")
def panda():
    return yaml.safe_load((FOLDER / "panda.yaml").read_text())


def load(tmp_path, plain):
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(plain))
    return RobotFile.load(path)


def test_the_shipped_files_load_and_the_template_too() -> None:
    assert tuple(name for name in shipped() if isinstance(load_robot(name), RobotFile)) == SHIPPED
    for name in (*SHIPPED, FOLDER / "template.yaml"):
        robot = RobotFile.load(name)
        assert set(robot.commands) == {"joint_position", "gripper_opening"}
        assert 100 <= robot.command_rate_hz <= 1000
        assert robot.contract.rate_hz == 20


@pytest.mark.parametrize("name", SHIPPED)
def test_limits_stay_within_the_data_sheets(name) -> None:
    limits, sheet = RobotFile.load(name).limits, SHEETS[name]
    for key, numbers in sheet.items():
        ours = getattr(limits, key)
        assert (ours >= numbers).all() if key == "lower" else (ours <= numbers).all(), key


@pytest.mark.parametrize(("name", "simulated"), [("panda", "panda"), ("ur5e", "ur5e_panda_hand")])
@pytest.mark.parametrize("controller", ["joint_position", "ee_pose"])
def test_what_the_simulation_observes_and_executes_the_robot_does_too(name, simulated, controller) -> None:
    spec = {"task": "lift", "robot": simulated, "controller": controller}
    env = sim.make(spec)
    camera = Feature("agentview", (84, 84, 3), "uint8", kind="image", calibration={"fx": 101.4})
    contract = replace(env.contract, observation={**env.contract.observation, "agentview": camera})
    robot = RobotFile.load(name).for_policy(contract)
    assert list(robot.contract.observation) == list(contract.observation)
    assert robot.contract.action_names == env.contract.action_names
    assert robot.contract.controller == env.contract.controller
    assert robot.streams["cube_pose"].topic == "/cube_pose"
    # Equal ids mean equal behaviour: the limits are those of the simulation.
    for key, numbers in env.arm_model.arms[0].limits.items():
        np.testing.assert_array_equal(getattr(robot.limits, key), numbers, key)
    np.testing.assert_allclose(robot.home, env.arm_model.arms[0].home, atol=1e-8)
    assert robot.streams["agentview"].feature.shape == (84, 84, 3)
    assert robot.streams["agentview"].camera_info == "/agentview/camera_info"
    env.close()


@pytest.mark.parametrize(("name", "simulated"), [("panda", "panda"), ("ur5e", "ur5e_panda_hand")])
def test_the_computed_pose_is_that_of_the_simulation(name, simulated) -> None:
    env = sim.make({"task": "lift", "robot": simulated, "observation": ["joint_position", "ee_pose"]})
    robot = RobotFile.load(name).for_policy(env.contract)
    alignment, generator = Alignment(robot), np.random.default_rng(0)
    observation, _ = env.reset(seed=3)
    for step in range(5):
        observation, *_ = env.step(env.rest_action() + generator.normal(0, 0.05, env.contract.action_dim))
        alignment.push("joint_position", step, step, observation["joint_position"].astype(float))
        row = alignment.row(step)
        np.testing.assert_allclose(row.observation["ee_pose"], observation["ee_pose"], atol=2e-6)
        assert row.observation["ee_pose"].dtype == np.float32
    env.close()


def test_only_what_a_policy_needs_stays() -> None:
    wanted = RobotFile.load("panda").contract.select(["gripper_opening"])
    robot = RobotFile.load("panda").for_policy(wanted)
    assert list(robot.contract.observation) == ["gripper_opening"]
    # The Supervisor watches the arm whatever the policy looks at.
    assert set(robot.streams) == {"joint_position", "gripper_opening"}
    assert robot.computed == {}


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda plain: plain["observation"].update(force={"shape": [6]}), "observation.force: needed by"),
        (lambda plain: plain["observation"]["joint_position"].update(unit="deg"), "unit: 'deg' against 'rad'"),
        (lambda plain: plain["observation"]["joint_position"]["names"].reverse(), "joint_position.names"),
        (lambda plain: plain.update(rate_hz=10), "rate_hz: 10.0 against 20.0"),
        (lambda plain: plain.update(controller="osc_pose"), "controller: 'osc_pose' against 'servo_joint_position'"),
        (lambda plain: plain["action"].pop("gripper_opening"), "action: ['joint_position'] against"),
    ],
)
def test_a_policy_for_something_else_is_refused(change, difference) -> None:
    robot = RobotFile.load("panda")
    plain = copy.deepcopy(robot.contract.select(["joint_position"]).to_dict())
    change(plain)
    with pytest.raises(ContractError, match="does not satisfy") as caught:
        robot.for_policy(Contract.from_dict(plain))
    assert any(difference in line for line in caught.value.differences), caught.value


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda p: p.pop("home"), "home: missing"),
        (lambda p: p.update(colour="red"), "colour: no such key"),
        (lambda p: p["home"].__setitem__(3, 0.5), "home: joint4 at 0.5 is outside"),
        (lambda p: p["limits"].pop("jerk"), "missing: ['jerk']"),
        (lambda p: p["limits"]["velocity"].pop(), "limits:"),
        (lambda p: p["joints"].pop(), "limits: for 7 joints, but there are 6"),
        (lambda p: p.update(command_rate_hz=50), "expected 100 to 1000"),
        (lambda p: p.update(tick_rate_hz=300), "command_rate_hz / tick_rate_hz: expected a whole number"),
        (lambda p: p.update(rate_hz=30), "tick_rate_hz / rate_hz: expected a whole number"),
        (lambda p: p.update(rate_hz="fast"), "rate_hz: expected a positive number"),
        (lambda p: p.update(controllers=["osc_pose"]), "controllers: expected one of"),
        (lambda p: p.update(safe_state="drop"), "safe_state: expected one of brake"),
        (lambda p: p.update(model={"sim": "r2d2"}), "model.sim: expected one of"),
        (lambda p: p.update(model={"file": "none.xml"}), "no file none.xml beside"),
        (lambda p: p.pop("model"), "needs a model"),
        (lambda p: p["workspace"].update(lower=[1, 1, 1]), "must be below upper"),
        (lambda p: p["watchdog"].update(patience=1), "watchdog.patience: no such key"),
        (lambda p: p["watchdog"].update(action=0), "watchdog.action: expected a positive number"),
        (lambda p: p["observation"].pop("joint_position"), "the Supervisor watches the arm through it"),
        (lambda p: p["observation"]["gripper_opening"].pop("stream"), "gripper_opening.stream: expected a mapping"),
        (lambda p: stream(p).update(type="sensor_msgs/msg/Joy"), "type: expected one of"),
        (lambda p: stream(p).update(field="angle"), "field: sensor_msgs/msg/JointState has 'position'"),
        (lambda p: stream(p)["elements"].pop(), "has 7 numbers, the stream gives 6"),
        (lambda p: stream(p)["elements"].__setitem__(0, "panda_joint2"), "a joint is named twice"),
        (lambda p: stream(p).update(clock="atomic"), "clock: expected one of header, receive"),
        (lambda p: stream(p).update(align="nearest"), "align: expected one of latest, interpolate"),
        (lambda p: stream(p).update(delay=0.2), "is not below max_age"),
        (lambda p: stream(p).update(max_age="old"), "max_age: expected a number, got 'old'"),
        (lambda p: stream(p).update(qos={"reliability": "sure"}), "reliability is 'reliable' or 'best_effort'"),
        (lambda p: stream(p).update(scale={"graph": [0, 0], "value": [0, 1]}), "rising or falling"),
        (lambda p: p["task_features"]["*"]["stream"].update(align="interpolate"), "images cannot be interpolated"),
        (lambda p: p["task_features"]["*_pose"].update(shape=[6]), "position_quaternion has 7 elements"),
        (lambda p: p["commands"].pop("joint_position"), "commands.joint_position: missing"),
        (lambda p: p["commands"]["joint_position"].update(type="std_msgs/msg/String"), "type: expected one of"),
        (lambda p: p["commands"]["joint_position"]["elements"].pop(), "expected 7 joint names, got 6"),
        (lambda p: p["commands"]["joint_position"].update(scale={"graph": [0, 1], "value": [0, 2]}), "in radians"),
        (
            lambda p: p["commands"]["joint_position"].update(type="std_msgs/msg/Float64MultiArray"),
            "a forward controller takes one point per message",
        ),
    ],
)
def test_a_mistake_in_a_file_is_told(tmp_path, panda, change, problem) -> None:
    plain = copy.deepcopy(panda)
    change(plain)
    with pytest.raises(RobotFileError) as caught:
        load(tmp_path, plain)
    assert any(problem in line for line in caught.value.problems), caught.value


def stream(plain):
    return plain["observation"]["joint_position"]["stream"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"kind": "dynamixel"}, "driver.kind: expected one of feetech"),
        ({"at_exit": "fall"}, "driver.at_exit: expected one of release, hold"),
        ({"timeout": 0}, "driver.timeout: expected a positive number"),
        ({"settings": {"gain": 3}}, "driver.settings.gain: no such key"),
        ({"settings": {"p_gain": 256}}, "driver.settings.p_gain: expected a whole number from 0 to 255"),
        ({"motors": {"gripper": {"id": 6}}}, "driver.motors: missing elbow_flex, shoulder_lift"),
        ({"motors": {"gripper": {"number": 6}}}, "driver.motors.gripper.id: missing"),
        ({"motors": {"gripper": {"id": 6}, "wrist": {"id": 6}}}, "expected a different id from 0 to 253 for each"),
        ({"motors": {"gripper": {"id": 6, "range": "half"}}}, "gripper.range: expected one of measured, full"),
    ],
)
def test_a_mistake_in_a_driver_is_told(tmp_path, change, problem) -> None:
    plain = yaml.safe_load((FOLDER / "so101.yaml").read_text())
    plain["driver"] |= change
    plain["model"]["file"] = str(FOLDER / "so101.xml")
    with pytest.raises(RobotFileError) as raised:
        load(tmp_path, plain)
    assert problem in str(raised.value)


def test_all_mistakes_are_told_at_once(tmp_path, panda) -> None:
    plain = copy.deepcopy(panda)
    plain["home"] = [0.0]
    plain["safe_state"] = "drop"
    stream(plain)["field"] = "angle"
    with pytest.raises(RobotFileError) as caught:
        load(tmp_path, plain)
    assert len(caught.value.problems) >= 3


def test_unreadable_files_are_told(tmp_path) -> None:
    with pytest.raises(RobotFileError, match="shipped are panda, px4, so101, ur5e"):
        RobotFile.load("r2d2")
    path = tmp_path / "robot.yaml"
    for text, message in (("a: [", "not valid YAML"), ("- a", "expected a mapping")):
        path.write_text(text)
        with pytest.raises(RobotFileError, match=message):
            RobotFile.load(path)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_supervisor_of_a_file_goes_home_within_its_limits(name) -> None:
    robot = RobotFile.load(name)
    supervisor = robot.make_supervisor()
    position, now, rows = np.array(robot.home) + 0.1, 100.0, []
    for tick in range(20 * round(robot.tick_rate_hz)):
        now += 1 / robot.tick_rate_hz
        command, status = supervisor.tick(now, Observation(now, position, 0.0))
        if tick == 1:
            supervisor.home(now)
        if command is not None:
            assert len(command.position) == robot.periods
            rows.append(command.position)
            position = command.position[-1]
        if status.state is State.READY:
            break
    assert status.state is State.READY
    np.testing.assert_allclose(position, robot.home, atol=1e-9)
    speed = np.abs(np.diff(np.concatenate(rows), axis=0)).max() * robot.command_rate_hz
    assert speed <= robot.homing_speed * 1.2


def test_the_model_of_the_so101_is_the_makers() -> None:
    """Joint origins of the maker's URDF: x y z and roll pitch yaw, beside whose MJCF the model was made."""
    origins = [
        ((-0.0303992, -0.0182778, -0.0542), (-1.5708, -1.5708, 0)),
        ((-0.11257, -0.028, 0), (0, 0, 1.5708)),
        ((-0.1349, 0.0052, 0), (0, 0, -1.5708)),
        ((0, -0.0611, 0.0181), (1.5708, 0, 3.14159)),
    ]
    robot = RobotFile.load("so101")
    kinematics = robot.kinematics()
    generator = np.random.default_rng(0)
    for _ in range(20):
        joints = generator.uniform(robot.limits.lower, robot.limits.upper)
        position = kinematics.forward(joints)[:3]
        joints[4] -= 0.04868  # the MJCF centres the range of wrist_roll
        rotation = Rotation.from_euler("y", np.pi) * Rotation.from_euler("z", joints[0])
        place = np.array([0.0388353, 0, 0.0624])
        for (xyz, rpy), joint in zip(origins, joints[1:], strict=True):
            place = place + rotation.apply(xyz)
            rotation = rotation * Rotation.from_euler("xyz", rpy) * Rotation.from_euler("z", joint)
        place = place + rotation.apply([-0.0079, -0.000218121, -0.0981274])
        np.testing.assert_allclose(position, place, atol=1e-4)


def test_a_scale_goes_both_ways() -> None:
    scale = Scale((0.0, 0.4, 0.8), (0.085, 0.05, 0.0))
    np.testing.assert_allclose(scale.to_value([-1, 0.2, 0.8, 2]), [0.085, 0.0675, 0, 0])
    np.testing.assert_allclose(scale.to_graph(scale.to_value([0.1, 0.5, 0.7])), [0.1, 0.5, 0.7])


def test_reading_a_file_stays_light() -> None:
    code = (
        "import sys, robot_rl.hardware.robot_file, robot_rl.robots; "
        "heavy = {'torch', 'mujoco', 'robosuite', 'numba', 'cyclonedds', 'rosbags', 'cv2'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
