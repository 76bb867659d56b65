import numpy as np
import pytest

from robot_rl import sim
from robot_rl.sim.drone import expert
from robot_rl.sim.drone import real_time_iteration as rti
from robot_rl.sim.drone.mpc import Mpc
from robot_rl.sim.spec import SpecError


def fly_all(spec, num: int, seeds) -> list[dict]:
    """Infos of the last step of the expert's episodes."""
    finals = []
    with sim.make_vector(spec, num) as venv:
        _, info = venv.reset(seed=seeds)
        act = expert.start(venv.world, "mpc")
        while info["active"].any():
            _, _, terminated, truncated, info = venv.step(act())
            finals += [info["final_info"][index] for index in np.flatnonzero(terminated | truncated)]
    return finals


@pytest.mark.parametrize("vehicle", ["x500", "px4_sih", "cf21B_500", "racer"])
def test_its_model_foresees_the_flight(vehicle):
    """Two fifths of a second, with wind and another mass than the nominal one."""
    factors = {"mass": 1.2, "thrust": 0.9, "wind": {"speed": 2}}
    env = sim.make({"task": "drone/figure8", "robot": vehicle, "randomization": factors})
    env.reset(seed=3)
    mpc, world = Mpc(env.world), env.world
    for _ in range(60):
        env.step(expert.act(world)[0])
    batch = world.batch
    odometry, rotors = batch.read("odometry")[0].astype(float), float(batch.read("rotors").mean())
    state, model = np.concatenate([odometry[:10], [rotors], odometry[10:]]), mpc._models()[0]
    action = env.rest_action() * np.float32(1.4) + np.array([0, 0.3, -0.2, 0.1], np.float32)
    start = state[:3] + 0.4 * state[3:6]
    for _ in range(20):
        env.step(action)
        state = rti.flow(state, mpc._input(action), model, world.period)
    moved = batch.read("odometry")[0].astype(float)
    assert np.linalg.norm(moved[:3] - start) > 0.05
    np.testing.assert_allclose(state[:3], moved[:3], atol=0.025)
    assert abs(state[6:10] @ moved[6:10]) > np.cos(0.06 / 2)


@pytest.mark.slow
def test_tracks_the_figure_8_within_five_centimetres():
    for vehicle in ("x500", "px4_sih", "cf21B_500"):
        (final,) = fly_all({"task": "drone/figure8", "robot": vehicle}, 1, [0])
        assert final["success"]
        assert final["metrics"]["position_rmse"] < 0.05


@pytest.mark.slow
def test_passes_the_gates():
    finals = fly_all("drone/gates", 25, range(25))
    assert all(final["success"] for final in finals)
    assert all(final["metrics"]["gate_margin"] > 0.1 for final in finals)


@pytest.mark.slow
def test_flies_with_commands_as_late_as_an_eighth_of_a_second():
    """The geometric expert does not: what arrives is meant for where the drone was."""
    spec = {"task": "drone/figure8", "randomization": {"command": {"delay": 0.125}}, "horizon": 300}
    (final,) = fly_all(spec, 1, [0])
    assert final["success"]
    assert final["metrics"]["position_rmse"] < 0.05


@pytest.mark.slow
def test_keeps_an_action_while_nothing_moves_and_begins_anew_with_an_episode():
    env = sim.make("drone/hover")
    mpc = Mpc(env.world)
    env.reset(seed=1)
    first = mpc.act()
    np.testing.assert_array_equal(mpc.act(), first)
    for _ in range(5):
        env.step(mpc.act()[0])
    env.reset(seed=1)
    np.testing.assert_array_equal(mpc.act(), first)


@pytest.mark.slow
def test_does_not_think_for_drones_without_an_episode(monkeypatch):
    solved = []
    monkeypatch.setattr(rti, "iterate", lambda states, *_: solved.append(states))
    envs = sim.make_vector("drone/hover", 8)
    mpc = Mpc(envs.world)
    envs.reset(seed=[1, 2])
    for _ in range(3):
        envs.step(mpc.act())
    assert len(solved) == 2 * 3


@pytest.mark.slow
def test_keeps_within_the_bounds():
    env = sim.make({"task": "drone/hover", "robot": "x500"})
    env.reset(seed=0)
    low, high = env.contract.action_bounds
    odometry = env.world.batch.read("odometry")
    odometry[0, 6:10], odometry[0, 3:6] = [0.8, 0.6, 0.0, 0.0], [0.0, -3.0, -2.0]
    env.world.place(odometry)
    action = Mpc(env.world).act()[0]
    assert (action >= low).all()
    assert (action <= high).all()
    assert action[1] == low[1], "a drone tilted by 74° should turn back as fast as it may"


@pytest.mark.slow
def test_a_throttle_that_noise_put_below_zero_is_none():
    actions = []
    for throttle in (-0.05, 0.0):
        env = sim.make({"task": "drone/hover", "randomization": {"command": {"delay": 0.05}}})
        env.reset(seed=0)
        mpc = Mpc(env.world)
        mpc.act()
        env.step(np.array([throttle, 0.0, 0.0, 0.0], np.float32))
        actions.append(mpc.act()[0])
    assert np.isfinite(actions[0]).all()
    np.testing.assert_array_equal(*actions)


def test_says_which_experts_there_are():
    env = sim.make("drone/hover")
    with pytest.raises(SpecError, match="geometric, mpc"):
        expert.start(env.world, "pid")
    with pytest.raises(SpecError, match="controller=ctbr"):
        expert.start(sim.make({"task": "drone/hover", "controller": "velocity"}).world, "mpc")
