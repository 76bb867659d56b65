"""Many drones of one vehicle, flown together: their state by name, and the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robot_rl.sim.compiled import compiled
from robot_rl.sim.drone import flight
from robot_rl.sim.drone.flight import LANES, PARAMETERS, ROWS, STATE
from robot_rl.sim.drone.generators import generate_state
from robot_rl.sim.drone.vehicle_model import Vehicle

LEVELS = {"rates": flight.RATES, "attitude": flight.ATTITUDE, "velocity": flight.VELOCITY, "position": flight.POSITION}
"""What a command sets, see `flight.advance`."""

_ROW = {name: index for index, name in enumerate((*STATE, *PARAMETERS))}
_FIELDS = {
    "odometry": ("px", 13), "position": ("px", 3), "velocity": ("vx", 3), "quaternion": ("qw", 4), "rates": ("wx", 3),
    "acceleration": ("ax", 3), "rotors": ("m0", 4), "wind": ("windx", 3), "charge": ("charge", 1), "volt": ("volt", 1),
    "accelerometer": ("accx", 3), "gyro": ("gyrx", 3), "impact": ("impact", 1), "setpoint": ("t0", 4),
    "accelerations": ("ax", 6), "sensors": ("accx", 7), "command": ("n0", 6),
}  # fmt: skip
_BITS = slice(_ROW["random"], _ROW["step"] + 1)
_COMMAND = _ROW["u0"]
_WIDTH = 5
_LINE = 64
"""Bytes of a line of the cache."""


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
        # Vectors that lie across two lines of the cache take twice the time.
        size, spare = blocks * ROWS * LANES, _LINE // 4
        room = np.zeros(size + spare, np.float32)
        start = -room.ctypes.data % _LINE // 4
        self._flat = room[start : start + size]
        self._x = self._flat.reshape(blocks, ROWS, LANES)
        # Lanes without a drone hover, too: their numbers must stay finite, or they would slow the others down.
        self._hovering = _hovering(vehicle)
        self._x[:] = self._hovering[:, None]

    def read(self, name: str, indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """float32 [n, size] of the drones given (default: all): position, velocity, acceleration, wind (world), rates,
        accelerometer, gyro (body), quaternion, rotors, charge, volt, impact (speed of the last touch-down), setpoint
        (throttle and rates), accelerations (in the world, and of the rates), or odometry (position, velocity,
        quaternion, rates)."""
        if indices is None:
            return self.view(name).transpose(0, 2, 1).reshape(-1, _FIELDS[name][1])[: self.num].copy()
        lanes = np.asarray(indices)
        return self.view(name)[lanes // LANES, :, lanes % LANES]

    def view(self, name: str) -> np.ndarray:
        """float32 [blocks, n, lanes]: where what `read` names stands, also `sensors` (accelerometer, gyro, impact) and
        `command`: five numbers of the level's form, and from which substep of the next step they replace the present
        ones; a step that ends before drops them."""
        row, size = _FIELDS[name]
        return self._x[:, _ROW[row] : _ROW[row] + size]

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
        values = dict(parameters or {})
        if unknown := sorted(set(values) - set(PARAMETERS) - {"charge"}):
            raise ValueError(f"no parameter {', '.join(unknown)}; there are: {', '.join(PARAMETERS)}")
        rows = np.tile(self._hovering, (len(indices), 1))
        for name, value in values.items():
            rows[:, _ROW[name]] = value
        for name, value in (("px", position), ("vx", velocity), ("wx", rates)):
            rows[:, _ROW[name] : _ROW[name] + 3] = value
        rows[:, _ROW["volt"]] = 1.0 - rows[:, _ROW["sag_empty"]] * (1.0 - rows[:, _ROW["charge"]])
        if quaternion is not None:
            turned = np.asarray(quaternion, float)
            unit = turned / np.sqrt((turned * turned).sum(-1, keepdims=True))
            # Heading: the turn about the thrust, apart from its tilt.
            part = unit[..., [0, 3]]
            length = np.sqrt((part * part).sum(-1, keepdims=True))
            rows[:, _ROW["qw"] : _ROW["qw"] + 4] = unit
            rows[:, _ROW["hc"] : _ROW["hc"] + 2] = np.where(length > 1e-6, part / np.maximum(length, 1e-6), [1.0, 0.0])
        bits = generate_state(seeds, 2)
        bits[:, 1] |= 1
        rows[:, _BITS] = bits.view(np.float32)
        lanes = np.asarray(indices)
        self._x[lanes // LANES, :, lanes % LANES] = rows

    def command(self, commands: np.ndarray, switch: np.ndarray | float = 0.0) -> None:
        """Set commands [N, n] of the level's form; they replace the present ones at substep `switch` of the next step.

        They are dropped if the step ends before.
        """
        _put_commands(self._x, np.ascontiguousarray(commands, float), np.full(self.num, switch, float))

    def step(self) -> None:
        """Fly one step. Commands that arrive in it stay in force; those that do not are dropped."""
        flight.advance(self._flat, self.substeps, self._level, 0, self.substeps + 1)

    def step_part(self, part: int) -> None:
        """A part of a step: one of its `substeps`, counted from 0, or what follows them, the sensors."""
        flight.advance(self._flat, self.substeps, self._level, part, part + 1)

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

    def _put(self, lanes: np.ndarray, name: str, value: Any) -> None:
        self._x[lanes // LANES, _ROW[name], lanes % LANES] = value


@compiled
def _put_commands(x: np.ndarray, commands: np.ndarray, switch: np.ndarray) -> None:
    for drone in range(commands.shape[0]):
        block, lane = drone // LANES, drone % LANES
        for column in range(commands.shape[1]):
            x[block, _COMMAND + _WIDTH + column, lane] = commands[drone, column]
        x[block, _COMMAND + 2 * _WIDTH, lane] = switch[drone]


def _hovering(vehicle: Vehicle) -> np.ndarray:
    """All rows, float32 [ROWS], of a vehicle that hovers at the origin with every filter and integral at zero."""
    hover = vehicle.hover_throttle
    speed = vehicle.speed_of_thrust(hover * vehicle.thrust_max)
    values = {"qw": 1.0, "hc": 1.0, "charge": 1.0, "volt": 1.0, "u0": hover, "n0": hover, **vehicle.rows()}
    values |= {f"m{rotor}": speed for rotor in range(4)}
    rows = np.zeros(ROWS, np.float32)
    for name, value in values.items():
        rows[_ROW[name]] = value
    return rows
