"""`demo_reset`: PPO whose episodes begin, as often as not, in a state of a demonstration (DR-PO, Chang et al. 2024).

From a state halfway through a demonstration a reward that is hardly ever met from the true start is a few steps away.
What is learned there is what earlier states lead to. Evaluations begin at the true start.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.datasets import Contract, EpisodeStore
from robot_rl.policies import Policy, PolicyError
from robot_rl.rl.environments import Environments, Observation
from robot_rl.rl.ppo import PPO
from robot_rl.rl.recorded_task import check_task

_PURPOSE = 1  # of draws from an episode's seed, besides those of the environment


class DemoReset(PPO):
    """Args:
    policy, std: see `PPO`.
    demonstrations: store of episodes of the task with the states of the simulator; the successful ones count.
    share: of the training episodes that begin in a state of theirs.
    """

    def __init__(
        self, policy: Policy, *, std: float | None = None, demonstrations: str | None = None, share: float = 0.5
    ) -> None:
        super().__init__(policy, std=std)
        if demonstrations is None:
            raise PolicyError("algorithm.demonstrations= is missing: a store of successful episodes of the task")
        if not 0 <= share <= 1:
            raise PolicyError(f"algorithm.share: expected 0 to 1, got {share}")
        self.store, self.demonstrated = EpisodeStore.open(demonstrations), share
        self.states, self.steps = demonstrated_states(self.store)

    def surround(self, environments: Environments, execute: int | None) -> tuple[Environments, int | None]:
        """Environments that begin there, but in no state in which an episode of theirs would be over already.

        Raises:
            FinetuneError: the demonstrations are of another task.
        """
        spec = getattr(environments, "specification", {})
        check_task(self.store, spec)
        # A state holds the control steps that led to it, which go on counting towards the horizon.
        states = self.states[self.steps < spec.get("horizon", np.inf)]
        return DemonstrationStarts(environments, states, self.demonstrated), execute


class DemonstrationStarts:
    """Environments of which a share of the episodes begins in one of some states; the seed decides which.

    Args:
        states: [n, S], each as likely.
    """

    def __init__(self, environments: Environments, states: NDArray[np.float64], share: float) -> None:
        self.num_envs, self.contract = environments.num_envs, environments.contract
        self._environments, self._states, self._share = environments, states, share
        self.get_states, self.set_states = environments.get_states, environments.set_states

    contract: Contract

    def reset(self, *, seed: int | Iterable[int] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begin episodes.

        Raises:
            PolicyError: the states are of another task.
        """
        observation, info = self._environments.reset(seed=seed)
        if (size := self.get_states().shape[1]) != self._states.shape[1]:
            raise PolicyError(
                f"algorithm.demonstrations: expected states of {size} numbers, as this task has, got "
                f"{self._states.shape[1]}; give demonstrations of this task"
            )
        return self._moved(observation, dict(enumerate(info["seed"].tolist()))), info

    def step(self, actions: NDArray[np.float32]) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        """One step, and for episodes that it ended the beginning of the next."""
        observation, reward, terminated, truncated, info = self._environments.step(actions)
        begun = {env: begin["seed"] for env, begin in enumerate(info["reset_info"]) if begin is not None}
        return self._moved(observation, begun), reward, terminated, truncated, info

    def _moved(self, observation: Observation, seeds: dict[int, int]) -> Observation:
        generators = {env: np.random.default_rng((seed, _PURPOSE)) for env, seed in seeds.items()}
        chosen = {
            env: self._states[generator.integers(len(self._states))]
            for env, generator in generators.items()
            if generator.random() < self._share
        }
        return self.set_states(np.stack(list(chosen.values())), list(chosen)) if chosen else observation


def demonstrated_states(store: EpisodeStore) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The states [n, S] of all steps of the successful episodes of a store, and the steps before each, [n].

    Raises:
        PolicyError: it has no states, or no success.
    """
    if not store.layout.sim_state_size:
        raise PolicyError(f"{store.path}: holds no states of the simulator; collect with sim_state=true")
    found = [np.asarray(episode.sim_state[:-1], np.float64) for episode in store if episode.success]
    if not found:
        raise PolicyError(f"{store.path}: none of the {len(store)} episodes is a success")
    return np.concatenate(found), np.concatenate([np.arange(len(states)) for states in found])
