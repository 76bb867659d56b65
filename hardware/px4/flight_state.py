"""What the Supervisor of a flight is told by PX4, and what it tells PX4. World ENU, body FLU, seconds of our clock."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

import numpy as np

from robot_rl.hardware.safety.supervisor_state import Watchdog

OFFBOARD, LAND = 14, 18
"""Values of nav_state."""

NAMES = {
    0: "manual", 1: "altitude", 2: "position", 3: "mission", 4: "hold", 5: "return", 10: "acro", 12: "descend",
    13: "termination", 14: "offboard", 15: "stabilized", 17: "take-off", 18: "land",
}  # fmt: skip
"""Of nav_state, for people."""


def mode_name(nav_state: int) -> str:
    """The name of a mode, or its number."""
    return NAMES.get(nav_state, f"nav_state {nav_state}")


class Phase(StrEnum):
    """What is done with the vehicle; `flight_supervisor` says how this goes with the Supervisor's state."""

    GROUNDED = "grounded"
    STREAMING = "streaming"
    ENTERING = "entering"
    ARMING = "arming"
    CLIMBING = "climbing"
    HOLDING = "holding"
    HANDING = "handing"
    FOLLOWING = "following"
    BRAKING = "braking"
    LANDING = "landing"
    YIELDED = "yielded"


AIRBORNE = frozenset({Phase.CLIMBING, Phase.HOLDING, Phase.HANDING, Phase.FOLLOWING, Phase.BRAKING})
"""Phases in which the vehicle flies, or is about to, by our setpoints."""


class Level(StrEnum):
    """What PX4 is asked to control: the first true field of OffboardControlMode."""

    POSITION = "position"
    ATTITUDE = "attitude"
    RATES = "body_rate"


class Odometry(NamedTuple):
    """Position [3] m and velocity [3] m/s in the world, attitude wxyz, body rates [3] rad/s, measured at `stamp`."""

    stamp: float
    position: np.ndarray
    velocity: np.ndarray
    quaternion: np.ndarray
    rates: np.ndarray

    @property
    def tilt(self) -> float:
        """Between the body's z axis and upwards [rad]."""
        _, x, y, _ = self.quaternion
        return math.acos(min(1.0, max(-1.0, 1.0 - 2.0 * (x * x + y * y))))

    @property
    def yaw(self) -> float:
        """Heading, counterclockwise from east [rad]."""
        w, x, y, z = self.quaternion
        return math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))

    @property
    def finite(self) -> bool:
        """Whether every number is."""
        return bool(np.isfinite(np.concatenate(self[1:])).all())


class VehicleState(NamedTuple):
    """Of VehicleStatus, received at `stamp`."""

    stamp: float
    armed: bool
    nav_state: int
    failsafe: bool = False
    user_took_over: bool = False
    checks_pass: bool = True


class ControlMode(NamedTuple):
    """Of VehicleControlMode, received at `stamp`: what PX4 controls at present."""

    stamp: float
    offboard: bool
    position: bool
    rates: bool
    attitude: bool = False

    @property
    def level(self) -> Level | None:
        """The level of offboard control in force; None outside offboard mode."""
        if not self.offboard or not self.rates:
            return None
        if self.position:
            return Level.POSITION
        return Level.ATTITUDE if self.attitude else Level.RATES


class Telemetry(NamedTuple):
    """The newest of everything that PX4 has said; None for what it has not.

    Attributes:
        position_valid: whether PX4's own estimator vouches for position and velocity; `position_told`: when it said so.
        battery: part that remains; `battery_told`: when the battery's state was received.
        restarts: how often the vehicle's clock went back.
    """

    odometry: Odometry | None = None
    status: VehicleState | None = None
    mode: ControlMode | None = None
    position_valid: bool | None = None
    position_told: float = -math.inf
    battery: float | None = None
    battery_told: float = math.inf
    restarts: int = 0


class Command(IntEnum):
    """MAVLink's commands that are used."""

    SET_MODE = 176
    ARM = 400
    LAND = 21


class Order(NamedTuple):
    """A VehicleCommand."""

    command: Command
    param1: float = 0.0
    param2: float = 0.0


class Ack(IntEnum):
    """Results of a VehicleCommandAck."""

    ACCEPTED = 0
    TEMPORARILY_REJECTED = 1
    DENIED = 2
    UNSUPPORTED = 3
    FAILED = 4
    IN_PROGRESS = 5


class RatesSetpoint(NamedTuple):
    """Collective throttle, a part of the greatest thrust, and body rates [3] rad/s."""

    throttle: float
    rates: np.ndarray


class AttitudeSetpoint(NamedTuple):
    """Collective throttle, a part of the greatest thrust, and attitude wxyz in the world."""

    throttle: float
    quaternion: np.ndarray


class TrajectorySetpoint(NamedTuple):
    """Position [3] m, velocity [3] m/s, yaw [rad] and yaw rate [rad/s]; NaN: not controlled."""

    position: np.ndarray
    velocity: np.ndarray
    yaw: float
    yaw_rate: float


class FlightCommand(NamedTuple):
    """All that PX4 is told in a tick; without a level there is no heartbeat, and nothing else either but orders."""

    level: Level | None = None
    rates: RatesSetpoint | None = None
    trajectory: TrajectorySetpoint | None = None
    orders: tuple[Order, ...] = ()
    attitude: AttitudeSetpoint | None = None


@dataclass(frozen=True)
class FlightLimits:
    """Beyond which the vehicle lands.

    Attributes:
        fence: lower and upper corner [2, 3] m, in the world.
        altitude: above the place of take-off [m].
        tilt: [rad]. speed: [m/s]. battery: least part that remains.
        jump: between two samples of odometry, beyond what the velocity explains [m].
        rates: greatest body rates that may be commanded [3] rad/s.
        throttle: least and greatest that may be commanded.
        command_speed: greatest velocity that may be commanded [m/s]; a position lies at most as many metres ahead.
        yaw_rate: greatest that may be commanded [rad/s].
        command_tilt: greatest that may be commanded, less than `tilt` [rad].
    """

    fence: tuple[tuple[float, float, float], tuple[float, float, float]]
    altitude: float
    tilt: float
    speed: float
    battery: float
    jump: float
    rates: tuple[float, float, float]
    throttle: tuple[float, float]
    command_speed: float
    yaw_rate: float
    command_tilt: float = 0.6

    def __post_init__(self) -> None:
        lower, upper = np.array(self.fence, float)
        problems = [
            f"limits.{name}: expected {'three positive numbers' if name == 'rates' else 'more than 0'}, got {value}"
            for name in ("altitude", "tilt", "speed", "jump", "rates", "command_speed", "yaw_rate")
            if not np.min(value := getattr(self, name)) > 0 or np.size(value) != (3 if name == "rates" else 1)
        ]
        if lower.shape != (3,) or not (lower < upper).all():
            problems.append(f"limits.fence: expected a lower and an upper corner in metres, got {self.fence}")
        if not 0 <= self.throttle[0] < self.throttle[1] <= 1:
            problems.append(f"limits.throttle: expected 0 <= least < greatest <= 1, got {self.throttle}")
        if not 0 < self.command_tilt < self.tilt:
            problems.append(f"limits.command_tilt: expected more than 0 and less than tilt, got {self.command_tilt}")
        if not 0 <= self.battery < 1:
            problems.append(f"limits.battery: expected a part from 0 to below 1, got {self.battery}")
        _raise(problems)


@dataclass(frozen=True)
class Patience:
    """How long is waited for PX4 [s].

    Attributes:
        stream: setpoints are streamed before the mode is asked for; PX4 wants more than 1 s.
        answer: until an order is given again. tries: how often it is given.
        checks: for PX4's pre-flight checks to pass in offboard mode.
        take_off: from arming until the home height.
        hand_over: for a change of the control level.
        status: since the last VehicleStatus, of which there may be two a second, or VehicleLocalPosition.
        battery: since the last BatteryStatus, if any.
        silence: in the air without a valid proposal, whoever holds the lease, until the vehicle lands by itself.
    """

    stream: float = 3.0
    answer: float = 1.0
    tries: int = 3
    checks: float = 10.0
    take_off: float = 20.0
    hand_over: float = 1.5
    status: float = 2.5
    battery: float = 5.0
    silence: float = 8.0

    def __post_init__(self) -> None:
        problems = [
            f"patience.{item.name}: expected more than {least:g}, got {value}"
            for item in fields(self)
            if not (value := getattr(self, item.name)) > (least := 1.0 if item.name == "stream" else 0.0)
        ]
        if self.tries != int(self.tries):
            problems.append(f"patience.tries: expected a whole number, got {self.tries}")
        _raise(problems)


def _raise(problems: list[str]) -> None:
    """All of them in one ValueError, a line each."""
    if problems:
        raise ValueError("\n".join(problems))


STALE = 0.1
"""For at most so long PX4 goes on with a setpoint that nobody has renewed: `watchdog.action` and a tick [s]."""

SLOW = 0.03
"""Longest period of actions that the `watchdog.action` of a vehicle's file is meant for [s]."""


@dataclass(frozen=True)
class FlightPlan:
    """How a vehicle is flown.

    Attributes:
        home: where it goes after take-off [3] m, in the world.
        homing_speed: sideways, on the way there [m/s].
        hover_throttle: that about carries the vehicle.
        landing_speed: of our own descent while PX4 has not taken over the landing [m/s].
        watchdog: `action` plus a tick has to be at most `STALE`; `following_error` does not count here.
    """

    limits: FlightLimits
    home: tuple[float, float, float]
    hover_throttle: float
    homing_speed: float = 1.0
    landing_speed: float = 0.5
    tick_rate_hz: float = 100.0
    watchdog: Watchdog = field(default_factory=lambda: Watchdog(observation=0.2, action=0.06))
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        lower, upper = np.array(self.limits.fence, float)
        home = np.array(self.home, float)
        problems = [
            f"{name}: expected more than 0, got {value}"
            for name in ("homing_speed", "landing_speed", "tick_rate_hz")
            if not (value := getattr(self, name)) > 0
        ]
        if home.shape != (3,) or not ((lower < home) & (home < upper)).all():
            problems.append(f"home: expected a place within the fence {self.limits.fence}, got {self.home}")
        elif not 0 < home[2] < self.limits.altitude:
            problems.append(f"home: expected a height below the altitude {self.limits.altitude} m, got {home[2]}")
        low, high = self.limits.throttle
        if not low < self.hover_throttle < high:
            problems.append(f"hover_throttle: expected within the limits {low} to {high}, got {self.hover_throttle}")
        if self.tick_rate_hz > 0 and self.watchdog.action > self._longest_action + 1e-9:
            slow = self.watchdog.action + 1 / self.tick_rate_hz
            problems.append(
                f"watchdog.action: with a tick at most {STALE} s, for PX4 goes on with stale rates; got {slow} s"
            )
        if self.patience.silence <= self.watchdog.action:
            problems.append(
                f"patience.silence: expected more than watchdog.action, {self.watchdog.action} s, after which the "
                f"vehicle holds before it lands; got {self.patience.silence} s"
            )
        _raise(problems)

    @property
    def _longest_action(self) -> float:
        """That `watchdog.action` may be [s]."""
        return STALE - 1 / self.tick_rate_hz

    def for_period(self, period: float) -> FlightPlan:
        """The same plan for actions every `period` s: the watchdog waits for slow ones as long as it may.

        Raises:
            ValueError: that is not long enough.
        """
        plan = self
        if period > SLOW:
            plan = replace(self, watchdog=replace(self.watchdog, action=self._longest_action))
        if period >= plan.watchdog.action:
            raise ValueError(
                f"contract.rate_hz: {1 / period:g} Hz, an action every {1e3 * period:.0f} ms, but watchdog.action ends "
                f"each after {1e3 * plan.watchdog.action:.0f} ms; expected more than {1 / plan.watchdog.action:.1f} Hz"
            )
        return plan

    @classmethod
    def from_mapping(cls, plain: Mapping[str, Any]) -> FlightPlan:
        """Read the entries of a vehicle's file. Raises ValueError for what is unknown, missing or impossible."""
        values, problems = dict(plain), list[str]()
        for key, kind in {"limits": FlightLimits, "watchdog": Watchdog, "patience": Patience}.items():
            if key in values:
                defaults = {"observation": 0.2, "action": 0.06} if key == "watchdog" else {}
                try:
                    values[key] = _made(kind, defaults | values[key], f"{key}.")
                except ValueError as error:
                    problems += str(error).splitlines()
        _raise(problems)
        plan: FlightPlan = _made(cls, values)
        return plan


def _made(kind: Any, values: Mapping[str, Any], where: str = "") -> Any:
    """A dataclass of these values. Raises ValueError for what is missing, unknown or impossible."""
    needed = [item.name for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING]
    _raise([f"{where}{name} is missing" for name in needed if name not in values])
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where.rstrip('.')}: {error}") from error
