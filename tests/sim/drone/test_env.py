import json
import math
from dataclasses import replace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from robot_rl import sim
from robot_rl.datasets.contract import Contract, equal
from robot_rl.sim import message
from robot_rl.sim.drone import episode, expert
from robot_rl.sim.drone.spec import CONTROLLERS, FOLDER, available
from robot_rl.sim.drone.vehicle_model import load_vehicle
from robot_rl.sim.spaces import ActionError
from robot_rl.sim.spec import SpecError, resolve

TASKS = [f"drone/{name}" for name in available("task")]


def fly_all(spec, num: int, seeds) -> dict[int, dict]:
    """Infos of the last step of the expert's episodes, by seed."""
    with sim.make_vector(spec, num) as venv:
        _, info = venv.reset(seed=seeds)
        finals = {}
        while info["active"].any():
            _, _, terminated, truncated, info = venv.step(expert.act(venv.world))
            for index in np.flatnonzero(terminated | truncated):
                finals[int(info["seed"][index])] = info["final_info"][index]
    return finals


@pytest.mark.parametrize("task", TASKS)
def test_is_an_environment_of_gymnasium(task):
    env = sim.make(task)
    check_env(sim.make(task), skip_render_check=True)
    assert set(env.contract.observation) == set(env.observe())
    for name, feature in env.contract.observation.items():
        assert env.observe()[name].shape == feature.shape
        assert env.observe()[name].dtype == np.float32
    equal(env.contract, Contract.from_dict(json.loads(env.contract.to_json())))
    message.encode([env.specification, env.reset(seed=0)[1]])


@pytest.mark.parametrize("controller", list(CONTROLLERS))
@pytest.mark.parametrize("task", ["drone/hover", "drone/takeoff_land", "drone/figure8", "drone/gates"])
def test_the_expert_flies_by_every_controller(task, controller):
    finals = fly_all({"task": task, "controller": controller}, 4, range(4))
    assert all(final["success"] for final in finals.values()), finals


def test_tracks_the_figure_8_within_five_centimetres():
    for vehicle in ("x500", "px4_sih", "cf21B_500"):
        (final,) = fly_all({"task": "drone/figure8", "robot": vehicle}, 1, [0]).values()
        assert final["success"]
        assert final["metrics"]["position_rmse"] < 0.05


@pytest.mark.slow
def test_passes_the_gates():
    finals = fly_all("drone/gates", 50, range(100))
    assert sum(final["success"] for final in finals.values()) >= 99
    assert all(final["metrics"]["gate_margin"] > 0 for final in finals.values())
    assert all(4 < final["metrics"]["lap_time"] < 8 for final in finals.values())


@pytest.mark.slow
def test_passes_most_gates_that_were_moved():
    moved = {"task": "drone/gates", "randomization": {"gates": {"position": 0.15, "yaw": 0.2}}}
    finals = fly_all(moved, 50, range(100))
    assert sum(final["success"] for final in finals.values()) >= 95


def test_an_idle_drone_fails():
    env = sim.make("drone/figure8")
    env.reset(seed=0)
    rest, over = env.rest_action(), False
    while not over:
        _, _, terminated, truncated, info = env.step(rest)
        over = terminated or truncated
    assert terminated
    assert not info["success"]


def test_a_frame_is_a_crash():
    env = sim.make({"task": "drone/gates", "controller": "position"})
    env.world.rules[episode.DISTANCE] = 9.0
    env.reset(seed=0)
    x, y, z = env.world.gates[0, 0, :3]
    for step in range(300):
        goal = [x + 0.28, y - 0.7, z, 0.0] if step < 150 else [x + 0.28, y + 0.5, z, 0.0]
        _, _, terminated, truncated, info = env.step(np.array(goal, np.float32))
        if terminated or truncated:
            break
    assert step > 150
    assert terminated
    assert not info["success"]
    assert info["metrics"]["gates_passed"] == 0


def test_one_and_many_give_the_same_episodes():
    spec = {"task": "drone/hover", "randomization": "full"}
    single = sim.make(spec)
    with sim.make_vector(spec, 5) as venv:
        observations, info = venv.reset(seed=range(5))
        first, single_info = single.reset(seed=3)
        assert info["reset_info"][3] == single_info
        for name, value in first.items():
            np.testing.assert_array_equal(observations[name][3], value)
        action = venv.call("rest_action")[0]
        for _ in range(60):
            observations, _, terminated, truncated, _ = venv.step(np.stack([action] * 5))
            first, _, ended, over, _ = single.step(action)
            assert (terminated[3], truncated[3]) == (ended, over)
            if ended or over:
                break
            for name, value in first.items():
                np.testing.assert_array_equal(observations[name][3], value, err_msg=name)


@pytest.mark.parametrize(
    "task",
    [
        "hover",
        "gates",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("takeoff_land", "figure8", "lissajous", "corridor")),
    ],
)
def test_an_episode_is_the_same_among_many_and_alone(task):
    spec = {"task": f"drone/{task}", "randomization": "kicked", "controller": "velocity"}
    seeds = [*range(68), 2**31, 2**40]
    alone = sim.make(spec)
    with sim.make_vector(spec, len(seeds)) as venv:
        observation, info = venv.reset(seed=seeds)
        begun, action = venv.get_states(), np.full((len(seeds), 4), 0.1, np.float32)
        for _ in range(3):
            flown = venv.step(action)[0]
        states, world = venv.get_states(), venv.world
        for row, seed in enumerate(seeds):
            first, told = alone.reset(seed=seed)
            assert told == info["reset_info"][row]
            np.testing.assert_array_equal(alone.world.table[0], world.table[row])
            np.testing.assert_array_equal(alone.world.gates[0], world.gates[row])
            np.testing.assert_array_equal(alone.world.goals[0], world.goals[row])
            np.testing.assert_array_equal(alone.get_state(), begun[row])
            for _ in range(3):
                last = alone.step(action[row])[0]
            np.testing.assert_array_equal(alone.get_state(), states[row])
            for name in first:
                np.testing.assert_array_equal(first[name], observation[name][row], err_msg=name)
                np.testing.assert_array_equal(last[name], flown[name][row], err_msg=name)
        looked = world.look()
        for name, columns in world.parts.items():
            np.testing.assert_array_equal(looked[:, columns], flown[name])


def test_a_record_that_is_given_is_used_for_its_drone_alone():
    spec = {"task": "drone/gates", "randomization": "full"}
    worlds = [sim.make_vector(spec, 3).world for _ in range(2)]
    drawn = [info["randomization"] for info in worlds[0].begin(range(3), [5, 6, 7])]
    given = json.loads(json.dumps(drawn[2]))
    used = [info["randomization"] for info in worlds[1].begin(range(3), [5, 6, 7], [None, given, None])]
    assert used == [drawn[0], drawn[2], drawn[2]]
    np.testing.assert_array_equal(worlds[0].get_states()[[0, 2]], worlds[1].get_states()[[0, 2]])
    np.testing.assert_array_equal(worlds[1].gates[1], worlds[1].gates[2])


def test_resets_in_the_same_step_and_hands_over_the_final_observation():
    with sim.make_vector({"task": "drone/hover", "horizon": 3}, 2) as venv:
        venv.reset(seed=[10, 11, 12])
        rest = np.stack(venv.call("rest_action"))
        for _ in range(2):
            venv.step(rest)
        observations, _, _, truncated, info = venv.step(rest)
        assert truncated.tolist() == [True, True]
        assert info["success"].tolist() == [False, False]  # hovering counts from 3 s on
        assert info["seed"].tolist() == [10, 11]
        assert info["active"].tolist() == [True, False]
        assert info["reset_info"][0]["seed"] == 12
        assert info["final_info"][0]["metrics"]["position_rmse"] is None
        assert not np.array_equal(info["final_obs"][0]["position"], observations["position"][0])
        np.testing.assert_array_equal(info["final_obs"][1]["position"], observations["position"][1])
        held = observations["position"][1]
        observations, reward, *_ = venv.step(rest)
        np.testing.assert_array_equal(observations["position"][1], held)
        assert reward[1] == 0


@pytest.mark.parametrize("task", ["drone/figure8", "drone/gates"])
def test_continues_from_a_state_bit_by_bit(task):
    spec = {"task": task, "randomization": "full"}
    env, other = sim.make(spec), sim.make(spec)
    env.reset(seed=4)
    actions = [env.rest_action() + np.float32(0.01 * np.sin(step)) for step in range(40)]
    for action in actions[:20]:
        env.step(action)
    state = env.get_state()
    assert state.dtype == float
    assert np.isfinite(state).all()
    wanted = [env.step(action) for action in actions[20:]]
    other.reset(seed=4)
    other.set_state(state)
    for action, (observation, reward, *_) in zip(actions[20:], wanted, strict=True):
        again, reward_again, *_ = other.step(action)
        assert reward_again == reward
        for name, value in observation.items():
            np.testing.assert_array_equal(again[name], value, err_msg=name)
    with pytest.raises(ValueError, match="expected states"):
        other.set_state(state[:-1])


def test_a_record_repeats_its_episode():
    env = sim.make({"task": "drone/gates", "randomization": "full"})
    _, info = env.reset(seed=5)
    record = json.loads(json.dumps(info["randomization"]))
    _, other = env.reset(seed=6)
    assert other["randomization"] != record
    env.reset(seed=5, options={"randomization": record})
    gates = env.world.gates.copy()
    env.reset(seed=5)
    np.testing.assert_array_equal(env.world.gates, gates)
    with pytest.raises(SpecError, match="another configuration"):
        env.reset(seed=5, options={"randomization": {"mass": 1.0}})


def test_sensors_see_what_is_there():
    env = sim.make({"task": "drone/figure8"})
    env.reset(seed=0)
    for _ in range(150):
        observation, *_ = env.step(expert.act(env.world)[0])
    batch = env.world.batch
    np.testing.assert_allclose(observation["gyro"], batch.read("rates")[0], atol=1e-6)
    position = batch.read("position")[0]
    np.testing.assert_allclose(observation["reference"][:3], env.world.table[0, 150, :3] - position, atol=1e-6)
    np.testing.assert_allclose(observation["reference"][-3:], env.world.table[0, 170, :3] - position, atol=1e-6)
    # A point of the ground below, moved on by the motion of the body: its direction changes at the rate of the flow.
    h = 1e-3
    q = batch.read("quaternion")[0].astype(float)

    def direction(position: np.ndarray, quaternion: np.ndarray, point: np.ndarray) -> np.ndarray:
        w, x, y, z = quaternion / np.linalg.norm(quaternion)
        skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        matrix = np.eye(3) + 2 * w * skew + 2 * skew @ skew
        seen = matrix.T @ (point - position)
        return seen[:2] / -seen[2]

    w, x, y, z = q
    down = -np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
    here = batch.read("position")[0].astype(float)
    point = here + down * observation["range"][0]
    assert point[2] == pytest.approx(0, abs=1e-5)
    a, b, c = batch.read("rates")[0].astype(float)
    change = 0.5 * np.array([
        -x * a - y * b - z * c,
        w * a + y * c - z * b,
        w * b + z * a - x * c,
        w * c + x * b - y * a,
    ])
    later = direction(here + h * batch.read("velocity")[0], q + h * change, point)
    np.testing.assert_allclose(observation["optical_flow"], (later - direction(here, q, point)) / h, atol=5e-3)


def test_gates_are_seen_in_their_order():
    env = sim.make("drone/gates")
    observation, _ = env.reset(seed=0)
    np.testing.assert_allclose(observation["position"] + observation["next_gate"][:3], [2.0, 0.0, 0.8], atol=1e-6)
    np.testing.assert_allclose(observation["next_gate"][3:], [np.cos(np.pi / 4), 0, 0, np.sin(np.pi / 4)], atol=1e-4)
    passed = 0
    while not passed:
        observation, reward, *_ = env.step(expert.act(env.world)[0])
        passed = reward
    np.testing.assert_allclose(observation["position"] + observation["next_gate"][:3], [0.0, 2.0, 1.2], atol=1e-6)
    np.testing.assert_allclose(observation["position"] + observation["gate_after"][:3], [-2.0, 0.0, 0.8], atol=1e-6)


def test_selects_observations():
    env = sim.make({"task": "drone/hover", "observation": ["position", "attitude"]})
    assert list(env.contract.observation) == ["position", "attitude"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "drone/loop"}, "figure8"),
        ({"robot": "plane"}, "x500"),
        ({"controller": "joint_position"}, "ctbr"),
        ({"rate_hz": 33}, "divisor of 500"),
        ({"rate_hz": 0}, "rate_hz: expected a positive number"),
        ({"horizon": 0}, "horizon"),
        ({"observation": ["smell"]}, "position"),
        ({"randomization": {"masss": [1, 2]}}, "no entry masss"),
        ({"randomization": {"wind": {"force": 2}}}, "speed"),
        ({"randomization": {"mass": [2, 1]}}, "low, high"),
        ({"randomization": {"mass": 0}}, "mass: expected .* above 0, got 0"),
        ({"randomization": {"thrust": [0, 0]}}, "thrust: expected .* above 0"),
        ({"randomization": {"battery": {"endurance": 0}}}, r"battery\.endurance: expected .* above 0"),
        ({"randomization": {"drag": [1, math.inf]}}, "drag: expected a finite number"),
        ({"randomization": {"wind": {"speed": math.nan}}}, r"wind\.speed: expected a finite number"),
        ({"randomization": {"command": {"drop": 2}}}, r"command\.drop: expected at most 1, got 2"),
        ({"randomization": {"battery": {"charge": [0.5, 50]}}}, r"battery\.charge: expected at most 1"),
        ({"randomization": {"command": {"delay": 1e9}}}, "at most 1 s together, got 1e.09"),
        ({"randomization": {"command": {"delay": [0, 0.9], "jitter": 0.2}}}, "at most 1 s together, got 1.1"),
        ({"stepper": "fast"}, "no key stepper"),
        ({"cameras": {"front": [8, 8]}}, "onboard"),
        ({"cameras": {"onboard": 8}}, "height, width"),
    ],
)
def test_says_what_exists(change, message):
    with pytest.raises(SpecError, match=message):
        sim.make({"task": "drone/hover", **change})


def test_the_longest_delay_of_commands_is_flown():
    env = sim.make({"task": "drone/hover", "randomization": {"command": {"delay": [0.0, 0.8], "jitter": 0.2}}})
    env.reset(seed=0)
    for _ in range(60):
        observation, *_ = env.step(env.rest_action())
    assert all(np.isfinite(values).all() for values in observation.values())


def test_gates_move_within_a_number_or_the_upper_of_two():
    envs = [
        sim.make({"task": "drone/gates", "randomization": {"gates": {"position": reach, "yaw": 0.1}}})
        for reach in (0.1, [0.0, 0.1])
    ]
    drawn = [env.reset(seed=3)[1]["randomization"] for env in envs]
    assert drawn[0] == drawn[1]


def test_refuses_actions_that_cannot_be_flown():
    env = sim.make("drone/hover")
    with pytest.raises(ActionError, match="throttle"):
        env.step(np.zeros(3))
    with pytest.raises(ActionError, match="finite"):
        env.step(np.array([np.nan, 0, 0, 0]))
    with sim.make_vector("drone/hover", 2) as venv:
        venv.reset(seed=0)
        with pytest.raises(ValueError, match=r"environments \[1\]"):
            venv.step(np.array([[0.3, 0, 0, 0], [np.nan, 0, 0, 0]]))
        with pytest.raises(ValueError, match="rest_action"):
            venv.call("explode")


@pytest.mark.parametrize("task", ["drone/hover", "drone/gates"])
def test_a_broken_simulation_is_truncated_and_earns_nothing(task):
    env = sim.make(task)
    env.reset(seed=0)
    env.world.batch.write("velocity", np.full(3, np.nan))
    _, reward, terminated, truncated, info = env.step(env.rest_action())
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info == {"success": False, "diverged": True}


def test_the_specification_is_plain_and_resolves_to_itself():
    spec = resolve({"task": "drone/gates", "randomization": "test"})
    assert spec["robot"] == "cf21B_500"
    assert resolve(json.loads(json.dumps(spec))) == spec


def test_a_vehicle_of_ones_own_goes_with_what_was_recorded_with_it(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text((FOLDER / "vehicle" / "x500.yaml").read_text().replace("name: x500", "name: mine"))
    kept = json.loads(json.dumps(sim.make({"task": "drone/hover", "robot": str(path)}).specification))
    path.unlink()
    env = sim.make(kept)
    assert env.world.vehicle == replace(load_vehicle("x500"), name="mine")
    assert env.contract.name == "drone_hover_mine_ctbr"
    assert sim.make({**kept, "robot": None}).world.vehicle != env.world.vehicle
    with pytest.raises(SpecError, match=r"no vehicle '.*mine\.yaml'"):
        resolve({"task": "drone/hover", "robot": str(path)})
