"""Delays and noise between an environment and whoever acts in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import mujoco
import numpy as np

from robot_rl.datasets.contract import ROTATION_SLICES, Contract, Feature
from robot_rl.sim.randomized_model import quaternion_of
from robot_rl.sim.spec import SpecError

Interval = tuple[float, float]


class Disturbance:
    """Delays actions, and delays and blurs observations, by numbers drawn once an episode.

    Delays count control steps. Until the first delayed action arrives, the robot is commanded to rest; a delayed
    observation begins as the first one. Noise is normal and depends on the episode's seed and the step alone.

    Args:
        config: any of

            - action_delay: [low, high] steps, whole numbers.
            - observation_delay: the same, or a mapping of features (or patterns) to it. Each feature draws its own.
            - observation_noise: mapping of features (or patterns) to a standard deviation in their unit, a number or
              an interval [low, high]; of poses it is that of the position, or a mapping with `position` and
              `rotation` [rad]; of images in grey levels.

    Raises:
        SpecError: a feature is unknown, or a value is not of this form.
    """

    def __init__(self, config: Mapping[str, Any], contract: Contract) -> None:
        self._features = dict(contract.observation)
        self._action_delay = _steps("action_delay", config.get("action_delay", [0, 0]))
        delay = config.get("observation_delay", {})
        delays = delay if isinstance(delay, Mapping) else {"*": delay}
        self._delays = {
            name: _steps(f"observation_delay.{name}", value)
            for name, value in self._matching("observation_delay", delays)
        }
        self._noises = {
            name: _deviation(f"observation_noise.{name}", value, self._features[name])
            for name, value in self._matching("observation_noise", config.get("observation_noise", {}))
        }
        self._wanted = [key for key in ("action_delay", "observation_delay", "observation_noise") if key in config]
        low_dimensional = [name for name in self._delays if not self._features[name].is_frame]
        self._state_size = (
            1
            + self._action_delay[1] * contract.action_dim
            + sum((self._delays[name][1] + 1) * self._features[name].size for name in low_dimensional)
        )
        self._step = 0
        self._actions: deque[np.ndarray] = deque()
        self._past: dict[str, deque[np.ndarray]] = {}
        self._record: Mapping[str, Any] = {}

    def draw(self, generator: np.random.Generator) -> dict[str, Any]:
        """Numbers for one episode, under the keys of the configuration."""
        record: dict[str, Any] = {}
        if "action_delay" in self._wanted:
            record["action_delay"] = int(generator.integers(*self._action_delay, endpoint=True))
        if "observation_delay" in self._wanted:
            record["observation_delay"] = {
                name: int(generator.integers(*steps, endpoint=True)) for name, steps in self._delays.items()
            }
        if "observation_noise" in self._wanted:
            deviations = {
                name: {part: generator.uniform(*interval) for part, interval in parts.items()}
                for name, parts in self._noises.items()
            }
            record["observation_noise"] = {"seed": int(generator.integers(2**31)), "deviation": deviations}
        return record

    def begin(self, record: Mapping[str, Any], rest: np.ndarray, observation: Mapping[str, np.ndarray]) -> None:
        """Begin an episode with numbers drawn.

        Args:
            rest: action [A] that keeps the robot where it is.
            observation: the first one, undisturbed.

        Raises:
            SpecError: the numbers belong to another configuration.
        """
        delays = {"action": record.get("action_delay", 0), **record.get("observation_delay", {})}
        longest = {"action": self._action_delay[1], **{name: steps[1] for name, steps in self._delays.items()}}
        if longer := [name for name, steps in delays.items() if steps > longest.get(name, 0)]:
            raise SpecError(f"the record of a randomisation delays {', '.join(longer)} more than its configuration")
        self._record, self._step = record, 0
        self._actions = deque([np.array(rest, float)] * record.get("action_delay", 0))
        self._past = {
            name: deque([observation[name].copy()] * (steps + 1), maxlen=steps + 1)
            for name, steps in record.get("observation_delay", {}).items()
        }

    @property
    def delays_pictures(self) -> bool:
        """Whether a picture is seen at a later step of this episode than it was taken."""
        return any(self._features[name].is_frame for name in self._past)

    def act(self, action: np.ndarray) -> np.ndarray:
        """The action to execute now [A], when `action` is commanded now."""
        self._actions.append(np.array(action, float))  # callers may use theirs again
        return self._actions.popleft()

    def advance(self, observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What is seen after one more step."""
        self._step += 1
        for name, past in self._past.items():
            past.append(observation[name].copy())
        return self.observe(observation)

    def observe(self, observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What is seen of the present observation; the same however often it is asked."""
        seen = {
            name: self._past[name][0].copy() if name in self._past else value for name, value in observation.items()
        }
        noise = self._record.get("observation_noise")
        if noise:
            generator = np.random.default_rng([noise["seed"], self._step])
            for name, deviation in noise["deviation"].items():
                seen[name] = _blurred(seen[name], self._features[name], deviation, generator)
        return seen

    def get_state(self) -> np.ndarray:
        """What it remembers, float64, of the same size in every episode; of delayed images nothing."""
        delayed = [value for name in self._remembered() for value in self._past[name]]
        state = np.zeros(self._state_size)
        parts = np.concatenate([[float(self._step)], *(np.ravel(value) for value in (*self._actions, *delayed))])
        state[: len(parts)] = parts
        return state

    def set_state(self, state: np.ndarray, observation: Mapping[str, np.ndarray]) -> None:
        """Continue from what `get_state` returned in the same episode; delayed images begin as in `observation`."""
        rest = np.array(state, float)
        self._step = int(rest[0])
        rest = rest[1:]
        for index, action in enumerate(self._actions):
            self._actions[index], rest = rest[: action.size].reshape(action.shape), rest[action.size :]
        for name in self._past:
            past = self._past[name]
            for index, value in enumerate(past):
                if name in self._remembered():
                    past[index] = rest[: value.size].reshape(value.shape).astype(value.dtype)
                    rest = rest[value.size :]
                else:
                    past[index] = observation[name]

    def _remembered(self) -> list[str]:
        return [name for name in self._past if not self._features[name].is_frame]

    def _matching(self, key: str, given: Mapping[str, Any]) -> list[tuple[str, Any]]:
        found: dict[str, Any] = {}
        if not isinstance(given, Mapping):
            raise SpecError(f"randomization {key}: expected {{observation: value}}, got {given!r}")
        for pattern, value in given.items():
            names = [name for name in self._features if fnmatchcase(name, pattern)]
            if not names and "*" not in pattern:
                raise SpecError(f"{key}: no observation {pattern!r}; there are: {', '.join(self._features)}")
            found |= dict.fromkeys(names, value)
        return list(found.items())


def _steps(key: str, value: Any) -> tuple[int, int]:
    pair = [value, value] if isinstance(value, int) else value
    if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(step, int) for step in pair)):
        raise SpecError(f"randomization {key}: expected [low, high] in whole steps, got {value!r}")
    if not 0 <= pair[0] <= pair[1]:
        raise SpecError(f"randomization {key}: expected 0 <= low <= high, got {value!r}")
    return pair[0], pair[1]


def _deviation(key: str, value: Any, feature: Feature) -> dict[str, Interval]:
    rotation = ROTATION_SLICES.get(feature.representation)
    known = ["position", "rotation"] if rotation is not None else ["value"]
    if not isinstance(value, Mapping):
        value = {known[0]: value}
    if unknown := sorted(set(value) - set(known)):
        raise SpecError(f"randomization {key}: no part {', '.join(unknown)}; there are: {', '.join(known)}")
    parts = {}
    for part, numbers in value.items():
        pair = numbers if isinstance(numbers, list | tuple) else [numbers, numbers]
        numeric = all(isinstance(number, int | float) for number in pair)
        if len(pair) != 2 or not numeric or not 0 <= pair[0] <= pair[1] < np.inf:
            raise SpecError(f"randomization {key}: expected a deviation or [low, high], got {numbers!r}")
        parts[part] = float(pair[0]), float(pair[1])
    return parts


def _blurred(
    value: np.ndarray, feature: Feature, deviation: Mapping[str, float], generator: np.random.Generator
) -> np.ndarray:
    if "value" in deviation:
        noisy = value + generator.normal(0, deviation["value"], value.shape)
        if np.issubdtype(value.dtype, np.integer):
            limits = np.iinfo(value.dtype)
            noisy = np.clip(np.rint(noisy), limits.min, limits.max)
        return noisy.astype(value.dtype)
    noisy = value.astype(float)
    part = ROTATION_SLICES[feature.representation]
    noisy[: part.start] += generator.normal(0, deviation.get("position", 0.0), part.start)
    turn = quaternion_of(generator.normal(0, deviation.get("rotation", 0.0), 3))
    if part.stop - part.start == 4:
        turned = np.empty(4)
        mujoco.mju_mulQuat(turned, turn, noisy[part])
        # Canonical: the largest component is positive.
        noisy[part] = turned * np.sign(turned[np.argmax(np.abs(turned))])
    else:
        for column in (slice(part.start, part.start + 3), slice(part.start + 3, part.stop)):
            turned = np.empty(3)
            mujoco.mju_rotVecQuat(turned, noisy[column], turn)
            noisy[column] = turned
    return noisy.astype(value.dtype)
