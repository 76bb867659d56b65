"""Rollouts against what the environments were really told and gave."""

import numpy as np
import pytest
import torch

from robot_rl.rl.collector import Collector
from robot_rl.rl.ppo import PPO
from tests.robot_rl.rl.line import Line, line_policy

GAMMA = 0.9


def collector(num_envs: int = 3, horizon: int = 5, execute: int = 4, obs_horizon: int = 2) -> tuple[Collector, Line]:
    """Episodes of five steps, chunks of four: chunks and episodes do not end together."""
    environments = Line(num_envs, horizon)
    policy = line_policy({"name": "gaussian"}, horizon=4, obs_horizon=obs_horizon)
    return Collector(PPO(policy), environments, execute, GAMMA, first_seed=100), environments


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_decisions_hold_the_actions_that_were_executed_and_their_discounted_reward() -> None:
    sampler, environments = collector()
    rollout = sampler.collect(13, seeded())
    actions = np.stack(environments.log)[..., 0]
    chunks = sampler.method.policy.decode(rollout.states[:, -1]).numpy()[..., 0]
    for env in range(3):
        chosen = rollout.env == env
        assert rollout.row[chosen].tolist() == list(range(chosen.sum()))
        executed = rollout.executed[chosen]
        assert executed.sum() == 13
        told = np.concatenate([chunk[:n] for chunk, n in zip(chunks[chosen], executed, strict=True)])
        np.testing.assert_array_equal(told, actions[:, env])
        # Five steps: four of a chunk, one of the next, whose rest is dropped; then the next episode.
        ended = rollout.ended[rollout.row[chosen], env]
        assert executed.tolist() == [4, 1, 4, 1, 3] or (rollout.discount[: chosen.sum(), env] == 0).any()
        assert ended.sum() == len([n for n in executed if n == 1]) or (rollout.discount[: chosen.sum(), env] == 0).any()
        x = float(rollout.observation["place"][np.flatnonzero(chosen)[0], -1, 0])
        reward = 0.0
        for age, action in enumerate(actions[:4, env]):
            reward -= GAMMA**age * (x**2 + action**2)
            x += action
            if abs(x) > 4:
                break
        assert rollout.reward[0, env] == pytest.approx(reward, rel=1e-4)


def test_an_end_counts_nothing_and_a_cut_off_keeps_its_last_observation() -> None:
    sampler, environments = collector(num_envs=8)
    environments.x[::2] = 3.9  # these soon cross the edge
    rollout = sampler.collect(12, seeded(1))
    over = np.argwhere(rollout.ended)
    terminated = [(row, env) for row, env in over.tolist() if rollout.discount[row, env] == 0]
    assert terminated
    assert set(rollout.final) == {(row, env) for row, env in over.tolist()} - set(terminated)
    for (row, env), seen in rollout.final.items():
        (decision,) = np.flatnonzero((rollout.row == row) & (rollout.env == env))
        assert rollout.discount[row, env] == pytest.approx(GAMMA ** rollout.executed[decision])
        # Two observations of the old episode: the last one comes by the last action from the one before.
        step = rollout.executed[decision] - 1
        action = sampler.method.policy.decode(rollout.states[decision, -1])[step, 0].item()
        assert seen["place"][1, 0] == pytest.approx(seen["place"][0, 0] + action, abs=1e-5)
    begun = rollout.observation["place"][
        [d for d, r in enumerate(rollout.row) if r and rollout.ended[r - 1, rollout.env[d]]]
    ]
    np.testing.assert_array_equal(begun[:, 0], begun[:, 1])  # no history of the old episode


def test_episodes_are_counted_across_rollouts() -> None:
    sampler, _ = collector(execute=2)
    found = [episode for _ in range(4) for episode in sampler.collect(4, seeded()).episodes]
    assert all(1 <= episode.steps <= 5 for episode in found)
    assert sum(episode.steps for episode in found) + sampler._steps.sum() == 3 * 16
    assert sampler._seeds.max() == 100 + 3 + len(found) - 1


def test_goes_on_from_its_state_bit_by_bit() -> None:
    sampler, _ = collector()
    sampler.collect(7, seeded(0))
    plain, arrays = sampler.state()
    arrays = {name: value.copy() for name, value in arrays.items()}
    expected = sampler.collect(9, seeded(1))
    other, _ = collector()
    other.load(plain, arrays, steps_left=100)
    again = other.collect(9, seeded(1))
    torch.testing.assert_close(again.states, expected.states, rtol=0, atol=0)
    np.testing.assert_array_equal(again.reward, expected.reward)
    np.testing.assert_array_equal(again.last["place"], expected.last["place"])
    assert again.episodes == expected.episodes
    assert other.state()[0] == sampler.state()[0]
