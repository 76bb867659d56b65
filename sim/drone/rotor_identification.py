"""Thrust map, dead time and lag of the rotors, from the commands of each and the specific force along the thrust.

The model is that of `flight`: a rotor's signal c acts after `dead_time`, its speed s follows with the time constants
`rise` and `fall`, and the four carry

    a_z = k1 mean(s) + k2 mean(s²) - d_z (v_z - wind).

What is linear is solved within the search for the rest (variable projection, Golub and Pereyra 1973), which is
Levenberg's and Marquardt's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robot_rl.sim.compiled import compiled
from robot_rl.sim.drone.regression import covariance

STARTS = [np.array([dead, lag, lag]) for dead in (0.0, 0.02, 0.05) for lag in (0.015, 0.04, 0.1)]
"""Dead time, rise and fall at which the search begins [s]; the best one is followed."""
SHORTEST, LONGEST = np.array([0.0, 1e-3, 1e-3]), np.array([0.4, 1.0, 1.0])
"""Where it ends [s]."""
ITERATIONS, CONVERGED = 30, 1e-6
SETTLING = 0.5
"""After which it no longer matters how fast the rotors turned at the first command [s]."""
STEP = 5e-4
"""Of the central differences [s]."""


@dataclass(frozen=True)
class Rotors:
    """What was fitted.

    Attributes:
        dead_time, rise, fall: [s]. linear, quadratic: k1 and k2 [m/s²]. drag: d_z [1/s].
        covariance: of these six, in this order [6, 6]. residual: standard deviation of what is left of a_z [m/s²].
    """

    dead_time: float
    rise: float
    fall: float
    linear: float
    quadratic: float
    drag: float
    covariance: np.ndarray
    residual: float

    def forces(self, moments: np.ndarray, signals: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Thrust of each rotor over the vehicle's mass [N, 4] [m/s²] at `times` [N] under signals [M, 4]."""
        speeds = rotor_speeds(moments, signals, times, self.dead_time, self.rise, self.fall)
        return (self.linear * speeds + self.quadratic * speeds**2) / 4


def signal_of(throttle: np.ndarray, curve: float) -> np.ndarray:
    """c of throttle = curve c² + (1 - curve) c, the thrust curve of PX4 (THR_MDL_FAC)."""
    throttle, linear = np.clip(throttle, 0.0, 1.0), 1 - curve
    if abs(curve) < 1e-6:
        return throttle
    return np.asarray((np.sqrt(linear**2 + 4 * curve * throttle) - linear) / (2 * curve))


@compiled
def rotor_speeds(
    moments: np.ndarray, signals: np.ndarray, times: np.ndarray, dead_time: float, rise: float, fall: float
) -> np.ndarray:
    """Speeds [N, R] at `times` [N] of rotors under signals [M, R], each of which holds from its moment [M] to the next.

    Exact. At the first moment they turn as they are told; times are in order [s].
    """
    found = np.empty((len(times), signals.shape[1]))
    for rotor in range(signals.shape[1]):
        segment, speed = 0, signals[0, rotor]
        for index in range(len(times)):
            now = times[index] - dead_time
            while segment + 1 < len(moments) and moments[segment + 1] <= now:
                target = signals[segment, rotor]
                lasted = moments[segment + 1] - moments[segment]
                speed = target + (speed - target) * np.exp(-lasted / (rise if target > speed else fall))
                segment += 1
            target = signals[segment, rotor]
            since = max(now - moments[segment], 0.0)
            found[index, rotor] = target + (speed - target) * np.exp(-since / (rise if target > speed else fall))
    return found


def fit_rotors(
    moments: np.ndarray,
    signals: np.ndarray,
    times: np.ndarray,
    measured: np.ndarray,
    along: np.ndarray,
    wind: np.ndarray,
) -> Rotors:
    """Fit the model.

    Args:
        moments: when the signals [M, 4] were given [M] [s]; each holds until the next.
        times: [N] of a_z `measured` [N] [m/s²] and of the velocity `along` the thrust [N] [m/s].
        wind: what a wind of 1 m/s from each side would be along the thrust [N, K] [m/s]; what it was is not told.
    """
    settled = times > moments[0] + SETTLING
    times, measured, along, wind = times[settled], measured[settled], along[settled], wind[settled]

    def columns(shape: np.ndarray) -> np.ndarray:
        speeds = rotor_speeds(moments, signals, times, *shape)
        return np.column_stack([speeds.mean(1), (speeds**2).mean(1), -along, wind])

    def solve(shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        matrix = columns(shape)
        linear = np.linalg.lstsq(matrix, measured, rcond=None)[0]
        return matrix, linear, measured - matrix @ linear

    def slopes(shape: np.ndarray, matrix: np.ndarray, linear: np.ndarray) -> np.ndarray:
        found = []
        for change in STEP * np.eye(3):
            low, high = np.maximum(shape - change, SHORTEST), shape + change
            found.append((columns(high) - columns(low)) @ linear / (high - low).sum())
        return np.concatenate([np.stack(found, axis=1), matrix], axis=1)

    shape = min(STARTS, key=lambda start: float(np.sum(solve(start)[2] ** 2)))
    matrix, linear, left = solve(shape)
    damping = 1e-3
    jacobian = slopes(shape, matrix, linear)
    for _ in range(ITERATIONS):
        normal = jacobian.T @ jacobian
        normal += damping * np.diag(np.diag(normal) + 1e-9 * np.trace(normal))
        tried = np.clip(shape + np.linalg.solve(normal, jacobian.T @ left)[:3], SHORTEST, LONGEST)
        there = solve(tried)
        if there[2] @ there[2] >= left @ left:
            damping *= 10
            if damping > 1e6:
                break
            continue
        moved, damping, shape = float(np.abs(tried - shape).max()), damping / 5, tried
        matrix, linear, left = there
        jacobian = slopes(shape, matrix, linear)
        if moved < CONVERGED:
            break
    dead_time, rise, fall, k1, k2, drag = (float(value) for value in (*shape, *linear[:3]))
    errors = covariance(jacobian, left, times)[:6, :6]
    return Rotors(dead_time, rise, fall, k1, k2, drag, errors, float(np.std(left)))
