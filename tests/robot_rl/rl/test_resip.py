"""ResiP: what it freezes, what its environments tell, and the policy that it leaves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robot_rl.policies import Policy, PolicyError, load_policy, save_policy
from robot_rl.policies.chunk_runner import ChunkRunner
from robot_rl.policies.correction import BASE_ACTION
from robot_rl.policies.prediction import new_generator, predict
from robot_rl.rl.learner import Learner
from robot_rl.rl.resip import FrozenPolicy, ResiP
from tests.robot_rl.rl.line import Line, line_policy
from tests.robot_rl.rl.test_on_policy import best_gain, settings

FLOW = {"name": "flow_matching", "steps": 2}


def frozen(method: ResiP, environments: Line, execute: int | None = None) -> FrozenPolicy:
    made, chunks = method.surround(environments, execute)
    assert chunks is None
    assert isinstance(made, FrozenPolicy)
    return made


def test_begins_as_the_policy_it_was_given_and_changes_nothing_of_it() -> None:
    policy = line_policy(FLOW, horizon=4)
    method = ResiP(policy)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    correction = method.result.correction
    assert correction is not None
    place, action = {"place": np.ones((3, 1), np.float32)}, np.linspace(-1, 1, 3, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(correction(place, action), action)
    learner = Learner(method, Line(8), settings(num_envs=8, execute=4), seed=0)
    for _ in range(3):
        assert learner.iterate()["first_ratio_error"] <= 1e-5
    after = method.result.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(torch.equal(value, policy.state_dict()[name]) for name, value in before.items())
    assert method.result.correction is not None
    assert not np.array_equal(method.result.correction(place, action), action)
    assert learner.execute == 4


@pytest.mark.parametrize("obs_horizon", [1, 2])
def test_the_frozen_policy_executes_its_chunks(obs_horizon: int) -> None:
    """Beside environments in which the same policy acts alone: the same actions, ends within chunks included."""
    policy = line_policy(FLOW, horizon=4, obs_horizon=obs_horizon)
    inner, alone = Line(3, 5), Line(3, 5)
    environments = frozen(ResiP(policy), inner, execute=3)
    observation, info = environments.reset(seed=7)
    plain, _ = alone.reset(seed=7)
    seed, chunks = info["seed"].copy(), np.zeros(3, np.int64)
    runner = ChunkRunner(policy, 3, execute=3)
    from robot_rl.seed import mixed

    for _ in range(12):
        runner.observe(plain)
        if (request := runner.request()) is not None:
            numbers = [mixed(int(seed[env]), int(chunks[env])) for env in request.envs]
            generators = [new_generator(policy, number) for number in numbers]
            runner.deliver(request.id, predict(policy, request.observation, generators))
            chunks[request.envs] += 1
        action = runner.next_action()
        normalised = policy.action_normalizer.normalize(torch.from_numpy(action)).numpy()
        np.testing.assert_allclose(observation[BASE_ACTION], normalised, atol=1e-6)
        observation, _, terminated, truncated, _ = environments.step(np.zeros((3, 1), np.float32))
        plain, _, _, _, info = alone.step(action)
        np.testing.assert_array_equal(inner.log[-1], action)
        over = np.flatnonzero(terminated | truncated)
        runner.flush(over)
        chunks[over] = 0
        for env in over:
            seed[env] = info["reset_info"][env]["seed"]


def test_a_cut_off_keeps_what_the_policy_would_have_done() -> None:
    environments = frozen(ResiP(line_policy(FLOW, horizon=4)), Line(2, 3), execute=4)
    environments.reset(seed=0)
    for _ in range(3):
        observation, _, _, truncated, info = environments.step(np.zeros((2, 1), np.float32))
    assert truncated.all()
    for env in range(2):
        last = info["final_obs"][env]
        assert last.keys() == observation.keys()
        assert last[BASE_ACTION].shape == (1,)
        assert last[BASE_ACTION] != observation[BASE_ACTION][env]  # of the chunk that went on, not of the new episode


def test_environments_go_on_from_their_states() -> None:
    method = ResiP(line_policy(FLOW, horizon=4, obs_horizon=2))
    one, other = (frozen(method, Line(4, 7), execute=3) for _ in range(2))
    one.reset(seed=3)
    generator = np.random.default_rng(0)
    for _ in range(4):
        one.step(generator.normal(size=(4, 1)).astype(np.float32))
    seeds = one._seed.tolist()
    other.reset(seed=[*seeds, *range(max(seeds) + 1, max(seeds) + 20)])
    observation = other.set_states(one.get_states())
    assert observation.keys() == {"place", BASE_ACTION}
    np.testing.assert_array_equal(one.get_states(), other.get_states())
    for _ in range(9):  # over the ends of chunks and of episodes
        residual = generator.normal(size=(4, 1)).astype(np.float32)
        (one_sees, one_earns, *_), (other_sees, other_earns, *_) = one.step(residual), other.step(residual)
        np.testing.assert_array_equal(one_earns, other_earns)
        assert all(np.array_equal(value, other_sees[name]) for name, value in one_sees.items())


@pytest.mark.slow
def test_improves_a_frozen_policy() -> None:
    """A clone that moves 0.2 of the way, with a residual: together close to the best 0.59."""
    policy = line_policy(FLOW, horizon=2, clone=0.2)
    given = settings(
        num_envs=32, steps=25_000, rollout_steps=24, epochs=5, minibatch=128, learning_rate=3e-3, execute=2,
        critic_learning_rate=3e-3, reward_scale=True, final_learning_rate=0.1,
    )  # fmt: skip
    method = ResiP(policy, scale=0.5, log_std=-0.5, width=32)
    learner = Learner(method, Line(32), given, seed=0)
    while not learner.finished:
        learner.iterate()
    correction = method.result.correction
    assert correction is not None
    for place in (-1.0, -0.5, 0.5, 1.0):
        base = np.full((1, 1), -0.2 * place, np.float32)
        action = correction({"place": np.full((1, 1), place, np.float32)}, base)
        assert float(action[0, 0]) == pytest.approx(-best_gain(0.9) * place, abs=0.15)


def test_is_saved_with_its_base(tmp_path: Path) -> None:
    method = ResiP(line_policy(FLOW, horizon=4), steps=1, width=16)
    assert method.result.residual is not None
    with torch.no_grad():
        for value in method.result.residual.denoiser.parameters():
            value.add_(0.1)
    again = load_policy(save_policy(method.result, tmp_path))
    assert again.config["process"]["steps"] == 1
    place, action = {"place": np.ones((3, 1), np.float32)}, np.zeros((3, 1), np.float32)
    assert again.correction is not None
    assert method.result.correction is not None
    np.testing.assert_array_equal(again.correction(place, action), method.result.correction(place, action))
    with pytest.raises(PolicyError, match="has a residual already"):
        ResiP(again)


def test_impossible_options_are_named() -> None:
    for scale in (0.0, float("inf")):
        with pytest.raises(PolicyError, match=f"algorithm.scale: expected a finite number above 0, got {scale}"):
            ResiP(line_policy(FLOW), scale=scale)
    with pytest.raises(PolicyError, match="gaussian makes no steps"):
        ResiP(line_policy({"name": "gaussian"}), steps=4)


@pytest.mark.slow
def test_the_exported_policy_corrects_alike(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from robot_rl.policies import OnnxPolicy, export_policy

    method = ResiP(line_policy(FLOW, horizon=4), width=16)
    with torch.no_grad():
        for value in method.policy.denoiser.parameters():
            value.add_(0.1)
    exported: Any = OnnxPolicy(export_policy(method.result, tmp_path))
    whole: Policy = method.result
    place, action = {"place": np.ones((3, 1), np.float32)}, np.zeros((3, 1), np.float32)
    assert whole.correction is not None
    np.testing.assert_allclose(exported.correction(place, action), whole.correction(place, action), atol=1e-6)
