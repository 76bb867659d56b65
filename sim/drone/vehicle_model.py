"""A vehicle: the numbers of a YAML file, checked, and the rows that they become in the compiled flight."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import ArrayLike

from robot_rl.sim.drone.flight import GRAVITY, SUBSTEP
from robot_rl.sim.drone.vehicle_entries import autopilot, check
from robot_rl.sim.spec import SpecError

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Vehicle:
    """A quadrotor with rotors at (±arm x, ±arm y), two by two turning against each other.

    A rotor's command and speed are parts of its greatest speed; a throttle is a part of the greatest thrust.

    Attributes:
        mass: [kg]. inertia: xx, yy, zz, or these and xy, xz, yz [kg m²]. arm: x and y of the front left rotor [m].
        thrust: of one rotor, `linear` and `quadratic` in its speed in `unit` (`rpm`, or `one`: part of the greatest),
            up to `maximum` [N] or to a `thrust_to_weight` of the whole vehicle.
        torque_per_thrust: [m].
        rise, fall: how the speed s follows its command c: linear (c - s) + quadratic (c² - s²), in the unit of the
            speed and seconds. Empty: at once.
        drag: across and along the thrust [N/(m/s)]. spin_drag: [N m/(rad/s)].
        rotor_inertia: [kg m²] at speeds up to `speed_max` [rad/s], which is needed where `unit` is not rpm.
        idle: least thrust of a rotor [N].
        direct: body rates follow their commands at once.
        floor: height of the centre above the ground when landed [m].
        max_rates: that a command may ask for [rad/s].
        autopilot: differences from `autopilot/px4.yaml`.
    """

    name: str
    mass: float
    inertia: tuple[float, ...]
    arm: tuple[float, float]
    thrust: Mapping[str, Any]
    torque_per_thrust: float
    drag: tuple[float, float]
    max_rates: tuple[float, float, float]
    rise: Mapping[str, float] = field(default_factory=dict)
    fall: Mapping[str, float] = field(default_factory=dict)
    spin_drag: float = 0.0
    rotor_inertia: float = 0.0
    speed_max: float = 0.0
    idle: float = 0.0
    direct: bool = False
    floor: float = 0.0
    autopilot: Mapping[str, Any] = field(default_factory=dict)

    @property
    def thrust_max(self) -> float:
        """Of one rotor [N]."""
        if "maximum" in self.thrust:
            return float(self.thrust["maximum"])
        return float(self.thrust["thrust_to_weight"]) * self.mass * GRAVITY / 4

    @property
    def hover_throttle(self) -> float:
        """Part of the greatest thrust that carries the weight."""
        return self.mass * GRAVITY / (4 * self.thrust_max)

    @property
    def radius(self) -> float:
        """With propellers as long as half an arm [m]."""
        return 1.5 * math.hypot(*self.arm)

    @property
    def inertia_matrix(self) -> np.ndarray:
        """[3, 3] [kg m²]."""
        xx, yy, zz, xy, xz, yz = (*self.inertia, 0.0, 0.0, 0.0)[:6]
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])

    @property
    def greatest_speed(self) -> float:
        """Of a rotor, in the unit of its thrust."""
        linear, quadratic = float(self.thrust["linear"]), float(self.thrust["quadratic"])
        if quadratic == 0:
            return self.thrust_max / linear
        return (math.sqrt(linear**2 + 4 * quadratic * self.thrust_max) - linear) / (2 * quadratic)

    @property
    def thrust_of_speed(self) -> tuple[float, float]:
        """Linear and quadratic coefficient of one rotor's thrust [N] in its speed, 1 = the greatest."""
        speed = self.greatest_speed
        return float(self.thrust["linear"]) * speed, float(self.thrust["quadratic"]) * speed**2

    def speed_of_thrust(self, thrust: ArrayLike) -> np.ndarray:
        """Of a rotor, 1 = the greatest, that gives a thrust [N] of any shape; below 0 it stands still."""
        (linear, quadratic), thrust = self.thrust_of_speed, np.maximum(thrust, 0.0)
        if quadratic == 0:
            return np.asarray(thrust / linear)
        return np.asarray((np.sqrt(linear**2 + 4 * quadratic * thrust) - linear) / (2 * quadratic))

    @property
    def rotor_momentum(self) -> float:
        """Of one rotor at its greatest speed [N m s]."""
        if self.thrust.get("unit") == "rpm":
            return self.rotor_inertia * self.greatest_speed * math.pi / 30
        return self.rotor_inertia * self.speed_max

    def rows(
        self, mass: np.ndarray | float = 1.0, thrust: np.ndarray | float = 1.0, lag: np.ndarray | float = 1.0,
        drag: np.ndarray | float = 1.0,
    ) -> dict[str, np.ndarray | float]:  # fmt: skip
        """Parameters of `flight.PARAMETERS` for vehicles that differ from this one by factors; [n] or numbers.

        The autopilot knows the nominal vehicle alone.

        Args:
            mass: of mass and inertia. thrust: of what a rotor speed gives. lag: of the rotors' time constants.
        """
        return {**self._own_rows, **self.factored_rows(mass, thrust, lag, drag)}

    def factored_rows(
        self, mass: np.ndarray | float, thrust: np.ndarray | float, lag: np.ndarray | float, drag: np.ndarray | float
    ) -> dict[str, Any]:
        """Those of `rows` that depend on the factors."""
        linear, quadratic = self.thrust_of_speed
        values: dict[str, Any] = {
            "mass_inv": 1 / (self.mass * mass), "drag_xy": self.drag[0] * drag, "drag_z": self.drag[1] * drag,
            "spin_drag": self.spin_drag * drag, "thrust1": linear * thrust, "thrust2": quadratic * thrust,
        }  # fmt: skip
        inertia, inverse = self.inertia_matrix, self._inverse_inertia
        for key, (row, column) in zip(("xx", "yy", "zz", "xy", "xz", "yz"), _TRIANGLE, strict=True):
            values[f"j{key}"] = inertia[row, column] * mass
            values[f"i{key}"] = inverse[row, column] / mass
        for key, rule in (("rise", self.rise), ("fall", self.fall)):
            values[f"{key}1"] = np.exp(-SUBSTEP * rule.get("linear", 0.0) / lag) if rule else 0.0
            values[f"{key}2"] = SUBSTEP * rule.get("quadratic", 0.0) * self.greatest_speed / lag
        return values

    @cached_property
    def _inverse_inertia(self) -> np.ndarray:
        return np.asarray(np.linalg.inv(self.inertia_matrix))

    @cached_property
    def _own_rows(self) -> dict[str, Any]:
        """Those of `rows` that no factor changes."""
        control = self.control
        rates, attitude, velocity = control["rates"], control["attitude"], control["velocity"]
        low_pass = _butterworth(rates["gyro_cutoff"])
        values: dict[str, Any] = {
            "floor": self.floor,
            "arm_x": self.arm[0], "arm_y": self.arm[1], "torque": self.torque_per_thrust, "direct": float(self.direct),
            "rotor_h": self.rotor_momentum, "blend": 0.5 if self.rise else 0.0,
            "rate_lim": rates["integral_limit"], "lp_b": low_pass[0], "lp_a1": low_pass[1], "lp_a2": low_pass[2],
            "lp_d": SUBSTEP / (SUBSTEP + 1 / (2 * math.pi * rates["derivative_cutoff"])),
            "att_p": attitude["p"], "att_pz": attitude["yaw_p"],
            "acc_lp": SUBSTEP / (SUBSTEP + 1 / (2 * math.pi * velocity["derivative_cutoff"])),
            "tilt": math.tan(velocity["tilt_limit"]), "hover": self.hover_throttle,
            "thr_min": velocity["throttle_min"], "thr_xy": velocity["throttle_margin"],
        }  # fmt: skip
        for axis, letter in enumerate("xyz"):
            values |= {f"rate_{gain}{letter}": rates[gain][axis] for gain in "pid"}
            values[f"max_{letter}"] = attitude["rate_limit"][axis]
        for key, gain in (("pos_p", "position_p"), ("vel_p", "p"), ("vel_i", "i"), ("vel_d", "d")):
            values[key], values[f"{key}z"] = velocity[gain]
        values["speed_xy"], values["speed_up"], values["speed_down"] = velocity["speed_limit"]
        values["speed_a"], values["speed_b"], values["speed_c"], values["speed_d"] = self._inverse_thrust()
        values["idle"] = float(self.speed_of_thrust(self.idle))
        return values

    @cached_property
    def control(self) -> dict[str, dict[str, Any]]:
        """Parameters of the autopilot: PX4's with what differs here."""
        content = deepcopy(autopilot())
        for part, values in self.autopilot.items():
            content[part] |= values
        return content

    def _inverse_thrust(self) -> tuple[float, float, float, float]:
        """a, b, c, d of speed = sqrt(a + b f) + c + d f, for a part f of the greatest thrust."""
        linear, quadratic = self.thrust_of_speed
        if quadratic == 0:
            return 0.0, 0.0, 0.0, self.thrust_max / linear
        half = linear / (2 * quadratic)
        return half**2, self.thrust_max / quadratic, -half, 0.0


_TRIANGLE = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def available() -> list[str]:
    """Names of the vehicles."""
    return sorted(path.stem for path in (FOLDER / "vehicle").glob("*.yaml"))


def load_vehicle(entry: str | Mapping[str, Any]) -> Vehicle:
    """A vehicle by its name, by the path of a file (.yaml), or of a mapping with the content of such a file.

    Raises:
        SpecError: there is no such vehicle, or it cannot be one; every problem is listed.
    """
    if isinstance(entry, Mapping):
        content = dict(entry)
        check(content, f"vehicle {content.get('name', '')}".strip())
    else:
        content = read_vehicle(entry)
    lists = ("inertia", "arm", "drag", "max_rates")
    values: dict[str, Any] = {key: tuple(value) if key in lists else value for key, value in content.items()}
    vehicle = Vehicle(**values)
    if not 0 < vehicle.hover_throttle < 1:
        raise SpecError(f"vehicle {vehicle.name}: it cannot hover, that would take throttle {vehicle.hover_throttle:g}")
    if (np.linalg.eigvalsh(vehicle.inertia_matrix) <= 0).any():
        raise SpecError(f"vehicle {vehicle.name}: expected a positive definite inertia, got {list(vehicle.inertia)}")
    return vehicle


def read_vehicle(entry: str) -> dict[str, Any]:
    """Content of the file of a vehicle, by its name or by the path of a file (.yaml).

    Raises:
        SpecError: there is no such file, or it holds no vehicle; every problem is listed.
    """
    path = Path(entry) if is_path(entry) else FOLDER / "vehicle" / f"{entry}.yaml"
    if not path.is_file():
        raise SpecError(f"no vehicle {entry!r}; there are: {', '.join(available())}, and paths of files (.yaml)")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise SpecError(f"{path}: expected a vehicle's file, as those of sim/drone/vehicle")
    check(content, str(path))
    return content


def is_path(entry: str) -> bool:
    """Whether a vehicle is meant by its path, not by its name."""
    return Path(entry).suffix in (".yaml", ".yml")


def _butterworth(cutoff: float) -> tuple[float, float, float]:
    """b0, a1 and a2 of the second-order low pass at a cut-off [Hz], sampled every substep (bilinear transform)."""
    w = math.tan(math.pi * cutoff * SUBSTEP)
    norm = 1 + math.sqrt(2) * w + w * w
    return w * w / norm, 2 * (w * w - 1) / norm, (1 - math.sqrt(2) * w + w * w) / norm
