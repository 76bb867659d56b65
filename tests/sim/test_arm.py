import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.spatial.transform import Rotation

from robot_rl import sim
from robot_rl.sim.rotation import quaternion_to_6d
from robot_rl.sim.spaces import ActionError
from robot_rl.sim.spec import SpecError, load

TASKS = [
    "lift", "lift_belt", "pick_place_can", "nut_assembly_square", "stack", "door", "tool_hang", "two_arm_transport",
    "two_arm_lift",
]  # fmt: skip


def actions_near(env, count, seed=0):
    """Small random motions in whatever the environment's action is."""
    generator = np.random.default_rng(seed)
    rest = env.rest_action().astype(float)
    scale = 1.0 if env.contract.controller == "osc_pose" else 0.03
    return rest + scale * generator.uniform(-1, 1, (count, len(rest)))


def equal(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("task", TASKS)
def test_tasks_keep_their_contract(task):
    env = sim.make({"task": task, "controller": "ee_delta"})
    observation, info = env.reset(seed=1)
    assert info["seed"] == 1
    assert not env.success
    assert list(observation) == list(env.contract.observation)
    for name, feature in env.contract.observation.items():
        assert observation[name].shape == feature.shape
        assert observation[name].dtype == feature.dtype
        assert np.isfinite(observation[name]).all()
    assert env.observation_space.contains(observation)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation)
    assert (reward, terminated, truncated, info["success"]) == (0.0, False, False, False)
    for name in env.task["objects"]:
        np.testing.assert_allclose(observation[f"{name}_pose"], env.object_poses()[name], atol=1e-6)
    assert json.loads(json.dumps(env.specification)) == env.specification


@pytest.mark.filterwarnings("ignore")
def test_gymnasium_accepts_it():
    env = sim.make({"task": "lift", "horizon": 5})
    check_env(env, skip_render_check=True)
    assert (str(env), env.render_mode) == ("<ArmEnv instance>", "rgb_array")
    assert gymnasium.wrappers.TimeLimit(env, 5).spec is None


def test_two_arms_have_prefixed_features():
    env = sim.make({"task": "two_arm_lift", "robot": ["panda", "ur5e"]})
    assert list(env.contract.action) == [
        "robot0_joint_position", "robot0_gripper_opening", "robot1_joint_position", "robot1_gripper_opening",
    ]  # fmt: skip
    assert env.contract.action_dim == 7 + 1 + 6 + 1
    observation, _ = env.reset(seed=0)
    target = env.rest_action()
    target[env.contract.action_slices["robot1_joint_position"]] += 0.05
    for _ in range(10):
        observation, *_ = env.step(target)
    reached = np.concatenate([observation["robot0_joint_position"], observation["robot1_joint_position"]])
    np.testing.assert_allclose(reached, np.delete(target, [7, 14]), atol=2e-3)


def test_poses_are_those_of_the_scene_in_the_base_frame():
    env = sim.make({"task": "nut_assembly_square"})
    observation, _ = env.reset(seed=3)
    data, arm = env.data, env.arm_model.arms[0]
    base = Rotation.from_matrix(data.xmat[arm.base].reshape(3, 3))
    expected = {
        "ee_pose": (data.site_xpos[arm.site], data.site_xmat[arm.site]),
        "nut_pose": (data.body("SquareNut_main").xpos, data.body("SquareNut_main").xmat),
        "nut_handle_pose": (data.site("SquareNut_handle_site").xpos, data.site("SquareNut_handle_site").xmat),
    }
    for name, (position, matrix) in expected.items():
        pose = observation[name]
        np.testing.assert_allclose(pose[:3], base.inv().apply(position - data.xpos[arm.base]), atol=1e-6)
        rotation = base.inv() * Rotation.from_matrix(matrix.reshape(3, 3))
        assert (Rotation.from_quat(pose[3:], scalar_first=True) * rotation.inv()).magnitude() < 1e-5
        assert pose[3 + np.argmax(np.abs(pose[3:]))] > 0
    peg = base.inv().apply(data.body("peg1").xpos - data.xpos[arm.base])
    np.testing.assert_allclose(env.object_poses()["peg"][:3], peg, atol=1e-12)


@pytest.mark.parametrize("controller", ["joint_position", "ee_pose", "ee_delta"])
@pytest.mark.parametrize("task", ["stack", "door"])
def test_states_continue_bit_by_bit(task, controller):
    env = sim.make({"task": task, "controller": controller})
    env.reset(seed=2)
    actions = actions_near(env, 12)
    start = env.get_state()
    for action in actions[:6]:
        env.step(action)
    middle = env.get_state()
    last = [env.step(action) for action in actions[6:]][-1][0]
    end = env.get_state()
    env.reset(seed=9)
    env.set_state(middle)
    assert equal([env.step(action) for action in actions[6:]][-1][0], last)
    np.testing.assert_array_equal(env.get_state(), end)
    env.set_state(start)
    for action in actions:
        env.step(action)
    np.testing.assert_array_equal(env.get_state(), end)


def test_a_state_shows_the_same_observation():
    env = sim.make({"task": "lift", "controller": "ee_delta"})
    env.reset(seed=0)
    for action in actions_near(env, 4):
        observation, *_ = env.step(action)
    state = env.get_state()
    env.reset(seed=5)
    env.set_state(state)
    assert equal(env.observe(), observation)
    np.testing.assert_array_equal(env.get_state(), state)


def test_states_of_other_tasks_are_refused():
    env, other = sim.make("lift"), sim.make("stack")
    with pytest.raises(ValueError, match="expected a state of shape"):
        env.set_state(other.get_state())


def digest(seed):
    env = sim.make({"task": "door", "controller": "ee_delta"})
    env.reset(seed=seed + 1)
    observation, _ = env.reset(seed=seed)
    parts = [observation[name].tobytes() for name in observation]
    for action in actions_near(env, 3):
        observation = env.step(action)[0]
        parts += [observation[name].tobytes() for name in observation]
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.slow
def test_resets_are_the_same_in_every_process():
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_arm; print(test_arm.digest(7))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [digest(7)]


def test_resets_without_a_seed_follow_from_the_last_one():
    env = sim.make("lift")
    runs = []
    for _ in range(2):
        env.reset(seed=4)
        runs.append([env.reset()[1]["seed"] for _ in range(3)])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 3


def test_success_terminates_and_the_horizon_truncates():
    env = sim.make({"task": "lift", "controller": "ee_delta", "horizon": 2})
    env.reset(seed=0)
    assert env.step(np.zeros(7))[2:4] == (False, False)
    assert env.step(np.zeros(7))[2:4] == (False, True)
    env.reset(seed=0)
    env.data.joint("cube_joint0").qpos[2] += 0.2
    env.refresh()
    assert env.success
    _, reward, terminated, truncated, info = env.step(np.zeros(7))
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)
    env.specification["ends_at_success"] = False
    env.reset(seed=0)
    env.data.joint("cube_joint0").qpos[2] += 0.2
    env.refresh()
    _, reward, terminated, truncated, info = env.step(np.zeros(7))
    assert (reward, terminated, truncated, info["success"]) == (1.0, False, False, True)


def test_a_simulation_that_diverges_is_truncated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log file.
    env = sim.make({"task": "lift", "controller": "ee_delta"})
    env.reset(seed=0)
    env.step(np.zeros(7))
    env.data.qvel[8:] = 1e12
    *_, terminated, truncated, info = env.step(np.zeros(7))
    assert truncated
    assert not terminated
    assert info["diverged"]


@pytest.mark.parametrize(
    "action", [np.full(8, np.nan), np.r_[np.zeros(7), np.inf], np.zeros(7), np.zeros((1, 8)), "up"]
)
def test_malformed_actions_do_not_move(action):
    env = sim.make("lift")
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises((ActionError, ValueError)):
        env.step(action)
    np.testing.assert_array_equal(env.get_state(), before)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"task": "lift", "controller": "cartesian"},
            "no controller 'cartesian'; there are: ee_delta, ee_pose, joint_pos",
        ),
        ({"task": "lift", "cameras": {"kitchen": [8, 8]}}, "no camera 'kitchen'; there are: frontview, birdview"),
        ({"task": "lift", "observation": ["smell"]}, "no such observation: smell; there are: joint_position"),
        ({"task": "lift", "rate_hz": 30}, "rate_hz: expected a divisor of the physics rate 500 Hz, got 30"),
        ({"task": "lift", "stepper": "robosuite"}, "runs controller ee_delta only|runs only controller ee_delta"),
    ],
)
def test_mistakes_are_named(spec, message):
    with pytest.raises(SpecError, match=message):
        sim.make(spec)


def test_observation_can_be_chosen():
    env = sim.make({"task": "lift", "observation": ["cube_pose", "joint_position"]})
    observation, _ = env.reset(seed=0)
    assert set(observation) == set(env.contract.observation) == {"cube_pose", "joint_position"}


@pytest.mark.parametrize("rate_hz", [10, 20, 50])
def test_a_step_lasts_one_control_period(rate_hz):
    env = sim.make({"task": "lift", "controller": "ee_delta", "rate_hz": rate_hz})
    env.reset(seed=0)
    env.step(np.zeros(7))
    assert env.time == pytest.approx(1 / rate_hz)


@pytest.mark.parametrize("robot", ["panda", "ur5e"])
def test_targets_are_reached(robot):
    env = sim.make({"task": "lift", "robot": robot})
    env.reset(seed=0)
    dof = env.arm_model.arms[0].dof
    target = env.rest_action()
    target[:dof] += np.linspace(-0.2, 0.2, dof)
    for _ in range(25):
        observation, *_ = env.step(target)
    np.testing.assert_allclose(observation["joint_position"], target[:dof], atol=1e-3)

    env = sim.make({"task": "lift", "robot": robot, "controller": "ee_pose"})
    observation, _ = env.reset(seed=0)
    turned = Rotation.from_rotvec([0, 0, 0.3]) * Rotation.from_quat(observation["ee_pose"][3:], scalar_first=True)
    goal = observation["ee_pose"][:3] + np.array([0.05, -0.05, 0.04])
    target = np.r_[goal, quaternion_to_6d(turned.as_quat(scalar_first=True)), 0.05]
    for _ in range(30):
        observation, *_ = env.step(target)
    np.testing.assert_allclose(observation["ee_pose"][:3], goal, atol=1e-3)
    reached = Rotation.from_quat(observation["ee_pose"][3:], scalar_first=True)
    assert (reached * turned.inv()).magnitude() < 5e-3


def test_the_gripper_follows_its_opening():
    env = sim.make("lift")
    env.reset(seed=0)
    target = env.rest_action()
    for opening in (0.0, 0.06, 0.03):
        target[-1] = opening
        for _ in range(25):
            observation, *_ = env.step(target)
        assert observation["gripper_opening"][0] == pytest.approx(opening, abs=2e-3)


def test_nothing_is_rendered_and_no_opengl_needed_without_cameras():
    script = (
        "from robot_rl import sim; env = sim.make('lift'); env.reset(seed=0); env.step(env.rest_action()); import sys;"
        "assert 'robot_rl.sim.render' not in sys.modules"
    )
    environment = {**os.environ, "MUJOCO_GL": "disabled"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_importing_sim_is_cheap():
    script = "import sys, robot_rl.sim; assert not {'mujoco', 'robosuite', 'numba', 'gymnasium'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.render
def test_cameras_show_what_moves():
    env = sim.make({"task": "lift", "cameras": {"agentview": [48, 64], "robot0_eye_in_hand": [32, 32]}})
    observation, _ = env.reset(seed=0)
    assert observation["agentview"].shape == (48, 64, 3)
    assert observation["robot0_eye_in_hand"].dtype == np.uint8
    calibration = env.contract.observation["agentview"].calibration
    fovy = np.radians(env.model.camera("agentview").fovy[0])
    assert calibration["fy"] == pytest.approx(24 / np.tan(fovy / 2))
    assert (calibration["cx"], calibration["cy"]) == (31.5, 23.5)
    for _ in range(3):
        moved, *_ = env.step(env.rest_action() + np.r_[0.3, np.zeros(7)])
    assert not np.array_equal(moved["agentview"], observation["agentview"])
    assert env.image("birdview", 16, 24).shape == (16, 24, 3)
    env.close()


@pytest.mark.render
def test_a_camera_looks_from_where_it_is_put():
    env = sim.make({"task": "lift", "cameras": {"agentview": [64, 64]}})
    env.reset(seed=0)
    cube = env.object_poses()["cube"]
    above = np.r_[cube[:2], cube[2] + 0.3, 1, 0, 0, 0]
    env.set_camera_pose("agentview", above)
    picture = env.observe()["agentview"].astype(int)
    camera = env.model.camera("agentview").id
    arm = env.arm_model.arms[0]
    base = Rotation.from_matrix(env.data.xmat[arm.base].reshape(3, 3))
    expected = env.data.xpos[arm.base] + base.apply(above[:3])
    np.testing.assert_allclose(env.data.cam_xpos[camera], expected, atol=1e-9)
    # The red cube fills the middle, seen from above.
    middle = picture[28:36, 28:36]
    assert (middle[..., 0] > 1.5 * middle[..., 1]).mean() > 0.9
    env.set_camera_pose("robot0_eye_in_hand", np.r_[0, 0, 0.1, 1, 0, 0, 0])
    hand = env.model.cam_bodyid[env.model.camera("robot0_eye_in_hand").id]
    offset = env.data.cam("robot0_eye_in_hand").xpos - env.data.xpos[hand]
    np.testing.assert_allclose(offset, 0.1 * env.data.xmat[hand].reshape(3, 3)[:, 2], atol=1e-9)
    with pytest.raises(ValueError, match="finite pose"):
        env.set_camera_pose("agentview", np.zeros(7))
    env.close()


def test_a_camera_that_was_put_elsewhere_is_randomised_around_there():
    env = sim.make({
        "task": "lift", "randomization": {"camera_pose": {"cameras": ["agentview"], "position": 0.02, "rotation": 0.0}}
    })  # fmt: skip
    env.reset(seed=0)
    camera, other = env.model.camera("agentview").id, env.model.camera("frontview").id
    elsewhere = env.model.cam_pos[other].copy()
    env.set_camera_pose("agentview", np.r_[0.3, 0.1, 1.0, 1, 0, 0, 0])
    put = env.model.cam_pos[camera].copy()
    for seed in range(3):
        env.reset(seed=seed)
        moved = np.abs(env.model.cam_pos[camera] - put)
        assert 0 < moved.max() <= 0.02 + 1e-9
        assert (env.model.cam_quat[camera] == [1, 0, 0, 0]).all()
    assert (env.model.cam_pos[other] == elsewhere).all()
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["lift", "lift_belt", "pick_place_can", "stack", "nut_assembly_square", "door"])
def test_scripted_experts_fare_alike_under_robosuites_own_step(task):
    from robot_rl.sim.expert import make_expert

    outcomes = {}
    for stepper in ("fast", "robosuite"):
        env = sim.make({"task": task, "controller": "ee_delta", "stepper": stepper})
        expert = make_expert(env)
        outcomes[stepper] = []
        for seed in range(20):
            env.reset(seed=seed)
            expert.reset()
            terminated = truncated = False
            while not (terminated or truncated):
                _, _, terminated, truncated, _ = env.step(expert.act())
            outcomes[stepper].append(terminated)
    assert outcomes["fast"] == outcomes["robosuite"]


def test_sensors_are_off_and_change_nothing():
    env = sim.make("lift")
    assert env.model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_SENSOR


def test_a_specification_may_hold_the_contents_of_the_files():
    spec = {"task": load("task", "door"), "robot": load("robot", "panda"), "controller": load("controller", "ee_delta")}
    by_name = {"task": "door", "robot": "panda", "controller": "ee_delta"}
    env, other = sim.make(spec), sim.make(by_name)
    assert env.contract == other.contract
    assert json.loads(json.dumps(env.specification)) == env.specification
    np.testing.assert_array_equal(env.get_state(), other.get_state())
