import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from robot_rl import sim
from robot_rl.sim.expert import make_expert
from robot_rl.sim.spaces import ActionError
from robot_rl.sim.spec import SpecError, resolve

TASKS = ("Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Ant-v5")


@pytest.mark.parametrize("name", TASKS)
def test_is_what_gymnasium_makes(name):
    """Numbers of an episode, to the float32 of a contract; its bounds, rate and horizon."""
    theirs, ours = gymnasium.make(name), sim.make(f"gym/{name}")
    assert ours.contract.rate_hz == pytest.approx(1 / theirs.unwrapped.dt)
    assert ours.specification["horizon"] == 1000
    low, high = ours.contract.action_bounds
    np.testing.assert_array_equal([low, high], [theirs.action_space.low, theirs.action_space.high])
    theirs.action_space.seed(0)
    expected, _ = theirs.reset(seed=4)
    seen, info = ours.reset(seed=4)
    assert info["seed"] == 4
    np.testing.assert_array_equal(seen["observation"], expected.astype(np.float32))
    for _ in range(50):
        action = theirs.action_space.sample()
        expected, reward, terminated, _, _ = theirs.step(action)
        seen, *outcome, info = ours.step(action)
        assert outcome == [reward, terminated, False]
        np.testing.assert_array_equal(seen["observation"], expected.astype(np.float32))
        if terminated:
            break
    assert info["success"] is False


@pytest.mark.parametrize("name", TASKS)
def test_goes_on_from_a_state_bit_by_bit(name):
    env, other = sim.make(f"gym/{name}"), sim.make(f"gym/{name}")
    env.reset(seed=1)
    other.reset(seed=2)
    actions = np.random.default_rng(0).uniform(-1, 1, (30, env.contract.action_dim))
    for action in actions[:10]:
        env.step(action)
    other.set_state(env.get_state())
    np.testing.assert_array_equal(env.observe()["observation"], other.observe()["observation"])
    for action in actions[10:]:
        ours, theirs = env.step(action), other.step(action)
        assert ours[1:] == theirs[1:]
        np.testing.assert_array_equal(ours[0]["observation"], theirs[0]["observation"])
    with pytest.raises(ValueError, match="expected a state"):
        env.set_state(np.zeros(2))


def test_ends_by_falling_or_by_the_horizon_and_tells_the_return():
    env = sim.make("gym/Hopper-v5")
    env.reset(seed=0)
    total, over = 0.0, False
    while not over:
        _, reward, terminated, truncated, info = env.step(np.ones(3))
        total, over = total + reward, terminated or truncated
    assert (terminated, truncated) == (True, False)
    assert info["metrics"]["return"] == pytest.approx(total)
    short = sim.make({"task": "gym/HalfCheetah-v5", "horizon": 3})
    short.reset(seed=0)
    ends = [short.step(short.rest_action())[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_many_side_by_side():
    with sim.make_vector({"task": "gym/Walker2d-v5", "horizon": 5}, 3, processes=0) as venv:
        observation, info = venv.reset(seed=range(5))
        assert observation["observation"].shape == (3, 17)
        returns = {}
        while info["active"].any():
            *_, info = venv.step(np.stack(venv.call("rest_action")))
            for index in np.flatnonzero([each is not None for each in info["final_info"]]):
                returns[len(returns)] = info["final_info"][index]["metrics"]["return"]
        assert len(returns) == 5
        assert len(set(returns.values())) == 5


def test_says_what_is_wrong():
    for task in ("gym/Hoper-v5", "gym/CartPole-v1", "gym/"):
        with pytest.raises(SpecError, match=r"Gymnasium cannot make it|expected one of MuJoCo"):
            sim.make(task)
    with pytest.raises(SpecError, match="no_such"):
        sim.make({"task": "gym/Hopper-v5", "arguments": {"no_such": 1}})
    with pytest.raises(SpecError, match=r"controller.*leaves no choice"):
        sim.make({"task": "gym/Hopper-v5", "controller": "ee_pose"})
    with pytest.raises(SpecError, match="horizon"):
        sim.make({"task": "gym/Hopper-v5", "horizon": -1})
    with pytest.raises(SpecError, match="no camera 'left'"):
        sim.make({"task": "gym/Hopper-v5", "cameras": {"left": [8, 8]}})
    env = sim.make("gym/Hopper-v5")
    with pytest.raises(ActionError, match="3 finite"):
        env.step(np.full(3, np.nan))
    with pytest.raises(ValueError, match="no expert"):
        make_expert(env)
    assert resolve(env.specification) == env.specification


def test_arguments_reach_the_task():
    spec = {"task": "gym/Ant-v5", "arguments": {"include_cfrc_ext_in_observation": False}}
    assert sim.make(spec).contract.observation["observation"].shape == (27,)
    assert sim.make("gym/Ant-v5").contract.observation["observation"].shape == (105,)


def test_is_an_environment_of_gymnasium():
    env = sim.make("gym/Hopper-v5")
    check_env(env, skip_render_check=True)
    assert str(env) == "<GymEnv instance>"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TASKS)
def test_a_simulation_that_diverges_is_told_and_earns_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log
    env = sim.make(f"gym/{name}")
    env.reset(seed=0)
    env.step(env.rest_action())
    env.data.qvel[:] = 1e12
    _, reward, terminated, truncated, info = env.step(env.rest_action())
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info == {"success": False, "diverged": True}
    env.reset(seed=0)
    assert "diverged" not in env.step(env.rest_action())[4]
