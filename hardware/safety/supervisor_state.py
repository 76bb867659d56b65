"""The states of the Supervisor, and what goes in and out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from robot_rl.hardware.safety.lease import Lease


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
    State.READY: frozenset({State.HOMING, State.RUNNING, State.INTERVENING, State.IDLE, State.HELD, State.STOPPED}),
    State.RUNNING: frozenset({State.INTERVENING, State.READY, State.HELD, State.STOPPED}),
    State.INTERVENING: frozenset({State.READY, State.HELD, State.STOPPED}),
    State.HELD: frozenset({State.HOMING, State.READY, State.IDLE, State.STOPPED}),
    State.STOPPED: frozenset({State.IDLE}),
})
"""Every transition that there is."""


class Transition(NamedTuple):
    """A change of state, and why."""

    before: State
    after: State
    reason: str


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
    """To be published: `rejected` counts by reason, `limited` those `accepted` that ask for more than is allowed."""

    state: State
    reason: str
    holder: Lease | None
    accepted: int
    limited: int
    rejected: Mapping[str, int]


LAG = 0.2
"""How far an arm and its measurement may lag behind the commands [s]: joints within what was commanded since follow."""


@dataclass(frozen=True)
class Watchdog:
    """How long the Supervisor waits [s], and how far it lets the arm stray, before it brakes.

    Attributes:
        observation: age of the newest observation, by its stamp.
        action: time since the last acceptable proposal; also the age at which a proposal is stale.
        lease: time since the last heartbeat.
        skew: how far a stamp may lie ahead of the clock.
        following_error: of any joint, from all that was commanded in the last `LAG` seconds [rad].
    """

    observation: float = 0.1
    action: float = 0.1
    lease: float = 0.3
    skew: float = 0.005
    following_error: float = 0.1

    def __post_init__(self) -> None:
        if not (min(self.observation, self.action, self.lease, self.following_error) > 0 and self.skew >= 0):
            raise ValueError(f"watchdog: expected positive times and a positive following error, got {self}")
