"""Several environments that step one after the other, on rows of shared arrays."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from robot_rl.datasets.contract import Contract

_ALIGNMENT = 64


@dataclass(frozen=True)
class Rows:
    """What N environments hand over at each step, one row each.

    Attributes:
        observation: name to [N, ...], the present observation; of a new episode where the old one has just ended.
        final_observation: name to [N, ...], the last one of the old episode, where it has just ended.
        action: float32 [N, A].
        reward: float64 [N].
        terminated, truncated, success: bool [N], of the last step.
        active: bool [N], whether the environment is within an episode.
        look: bool [N], whether the next step takes new pictures.
    """

    observation: Mapping[str, np.ndarray]
    final_observation: Mapping[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray
    active: np.ndarray
    look: np.ndarray

    def part(self, start: int, stop: int) -> Rows:
        """Views of rows start to stop."""
        parts: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            is_mapping = isinstance(value, Mapping)
            parts[item.name] = (
                {name: array[start:stop] for name, array in value.items()} if is_mapping else value[start:stop]
            )
        return Rows(**parts)


def rows_size(contract: Contract, num_envs: int) -> int:
    """Bytes that the rows of `num_envs` environments take."""
    return sum(_padded(shape, dtype) for _, _, shape, dtype in _layout(contract, num_envs))


def make_rows(contract: Contract, num_envs: int, memory: memoryview | None = None) -> Rows:
    """Rows, all zero, or views of `memory` that other processes see too."""
    views: dict[str, Any] = {"observation": {}, "final_observation": {}}
    offset = 0
    for group, name, shape, dtype in _layout(contract, num_envs):
        array = np.zeros(shape, dtype) if memory is None else np.ndarray(shape, dtype, memory, offset)
        offset += _padded(shape, dtype)
        if name:
            views[group][name] = array
        else:
            views[group] = array
    return Rows(**views)


def _layout(contract: Contract, num_envs: int) -> Iterator[tuple[str, str, tuple[int, ...], np.dtype]]:
    for group in ("observation", "final_observation"):
        for name, feature in contract.observation.items():
            yield group, name, (num_envs, *feature.shape), np.dtype(feature.dtype)
    yield "action", "", (num_envs, contract.action_dim), np.dtype(np.float32)
    yield "reward", "", (num_envs,), np.dtype(np.float64)
    for name in ("terminated", "truncated", "success", "active", "look"):
        yield name, "", (num_envs,), np.dtype(np.bool_)


def _padded(shape: tuple[int, ...], dtype: np.dtype) -> int:
    # Rows of different processes must not share a cache line.
    return -(-int(np.prod(shape)) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT


class EnvGroup:
    """Makes `count` environments of one specification and steps them on rows.

    Args:
        factory: `module:function` that makes an environment of a specification, as `robot_rl.sim:make`. Environments
            are Gymnasium's with a `contract`, one action vector [A], and `info["success"]` after each step. Where they
            have an attribute `looking`, it is False for steps that need no new pictures.
    """

    def __init__(self, factory: str, spec: Any, count: int) -> None:
        make = _function(factory)
        self.envs = [make(spec) for _ in range(count)]
        self.contract: Contract = self.envs[0].contract
        self.specification = getattr(self.envs[0], "specification", spec)
        self.rows: Rows | None = None
        self._may_look_away = hasattr(self.envs[0], "looking")

    def step(self) -> dict[int, dict[str, Any]]:
        """Step the active environments by the rows' actions; final info of the episodes that ended, by row."""
        rows = self._rows()
        ended = {}
        for row, env in enumerate(self.envs):
            if not rows.active[row]:
                rows.reward[row] = 0
                rows.terminated[row] = rows.truncated[row] = rows.success[row] = False
                continue
            if self._may_look_away:
                env.looking = bool(rows.look[row])
            observation, reward, terminated, truncated, info = env.step(rows.action[row].copy())
            rows.reward[row] = reward
            rows.terminated[row], rows.truncated[row] = terminated, truncated
            rows.success[row] = info.get("success", False)
            for name, array in rows.observation.items():
                array[row] = observation[name]
            if terminated or truncated:
                ended[row] = info
                rows.active[row] = False
                for name, array in rows.final_observation.items():
                    array[row] = observation[name]
        return ended

    def reset(self, seeds: Mapping[int, int], options: dict[str, Any] | None) -> dict[int, dict[str, Any]]:
        """Begin an episode in the given rows, each from its seed; their info by row."""
        rows = self._rows()
        infos = {}
        for row, seed in seeds.items():
            observation, infos[row] = self.envs[row].reset(seed=seed, options=options)
            rows.active[row] = True
            for name, array in rows.observation.items():
                array[row] = observation[name]
        return infos

    def call(self, name: str, arguments: Mapping[int, Sequence[Any]]) -> dict[int, Any]:
        """What the environments' method `name` returns, or the value of their attribute, by row."""
        results = {}
        for row, values in arguments.items():
            member = getattr(self.envs[row], name)
            results[row] = member(*values) if callable(member) else member
        return results

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()

    def _rows(self) -> Rows:
        if self.rows is None:
            raise RuntimeError("the group has no rows yet")
        return self.rows


def _function(factory: str) -> Callable[[Any], Any]:
    module, _, name = factory.partition(":")
    if not name:
        raise ValueError(f"factory: expected `module:function`, got {factory!r}")
    function: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    return function
