"""Randomised arm environments: episodes repeat from their seed, from their record and from their states."""

from __future__ import annotations

import json

import numpy as np
import pytest

from robot_rl.sim import make, make_vector
from robot_rl.sim.arm import ArmEnv

CAMERAS = {"agentview": [32, 32], "robot0_eye_in_hand": [32, 32]}


@pytest.fixture(scope="module")
def env():
    made = make({"task": "lift", "randomization": "full"})
    yield made
    made.close()


@pytest.fixture(scope="module")
def plain():
    made = make("lift")
    yield made
    made.close()


def episode(env: ArmEnv, seed: int, steps: int = 6, options: dict | None = None) -> tuple[dict, list[dict]]:
    observation, info = env.reset(seed=seed, options=options)
    seen = [observation]
    rest = env.rest_action()
    generator = np.random.default_rng(seed)
    for _ in range(steps):
        observation, *_ = env.step(rest + 0.02 * generator.normal(size=rest.shape))
        seen.append(observation)
    return info, seen


def same(a: list[dict], b: list[dict]) -> bool:
    return all(np.array_equal(first[name], second[name]) for first, second in zip(a, b, strict=True) for name in first)


def test_episode_repeats_from_its_seed_and_from_its_record(env):
    info, first = episode(env, 3)
    other_info, other = episode(env, 4)
    assert not same(first, other)
    assert same(first, episode(env, 3)[1])
    record = json.loads(json.dumps(info["randomization"]))
    assert record == info["randomization"] != other_info["randomization"]
    replayed_info, replayed = episode(env, 3, options={"randomization": record})
    assert same(first, replayed)
    assert replayed_info["randomization"] == record
    assert not same(first, episode(env, 3, options={"randomization": other_info["randomization"]})[1])


def test_physics_really_varies(env, plain):
    nominal = {name: getattr(plain.model, name) for name in ("body_mass", "geom_friction", "dof_damping", "cam_fovy")}
    for seed in range(2):
        env.reset(seed=seed)
        for name, array in nominal.items():
            assert not np.array_equal(getattr(env.model, name), array)
        assert env.controller.natural_frequency != plain.controller.natural_frequency
        poses, placed = env.object_poses(), (plain.reset(seed=seed), plain.object_poses())[1]
        shift = np.abs(poses["cube"][:2] - placed["cube"][:2])
        assert 0 < shift.max() <= 0.0201


def test_no_randomization_is_the_plain_environment(plain):
    with_none = make({"task": "lift", "randomization": "none"})
    info, seen = episode(with_none, 5)
    assert info["randomization"] == {}
    assert same(seen, episode(plain, 5)[1])
    with_none.close()


def test_states_continue_exactly(env):
    for seed in range(4):
        episode(env, seed, 3)
        state, present = env.get_state(), env.observe()
        rest = env.rest_action()

        def future(action: np.ndarray) -> list[dict]:
            return [env.step(action + 0.01 * step)[0] for step in range(4)]

        expected = future(rest)
        env.set_state(state)
        np.testing.assert_array_equal(env.get_state(), state)
        assert same([present], [env.observe()])
        assert same(expected, future(rest))


@pytest.mark.parametrize("controller", ["joint_position", "ee_pose", "ee_delta"])
def test_rest_action_keeps_the_robot(controller):
    env = make({"task": "lift", "controller": controller})
    before, _ = env.reset(seed=0)
    rest = env.rest_action()
    assert env.contract.action_dim == len(rest)
    for _ in range(10):
        after, *_ = env.step(rest)
    for name in ("ee_pose", "gripper_opening"):
        np.testing.assert_allclose(after[name], before[name], atol=2e-3)
    env.close()


@pytest.mark.render
@pytest.mark.slow
def test_pictures_vary_and_repeat():
    env = make({"task": "lift", "cameras": CAMERAS, "randomization": "full", "observation": []})
    info, first = episode(env, 0, 2)
    _, other = episode(env, 1, 2)
    assert same(first, episode(env, 0, 2, options={"randomization": info["randomization"]})[1])
    for camera in CAMERAS:
        assert np.abs(first[-1][camera].astype(int) - other[-1][camera]).mean() > 3
    env.close()


@pytest.mark.slow
def test_vectorised_episodes_do_not_depend_on_processes():
    spec = {"task": "lift", "randomization": "light", "horizon": 5}
    runs = []
    for num_envs, processes in ((1, 0), (3, 2)):
        finals = {}
        with make_vector(spec, num_envs, processes) as venv:
            observation, info = venv.reset(seed=range(5))
            while info["active"].any():
                actions = np.concatenate([observation["joint_position"] + 0.02, observation["gripper_opening"]], -1)
                observation, *_, info = venv.step(actions)
                for index, final in enumerate(info["final_obs"]):
                    if final is not None:
                        finals[int(info["seed"][index])] = final
        runs.append([finals[seed] for seed in range(5)])
    assert same(*runs)
