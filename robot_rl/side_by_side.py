"""Attempts recorded many at once in one process: what `robot-rl collect` does for drones and lean tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from robot_rl.attempt import Actor, Attempt
from robot_rl.datasets import Contract
from robot_rl.rl.environments import diverged
from robot_rl.sim.world_env import WorldVectorEnv

COPIES = 32
"""Of a task, side by side."""

Acting = Callable[[Mapping[str, np.ndarray], np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From observations [N, ...] and who is active [N]: the actions to execute and those intended, [N, A] each."""


class SideBySide:
    """Copies of one environment, and who acts in them. An attempt depends on its seed alone.

    Attributes:
        contract: of the environment. state_size: of the simulator's state.

    Raises:
        SpecError, ContractError, CheckpointError: the environment or the actor cannot be made, or not act in it.
    """

    def __init__(self, spec: Mapping[str, Any], actor: Actor) -> None:
        from robot_rl import sim

        venv = sim.make_vector(spec, COPIES)
        assert isinstance(venv, WorldVectorEnv)
        self._venv = venv
        self._start = {"expert": self._expert, "policy": self._policy, "dagger": self._dagger}[actor.source](actor)
        self.contract: Contract = self._venv.contract
        self.state_size = self._venv.get_states().shape[1]
        # What only an episode shows to be impossible is told now, before a store is made.
        venv.world.begin([0], [0])
        self._start([0])

    def attempts(self, seeds: Callable[[], Iterator[int]]) -> Iterator[Attempt]:
        """Attempts in the order of their seeds, as long as `seeds` gives some that are still to be made."""
        while chosen := list(islice(seeds(), COPIES)):
            yield from self._make(chosen)

    def _make(self, seeds: Sequence[int]) -> list[Attempt]:
        venv = self._venv
        observation, info = venv.reset(seed=seeds)
        drawn = [each.get("randomization") for each in info["reset_info"][: len(seeds)]]
        acting, active = self._start(seeds), info["active"]
        seen, states, rows = [observation], [venv.get_states()], []
        lengths, successes, lost = np.zeros(COPIES, np.int64), np.zeros(COPIES, bool), np.zeros(COPIES, bool)
        while active.any():
            executed, intended = acting(observation, active)
            observation, reward, terminated, truncated, info = venv.step(executed)
            rows.append((executed, intended, reward, terminated, truncated))
            seen.append(observation)
            states.append(venv.get_states())
            lengths += active
            successes |= info["success"]
            lost |= diverged(info, COPIES)
            active = info["active"]
        actions, intentions, rewards, terminations, truncations = (np.stack(each) for each in zip(*rows, strict=True))
        return [
            Attempt(
                seed=seed,
                success=bool(successes[copy]),
                observations={name: np.stack([row[name][copy] for row in seen[: end + 1]]) for name in observation},
                actions=actions[:end, copy].astype(np.float32),
                intended=intentions[:end, copy].astype(np.float32),
                rewards=rewards[:end, copy].astype(np.float32),
                terminated=terminations[:end, copy],
                truncated=truncations[:end, copy],
                states=np.stack([row[copy] for row in states[: end + 1]]),
                facts={"randomization": drawn[copy]} if drawn[copy] else {},
                diverged=bool(lost[copy]),
            )
            for copy, (seed, end) in enumerate(zip(seeds, lengths[: len(seeds)].tolist(), strict=True))
        ]

    def _expert(self, actor: Actor) -> Callable[[Sequence[int]], Acting]:
        from robot_rl.sim.expert.world_expert import Deviations
        from robot_rl.sim.expert.world_expert import start as start_expert

        def start(seeds: Sequence[int]) -> Acting:
            act = start_expert(self._venv.world, actor.expert)
            deviations = Deviations(self._venv.world, actor.noise, [np.random.default_rng([s, 1]) for s in seeds])

            def acting(observation: Mapping[str, np.ndarray], active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                intended = act()
                return deviations.add(intended), intended

            return acting

        return start

    def _policy(self, actor: Actor) -> Callable[[Sequence[int]], Acting]:
        from robot_rl.datasets import satisfies
        from robot_rl.policies.chunk_runner import ChunkRunner
        from robot_rl.policies.prediction import load, new_generator, predict

        policy, _, _ = load(actor.policy)
        satisfies(policy.contract, self._venv.contract)

        def start(seeds: Sequence[int]) -> Acting:
            runner = ChunkRunner(policy, COPIES, execute=actor.execute)
            generators = [new_generator(policy, seed) for seed in seeds]

            def acting(observation: Mapping[str, np.ndarray], active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                runner.observe({name: observation[name] for name in policy.contract.observation}, active)
                if (request := runner.request()) is not None:
                    drawing = [generators[copy] for copy in request.envs]
                    runner.deliver(request.id, predict(policy, request.observation, drawing, request.prefix))
                actions = runner.next_action(active)
                return actions, actions

            return acting

        return start

    def _dagger(self, actor: Actor) -> Callable[[Sequence[int]], Acting]:
        """The states are the policy's own, the labels the expert's (Ross et al. 2011)."""
        start_policy, start_expert = self._policy(actor), self._expert(Actor("expert", expert=actor.expert))

        def start(seeds: Sequence[int]) -> Acting:
            policy, expert = start_policy(seeds), start_expert(seeds)
            return lambda observation, active: (policy(observation, active)[0], expert(observation, active)[1])

        return start
