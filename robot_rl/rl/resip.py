"""`resip`: PPO of a residual that corrects a frozen policy at every step (ResiP, Ankile et al. 2024).

The policy goes on executing its chunks; the residual sees each observation and the action that the chunk has for it,
and adds a little. To the core the frozen policy is a part of the environment: its action is observed, the residual is
acted. What is saved is the policy with its residual.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from robot_rl.datasets import Contract, satisfies
from robot_rl.policies import Policy, PolicyError
from robot_rl.policies.chunk_runner import ChunkRunner
from robot_rl.policies.correction import BASE_ACTION, Correction
from robot_rl.policies.gaussian import Gaussian
from robot_rl.policies.prediction import new_generator, predict
from robot_rl.rl.environments import Environments, Observation, diverged
from robot_rl.rl.extended import extended
from robot_rl.rl.gaussian_method import GaussianMethod
from robot_rl.seed import mixed


class ResiP(GaussianMethod):
    """Args:
    policy: of any kind, with states among what it observes. Nothing of it changes.
    steps: denoising steps of it, in training and afterwards; null: as many as it makes.
    scale: of the residual, in halves of the range to which actions are normalised.
    log_std: of the exploration, before that scale. It is not learned.
    width, depth: of the residual's hidden layers.
    """

    def __init__(
        self, policy: Policy, *, steps: int | None = None, scale: float = 0.1, log_std: float = -1.0, width: int = 256,
        depth: int = 2,
    ) -> None:  # fmt: skip
        if policy.residual is not None:
            raise PolicyError("resip: this policy has a residual already; give the policy that it was made for")
        if not policy.encoder.states:
            raise PolicyError("resip: a residual sees states, and this policy observes none")
        if not 0 < scale < inf:
            raise PolicyError(f"algorithm.scale: expected a finite number above 0, got {scale}")
        residual = {
            "obs_horizon": 1, "action_horizon": 1, "clip_actions": False, "process": {"name": "gaussian"},
            "denoiser": {"name": "perceptron", "width": width, "depth": depth},
            "normalizer": {"rotation": "keep"}, "encoder": {"name": "low_dim"},
        }  # fmt: skip
        if steps is not None and "steps" not in policy.config["process"]:
            raise PolicyError(f"algorithm.steps: a policy of kind {policy.config['process']['name']} makes no steps")
        process = policy.config["process"] | ({} if steps is None else {"steps": steps})
        self.base = extended(policy, process=process).requires_grad_(False)
        corrected = {"scale": scale, "policy": residual}
        self.whole = extended(policy, process=process, residual=corrected).requires_grad_(False)
        assert self.whole.residual is not None
        assert self.whole.correction is not None
        self.correction = self.whole.correction
        self.policy = _begun(self.whole.residual, policy, log_std)

    @property
    def result(self) -> Policy:
        return self.whole

    def surround(self, environments: Environments, execute: int | None) -> tuple[Environments, int | None]:
        return FrozenPolicy(environments, self.base, self.correction, self.policy.contract, execute), None


def _begun(residual: Policy, base: Policy, log_std: float) -> Policy:
    """The residual that adds nothing yet, and sees states as the policy does."""
    own, theirs = residual.encoder.normalizer, base.encoder.normalizer
    size = theirs.center.numel()
    own.center[:size], own.spread[:size] = theirs.center, theirs.spread
    layers = [layer for layer in residual.denoiser.modules() if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        layers[-1].weight.zero_()
        layers[-1].bias.zero_()
        assert isinstance(residual.process, Gaussian)
        residual.process.log_std.fill_(log_std)
    for layer in layers:
        layer.requires_grad_(True)
    return residual


class FrozenPolicy:
    """Environments in which a policy acts, and the action is what is added to its own.

    Draws of the policy follow from the seed of the episode and the number of the chunk.

    Args:
        policy: frozen, without a residual.
        correction: says how an addition is made.
        contract: of the residual.
        execute: actions of each chunk, see `ChunkRunner`.
    """

    def __init__(
        self, environments: Environments, policy: Policy, correction: Correction, contract: Contract,
        execute: int | None,
    ) -> None:  # fmt: skip
        satisfies(policy.contract, environments.contract)
        self.num_envs = N = environments.num_envs
        self.contract = contract
        self._environments, self._policy, self._correction = environments, policy, correction
        self._names = list(policy.contract.observation)
        self._runner = ChunkRunner(policy, N, execute=execute)
        self._action = np.zeros((N, policy.contract.action_dim), np.float32)  # of the policy, for the present step
        self._chunk = np.zeros((N, policy.action_horizon, policy.contract.action_dim), np.float32)
        self._seed, self._chunks, self._age = (np.zeros(N, np.int64) for _ in range(3))

    def reset(self, *, seed: int | Iterable[int] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begin episodes."""
        observation, info = self._environments.reset(seed=seed)
        self._seed[:] = info["seed"]
        self._flush(np.arange(self.num_envs))
        self._plan(observation)
        return self._with_action(observation), info

    def step(self, actions: NDArray[np.float32]) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        """Execute the policy's actions with normalised additions [N, A]."""
        told = self._correction.add(self._action, np.asarray(actions, np.float32))
        observation, reward, terminated, truncated, info = self._environments.step(told)
        over = terminated | truncated
        cut = truncated & ~terminated & ~diverged(info, self.num_envs)
        if cut.any():  # what the policy would have done next has a part in the value of where it was cut off
            last = {name: value.copy() for name, value in observation.items()}
            for env in np.flatnonzero(cut):
                for name in self._names:
                    last[name][env] = info["final_obs"][env][name]
            self._plan(last, cut)
            seen = self._with_action(last)
            for env in np.flatnonzero(cut):
                info["final_obs"][env] = {name: value[env] for name, value in seen.items()}
        for env in np.flatnonzero(over):
            self._seed[env] = info["reset_info"][env]["seed"]
        self._flush(np.flatnonzero(over))
        self._plan(observation)
        return self._with_action(observation), reward, terminated, truncated, info

    def get_states(self) -> NDArray[np.float64]:
        """All that decides the future, float64 [N, S]: of the environments, of the chunks and what led to them."""
        every = np.arange(self.num_envs)
        seen = [value.reshape(self.num_envs, -1) for value in self._runner.history(every).values()]
        counts = np.stack([self._seed, self._chunks, self._age], axis=1)
        own: list[NDArray[Any]] = [counts, self._chunk.reshape(self.num_envs, -1), *seen]
        return np.concatenate([*(part.astype(np.float64) for part in own), self._environments.get_states()], axis=1)

    def set_states(self, states: NDArray[np.float64], indices: Sequence[int] | None = None) -> Observation:
        """Continue from `get_states`, [n, S]."""
        rows = np.arange(self.num_envs) if indices is None else np.asarray(indices)
        history = self._runner.history(rows)
        sizes = [3, self._chunk[0].size, *(value[0].size for value in history.values())]
        counts, chunk, *seen, inner = np.split(states, np.cumsum(sizes), axis=1)
        observation = self._environments.set_states(inner, rows.tolist())
        self._flush(rows)
        self._seed[rows], self._chunks[rows], age = counts.T.astype(np.int64)
        self._chunk[rows] = chunk.reshape(self._chunk[rows].shape)
        mask = np.isin(np.arange(self.num_envs), rows)
        parts = {name: part.reshape(value.shape) for part, (name, value) in zip(seen, history.items(), strict=True)}
        for step in range(self._runner.obs_horizon):
            whole = {name: observation[name].copy() for name in self._names}
            for name, part in parts.items():
                whole[name][rows] = part[:, step]
            self._runner.observe(whole, mask)
        request = self._runner.request()
        assert request is not None
        self._runner.deliver(request.id, self._chunk[request.envs])
        self._age[rows] = age
        for step in range(int(age.max())):  # the actions that were taken from it
            moving = mask & (self._age > step)
            self._action[moving] = self._runner.next_action(moving)[moving]
        return self._with_action(observation)

    def _flush(self, envs: NDArray[np.int64]) -> None:
        self._runner.flush(envs)
        self._chunks[envs] = self._age[envs] = 0

    def _plan(self, observation: Mapping[str, NDArray[Any]], mask: NDArray[np.bool_] | None = None) -> None:
        """Let the policy decide on its next action."""
        moving = np.ones(self.num_envs, np.bool_) if mask is None else mask
        self._runner.observe({name: observation[name] for name in self._names}, moving)
        if (request := self._runner.request()) is not None:
            envs = request.envs
            chosen = zip(self._seed[envs].tolist(), self._chunks[envs].tolist(), strict=True)
            generators = [new_generator(self._policy, mixed(seed, number)) for seed, number in chosen]
            self._chunk[envs] = predict(self._policy, request.observation, generators)
            self._runner.deliver(request.id, self._chunk[envs])
            self._chunks[envs] += 1
            self._age[envs] = 0
        self._action[moving] = self._runner.next_action(moving)[moving]
        self._age[moving] += 1

    def _with_action(self, observation: Mapping[str, NDArray[Any]]) -> Observation:
        seen = {name: observation[name] for name in self.contract.observation if name != BASE_ACTION}
        return {**seen, BASE_ACTION: self._correction.normalize(self._action)}
