"""Policies in simulation: episodes from given seeds, many environments at once, chunks executed by the `ChunkRunner`.

An episode depends on its seed alone: the environment is reset to it, and every draw of the policy comes from a
generator of the episode's own that starts from it. How many environments run side by side changes nothing but the
rounding of matrix products.

Inference may be given an artificial delay, counted on the control clock: a chunk that is asked for at a step then comes
so much later, and until then an environment does what the mode of the `ChunkRunner` says, or holds its last command.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.policies.chunk_runner import ChunkRunner, Mode
from robot_rl.policies.prediction import AnyPolicy, new_generator, predict
from robot_rl.seed import FIRST_VALIDATION_SEED

if TYPE_CHECKING:
    from robot_rl.sim.vector import VectorEnv
    from robot_rl.sim.world_env import WorldVectorEnv
    from robot_rl.training import Settings


@dataclass(frozen=True)
class Outcome:
    """One episode of a policy.

    Attributes:
        success_step: the first step, from 1, that was a success; None for a failure.
        rewards: float64 [T].
        actions: float32 [T, A]; from the same seed they give the same episode again.
        switched: bool [T], whether execution passed on to a newer chunk with this action.
        held: bool [T], whether the last command was repeated for want of an action.
        terminated, truncated: how it ended.
        metrics: what the task measures besides, at the end of the episode; for example a lap time, None without a lap.
            A text names how it was done, for example which way was taken.
        observations: {name: [T + 1, ...]} where they were asked for.
    """

    seed: int
    success_step: int | None
    rewards: NDArray[np.float64]
    actions: NDArray[np.float32]
    switched: NDArray[np.bool_]
    held: NDArray[np.bool_]
    terminated: bool
    truncated: bool
    metrics: Mapping[str, float | str | None] = field(default_factory=dict)
    observations: dict[str, NDArray[Any]] | None = None

    @property
    def success(self) -> bool:
        """Whether any step was a success."""
        return self.success_step is not None

    @property
    def steps(self) -> int:
        """T."""
        return len(self.actions)

    @property
    def total_reward(self) -> float:
        """Sum of the rewards."""
        return float(self.rewards.sum())


def check_execution(mode: Mode, delay: float, guidance: float | None) -> None:
    """Raise ValueError for a delay [ms] that cannot be, or a guidance that this mode has no use for."""
    if not 0 <= delay < math.inf:
        raise ValueError(f"delay={delay}: expected at least 0 ms")
    if guidance is not None and mode != "real_time":
        raise ValueError(f"guidance={guidance}: goes with mode=real_time, not {mode}")


def rollout(
    policy: AnyPolicy,
    venv: VectorEnv | WorldVectorEnv,
    seeds: Iterable[int],
    *,
    execute: int | None = None,
    mode: Mode = "receding_horizon",
    delay: float = 0.0,
    guidance: float | None = None,
    keep_observations: bool = False,
) -> Iterator[Outcome]:
    """Run one episode from each seed, and hand over each as it ends.

    Args:
        policy: in evaluation mode; its contract is one that the environments satisfy.
        venv: whose environments name the seed of an episode in the info of its reset.
        execute, mode: see `ChunkRunner`.
        delay: of each chunk [ms], rounded up to control steps.
        guidance: of inpainting in mode `real_time`, see `Policy.sample`.
        keep_observations: as the environments give them, for one who judges by them.

    Raises:
        ValueError: the chunks are too short for this delay; or see `check_execution`.
    """
    check_execution(mode, delay, guidance)
    names = list(policy.contract.observation)
    late = math.ceil(round(delay * 1e-3 * policy.contract.rate_hz, 6))
    runner = ChunkRunner(policy, venv.num_envs, execute=execute, mode=mode, delay=late)
    coming: deque[tuple[int, int, NDArray[np.float32]]] = deque()
    generators: dict[int, Any] = {}
    observation, info = venv.reset(seed=[int(seed) for seed in seeds])
    active, seed = info["active"].copy(), info["seed"].copy()
    logs = [_Log(int(seed[env])) for env in range(venv.num_envs)]
    hold = np.stack(venv.call("rest_action")).astype(np.float32) if late else None
    for step in itertools.count():
        if not active.any():
            return
        runner.observe({name: observation[name] for name in names}, active)
        while coming and coming[0][0] <= step:
            runner.deliver(*coming.popleft()[1:])
        if (request := runner.request()) is not None:
            asking = seed[request.envs].tolist()
            generators |= {one: new_generator(policy, one) for one in asking if one not in generators}
            rows = [generators[one] for one in asking]
            chunk = predict(policy, request.observation, rows, request.prefix, guidance)
            if late:
                coming.append((step + late, request.id, chunk))
            else:
                runner.deliver(request.id, chunk)
        actions = runner.next_action(active, hold)
        before = observation
        look = None if keep_observations else runner.attentive
        observation, reward, terminated, truncated, info = venv.step(actions, look)
        ended = terminated | truncated
        for env in np.flatnonzero(active):
            seen = {name: value[env].copy() for name, value in before.items()} if keep_observations else None
            marks = bool(info["success"][env]), bool(runner.switched[env]), bool(runner.starved[env])
            logs[env].add(actions[env], float(reward[env]), *marks, seen)
            if ended[env]:
                final = dict(info["final_obs"][env]) if keep_observations else None
                metrics = info["final_info"][env].get("metrics", {})
                yield logs[env].outcome(bool(terminated[env]), bool(truncated[env]), metrics, final)
                del generators[int(seed[env])]
        runner.flush(np.flatnonzero(ended & active))
        active = info["active"].copy()
        if hold is not None:
            hold = np.where(np.isnan(actions), hold, actions)
            begun = np.flatnonzero(ended & active)
            for env, rest in zip(begun, venv.call_each("rest_action", {int(env): [] for env in begun}), strict=True):
                hold[env] = rest
        for env in np.flatnonzero(ended & active):
            seed[env] = info["reset_info"][env]["seed"]
            logs[env] = _Log(int(seed[env]))


def run_episodes(
    policy: AnyPolicy,
    spec: Mapping[str, Any],
    seeds: Sequence[int],
    *,
    num_envs: int = 16,
    processes: int | None = None,
    description: str = "evaluate",
    execute: int | None = None,
    mode: Mode = "receding_horizon",
    delay: float = 0.0,
    guidance: float | None = None,
    keep_observations: bool = False,
    progress: bool = True,
    finished: Mapping[int, Outcome] | None = None,
    keep: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Run one episode from each seed in environments made for it; the outcomes in the order of the seeds.

    Args:
        spec: of the environment; see `robot_rl.sim.make`. Cameras that the policy does not see are left out, unless
            observations are kept.
        num_envs, processes: side by side, see `robot_rl.sim.make_vector`.
        execute, mode, delay, guidance, keep_observations: see `rollout`.
        progress: show a bar with the success rate so far, on a terminal.
        finished: outcomes by seed that are known already.
        keep: called with each outcome as it is found.

    Raises:
        ContractError: the environment does not offer what the policy needs.
    """
    from tqdm import tqdm

    from robot_rl import sim
    from robot_rl.datasets import satisfies

    if len(set(seeds)) != len(seeds):
        raise ValueError("seeds: expected every seed once")
    spec = spec if keep_observations else without_unseen_cameras(spec, policy)
    outcomes = {seed: outcome for seed, outcome in (finished or {}).items() if seed in set(seeds)}
    successes = sum(outcome.success for outcome in outcomes.values())
    left = [seed for seed in seeds if seed not in outcomes]
    if not left:
        return [outcomes[seed] for seed in seeds]
    num_envs = min(num_envs, len(left))
    with (
        sim.make_vector(spec, num_envs, None if processes is None else min(processes, num_envs)) as venv,
        tqdm(
            total=len(seeds), initial=len(outcomes), desc=description, unit="episode",
            disable=None if progress else True,
        ) as bar,
    ):  # fmt: skip
        satisfies(policy.contract, venv.contract)
        episodes = rollout(
            policy, venv, left, execute=execute, mode=mode, delay=delay, guidance=guidance,
            keep_observations=keep_observations,
        )  # fmt: skip
        for outcome in episodes:
            outcomes[outcome.seed] = outcome
            if keep is not None:
                keep(outcome)
            successes += outcome.success
            bar.set_postfix(success=f"{successes / len(outcomes):.0%}", refresh=False)
            bar.update()
    return [outcomes[seed] for seed in seeds]


def success_rate(policy: AnyPolicy, environment: Mapping[str, Any] | None, settings: Settings) -> float:
    """Share of `settings.evaluate_episodes` episodes that succeed, for choosing between checkpoints during training."""
    if environment is None:
        raise ValueError(
            "the data say nothing of a simulated environment (provenance `environment`), so that the policy cannot be "
            "tried during training; set training.evaluate_every=0"
        )
    seeds = range(FIRST_VALIDATION_SEED, FIRST_VALIDATION_SEED + settings.evaluate_episodes)
    outcomes = run_episodes(policy, environment, seeds, progress=False)
    return sum(outcome.success for outcome in outcomes) / len(outcomes)


def without_unseen_cameras(spec: Mapping[str, Any], policy: AnyPolicy) -> dict[str, Any]:
    """The specification with only those cameras that the policy observes: the others would be rendered for nobody."""
    return with_cameras(spec, policy.contract.observation)


def with_cameras(spec: Mapping[str, Any], kept: Container[str]) -> dict[str, Any]:
    """The specification with only these cameras, and without noise and delay of the others."""
    given = spec.get("cameras") or {}
    changed: dict[str, Any] = {**spec, "cameras": {name: size for name, size in given.items() if name in kept}}
    if isinstance(spec.get("randomization"), Mapping):
        gone = set(given) - set(changed["cameras"])
        changed["randomization"] = {
            key: {name: each for name, each in value.items() if name not in gone}
            if key in ("observation_noise", "observation_delay") and isinstance(value, Mapping)
            else value
            for key, value in spec["randomization"].items()
        }
    return changed


class _Log:
    """What an episode has been so far."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._success_step: int | None = None
        self._actions: list[NDArray[np.float32]] = []
        self._rewards: list[float] = []
        self._switched: list[bool] = []
        self._held: list[bool] = []
        self._observations: list[dict[str, NDArray[Any]]] = []

    def add(
        self, action: NDArray[np.float32], reward: float, success: bool, switched: bool, held: bool,
        seen: dict[str, NDArray[Any]] | None,
    ) -> None:  # fmt: skip
        self._actions.append(action.copy())
        self._rewards.append(reward)
        self._switched.append(switched)
        self._held.append(held)
        if success and self._success_step is None:
            self._success_step = len(self._actions)
        if seen is not None:
            self._observations.append(seen)

    def outcome(
        self, terminated: bool, truncated: bool, metrics: Mapping[str, float | str | None],
        final: dict[str, NDArray[Any]] | None,
    ) -> Outcome:  # fmt: skip
        observations = None
        if final is not None:
            rows = [*self._observations, final]
            observations = {name: np.stack([row[name] for row in rows]) for name in final}
        rewards, actions = np.asarray(self._rewards), np.stack(self._actions)
        marks = np.asarray(self._switched), np.asarray(self._held)
        return Outcome(
            self._seed, self._success_step, rewards, actions, *marks, terminated, truncated, metrics, observations
        )
