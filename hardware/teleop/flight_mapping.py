"""From twists of a device to velocities of a vehicle. Pure; the counterpart of `mapping` for vehicles.

    mapping.begin(attitude)                                     # when the lease is granted
    action = mapping.step(reading, attitude, 0.0, period)       # in each control period

Full deflection flies at `linear_speed` and turns at `angular_speed`, times the gains; at rest the velocity is zero, and
the vehicle hovers. Roll and pitch are left out. Frames: `heading`, x is where the nose points, on the level; or `base`,
the person looks along the world's x (east), turned by `yaw`, wherever the nose points.
"""

from __future__ import annotations

import numpy as np

from robot_rl.datasets import Contract
from robot_rl.hardware.teleop.device import Reading
from robot_rl.hardware.teleop.mapping import MappingError, Settings, deflection
from robot_rl.sim.rotation import matrix_from_quaternion

CONTROLLER = "px4_velocity"

AXES = [0, 1, 2, 5]
"""Of a twist, those that move a vehicle: forward, left, up, turn to the left."""


class FlightMapping:
    """Turns readings into actions under a vehicle's contract.

    Args:
        contract: whose action is `velocity` (ENU, m/s) and `yaw_rate` (rad/s).
        settings: see there; `frame` is `heading` or `base`.

    Raises:
        MappingError: the contract has another action, or the frame is one of arms.
    """

    feature = "attitude"
    """What it has to know of the vehicle: its orientation, wxyz."""

    def __init__(self, contract: Contract, settings: Settings) -> None:
        if contract.controller != CONTROLLER:
            raise MappingError(f"{contract.name}: a person flies by {CONTROLLER}, got {contract.controller!r}")
        if settings.frame not in ("heading", "base"):
            raise MappingError(f"frame: expected heading or base for a vehicle, got {settings.frame!r}")
        self._contract, self.settings = contract, settings
        self._wanted = np.zeros(4)

    def begin(self, attitude: np.ndarray, opening: float = 0.0) -> None:
        """Start from rest."""
        self._wanted = np.zeros(4)

    def toggle_gripper(self) -> None:
        """A vehicle has none."""

    def is_deflected(self, reading: Reading) -> bool:
        """Whether the device is held away from its rest."""
        return "takeover" in reading.buttons or bool(self._deflection(reading).any())

    def is_moved(self, reading: Reading) -> bool:
        """The same: a twist tells by itself."""
        return self.is_deflected(reading)

    def step(self, reading: Reading, attitude: np.ndarray, opening: float, period: float) -> np.ndarray:
        """The action [4] for the control period that begins now.

        Args:
            reading: of the device.
            attitude: measured, wxyz.
            period: since the last step [s].

        Raises:
            MappingError: the reading is of an arm.
        """
        if reading.twist is None:
            raise MappingError(f"{self._contract.name}: a vehicle is moved by twists alone, not by poses or joints")
        settings = self.settings
        part = self._deflection(reading)
        if not part.any():
            self._wanted[:] = 0.0  # who lets go wants it to stop now
        else:
            part *= settings.slow if "slow" in reading.buttons else 1.0
            part *= [settings.linear_gain] * 3 + [settings.angular_gain]
            self._wanted += (part - self._wanted) * (1.0 - np.exp(-period / max(settings.smoothing, 1e-9)))
        velocity, turn = self._wanted[:3], float(np.clip(self._wanted[3], -1.0, 1.0))
        velocity = velocity / max(1.0, float(np.linalg.norm(velocity))) * settings.linear_speed
        parts = {
            "velocity": turned(velocity, self._heading(attitude)),
            "yaw_rate": np.array([turn * settings.angular_speed]),
        }
        return self._contract.join_action({name: parts[name] for name in self._contract.action})

    def _heading(self, attitude: np.ndarray) -> float:
        if self.settings.frame == "base":
            return self.settings.yaw
        nose = matrix_from_quaternion(attitude)[:, 0]
        return float(np.arctan2(nose[1], nose[0]))

    def _deflection(self, reading: Reading) -> np.ndarray:
        return deflection(reading, self.settings.dead_band)[AXES]


def turned(vector: np.ndarray, yaw: float) -> np.ndarray:
    """A vector [3] turned about z by an angle [rad]."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.array([cosine * vector[0] - sine * vector[1], sine * vector[0] + cosine * vector[1], vector[2]])
