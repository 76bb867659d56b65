"""Many drones of one vehicle, flown together: their state by name, and the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robot_rl.sim.drone import flight
from robot_rl.sim.drone.flight import LANES, PARAMETERS, ROWS, STATE
from robot_rl.sim.drone.vehicle_model import Vehicle

LEVELS = {"rates": flight.RATES, "attitude": flight.ATTITUDE, "velocity": flight.VELOCITY, "position": flight.POSITION}
"""What a command sets, see `flight.advance`."""

_ROW = {name: index for index, name in enumerate((*STATE, *PARAMETERS))}
_FIELDS = {
    "odometry": ("px", 13), "position": ("px", 3), "velocity": ("vx", 3), "quaternion": ("qw", 4), "rates": ("wx", 3),
    "acceleration": ("ax", 3), "rotors": ("m0", 4), "wind": ("windx", 3), "charge": ("charge", 1), "volt": ("volt", 1),
    "accelerometer": ("accx", 3), "gyro": ("gyrx", 3), "impact": ("impact", 1), "setpoint": ("t0", 4),
}  # fmt: skip
_BITS = slice(_ROW["random"], _ROW["step"] + 1)
_COMMAND = _ROW["u0"]
_WIDTH = 5


class DroneBatch:
    """N drones. Rows of arrays are drones; all arrays that are handed out are copies.

    Args:
        substeps: of 2 ms in each step.
        level: what commands set, one of `LEVELS`.
    """

    def __init__(self, vehicle: Vehicle, num: int, substeps: int = 10, level: str = "rates") -> None:
        if num < 1 or substeps < 1:
            raise ValueError(f"expected at least one drone and one substep, got {num} and {substeps}")
        if level not in LEVELS:
            raise ValueError(f"level: expected one of {', '.join(LEVELS)}; got {level!r}")
        self.vehicle, self.num, self.substeps, self._level = vehicle, num, substeps, LEVELS[level]
        self.period = substeps * flight.SUBSTEP
        blocks = -(-num // LANES)
        self._x = np.zeros((blocks, ROWS, LANES), np.float32)
        self._flat = self._x.reshape(-1)
        self._padded = np.zeros((blocks * LANES, _WIDTH + 1), np.float32)
        # Lanes without a drone hover, too: their numbers must stay finite, or they would slow the others down.
        self._whole = np.arange(blocks * LANES)
        self._fill(self._whole, vehicle.rows())
        self._rest(self._whole, np.zeros((blocks * LANES, 3)))

    def read(self, name: str) -> np.ndarray:
        """float32 [N, n]: position, velocity, acceleration, wind (world), rates, accelerometer, gyro (body),
        quaternion, rotors, charge, volt, impact (speed of the last touch-down), setpoint (throttle and rates), or
        odometry (position, velocity, quaternion, rates)."""
        row, size = _FIELDS[name]
        start = _ROW[row]
        return self._x[:, start : start + size].transpose(0, 2, 1).reshape(-1, size)[: self.num].copy()

    def write(self, name: str, values: np.ndarray, indices: Sequence[int] | np.ndarray | None = None) -> None:
        """Set what `read` names, [n, ...], of the drones given (default: all)."""
        row, size = _FIELDS[name]
        start = _ROW[row]
        lanes = np.arange(self.num) if indices is None else np.asarray(indices)
        values = np.broadcast_to(np.asarray(values, np.float32).reshape(-1, size), (len(lanes), size))
        self._x[lanes // LANES, start : start + size, lanes % LANES] = values

    def begin(
        self,
        indices: Sequence[int] | np.ndarray,
        seeds: Sequence[int] | np.ndarray,
        position: np.ndarray,
        velocity: np.ndarray | float = 0.0,
        quaternion: np.ndarray | None = None,
        rates: np.ndarray | float = 0.0,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin flights at rest in hover or as given.

        Args:
            seeds: of each drone's random numbers.
            position, velocity, quaternion, rates: [n, ...].
            parameters: rows of `flight.PARAMETERS`, and `charge`; [n] or numbers. What is not given is 0 for
                disturbances and sensors, and the vehicle's own for the rest.
        """
        lanes = np.asarray(indices)
        values = dict(parameters or {})
        charge = values.pop("charge", 1.0)
        self._fill(lanes, {**self.vehicle.rows(), **values})
        self._rest(lanes, np.broadcast_to(position, (len(lanes), 3)))
        self.write("velocity", np.broadcast_to(velocity, (len(lanes), 3)), lanes)
        self.write("rates", np.broadcast_to(rates, (len(lanes), 3)), lanes)
        self.write("charge", np.broadcast_to(charge, len(lanes)), lanes)
        sag = values.get("sag_empty", 0.0) * (1.0 - np.asarray(charge))
        self.write("volt", np.broadcast_to(1.0 - sag, len(lanes)), lanes)
        if quaternion is not None:
            turned = np.broadcast_to(quaternion, (len(lanes), 4))
            self.write("quaternion", turned / np.linalg.norm(turned, axis=1, keepdims=True), lanes)
        bits = np.stack([np.random.SeedSequence(int(seed)).generate_state(2) for seed in seeds]).astype(np.uint32)
        bits[:, 1] |= 1
        self._put(lanes, "random", bits[:, 0].view(np.float32))
        self._put(lanes, "step", bits[:, 1].view(np.float32))
        heading = self._heading(lanes)
        self._put(lanes, "hc", heading[:, 0])
        self._put(lanes, "hs", heading[:, 1])

    def command(self, commands: np.ndarray, switch: np.ndarray | float = 0.0) -> None:
        """Set commands [N, n] of the level's form; they replace the present ones at substep `switch` of the next step.

        They are dropped if the step ends before.
        """
        start, rows = _COMMAND + _WIDTH, commands.shape[1]
        if self.num == 1:
            self._x[0, start : start + rows, 0] = commands[0]
            self._x[0, start + _WIDTH, :1] = switch
            return
        self._padded[: self.num, :rows] = commands
        self._padded[: self.num, _WIDTH] = switch
        by_lane = self._padded.reshape(-1, LANES, _WIDTH + 1).transpose(0, 2, 1)
        self._x[:, start : start + rows] = by_lane[:, :rows]
        self._x[:, start + _WIDTH] = by_lane[:, _WIDTH]

    def step(self) -> None:
        """Fly one step. Commands that arrive in it stay in force; those that do not are dropped."""
        flight.advance(self._flat, self.substeps, self._level)

    def get_state(self) -> np.ndarray:
        """All that decides the future, float64 [N, S]; `set_state` continues from it bit by bit."""
        rows = self._x.transpose(0, 2, 1).reshape(-1, ROWS)[: self.num].copy()
        # Bits that are no numbers: a conversion would change them.
        bits = rows[:, _BITS].copy().view(np.uint32)
        rows[:, _BITS] = 0.0
        state = rows.astype(float)
        state[:, _BITS] = bits
        return state

    def set_state(self, state: np.ndarray, indices: Sequence[int] | np.ndarray | None = None) -> None:
        """Return to states of `get_state`, [n, S], of the drones given (default: all)."""
        lanes = np.arange(self.num) if indices is None else np.asarray(indices)
        if state.shape != (len(lanes), ROWS):
            raise ValueError(f"expected states [{len(lanes)}, {ROWS}], got {list(state.shape)}")
        rows = state.astype(np.float32)
        rows[:, _BITS] = state[:, _BITS].astype(np.uint32).view(np.float32)
        self._x[lanes // LANES, :, lanes % LANES] = rows

    def _rest(self, lanes: np.ndarray, position: np.ndarray) -> None:
        """Hover at positions, upright, with every filter and integral at zero."""
        self._x[lanes // LANES, : len(STATE), lanes % LANES] = 0.0
        hover = self.vehicle.hover_throttle
        linear, quadratic = self.vehicle.thrust_of_speed
        for name, value in {"qw": 1.0, "hc": 1.0, "charge": 1.0, "volt": 1.0, "u0": hover, "n0": hover}.items():
            self._put(lanes, name, value)
        thrust = hover * self.vehicle.thrust_max
        speed = (
            thrust / linear
            if quadratic == 0
            else (np.sqrt(linear**2 + 4 * quadratic * thrust) - linear) / (2 * quadratic)
        )
        for rotor in range(4):
            self._put(lanes, f"m{rotor}", speed)
        for axis, name in enumerate(("px", "py", "pz")):
            self._put(lanes, name, position[:, axis])

    def _heading(self, lanes: np.ndarray) -> np.ndarray:
        """Cosine and sine of half the heading [n, 2]: the turn about the thrust, apart from its tilt."""
        part = self._x[lanes // LANES, _ROW["qw"] : _ROW["qw"] + 4, lanes % LANES][:, [0, 3]]
        length = np.linalg.norm(part, axis=1, keepdims=True)
        return np.where(length > 1e-6, part / np.maximum(length, 1e-6), [1.0, 0.0])

    def _fill(self, lanes: np.ndarray, values: Mapping[str, Any]) -> None:
        self._x[lanes // LANES, len(STATE) :, lanes % LANES] = 0.0
        for name, value in values.items():
            if name not in PARAMETERS:
                raise ValueError(f"no parameter {name!r}; there are: {', '.join(PARAMETERS)}")
            self._put(lanes, name, value)

    def _put(self, lanes: np.ndarray, name: str, value: Any) -> None:
        self._x[lanes // LANES, _ROW[name], lanes % LANES] = value
