"""One attempt at a task in simulation, recorded: what a worker process of `robot-rl collect` does for each seed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from robot_rl.hardware.child_process import end_with_parent

if TYPE_CHECKING:
    from robot_rl.datasets.writer import StoreWriter
    from robot_rl.sim.expert.scripted_expert import ScriptedExpert
    from robot_rl.sim.expert.world_expert import WorldExpert
    from robot_rl.sim.multiplication import Multiplier


@dataclass(frozen=True)
class Actor:
    """Who acts.

    Attributes:
        source: `expert`, `policy`, `dagger` (the policy acts, and the expert says what it would have done), `multiply`,
            or of `robot_rl.playback`: `replay`, `render`.
        noise: strength of the deviations of the expert, or from the multiplied demonstrations.
        policy: folder of the policy.
        execute: actions executed of each chunk; None: as the policy was made for, or half.
        demonstrations: store of the episodes to multiply or to play back.
        redraw: played back, whether the randomisation is drawn anew instead of as recorded.
        expert: which of a task's experts; None: its first.
    """

    source: str
    noise: float = 0.0
    policy: str = ""
    execute: int | None = None
    demonstrations: str = ""
    redraw: bool = False
    expert: str | None = None

    def describe(self) -> dict[str, Any]:
        """For the provenance of a store."""
        named = {"expert": self.expert} if self.expert else {}
        if self.source in ("policy", "dagger"):
            return {"policy": self.policy, "execute": self.execute, **named}
        if self.source == "multiply":
            return {"demonstrations": self.demonstrations, "noise": self.noise}
        if self.demonstrations:
            return {"demonstrations": self.demonstrations}
        return {"noise": self.noise, **named}

    @property
    def settings(self) -> dict[str, Any]:
        """On which what it does depends, besides the seed; of `describe`."""
        known = {key: value for key, value in self.describe().items() if key != "demonstrations"}
        return {**known, "expert": self.expert} if self.source in ("expert", "policy", "dagger") else known


@dataclass
class Attempt:
    """The T actions of an attempt and the T + 1 observations around them.

    Attributes:
        observations: {name: [T+1, ...]}.
        actions: float32 [T, A], as executed.
        intended: float32 [T, A], without the expert's noise; with `dagger` what the expert would have done.
        rewards, terminated, truncated: [T].
        states: float64 [T+1, S], the simulator's.
        facts: what was drawn, for example by the randomisation, and those of the one who acted.
        intervened: bool [T], where a person had taken over in what is played back; None: nowhere.
        source: who acted, where it was not the actor.
        diverged: whether the simulation did, in the last step; what is observed then is no state of the task.
    """

    seed: int
    success: bool
    observations: dict[str, np.ndarray]
    actions: np.ndarray
    intended: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    states: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)
    intervened: np.ndarray | None = None
    source: str = ""
    diverged: bool = False

    def observation(self, row: int) -> dict[str, np.ndarray]:
        """The observation before action `row`; row T is the final one."""
        return {name: values[row] for name, values in self.observations.items()}


class Acting(Protocol):
    """Chooses the actions of one attempt."""

    def __call__(self, observation: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The action to execute and the one intended, [A] each."""

    @property
    def failed(self) -> bool:
        """Whether it has given up."""

    @property
    def facts(self) -> dict[str, Any]:
        """What else to note of the episode; JSON types."""


def attempt(env: Any, start: Callable[[int], Acting], seed: int) -> Attempt:
    """Reset the environment to a seed, and act until the episode is over or the one who acts gives up.

    Args:
        start: gives, for a seed and after the reset, who acts.
    """
    observation, info = env.reset(seed=seed)
    acting = start(seed)
    observations, states = [observation], [env.get_state()]
    rows: list[tuple[np.ndarray, np.ndarray, float, bool, bool]] = []
    success, over = False, False
    while not over:
        action, intended = acting(observation)
        observation, reward, terminated, truncated, step_info = env.step(action)
        truncated = bool(truncated) or (acting.failed and not terminated)
        rows.append((action, intended, float(reward), bool(terminated), truncated))
        observations.append(observation)
        states.append(env.get_state())
        success, over = success or bool(step_info["success"]), terminated or truncated
    actions, intentions, rewards, terminations, truncations = zip(*rows, strict=True)
    drawn = info.get("randomization")
    return Attempt(
        seed=seed,
        success=success,
        observations={name: np.stack([row[name] for row in observations]) for name in observation},
        actions=np.stack(actions),
        intended=np.stack(intentions),
        rewards=np.asarray(rewards, np.float32),
        terminated=np.asarray(terminations),
        truncated=np.asarray(truncations),
        states=np.stack(states),
        facts=({"randomization": drawn} if drawn else {}) | acting.facts,
        diverged=step_info.get("diverged", False),
    )


def write(writer: StoreWriter, attempt: Attempt, task: str, actor: Actor, states: bool = True) -> None:
    """Make an episode of an attempt, with the simulator's states or without."""
    intended, intervened = attempt.intended, attempt.intervened
    with writer.episode(task=task, source=attempt.source or actor.source, seed=attempt.seed) as episode:
        for row, action in enumerate(attempt.actions):
            episode.add(
                attempt.observation(row), action, reward=float(attempt.rewards[row]),
                terminated=bool(attempt.terminated[row]), truncated=bool(attempt.truncated[row]),
                # Where a person took over from nobody, there is none.
                policy_action=intended[row] if np.isfinite(intended[row]).all() else None,
                intervened=intervened is not None and bool(intervened[row]),
                sim_state=attempt.states[row] if states else None,
            )  # fmt: skip
        last = len(attempt.actions)
        episode.finish(
            attempt.observation(last), success=attempt.success,
            sim_state=attempt.states[last] if states else None, **(attempt.facts | actor.describe()),
        )  # fmt: skip


_failure = ""
_env: Any = None
_make: Callable[[int], Attempt]


def start_worker(spec: dict[str, Any], actor: Actor, parent: int) -> None:
    """Build the environment and the actor of this process, once. It ends with the process of id `parent`."""
    global _env, _make, _failure
    end_with_parent(parent=parent)
    # Ctrl-C reaches every process of the terminal; only the writing process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        from robot_rl import sim

        _env = sim.make(spec)
        if actor.source in ("replay", "render"):
            from robot_rl.playback import player

            _make = player(_env, actor.demonstrations, actor.source, actor.redraw)
        else:
            _make = partial(attempt, _env, start_acting(_env, actor))
    except Exception as error:
        # An error here would break the pool with a traceback; `describe` hands it over in one piece.
        _failure = str(error) or type(error).__name__


def start_acting(env: Any, actor: Actor) -> Callable[[int], Acting]:
    """Gives, for a seed and after the reset, who acts, see `attempt`; not of what is played back.

    Raises:
        ValueError: the actor cannot act in this environment.
    """
    starts = {"expert": _expert, "policy": _policy, "dagger": _dagger, "multiply": _multiplier}
    return starts[actor.source](env, actor)


def describe() -> tuple[dict[str, Any], int]:
    """Contract and size of the simulator's state, of this process' environment.

    Raises:
        RuntimeError: the environment or the actor could not be made.
    """
    if _failure:
        raise RuntimeError(_failure)
    _env.reset(seed=0)
    return _env.contract.to_dict(), len(_env.get_state())


def run_attempt(seed: int) -> Attempt:
    """One attempt in this process' environment."""
    return _make(seed)


class _Demonstrator:
    """Acts by the scene instead of the observation: an expert, or demonstrations moved along with the objects."""

    def __init__(self, demonstrator: ScriptedExpert | WorldExpert | Multiplier, facts: dict[str, Any]) -> None:
        self._demonstrator, self.facts = demonstrator, facts

    def __call__(self, observation: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return self._demonstrator.act(), self._demonstrator.intended

    @property
    def failed(self) -> bool:
        return self._demonstrator.failed


def _expert(env: Any, actor: Actor) -> Callable[[int], Acting]:
    from robot_rl.sim.expert import make_expert

    def start(seed: int) -> Acting:
        return _Demonstrator(make_expert(env, actor.noise, np.random.default_rng([seed, 1]), actor.expert), {})

    start(0)  # what is impossible is said before a store is made
    return start


def _dagger(env: Any, actor: Actor) -> Callable[[int], Acting]:
    """The states are the policy's own, the labels the expert's (Ross et al. 2011)."""
    start_policy, start_expert = _policy(env, actor), _expert(env, Actor("expert", expert=actor.expert))

    class ActingStudent:
        facts: ClassVar[dict[str, Any]] = {}

        def __init__(self, seed: int) -> None:
            self._policy, self._expert = start_policy(seed), start_expert(seed)

        def __call__(self, observation: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            return self._policy(observation)[0], self._expert(observation)[1]

        @property
        def failed(self) -> bool:
            return self._expert.failed

    return ActingStudent


def _policy(env: Any, actor: Actor) -> Callable[[int], Acting]:
    import torch

    from robot_rl.datasets import satisfies
    from robot_rl.policies.chunk_runner import ChunkRunner
    from robot_rl.policies.prediction import load, new_generator, predict

    torch.set_num_threads(1)
    policy, _, _ = load(actor.policy)
    satisfies(policy.contract, env.contract)
    ChunkRunner(policy, 1, execute=actor.execute)  # what is impossible is said before a store is made

    class ActingPolicy:
        failed = False
        facts: ClassVar[dict[str, Any]] = {}

        def __init__(self, seed: int) -> None:
            self._runner = ChunkRunner(policy, 1, execute=actor.execute)
            self._generator = new_generator(policy, seed)

        def __call__(self, observation: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            self._runner.observe({name: observation[name][None] for name in policy.contract.observation})
            if (request := self._runner.request()) is not None:
                self._runner.deliver(request.id, predict(policy, request.observation, [self._generator]))
            action = self._runner.next_action()[0].copy()
            return action, action

    return ActingPolicy


def _multiplier(env: Any, actor: Actor) -> Callable[[int], Acting]:
    from robot_rl.sim.multiplication import Multiplier, read_demonstrations

    demonstrations = read_demonstrations(actor.demonstrations, env)

    def start(seed: int) -> Acting:
        multiplier = Multiplier(env, demonstrations, actor.noise, np.random.default_rng([seed, 1]))
        return _Demonstrator(multiplier, multiplier.facts)

    return start
