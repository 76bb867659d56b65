"""`hil`: RLPD while somebody takes over now and then (HIL-SERL, Luo et al. 2024, arXiv 2410.21845).

What was executed is what is learned from, whoever chose it. Steps of interventions count twice: as own experience, and
as demonstrations, from which their share of each batch is drawn. Interventions become rarer as the policy gets on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robot_rl.policies import Policy, PolicyError
from robot_rl.rl.environments import Environments
from robot_rl.rl.intervention import Intervener, PatientExpert
from robot_rl.rl.sac import SAC

SCRIPTED = "scripted"
"""The device of the task's expert."""

PERSONS = ("keyboard", "gamepad", "spacemouse", "web")
"""Devices in a person's hand."""


class HIL(SAC):
    """Args:
    policy, execute, temperature, target_entropy, backup_entropy, pessimistic: see `SAC`.
    patience, stretch: of the expert that takes over, see `PatientExpert` [control steps].
    device: who takes over, `scripted` for that expert, else a person, see `robot_rl.take_over`.
    speed, handback, settings: of the person and their device, see there.
    """

    def __init__(
        self, policy: Policy, execute: int, *, temperature: float = 1.0, target_entropy: float = -1.0,
        backup_entropy: bool = True, pessimistic: bool = True, patience: int = 40, stretch: int = 10,
        device: str = SCRIPTED, speed: float = 1.0, handback: float = 0.5, settings: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            policy, execute, temperature=temperature, target_entropy=target_entropy, backup_entropy=backup_entropy,
            pessimistic=pessimistic,
        )  # fmt: skip
        self.patience, self.stretch, self.device = patience, stretch, device

    def intervener(self, environments: Environments) -> Intervener | None:
        if self.device != SCRIPTED:
            raise PolicyError(f"algorithm.device={self.device}: the person has to be given by whoever trains")
        return PatientExpert(environments, self.patience, self.stretch)
