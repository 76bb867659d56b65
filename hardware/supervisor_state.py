"""The states of the Supervisor, and what goes in and out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from robot_rl.hardware.lease import Lease


class State(StrEnum):
    """What the Supervisor is doing; the table of transitions stands in `supervisor`."""

    IDLE = "idle"
    HOMING = "homing"
    READY = "ready"
    RUNNING = "running"
    INTERVENING = "intervening"
    HELD = "held"
    STOPPED = "stopped"


TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType({
    State.IDLE: frozenset({State.HOMING, State.STOPPED}),
    State.HOMING: frozenset({State.READY, State.HELD, State.STOPPED}),
    State.READY: frozenset({State.HOMING, State.RUNNING, State.INTERVENING, State.HELD, State.STOPPED}),
    State.RUNNING: frozenset({State.INTERVENING, State.READY, State.HELD, State.STOPPED}),
    State.INTERVENING: frozenset({State.READY, State.HELD, State.STOPPED}),
    State.HELD: frozenset({State.HOMING, State.READY, State.STOPPED}),
    State.STOPPED: frozenset({State.IDLE}),
})
"""Every transition that there is."""


class Observation(NamedTuple):
    """Measured joint position [dof] rad and gripper opening [m] (ignored without a gripper), at `stamp` [s]."""

    stamp: float
    joint_position: np.ndarray
    gripper_opening: float = 0.0


class Command(NamedTuple):
    """For the next n periods of the robot: arrays [n, dof] in rad, rad/s, rad/s²; gripper openings [n] m or None."""

    position: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    gripper_opening: np.ndarray | None


class Status(NamedTuple):
    """To be published: `rejected` counts by reason, `limited` those `accepted` that were not wholly followed."""

    state: State
    reason: str
    holder: Lease | None
    accepted: int
    limited: int
    rejected: Mapping[str, int]


@dataclass(frozen=True)
class Watchdog:
    """How long the Supervisor waits [s] before it brakes.

    Attributes:
        observation: age of the newest observation, by its stamp.
        action: time since the last acceptable proposal; also the age at which a proposal is stale.
        lease: time since the last heartbeat.
        skew: how far a stamp may lie ahead of the clock.
    """

    observation: float = 0.1
    action: float = 0.1
    lease: float = 0.3
    skew: float = 0.005

    def __post_init__(self) -> None:
        if not (min(self.observation, self.action, self.lease) > 0 and self.skew >= 0):
            raise ValueError(f"watchdog: expected positive times, got {self}")
