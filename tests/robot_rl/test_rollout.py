"""Rollouts in a toy environment whose episodes can be simulated by hand."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch

from robot_rl import rollout as rollouts
from robot_rl import sim
from robot_rl.datasets import ContractError
from robot_rl.policies import build_policy
from robot_rl.rollout import rollout, run_episodes, without_unseen_cameras
from robot_rl.sim.arm_observation import ArmObservation


class Chaser:
    """Chunks that go straight to the goal; action j of a chunk carries a trace of j and of the episode's draws."""

    obs_horizon, action_horizon, action_offset, prefix_max_length = 2, 4, 0, 0
    execute = correction = None

    def __init__(self, contract):
        self.contract = contract

    def encode(self, observation):
        return torch.as_tensor(observation["goal"])[:, -1]

    def sample(self, context, prefix=None, generator=None, guidance=None):
        from robot_rl.policies import draw

        noise = draw.normal((len(context), 1, 1, 2), torch.device("cpu"), generator)
        return context[:, None, None] + 1e-3 * noise + 1e-4 * torch.arange(4)[:, None]


@pytest.fixture
def env(reach_simulation):
    return sim.make({})


@pytest.fixture
def chaser(env):
    return Chaser(env.contract)


@pytest.fixture
def venv(reach_simulation):
    with ExitStack() as stack:
        yield lambda num_envs: stack.enter_context(sim.make_vector({}, num_envs, 0))


def by_hand(env, seed: int, execute: int) -> tuple[bool, list[np.ndarray]]:
    """The episode of a seed, written out."""
    generator, actions = torch.Generator().manual_seed(seed), []
    observation, _ = env.reset(seed=seed)
    while True:
        if len(actions) % execute == 0:
            noise = torch.randn((1, 1, 1, 2), generator=generator).numpy()[0, 0, 0]
            goal = observation["goal"]
        action = goal + np.float32(1e-3) * noise + np.float32(1e-4) * np.float32(len(actions) % execute)
        actions.append(action)
        observation, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            return info["success"], actions


@pytest.mark.parametrize(("num_envs", "execute"), [(1, 3), (4, 2), (9, 4)])
def test_every_episode_is_the_one_of_its_seed(venv, env, chaser, num_envs, execute):
    seeds = [5, 17, 3, 8, 27, 100, 101]
    outcomes = list(rollout(chaser, venv(num_envs), seeds, execute=execute))
    assert sorted(outcome.seed for outcome in outcomes) == sorted(seeds)
    for outcome in outcomes:
        success, actions = by_hand(env, outcome.seed, execute)
        assert outcome.success == success == (outcome.seed not in (17, 27))
        assert (outcome.terminated, outcome.truncated) == (success, not success)
        assert outcome.success_step == (len(actions) if success else None)
        np.testing.assert_allclose(outcome.actions, actions, rtol=1e-6)
        assert outcome.total_reward == -outcome.steps
        assert outcome.observations is None


def test_kept_observations_surround_every_action_and_end_with_the_final_one(venv, chaser):
    for outcome in rollout(chaser, venv(3), range(6), keep_observations=True):
        position = outcome.observations["position"]
        assert position.shape == (outcome.steps + 1, 2)
        moved = (position[:-1] + outcome.actions) / 2
        np.testing.assert_allclose(position[1:], moved, rtol=1e-5)


@pytest.mark.parametrize("process", ["flow_matching", "ddpm"])
def test_a_policy_that_draws_does_not_depend_on_who_runs_beside(venv, env, process):
    torch.manual_seed(0)
    statistics = {name: _Range(2) for name in ("position", "goal", "action")}
    config = {"process": {"name": process, "steps": 4}, "denoiser": {"name": "mlp", "width": 16}, "action_horizon": 4}
    policy = build_policy(config, env.contract, statistics).eval()
    together = {o.seed: o for o in rollout(policy, venv(4), range(5), execute=2)}
    alone = {o.seed: o for seed in range(5) for o in rollout(policy, venv(1), [seed], execute=2)}
    for seed, outcome in alone.items():
        np.testing.assert_allclose(together[seed].actions, outcome.actions, atol=1e-4)


class _Range:
    """Statistics of a feature that fills [-1, 1]."""

    def __init__(self, size: int) -> None:
        self.count, self.mean, self.std = 10, np.zeros(size), np.ones(size)
        self.min, self.max = -np.ones(size), np.ones(size)

    def quantile(self, q: float) -> np.ndarray:
        return self.min + q * (self.max - self.min)


def test_outcomes_come_in_the_order_of_the_seeds(chaser):
    outcomes = run_episodes(chaser, {}, [7, 2, 9, 4], num_envs=3, progress=False)
    assert [(outcome.seed, outcome.success) for outcome in outcomes] == [(7, False), (2, True), (9, True), (4, True)]
    with pytest.raises(ValueError, match="once"):
        run_episodes(chaser, {}, [1, 1])


def test_an_environment_that_does_not_fit_is_refused(chaser):
    other = Chaser(replace(chaser.contract, rate_hz=20.0))
    with pytest.raises(ContractError, match=r"rate_hz: 20\.0 against 10\.0"):
        run_episodes(other, {}, [1], progress=False)


def test_success_rate_uses_seeds_of_its_own(chaser):
    class Settings:
        evaluate_episodes = 10

    assert rollouts.success_rate(chaser, {}, Settings) == 0.9
    with pytest.raises(ValueError, match="evaluate_every=0"):
        rollouts.success_rate(chaser, None, Settings)


def test_cameras_that_the_policy_does_not_see_are_not_rendered(chaser):
    spec = {"task": "lift", "cameras": {"goal": [8, 8], "agentview": [8, 8]}}
    assert without_unseen_cameras(spec, chaser) == {"task": "lift", "cameras": {"goal": [8, 8]}}
    noise = {"observation_noise": {"goal": 1, "side": 2}, "observation_delay": 1, "light": {}}
    changed = without_unseen_cameras({"cameras": {"goal": [8, 8], "side": [8, 8]}, "randomization": noise}, chaser)
    assert changed["randomization"] == noise | {"observation_noise": {"goal": 1}}


def late_by_hand(env, seed: int, mode: str, late: int) -> tuple[list[np.ndarray], list[bool], list[bool]]:
    """An episode of chunks that come `late` steps after they were asked for, of which 2 are executed."""
    generator, actions, switched, held = torch.Generator().manual_seed(seed), [], [], []
    observation, _ = env.reset(seed=seed)
    last, plan, coming, executed, asked, fresh = env.rest_action(), None, None, 0, None, False
    terminated = truncated = False
    while not (terminated or truncated):
        step = len(actions)
        if coming and coming[0] == step:
            fresh, plan, coming = plan is not None, coming[1:], None
        if coming is None and (asked is None or executed - asked >= 2):
            noise = torch.randn((1, 1, 1, 2), generator=generator).numpy()[0, 0, 0]
            coming, asked = (step + late, executed, observation["goal"] + np.float32(1e-3) * noise), executed
        place = None if plan is None else executed - plan[0]
        held.append(place is None or place >= (2 if mode == "receding_horizon" else 4))
        switched.append(not held[-1] and fresh)
        if not held[-1]:
            last, executed, fresh = plan[1] + np.float32(1e-4) * np.float32(place), executed + 1, False
        actions.append(last)
        observation, _, terminated, truncated, _ = env.step(last)
    return actions, switched, held


@pytest.mark.parametrize("mode", ["receding_horizon", "asynchronous", "real_time"])
@pytest.mark.parametrize(("delay", "late"), [(50, 1), (100, 1), (110, 2), (200, 2)])
def test_a_late_chunk_meets_an_environment_that_held_or_went_on(venv, env, chaser, mode, delay, late):
    for outcome in rollout(chaser, venv(3), range(10, 18), execute=2, mode=mode, delay=delay):
        actions, switched, held = late_by_hand(env, outcome.seed, mode, late)
        np.testing.assert_allclose(outcome.actions, actions, rtol=1e-6)
        assert outcome.held.tolist() == held
        assert outcome.switched.tolist() == switched
        assert outcome.held[:late].all()
        assert outcome.held[late:].any() == (mode == "receding_horizon" and outcome.steps > late + 2)


def test_an_episode_does_not_depend_on_who_runs_beside_also_when_chunks_are_late(venv, env):
    torch.manual_seed(0)
    statistics = {name: _Range(2) for name in ("position", "goal", "action")}
    config = {
        "process": {"name": "flow_matching", "steps": 4}, "denoiser": {"name": "mlp", "width": 16}, "action_horizon": 6,
        "prefix": {"probability": 0.5, "max_length": 3},
    }  # fmt: skip
    policy = build_policy(config, env.contract, statistics).eval()
    for guidance in (None, 5.0):
        options = {"execute": 3, "mode": "real_time", "delay": 200, "guidance": guidance}
        together = {o.seed: o for o in rollout(policy, venv(4), range(6), **options)}
        for seed in range(6):
            (alone,) = rollout(policy, venv(1), [seed], **options)
            np.testing.assert_allclose(together[seed].actions, alone.actions, atol=1e-4)


def test_a_delay_that_the_chunks_cannot_bridge_is_refused(venv, chaser):
    with pytest.raises(ValueError, match="choose 2 to 2"):
        list(rollout(chaser, venv(1), [1], execute=3, mode="real_time", delay=200))


def test_what_a_mode_has_no_use_for_is_refused(venv, chaser):
    with pytest.raises(ValueError, match=r"delay=-5: expected at least 0 ms"):
        list(rollout(chaser, venv(1), [1], delay=-5))
    with pytest.raises(ValueError, match=r"guidance=5\.0: goes with mode=real_time, not receding_horizon"):
        list(rollout(chaser, venv(1), [1], guidance=5.0))


@pytest.mark.render
def test_pictures_are_taken_only_for_the_policy(monkeypatch):
    """A policy that goes by what it sees makes the same episodes, whether or not more is rendered than it looks at."""

    class Watcher(Chaser):
        execute = 3

        def encode(self, observation):
            seen = torch.as_tensor(observation["agentview"], dtype=torch.float32).mean(dim=(2, 3, 4)) / 255
            return torch.cat([seen, torch.as_tensor(observation["joint_position"])[:, -1]], dim=1)

        def sample(self, context, prefix=None, generator=None, guidance=None):
            moved = context[:, None, 2:] + 0.1 * context[:, None, :1] - 0.05 * context[:, None, 1:2]
            return torch.cat([moved, moved[..., :1]], dim=-1).expand(-1, 4, -1)[:, None]

    taken, image = [], ArmObservation.image
    monkeypatch.setattr(ArmObservation, "image", lambda self, *where: (taken.append(1), image(self, *where))[1])
    spec = {"task": "lift", "cameras": {"agentview": [16, 16]}, "observation": ["joint_position"], "horizon": 13}
    with sim.make_vector(spec, 2, 0) as environments:
        watcher, numbers, found = Watcher(environments.contract), [], []
        for keep in (True, False):
            taken.clear()
            outcomes = rollout(watcher, environments, range(3), keep_observations=keep)
            found.append({outcome.seed: outcome.actions for outcome in outcomes})
            numbers.append(len(taken))
    assert numbers == [3 * (13 + 1), 3 * (1 + 2 * 4)]
    for seed, actions in found[0].items():
        np.testing.assert_array_equal(actions, found[1][seed])
