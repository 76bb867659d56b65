"""What lies between a drone and whoever flies it: late, jittery and lost commands; late, noisy and lost odometry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from robot_rl.sim.drone.counter_noise import normals, uniforms
from robot_rl.sim.drone.flight import SUBSTEP
from robot_rl.sim.drone.variation import LONGEST_OBSERVATION_DELAY

ODOMETRY = 13
"""Position, velocity, quaternion and rates."""
_NOISES = ("position", "velocity", "attitude", "rates")
_ROUNDING = 1e-9
_SALT = np.uint64(0x5851F42D4C957F2D)


class Transmission:
    """Of N drones, all their memory in arrays; rows are drones.

    Args:
        period: of a step [s]. width: of commands. longest: delay of a command [s].
    """

    def __init__(self, num: int, period: float, width: int, longest: float = 0.0) -> None:
        self._period, kept = period, math.ceil(longest / period) + 2
        self._keys = np.zeros(num, np.uint64)
        self._delay, self._jitter, self._loss = (np.zeros(num) for _ in range(3))
        self._commands = np.zeros((num, kept, width))
        self._arrivals = np.full((num, kept), np.inf)
        self._noise = np.zeros((num, len(_NOISES)))
        self._lag = np.zeros(num, np.int64)
        self._odometry_loss = np.zeros(num)
        self._past = np.zeros((num, LONGEST_OBSERVATION_DELAY + 1, ODOMETRY))
        self._seen = np.zeros((num, ODOMETRY))
        self._ideal_commands = self._ideal_odometry = True

    def begin(
        self, rows: np.ndarray, seeds: np.ndarray, records: list[Mapping[str, Any]], odometry: np.ndarray
    ) -> None:
        """Begin episodes with records of `variation`, and true odometry [n, ODOMETRY]."""
        for row, seed, record in zip(rows, seeds, records, strict=True):
            self._keys[row] = np.random.SeedSequence([int(seed), 2]).generate_state(1, np.uint64)[0]
            command, odometer = record.get("command", {}), record.get("odometry", {})
            self._delay[row], self._jitter[row] = command.get("delay", 0.0), command.get("jitter", 0.0)
            self._loss[row] = command.get("drop", 0.0)
            self._noise[row] = [odometer.get(name, 0.0) for name in _NOISES]
            self._lag[row], self._odometry_loss[row] = odometer.get("delay", 0), odometer.get("drop", 0.0)
        self._arrivals[rows] = np.inf
        self._past[rows] = odometry[:, None]
        self._seen[rows] = odometry
        self._ideal_commands = not (self._delay.any() or self._jitter.any() or self._loss.any())
        self._ideal_odometry = not (self._noise.any() or self._lag.any() or self._odometry_loss.any())

    def send(self, commands: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray | float]:
        """Commands [N, n] given at the beginning of step `steps` [N]: those in force during it, and from which substep.

        Of several that arrive in one step the newest counts. A substep beyond the step: none arrives.
        """
        if self._ideal_commands:
            return commands, 0.0
        rows, kept = np.arange(len(commands)), self._arrivals.shape[1]
        slot, now = steps % kept, steps * self._period
        random = uniforms(self._keys, steps, 2)
        self._commands[rows, slot] = commands
        self._arrivals[rows, slot] = np.where(
            random[:, 0] < self._loss,
            np.inf,
            now + np.maximum(self._delay + (2 * random[:, 1] - 1) * self._jitter, 0.0),
        )
        ages = (steps[:, None] - np.arange(kept)) % kept
        due = self._arrivals < (now + self._period)[:, None] - _ROUNDING
        newest = np.where(due, ages, kept).argmin(1)
        found = due[rows, newest]
        late = self._arrivals[rows, newest] - now
        switch = np.where(found, np.maximum(np.ceil(late / SUBSTEP - 1e-6), 0.0), np.inf)
        # What is older than the one taken never comes any more.
        older = ages >= ages[rows, newest][:, None]
        self._arrivals[found[:, None] & older] = np.inf
        return self._commands[rows, newest], switch

    def receive(self, odometry: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """What is seen of true odometry [N, ODOMETRY] after `steps` [N] steps."""
        if self._ideal_odometry:
            self._seen = odometry
            return odometry
        rows, size = np.arange(len(odometry)), LONGEST_OBSERVATION_DELAY + 1
        self._past[rows, steps % size] = odometry
        late = self._past[rows, (steps - self._lag) % size]
        keys = self._keys ^ _SALT
        noise = normals(keys, steps, 12)
        noise *= np.repeat(self._noise, 3, axis=1)
        fresh = late.copy()
        fresh[:, :6] += noise[:, :6]
        fresh[:, 10:] += noise[:, 9:]
        # A small turn about axes of the body.
        w, x, y, z = late[:, 6:10].T
        a, b, c = noise[:, 6:9].T / 2
        turned = np.stack(
            [
                w - x * a - y * b - z * c,
                x + w * a + y * c - z * b,
                y + w * b + z * a - x * c,
                z + w * c + x * b - y * a,
            ],
            1,
        )
        fresh[:, 6:10] = turned / np.linalg.norm(turned, axis=1, keepdims=True)
        lost = uniforms(keys ^ _SALT ^ np.uint64(1), steps, 1)[:, 0] < self._odometry_loss
        self._seen = np.where(lost[:, None], self._seen, fresh)
        return self._seen

    def seen(self) -> np.ndarray:
        """What was received last, [N, ODOMETRY]."""
        return self._seen

    def get_state(self) -> np.ndarray:
        """All that it remembers, [N, S]; of delays and noises drawn, nothing."""
        num = len(self._keys)
        arrivals = np.where(np.isinf(self._arrivals), -1.0, self._arrivals)
        parts = (self._commands, arrivals, self._past, self._seen)
        return np.concatenate([part.reshape(num, -1) for part in parts], axis=1)

    def set_state(self, state: np.ndarray, rows: np.ndarray) -> None:
        """Continue from `get_state` in the drones given, within the same episodes."""
        seen = self._seen.copy()
        parts = (self._commands, self._arrivals, self._past, seen)
        ends = np.cumsum([part[0].size for part in parts])
        for part, values in zip(parts, np.split(state, ends[:-1], axis=1), strict=True):
            part[rows] = values.reshape(len(rows), *part.shape[1:])
        self._seen = seen
        self._arrivals[self._arrivals < 0] = np.inf
