"""What holds for every lean task."""

import json

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from robot_rl import sim
from robot_rl.datasets.contract import Contract, equal
from robot_rl.sim import message
from robot_rl.sim.expert import make_expert
from robot_rl.sim.lean.spec import TASKS
from robot_rl.sim.spaces import ActionError
from robot_rl.sim.spec import SpecError, resolve

pytestmark = pytest.mark.parametrize("task", list(TASKS))


def run(venv, seeds, choose) -> dict[int, dict]:
    """Infos of the last step of the episodes, by seed."""
    _, info = venv.reset(seed=seeds)
    finals = {}
    while info["active"].any():
        _, _, terminated, truncated, info = venv.step(choose(venv.world))
        for index in np.flatnonzero(terminated | truncated):
            finals[int(info["seed"][index])] = info["final_info"][index] | {"truncated": bool(truncated[index])}
    return finals


def test_is_an_environment_of_gymnasium(task):
    env = sim.make(task)
    check_env(sim.make(task), skip_render_check=True)
    for name, feature in env.contract.observation.items():
        assert env.observe()[name].shape == feature.shape
        assert env.observe()[name].dtype == np.float32
    equal(env.contract, Contract.from_dict(json.loads(env.contract.to_json())))
    message.encode([env.specification, env.reset(seed=0)[1]])
    assert resolve(env.specification) == env.specification


def test_the_expert_succeeds_and_rest_does_not(task):
    with sim.make_vector(task, 32) as venv:
        finals = run(venv, range(100), lambda world: world.expert())
        assert sum(final["success"] for final in finals.values()) >= 98
        venv.reset(seed=range(32))
        rest = np.stack(venv.call("rest_action"))
        finals = run(venv, range(32), lambda world: rest)
        assert not any(final["success"] for final in finals.values())
        assert all(final["truncated"] for final in finals.values())


def test_an_episode_depends_on_its_seed_alone(task):
    """Alone, and among others that began at other times, numbers are the same bit by bit."""
    env = sim.make(task)
    generator = np.random.default_rng(0)
    actions = generator.uniform(-1, 1, (40, env.contract.action_dim)).astype(np.float32)
    with sim.make_vector({"task": task, "horizon": 10}, 3) as venv:
        _, info = venv.reset(seed=range(9))
        begun, seen = np.zeros(3, int), {seed: [] for seed in range(9)}
        seeds = info["seed"].copy()
        while info["active"].any():
            active = info["active"].copy()
            states, _, terminated, truncated, info = venv.step(actions[begun])
            for index in np.flatnonzero(active):
                ended = terminated[index] or truncated[index]
                observation = info["final_obs"][index] if ended else {k: v[index] for k, v in states.items()}
                seen[int(seeds[index])].append(observation)
                begun[index] = 0 if ended else begun[index] + 1
                if ended and info["active"][index]:
                    seeds[index] = info["reset_info"][index]["seed"]
    for seed in (0, 4, 8):
        env.reset(seed=seed)
        for row, expected in enumerate(seen[seed]):
            observation, *_ = env.step(actions[row])
            for name, value in observation.items():
                np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_goes_on_from_a_state_of_another_episode_bit_by_bit(task):
    env, other = sim.make(task), sim.make(task)
    env.reset(seed=3)
    for _ in range(15):
        env.step(env.world.expert()[0])
    other.reset(seed=77)
    other.set_state(env.get_state())
    for name, value in other.observe().items():
        np.testing.assert_array_equal(value, env.observe()[name], err_msg=name)
    for _ in range(10):
        action = env.world.expert()[0]
        outcomes = [each.step(action) for each in (env, other)]
        assert outcomes[0][1:4] == outcomes[1][1:4]
        np.testing.assert_array_equal(env.get_state(), other.get_state())
    with pytest.raises(ValueError, match="expected states"):
        env.set_state(np.zeros(3))


def test_the_horizon_truncates_and_a_broken_simulation_is_no_end(task):
    env = sim.make({"task": task, "horizon": 2})
    env.reset(seed=0)
    rest = env.rest_action()
    assert not any(env.step(rest)[2:4])
    _, _, terminated, truncated, info = env.step(rest)
    assert (terminated, truncated) == (False, True)
    assert "diverged" not in info
    for before in (0, 1):  # also in what would have been the last step
        env.reset(seed=0)
        for _ in range(before):
            env.step(rest)
        env.world.physics.qvel[0, 0] = np.nan
        _, reward, terminated, truncated, info = env.step(rest)
        assert (reward, terminated, truncated, info["success"]) == (0.0, False, True, False)
        assert info["diverged"]
        assert "metrics" not in info  # they would be of no state of the task
    with sim.make_vector({"task": task, "horizon": 2}, 2) as venv:
        venv.reset(seed=[0, 1])
        for _ in range(2):
            venv.world.physics.qvel[0, 0] = np.nan
            finals = venv.step(np.tile(rest, (2, 1)))[4]["final_info"]
            if finals[0] is not None:
                assert finals[0] == {"success": False, "diverged": True}
        assert set(finals[1]) == {"success", "metrics"}
    env.reset(seed=0)
    assert np.isfinite(env.step(rest)[0][next(iter(env.contract.observation))]).all()


def test_noise_of_the_expert_comes_from_its_generator(task):
    env = sim.make(task)
    env.reset(seed=1)
    with pytest.raises(ValueError, match="generator"):
        make_expert(env, 0.1)
    first, again, other = (make_expert(env, 0.1, np.random.default_rng(seed)).act() for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_says_what_is_wrong(task):
    for key, value in {"robot": "panda", "controller": "ee_pose", "randomization": "full", "rate_hz": 50}.items():
        with pytest.raises(SpecError, match=f"{key}.*leaves no choice"):
            sim.make({"task": task, key: value})
    assert resolve({"task": task, "randomization": "none"}) == resolve(task)
    with pytest.raises(SpecError, match="horizon"):
        sim.make({"task": task, "horizon": 0})
    with pytest.raises(SpecError, match="no key colour"):
        sim.make({"task": task, "colour": "red"})
    with pytest.raises(SpecError, match="no such observation: smell"):
        sim.make({"task": task, "observation": ["smell"]})
    with pytest.raises(SpecError, match="no camera 'left'"):
        sim.make({"task": task, "cameras": {"left": [8, 8]}})
    with pytest.raises(ActionError, match="finite"):
        sim.make(task).step(np.full(9, np.nan, np.float32))


def test_pictures_show_the_copy(task):
    spec = {"task": task, "cameras": {"agentview": [48, 64]}}
    env = sim.make(spec)
    if not can_render(env):
        pytest.skip("nothing can be rendered here")
    with sim.make_vector(spec, 2) as venv:
        observation, _ = venv.reset(seed=[1, 2])
        assert observation["agentview"].shape == (2, 48, 64, 3)
        assert not np.array_equal(*observation["agentview"])
        for index, seed in enumerate((1, 2)):
            alone, _ = env.reset(seed=seed)
            np.testing.assert_array_equal(alone["agentview"], observation["agentview"][index])


def can_render(env) -> bool:
    from robot_rl.sim.gl_context import RenderError

    try:
        env.image("agentview", 8, 8)
    except RenderError:
        return False
    return True
