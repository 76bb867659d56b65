"""A vehicle's parameters from one flight: thrust map, rotor lag, command delay, drag, roll and pitch inertia.

| from                                                          | is found                                        |
|---------------------------------------------------------------|-------------------------------------------------|
| rotors' commands and specific force along the thrust          | thrust map, dead time, lag, drag along, see     |
|                                                               | `rotor_identification`                          |
| throttles that were sent and rotors' commands                 | how long commands are on their way              |
| specific force across the thrust and velocity in the body     | drag across: a_xy = -d_xy (v_xy - wind)         |
| rotors' forces and changes of the body rates                  | inertia over mass and arm                       |

A flight tells specific forces, so everything over the mass: the mass comes from a scale, or the thrust from a bench.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from robot_rl.sim.drone.attitude import rotate, rotate_back
from robot_rl.sim.drone.flight import GRAVITY
from robot_rl.sim.drone.regression import regression
from robot_rl.sim.drone.rotor_identification import Rotors, fit_rotors, signal_of

SECONDS = 20.0
"""Shortest flight [s]: errors are estimated from its seconds."""
LEAST = {"thrust": 0.03, "across": 0.7, "along": 0.3, "turning": 0.15}
"""Standard deviations that a flight needs: of the rotors' signal, of velocities in the body [m/s], of rates [rad/s]."""
ENOUGH = {
    "thrust_to_mass": (0.0, 0.05), "delay": (0.005, 0.0), "rise": (0.01, 0.2), "fall": (0.01, 0.2),
    "drag_xy": (0.03, 0.2), "drag_z": (0.05, 0.2), "inertia_x": (0.0, 0.1), "inertia_y": (0.0, 0.1),
}  # fmt: skip
"""Standard errors that are small enough: so much, or such a part of the value, whichever is greater."""
REMEDY = {
    "thrust": "fly throttle steps of about ±0.15 around hover, each held for half a second",
    "across": "fly straight runs at 2 m/s and more, to and fro",
    "along": "climb and sink at 1 m/s and more",
    "turning": "fly rate doublets of ±1 rad/s and more in roll and in pitch",
}
MAP = ("thrust_to_mass", "linear", "quadratic", "thrust_curve", "hover_throttle")
KINDS = {
    "thrust": (*MAP, "delay", "rise", "fall"),
    "across": ("drag_xy",), "along": ("drag_z",), "turning": ("inertia_x", "inertia_y"),
}  # fmt: skip
"""What is determined by which motion."""
LINKS = np.arange(0.0, 0.3, 0.001)
"""How long commands may be on their way to the rotors [s]."""
WINDOW = 0.01
"""Half of the time over which changes of the body rates are looked at [s]."""


class IdentificationError(ValueError):
    """A log does not determine what was asked for; the message says what has to be flown."""


@dataclass(frozen=True)
class FlightLog:
    """One flight in the air, in this project's frames: world ENU, body FLU.

    Attributes:
        command_time: when throttles were sent [C] [s]. throttle: part of the greatest thrust [C].
        motor_time: of the rotors' commands [M] [s]. motors: these, in PX4's order and as parts of thrust [M, 4].
        time: of what follows [N] [s].
        accelerometer: specific force in the body [N, 3] [m/s²]. gyro: body rates [N, 3] [rad/s].
        velocity: in the world [N, 3] [m/s]. attitude: from the body to the world, wxyz [N, 4].
        thrust_curve: f of the autopilot, see `rotor_identification.signal_of`.
        voltage: of the battery over its mean in this flight [M], by which rotors turn slower; 1 where it is unknown.
    """

    command_time: np.ndarray
    throttle: np.ndarray
    motor_time: np.ndarray
    motors: np.ndarray
    time: np.ndarray
    accelerometer: np.ndarray
    gyro: np.ndarray
    velocity: np.ndarray
    attitude: np.ndarray
    thrust_curve: float = 0.0
    voltage: np.ndarray | float = 1.0


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error, in `unit`."""

    value: float
    error: float
    unit: str = ""


@dataclass(frozen=True)
class Identification:
    """What a flight tells.

    Attributes:
        estimates: some of

            - thrust_to_mass: specific force at full signal, of it `linear` and `quadratic` in the rotors' speed [m/s²]
            - thrust_curve: f that makes the throttle proportional to the thrust
            - hover_throttle: with the f that was flown
            - delay: of commands, until rotors begin to follow; rise, fall: time constants of the rotors [s]
            - drag_xy, drag_z: across and along the thrust, over the mass [1/s]
            - inertia_x, inertia_y: over mass and arm [m]
        missing: of what is not determined, why and what to fly.
        residual: standard deviation of what the model leaves of the specific force along the thrust [m/s²].
    """

    estimates: Mapping[str, Estimate]
    missing: Mapping[str, str]
    residual: float


def identify(log: FlightLog) -> Identification:
    """Estimate what the flight determines.

    Raises:
        IdentificationError: there is too little of it to look at.
    """
    if min(len(log.command_time), len(log.motor_time), len(log.time)) < 200 or np.ptp(log.time) < SECONDS:
        raise IdentificationError(f"expected at least {SECONDS:g} s in the air and 200 samples of each topic")
    body = rotate_back(log.attitude, log.velocity)
    signals = signal_of(log.motors, log.thrust_curve) * np.reshape(log.voltage, (-1, 1))
    moved = {
        "thrust": float(np.std(signals.mean(1))),
        "across": float(np.std(body[:, :2], axis=0).max()),
        "along": float(np.std(body[:, 2])),
        "turning": float(np.std(log.gyro[:, :2], axis=0).min()),
    }
    missing: dict[str, str] = {}
    for kind, least in LEAST.items():
        lacking = [kind] if moved[kind] < least else []
        lacking += ["thrust"] if moved["thrust"] < LEAST["thrust"] and kind in ("along", "turning") else []
        if lacking:
            reason = "; ".join(f"too little motion ({moved[each]:.2g}, expected {LEAST[each]:g}): {REMEDY[each]}"
                               for each in lacking)  # fmt: skip
            missing |= dict.fromkeys(KINDS[kind], reason)
    estimates: dict[str, Estimate] = {}
    residual = float("nan")
    if "drag_xy" not in missing:
        estimates["drag_xy"] = _drag(log, body)
    if "linear" not in missing:
        upwards = log.accelerometer[:, 2] - _bias(log)
        rotors = fit_rotors(log.motor_time, signals, log.time, upwards, body[:, 2], _winds(log)[..., 2].T)
        residual = rotors.residual
        estimates |= _thrust(rotors, log)
        uncertain = _uncertain(estimates)
        if lacking := [uncertain[name] for name in KINDS["thrust"] if name in uncertain]:
            missing = dict.fromkeys(KINDS["turning"], lacking[0]) | missing
        elif "inertia_x" not in missing:
            estimates |= _inertia(rotors, log, signals)
    missing = _uncertain(estimates) | missing
    return Identification({name: each for name, each in estimates.items() if name not in missing}, missing, residual)


def _uncertain(estimates: Mapping[str, Estimate]) -> dict[str, str]:
    """What is not determined well enough, and what to fly."""
    found: dict[str, str] = {}
    for name, (absolute, relative) in ENOUGH.items():
        if name in estimates:
            value, error = estimates[name].value, estimates[name].error
            if not error <= max(absolute, relative * abs(value)):
                (kind,) = (kind for kind, names in KINDS.items() if name in names)
                affected = MAP if name == "thrust_to_mass" else (name,)
                found |= dict.fromkeys(affected, f"standard error {error:.2g} of {value:.2g}: {REMEDY[kind]}")
    return found


def _thrust(rotors: Rotors, log: FlightLog) -> dict[str, Estimate]:
    errors = np.sqrt(np.diag(rotors.covariance)).tolist()
    link, link_error = _link(log)
    found = {
        "delay": Estimate(link + rotors.dead_time, math.hypot(link_error, errors[0]), "s"),
        "rise": Estimate(rotors.rise, errors[1], "s"),
        "fall": Estimate(rotors.fall, errors[2], "s"),
        "linear": Estimate(rotors.linear, errors[3], "m/s²"),
        "quadratic": Estimate(rotors.quadratic, errors[4], "m/s²"),
        "drag_z": Estimate(rotors.drag, errors[5], "1/s"),
    }
    curve = log.thrust_curve

    def hover(k: np.ndarray) -> float:
        # k1 c + k2 c² = g, without a division by a k2 that may be zero.
        signal = 2 * GRAVITY / (k[0] + np.sqrt(max(k[0] ** 2 + 4 * k[1] * GRAVITY, 0.0)))
        return float(curve * signal**2 + (1 - curve) * signal)

    map_ = np.array([rotors.linear, rotors.quadratic])
    derived: dict[str, tuple[Callable[[np.ndarray], float], str]] = {
        "thrust_to_mass": (lambda k: float(k[0] + k[1]), "m/s²"),
        "thrust_curve": (lambda k: float(k[1] / (k[0] + k[1])), ""),
        "hover_throttle": (hover, ""),
    }
    for name, (function, unit) in derived.items():
        slope = np.array([(function(map_ + h) - function(map_ - h)) / 2e-4 for h in 1e-4 * np.eye(2)])
        error = float(np.sqrt(slope @ rotors.covariance[3:5, 3:5] @ slope))
        found[name] = Estimate(function(map_), error, unit)
    return found


def _link(log: FlightLog) -> tuple[float, float]:
    """How long throttles are on their way to the rotors' commands, whose mean they are, and how surely [s]."""
    mean = log.motors.mean(1)
    mean = mean - mean.mean()
    errors = []
    for delay in LINKS:
        sent = np.clip(np.searchsorted(log.command_time, log.motor_time - delay, "right") - 1, 0, None)
        throttle = log.throttle[sent] - log.throttle[sent].mean()
        errors.append(float(mean @ mean - (mean @ throttle) ** 2 / max(throttle @ throttle, 1e-12)))
    # Where throttles and rotors' commands keep step, a whole interval of delays fits alike: its middle.
    best = LINKS[np.array(errors) <= min(errors) * (1 + 1e-6)]
    interval = float(np.median(np.diff(log.motor_time)))
    return float(best.mean()), max(interval, float(np.ptp(best))) / np.sqrt(12)


def _drag(log: FlightLog, body: np.ndarray) -> Estimate:
    """Beside the accelerometer's bias and a constant wind, which flights at one heading do not tell apart."""
    winds = _winds(log)
    one, none = np.ones(len(body)), np.zeros(len(body))
    across = [
        np.stack([-body[:, axis], *((one, none) if axis == 0 else (none, one)), *(wind[:, axis] for wind in winds)], 1)
        for axis in (0, 1)
    ]
    values, errors, _ = regression(
        np.concatenate(across), log.accelerometer[:, :2].T.ravel(), np.tile(log.time, 2)
    )  # fmt: skip
    return Estimate(float(values[0]), float(errors[0]), "1/s")


def _inertia(rotors: Rotors, log: FlightLog, signals: np.ndarray) -> dict[str, Estimate]:
    """Errors: those of the regression, and what those of the rotors make of it, along the axes of their covariance."""
    values, variances = _rolled(rotors, log, signals)
    variances = variances**2
    sizes, axes = np.linalg.eigh(rotors.covariance)
    names = ("dead_time", "rise", "fall", "linear", "quadratic", "drag")
    for change in (axes * np.sqrt(np.maximum(sizes, 0.0))).T:
        changed = {name: getattr(rotors, name) + float(step) for name, step in zip(names, change, strict=True)}
        variances += (_rolled(replace(rotors, **changed), log, signals)[0] - values) ** 2
    return {
        name: Estimate(float(value), float(np.sqrt(variance)), "m")
        for name, value, variance in zip(KINDS["turning"], values, variances, strict=True)
    }


def _rolled(rotors: Rotors, log: FlightLog, signals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inertia about x and y over mass and arm [2] [m], and its standard errors [2].

    Of how body rates change within 2 `WINDOW` under the rotors' forces, beside a constant torque and damping.
    """
    forces = rotors.forces(log.motor_time, signals, log.time)
    half = max(1, round(WINDOW / float(np.median(np.diff(log.time)))))
    found = []
    for axis, signs in enumerate(((-1, 1, 1, -1), (-1, 1, -1, 1))):
        causes = (forces @ np.array(signs), -log.gyro[:, axis], np.ones(len(forces)))
        sums = [_integral(log.time, each) for each in causes]
        matrix = np.stack([each[2 * half :] - each[: -2 * half] for each in sums], axis=1)
        change = log.gyro[2 * half :, axis] - log.gyro[: -2 * half, axis]
        values, errors, _ = regression(matrix, change, log.time[half:-half])
        found.append((1 / values[0], errors[0] / values[0] ** 2))
    return np.array(found).T[0], np.array(found).T[1]


def _winds(log: FlightLog) -> np.ndarray:
    """East and north, in the body [2, N, 3]."""
    return np.stack([rotate_back(log.attitude, np.broadcast_to(axis, (len(log.time), 3))) for axis in np.eye(3)[:2]])


def _bias(log: FlightLog) -> float:
    """Of the accelerometer along the thrust: the velocity at the end tells the mean of what should be measured."""
    upwards = _integral(log.time, rotate(log.attitude, log.accelerometer)[:, 2] - GRAVITY)[-1]
    drift = upwards - (log.velocity[-1, 2] - log.velocity[0, 2])
    upright = rotate(log.attitude, np.array([0.0, 0.0, 1.0]))[:, 2]
    return float(drift / _integral(log.time, upright)[-1])


def _integral(time: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[N], from the first sample on."""
    return np.append(0.0, np.cumsum(np.diff(time) * (values[1:] + values[:-1]) / 2))
