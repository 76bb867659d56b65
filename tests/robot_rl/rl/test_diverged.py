"""A simulation that comes apart: its episode ends there, and nothing of what it showed is learned from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robot_rl.datasets import EpisodeStore
from robot_rl.rl.apart.actor import Actor, build
from robot_rl.rl.apart.link import News
from robot_rl.rl.apart.messages import Welcome
from robot_rl.rl.apart.outbox import open_store
from robot_rl.rl.collector import Collector
from robot_rl.rl.dsrl import DSRL
from robot_rl.rl.environments import diverged
from robot_rl.rl.learner import Learner
from robot_rl.rl.off_policy_learner import OffPolicyLearner
from robot_rl.rl.off_policy_method import OffPolicyMethod
from robot_rl.rl.ppo import PPO
from robot_rl.rl.resip import ResiP
from robot_rl.rl.sac import SAC
from robot_rl.sim import make_vector
from tests.robot_rl.rl.line import HORIZON, Line, line_policy
from tests.robot_rl.rl.stored import squashed_policy
from tests.robot_rl.rl.test_off_policy import settings as off_policy
from tests.robot_rl.rl.test_on_policy import settings as on_policy

BREAK = 3
"""Control steps after which episodes of odd seeds diverge."""


class Breaking(Line):
    """A line of which every other episode is cut off with what is not finite, as the lean tasks do it."""

    def step(self, actions: np.ndarray) -> tuple[dict[str, np.ndarray], Any, Any, Any, dict[str, Any]]:
        assert np.isfinite(actions).all()
        broken = (self.seeds % 2 == 1) & (self.steps == BREAK - 1)
        self.horizon = np.where(broken, BREAK, HORIZON)  # type: ignore[assignment]
        observation, reward, terminated, truncated, info = super().step(actions)
        info["final_info"] = np.full(self.num_envs, None, object)
        for env in np.flatnonzero(terminated | truncated):
            info["final_info"][env] = {"diverged": True} if broken[env] else {}
            if broken[env]:
                terminated[env], truncated[env] = False, True
                info["final_obs"][env] = {"place": np.full(1, np.nan, np.float32)}
        return observation, np.where(broken, np.nan, reward), terminated, truncated, info


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_an_environment_that_knows_of_no_such_ends_has_none() -> None:
    assert diverged({}, 3).tolist() == [False] * 3
    finals = np.array([None, {"metrics": {}}, {"diverged": True}], object)
    assert diverged({"final_info": finals}, 3).tolist() == [False, False, True]


@pytest.mark.parametrize("execute", [1, 2])
def test_a_rollout_ends_it_with_nothing_more_to_earn_and_counts_it(execute: int) -> None:
    policy = line_policy({"name": "gaussian"}, horizon=2, obs_horizon=2)
    sampler = Collector(PPO(policy), Breaking(4), execute, 0.9, first_seed=100)
    rollout = sampler.collect(BREAK, seeded())
    assert rollout.diverged == 2
    last = [int(np.flatnonzero(rollout.ended[:, env])[0]) for env in (1, 3)]
    assert rollout.discount[last, [1, 3]].tolist() == [0.0, 0.0]
    assert not any(env in (1, 3) for _, env in rollout.final)
    assert len(rollout.episodes) == rollout.ended.sum() - 2
    numbers = (rollout.reward, rollout.discount, rollout.observation["place"], rollout.last["place"])
    assert all(np.isfinite(each).all() for each in numbers)
    following = sampler.collect(20, seeded())
    assert all(np.isfinite(episode.total_reward) for episode in following.episodes)


@pytest.mark.parametrize("kind", [PPO, ResiP])
def test_an_on_policy_training_goes_on(kind: Any) -> None:
    torch.manual_seed(0)
    method = kind(line_policy({"name": "gaussian"}, horizon=2))
    chosen = on_policy(rollout_steps=2 * HORIZON, execute=2, reward_scale=True)
    training = Learner(method, Breaking(4), chosen, seed=0, first_seed=100)
    rows = [training.iterate() for _ in range(2)]
    assert all(row["diverged_episodes"] > 0 for row in rows)
    assert all(np.isfinite(row["train_return"]) and np.isfinite(row["critic_loss"]) for row in rows)


@pytest.mark.parametrize(("kind", "process"), [(SAC, "tanh_gaussian"), (DSRL, "flow_matching")])
def test_an_off_policy_training_leaves_it_out(kind: type[OffPolicyMethod], process: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    policy = squashed_policy(2) if kind is SAC else line_policy({"name": process, "steps": 2}, horizon=2)
    chosen = off_policy(execute=2, rollout_steps=2 * HORIZON)
    with OffPolicyLearner(kind(policy, 2), Breaking(2), chosen, tmp_path / "own.zarr", seed=0, first_seed=100) as made:
        rows = [made.iterate() for _ in range(3)]
        assert made.steps == 3 * 2 * HORIZON * 2
    assert sum(row["diverged_episodes"] for row in rows) > 0
    assert "critic_loss" in rows[-1]
    store = EpisodeStore.open(tmp_path / "own.zarr")
    assert len(store) > 0
    for number, episode in enumerate(store):
        assert store.facts(number)["seed"] % 2 == 0 or episode.length < BREAK
        assert np.isfinite(episode.observation["place"]).all()
        assert np.isfinite(episode.reward).all()


def test_the_next_episode_sees_nothing_of_it(tmp_path: Path) -> None:
    """Two observations at once: what was seen before is not finite."""
    torch.manual_seed(0)
    chosen = off_policy(execute=2, rollout_steps=2 * HORIZON, start_steps=0)
    method = SAC(squashed_policy(2, obs_horizon=2), 2)
    with OffPolicyLearner(method, Breaking(2), chosen, tmp_path / "own.zarr", seed=0, first_seed=101) as training:
        training.iterate()  # asserts that all actions are finite


class Deaf:
    """A learner's end of a link that hears of 40 episodes, and then is finished."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def news(self, timeout: float) -> News:
        return News(0, True, len(self.heard) == 40, {}, 0)

    def recorded(self, number: int) -> None:
        self.heard.append(number)


def test_an_actor_says_it_and_sends_nothing_of_it(tmp_path: Path) -> None:
    policy, link, said = squashed_policy(2), Deaf(), list[str]()
    contract = policy.contract.to_dict()
    welcome = Welcome("run", {}, "sac", {}, policy.config, contract, contract, {"name": "task"}, 2, 100)
    path = open_store(tmp_path, "run", policy.contract, {})
    with Actor(welcome, build(welcome), Breaking(1), path, link, say=said.append) as actor:  # type: ignore[arg-type]
        assert actor.act()
    assert set(said) == {"abandoned, nothing of it is sent: the simulation diverged"}
    store = EpisodeStore.open(path)
    assert link.heard == list(range(len(store))) == list(range(40))
    assert all(np.isfinite(episode.observation["place"]).all() for episode in store)


def test_a_lean_task_says_it() -> None:
    with make_vector("peg", 2, 0) as environments:
        environments.reset(seed=0)
        environments.world.physics.qvel[1] = np.nan
        *_, terminated, truncated, info = environments.step(np.zeros((2, environments.contract.action_dim), np.float32))
    assert truncated.tolist() == diverged(info, 2).tolist() == [False, True]
    assert not terminated.any()
