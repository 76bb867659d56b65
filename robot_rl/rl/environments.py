"""What reinforcement learning needs of many environments stepped at once.

Where somebody else may decide what is executed, `info` of `step` says it: `executed`, [N, A], and `intervened`, [N].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robot_rl.datasets import Contract

Observation = dict[str, NDArray[Any]]


class AbandonedError(RuntimeError):
    """An episode cannot go on, and nothing may be learned from it; the message says why. `reset` begins another one."""


class Environments(Protocol):
    """What the sampler needs of `robot_rl.sim.make_vector`."""

    num_envs: int

    @property
    def contract(self) -> Contract: ...
    def reset(self, *, seed: int | Iterable[int] | None = None) -> tuple[Observation, dict[str, Any]]: ...
    def step(self, actions: NDArray[np.float32]) -> tuple[Observation, Any, Any, Any, dict[str, Any]]: ...
    def get_states(self) -> NDArray[np.float64]: ...
    def set_states(self, states: NDArray[np.float64], indices: Sequence[int] | None = None) -> Observation: ...


def diverged(info: Mapping[str, Any], num_envs: int) -> NDArray[np.bool_]:
    """Where the simulation of an episode that has just ended came apart, [N].

    Its last observation and reward may be anything, also not finite.

    Args:
        info: of `step`; an environment that knows of such ends says it in `final_info`.
    """
    finals = info.get("final_info", (None,) * num_envs)
    return np.array([final is not None and bool(final.get("diverged", False)) for final in finals], np.bool_)
