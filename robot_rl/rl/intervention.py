"""Taking over from a policy that explores: who acts in the step that comes, and with what action.

An `Intervener` is asked before every control step. The one here is scripted; `person` is one with a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robot_rl.policies import PolicyError
from robot_rl.rl.environments import Environments
from robot_rl.rl.success_detector import DetectedSuccess


class UnderWay(Protocol):
    """An episode so far.

    Attributes:
        intervened: for each of its control steps, whether it was taken over.
        success: whether the task has been achieved.
    """

    intervened: list[bool]
    success: bool


class Intervener(Protocol):
    """Whoever may take over. What is not among its arguments it sees for itself, as a person does."""

    def __call__(
        self, proposed: NDArray[np.float32], episodes: Sequence[UnderWay]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Who acts now, and how.

        Args:
            proposed: what the policy is about to do in each environment, [N, A].
            episodes: the N under way.

        Returns:
            Which environments are taken over in this step, [N], and the actions there, [N, A]; others do not count.
        """


class PatientExpert:
    """The expert of the task, which takes over from a policy that gets nowhere, for a while, and gives back.

    Success is the only progress that every task knows. Who acts follows from who has acted, so that there is nothing to
    save: a training that is resumed goes on with the same interventions.

    Args:
        environments: of a lean task or of a drone, whose experts act in all copies at once.
        patience: control steps for which the policy acts on its own, since the beginning or the last hand-back.
        stretch: control steps of an intervention.

    Raises:
        PolicyError: nobody is there who could take over, or a number is below 1.
    """

    def __init__(self, environments: Environments, patience: int, stretch: int) -> None:
        from robot_rl.sim.expert.world_expert import start
        from robot_rl.sim.world_env import WorldVectorEnv

        for name, steps in (("patience", patience), ("stretch", stretch)):
            if steps < 1:
                raise PolicyError(f"algorithm.{name}: expected at least 1 control step, got {steps}")
        if isinstance(environments, DetectedSuccess):
            environments = environments.environments
        if not isinstance(environments, WorldVectorEnv):
            raise PolicyError(
                f"hil: nobody can take over in {environments.contract.name}; experts that do act in drone tasks and "
                "lean ones (peg, push_t, drawer, avoid). Take algorithm=rlpd, which learns from demonstrations alone"
            )
        self._expert, self.patience, self.stretch = start(environments.world), patience, stretch

    def __call__(
        self, proposed: NDArray[np.float32], episodes: Sequence[UnderWay]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        taken = np.array([not each.success and self._wanted(each.intervened) for each in episodes])
        return taken, np.asarray(self._expert(), np.float32) if taken.any() else proposed

    def _wanted(self, intervened: list[bool]) -> bool:
        acting = bool(intervened) and intervened[-1]
        lasted = sum(1 for _ in takewhile(lambda flag: flag == acting, reversed(intervened)))
        return lasted < self.stretch if acting else lasted >= self.patience
