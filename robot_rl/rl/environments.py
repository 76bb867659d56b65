"""What reinforcement learning needs of many environments stepped at once.

Where somebody else may decide what is executed, `info` of `step` says it: `executed`, [N, A], and `intervened`, [N].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
