"""A reinforcement learning of a policy: iterations of collecting and updating, and the state that a resume needs.

Draws are seeded by the run's seed and the number of the iteration, so that they need no place in a checkpoint. Between
two iterations everything else can be saved, also where each environment stands: a resumed training makes the same steps
as one that was never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from robot_rl import checkpoint
from robot_rl.checkpoint import ResumeError
from robot_rl.optimizer import set_learning_rate, warmup_cosine
from robot_rl.policies import Policy
from robot_rl.policies.chunk_runner import ChunkRunner
from robot_rl.rl.collector import Collector, Episode, Rollout
from robot_rl.rl.environments import Environments
from robot_rl.rl.method import Method
from robot_rl.rl.moments import RewardScale, RunningMoments
from robot_rl.rl.on_policy import ActorCritic, Settings, Update, build_optimizer, estimate
from robot_rl.seed import mixed

ENVIRONMENTS = "environments.safetensors"


class Learner:
    """Trains the policy of a method in environments.

    `execute` is how many actions of each chunk of the method's result are executed.

    Args:
        seed: of all draws; the critic's first weights come from torch's global generator.
        first_seed: of the first training episode.
        scale_observations: fit the policy's normaliser to what is seen, for a policy that comes from nowhere.
    """

    def __init__(
        self, method: Method, environments: Environments, settings: Settings, seed: int, first_seed: int = 0,
        scale_observations: bool = False,
    ) -> None:  # fmt: skip
        self.method, self.settings, self.seed, self.scale_observations = method, settings, seed, scale_observations
        self.iterations, self.steps = 0, 0
        self.reward_scale = RewardScale(environments.num_envs, settings.discount)
        self.execute = ChunkRunner(method.result, 1, execute=settings.execute).execute
        stepped, execute = method.surround(environments, settings.execute)
        self.collector = Collector(method, stepped, execute, settings.discount, first_seed, self.reward_scale)
        self.model = ActorCritic(method, settings)
        self.optimizer = build_optimizer(self.model, method, settings)
        states = method.policy.encoder.states
        self.moments = RunningMoments(sum(method.policy.contract.observation[name].size for name in states))
        self.episodes: list[Episode] = []

    @property
    def policy(self) -> Policy:
        """What is evaluated, saved and deployed."""
        return self.method.result

    @property
    def finished(self) -> bool:
        """Whether the training has made its steps."""
        return self.steps >= self.settings.steps

    def iterate(self) -> dict[str, float]:
        """One iteration; returns what is worth logging. `episodes` then holds those that ended in it.

        Raises:
            FinetuneError: a loss is not finite.
        """
        settings, done = self.settings, min(1.0, self.steps / self.settings.steps)
        if self.scale_observations and self.iterations == 0:
            # Without a base the policy has seen nothing that its observations could be scaled by.
            self._see(self._collect(1))
        factor = warmup_cosine(self.steps, settings.steps, 0, settings.final_learning_rate)
        learning_rate = set_learning_rate(self.optimizer, factor)
        self.method.begin(done)
        rollout = self._collect(0)
        scale = self.reward_scale.scale if settings.reward_scale else 1.0
        context, value, advantage = estimate(self.method, self.model.critic, rollout, settings, scale)
        update = Update(
            self.method, self.model, self.optimizer, settings, train_actor=self.iterations >= settings.critic_warmup
        )
        logged = update.run(rollout, context, value, advantage, self._generator(2))
        if self.scale_observations:
            self._see(rollout)
        self.iterations += 1
        self.episodes = rollout.episodes
        row = {**logged, "learning_rate": learning_rate, "reward_scale": scale, "decisions": float(len(value))}
        row["diverged_episodes"] = float(rollout.diverged)
        if rollout.episodes:
            row["train_return"] = float(np.mean([each.total_reward for each in rollout.episodes]))
            row["train_success_rate"] = float(np.mean([each.success for each in rollout.episodes]))
        return {name: number for name, number in row.items() if math.isfinite(number)}

    def save(self, folder: Path, plain: Mapping[str, Any]) -> None:
        """Write all that `load` needs into a checkpoint folder.

        Args:
            plain: further state, of plain JSON types.
        """
        from safetensors.numpy import save_file

        collector, arrays = self.collector.state()
        state = {
            **plain, "steps": self.steps, "iterations": self.iterations, "collector": collector,
            "reward_scale": self.reward_scale.state(), "moments": self.moments.state(),
        }  # fmt: skip
        checkpoint.save_training(folder, self.model, None, self.optimizer, state)
        save_file(arrays, folder / ENVIRONMENTS)

    def load(self, folder: Path) -> dict[str, Any]:
        """Restore what `save` wrote; returns its plain state.

        Raises:
            ResumeError: a file is missing, or belongs to another network.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        state = checkpoint.load_training(folder, self.model, None, self.optimizer)
        try:
            arrays = load_file(folder / ENVIRONMENTS)
        except (OSError, SafetensorError) as error:
            raise ResumeError(f"{folder} cannot be resumed from: {error}. Start again with overwrite=true.") from error
        self.steps, self.iterations = int(state["steps"]), int(state["iterations"])
        self.reward_scale.load(state["reward_scale"])
        self.moments.load(state["moments"])
        if self.scale_observations:
            self._apply_moments()
        left = max(0, self.settings.steps - self.steps) + self.settings.iteration_steps
        self.collector.load(state["collector"], arrays, left)
        return state

    def _collect(self, purpose: int) -> Rollout:
        rollout = self.collector.collect(self.settings.rollout_steps, self._generator(purpose))
        self.steps += self.settings.iteration_steps
        return rollout

    def _see(self, rollout: Rollout) -> None:
        """Scale observations by all that has been seen, from now on."""
        rows = [rollout.observation[name][:, -1] for name in self.method.policy.encoder.states]
        self.moments.update(np.concatenate([row.reshape(len(row), -1) for row in rows], axis=1))
        self._apply_moments()

    def _apply_moments(self) -> None:
        policy, start, statistics = self.method.policy, 0, []
        features = [policy.contract.observation[name] for name in policy.encoder.states]
        for feature in features:
            part = slice(start, start + feature.size)
            statistics.append(SimpleNamespace(mean=self.moments.mean[part], std=self.moments.std[part]))
            start += feature.size
        policy.encoder.normalizer.fit(features, statistics, "mean_std")

    def _generator(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(mixed(self.seed, self.iterations, purpose))
