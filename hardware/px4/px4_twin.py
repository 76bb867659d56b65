"""A vehicle under PX4, simulated: the flight core of `robot_rl.sim.drone` behind PX4's messages, with PX4's own rules.

- Offboard mode needs a heartbeat faster than 2 Hz for more than 1 s, else it is temporarily rejected.
- Without a heartbeat for COM_OF_LOSS_T PX4 returns to where it took off, and lands.
- Until then, and some tenths more, it goes on with the last setpoints, also with the last body rates.
- What is controlled follows the heartbeat when the state is published: at a change of mode, else twice a second.
- Between arming and lift-off the motors spool up.
- Landed for 2 s in land mode, it disarms by itself. Disarmed, it is in the last mode again that may be armed: offboard.

No clock and no graph: messages in by `receive`, time by `advance`, messages out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from robot_rl.hardware.px4.flight_state import LAND, NAMES, OFFBOARD, Ack, Command, Level, Odometry
from robot_rl.hardware.px4.frames import swap_attitude, swap_body, swap_heading, swap_world
from robot_rl.hardware.px4.px4_codec import ARMED, encode_odometry
from robot_rl.hardware.ros2 import messages
from robot_rl.sim.drone.batch import LEVELS, DroneBatch
from robot_rl.sim.drone.flight import GRAVITY
from robot_rl.sim.drone.vehicle_model import Vehicle

STEP = 0.01
"""Between two samples of odometry [s]."""

BOOT = 20.0
"""PX4's time when the twin begins, unless told otherwise [s]."""

HOLD, RETURN, DISARMED = 4, 5, 1
_SUBSTEPS = 5
_EVERY = {"vehicle_status": 50, "vehicle_control_mode": 50, "vehicle_local_position": 2, "battery_status": 100}
"""Steps between two messages; a change of the control mode is told at once, one of the status, too, unless `SPACED`."""

SPACED = 20
"""Least steps between two of the status; a change in between waits."""

HEARTBEAT, BEFORE, LOSS, SPOOL_UP, LANDED = 0.5, 1.0, 1.08, 2.0, 2.0
"""Longest gap of a stream, its least length before the mode, COM_OF_LOSS_T as it acts, times of spooling up and
disarming [s].
"""

_VARIANCE = np.full(3, 1e-3)

TAKE_OVER = 0.37
"""From the loss of the stream being told until another controller flies [s]: a roll of 1 rad/s went on to 84° in a real
PX4 v1.17, 1.09 s before the loss was told and as long as this after it.
"""

LAND_SPEED, RETURN_HEIGHT = 0.7, 2.0
"""MPC_LAND_SPEED [m/s]; how high it returns, far below PX4's default [m]."""


class Px4Twin:
    """One vehicle on the ground of the world's origin.

    Args:
        vehicle: whose controllers and rotors fly.
        seed: of wind and noise.
        parameters: of the flight, see `DroneBatch.begin`; for calls of `STEP`.
        boot: PX4's time at the beginning [s].

    Attributes:
        nav_state, armed, failsafe: as in VehicleStatus.
        faults: what is wrong with it, any of `FAULTS`; may be changed at any time.
        offset: of the position that it says, from the true one [3] m.
        system_id: of the vehicle; commands to others are none for it.
    """

    FAULTS = (
        "no_odometry",
        "stale_odometry",
        "invalid",
        "refuse_arming",
        "checks_fail",
        "no_acks",
        "ignore_commands",
        "failsafe",
    )
    """`stale_odometry` says the last sample again; `failsafe` is begun by whoever sets it, by `switch`."""

    def __init__(
        self, vehicle: Vehicle, seed: int = 0, parameters: Mapping[str, Any] | None = None, boot: float = BOOT
    ) -> None:
        self._batches = {level: DroneBatch(vehicle, 1, _SUBSTEPS, level) for level in LEVELS}
        self._vehicle, self._level = vehicle, "position"
        self._batch.begin([0], [seed], np.array([[0.0, 0.0, vehicle.floor]]), parameters=parameters)
        self.nav_state, self.armed, self.failsafe = HOLD, False, False
        self._rests_in = HOLD
        self.faults: set[str] = set()
        self.offset, self.system_id = np.zeros(3), 1
        self.battery: float | None = None
        self._boot, self._steps = boot, 0
        self._beat, self._since, self._wanted = -math.inf, -math.inf, Level.POSITION
        self._controls: Level | None = None
        self._rates = np.array([0.0, 0.0, 0.0, 0.0])
        self._attitude = np.array([0.0, 1.0, 0.0, 0.0, 0.0])
        self._trajectory: Any = None
        self._odometry: Any = None
        self._armed_at, self._touched = -math.inf, math.inf
        self._hold, self._lost = self._here(), -math.inf
        self._out: list[tuple[str, Any]] = []
        self._changed, self._untold, self._told = True, True, -SPACED

    @property
    def time(self) -> float:
        """PX4's time [s]."""
        return self._boot + self._steps * STEP

    @property
    def true(self) -> Odometry:
        """Where the vehicle really is."""
        read = self._batch.read
        position, velocity, quaternion, rates = (
            read(name)[0].astype(float) for name in ("position", "velocity", "quaternion", "rates")
        )
        return Odometry(self.time, position, velocity, quaternion, rates)

    @property
    def landed(self) -> bool:
        """Whether it stands on the ground."""
        return bool(self.true.position[2] <= self._vehicle.floor + 0.02)

    def receive(self, base: str, message: Any) -> None:
        """A message on a topic of `px4_messages.INPUTS`; those that are not known change nothing."""
        match base:
            case "offboard_control_mode":
                if self.time - self._beat > HEARTBEAT:
                    self._since = self.time
                self._beat = self.time
                self._wanted = Level.POSITION if message.position or message.velocity else Level.RATES
                if self._wanted is Level.RATES and message.attitude:
                    self._wanted = Level.ATTITUDE
            case "trajectory_setpoint":
                self._trajectory = message
            case "vehicle_rates_setpoint":
                rates = swap_body(np.array([message.roll, message.pitch, message.yaw], float))
                self._rates = np.array([-float(message.thrust_body[2]), *rates])
            case "vehicle_attitude_setpoint":
                attitude = swap_attitude(np.asarray(message.q_d, float))
                self._attitude = np.array([-float(message.thrust_body[2]), *attitude])
            case "vehicle_command":
                if "ignore_commands" not in self.faults and message.target_system in (0, self.system_id):
                    self._obey(int(message.command), float(message.param1), float(message.param2))

    def switch(self, nav_state: int, failsafe: bool = False) -> None:
        """The pilot, or PX4's own failsafe, changes the mode."""
        if nav_state != self.nav_state:
            self.nav_state, self._changed = nav_state, True
            self._rests_in = self._rests_in if nav_state in (LAND, RETURN) else nav_state
            self._hold, self._touched = self._here(), math.inf
            if nav_state == OFFBOARD:
                self._controls = None
        self._changed |= failsafe != self.failsafe
        self.failsafe = failsafe

    def leave_out(self, seconds: float) -> None:
        """Let PX4's clock go on without the vehicle."""
        self._boot += seconds

    def warm_up(self) -> None:
        """Compile the flight at every level, before time counts."""
        for batch in self._batches.values():
            state = batch.get_state()
            batch.step()
            batch.set_state(state)

    def advance(self) -> list[tuple[str, Any]]:
        """Fly one `STEP`: messages by topic of `px4_messages.OUTPUTS`."""
        if self.armed:
            if self.nav_state == OFFBOARD and self.time - self._beat > LOSS:
                self.switch(RETURN, failsafe=True)
                self._lost = self.time
            if self.time - self._armed_at >= SPOOL_UP:
                self._fly()
            self._disarm_when_landed()
        self._steps += 1
        self._say()
        out, self._out = self._out, []
        return out

    @property
    def _batch(self) -> DroneBatch:
        return self._batches[self._level]

    def _obey(self, command: int, param1: float, param2: float) -> None:
        result = Ack.UNSUPPORTED
        if command == Command.SET_MODE:
            result = Ack.DENIED
            if (param1, param2) == (1.0, 6.0):
                alive = self.time - self._beat <= HEARTBEAT and self.time - self._since > BEFORE
                result = Ack.ACCEPTED if alive else Ack.TEMPORARILY_REJECTED
                if alive:
                    self.switch(OFFBOARD)
        elif command == Command.ARM:
            result = self._arm() if param1 == 1.0 else self._disarm()
        elif command == Command.LAND:
            result = Ack.ACCEPTED
            self.switch(LAND)
        if "no_acks" not in self.faults:
            ack = messages.make(
                "px4_msgs/msg/VehicleCommandAck", timestamp=self._stamp, command=command, result=int(result),
                target_system=self.system_id, target_component=1,
            )  # fmt: skip
            self._out.append(("vehicle_command_ack", ack))

    def _arm(self) -> Ack:
        if self.faults & {"refuse_arming", "checks_fail"}:
            return Ack.DENIED if "refuse_arming" in self.faults else Ack.TEMPORARILY_REJECTED
        if not self.armed:
            self.armed, self._armed_at, self._changed = True, self.time, True
            self._touched = math.inf
        return Ack.ACCEPTED

    def _disarm(self) -> Ack:
        if not self.landed:
            return Ack.DENIED
        if self.armed:
            self.armed, self._changed = False, True
            self.switch(self._rests_in)
        return Ack.ACCEPTED

    def _disarm_when_landed(self) -> None:
        if self.nav_state not in (LAND, RETURN) or not self.landed:
            self._touched = math.inf
        else:
            self._touched = min(self._touched, self.time)
            if self.time - self._touched >= LANDED:
                self._disarm()

    def _fly(self) -> None:
        level, command = self._command()
        if level != self._level:
            state = self._batch.get_state()
            if level == "velocity":
                # The velocity controller goes on with the heading of the last position command.
                here = self._here()
                self._batches["position"].set_state(state)
                self._batches["position"].command(here[None])
                self._batches["position"].step()
                state, self._level = self._batches["position"].get_state(), "velocity"
                self._batch.set_state(state)
                return
            self._level = level
            self._batch.set_state(state)
        self._batch.command(command[None].astype(np.float32))
        self._batch.step()

    def _command(self) -> tuple[str, np.ndarray]:
        """What the present mode flies by: level and command of the batch."""
        down = np.array([0.0, 0.0, -LAND_SPEED, 0.0])
        if self.nav_state == LAND:
            return "velocity", down
        stale = self.nav_state == RETURN and self.time - self._lost < TAKE_OVER
        if self.nav_state == RETURN and not stale:
            above = np.array([0.0, 0.0, max(RETURN_HEIGHT, self._hold[2]), *self._hold[3:]])
            home = np.linalg.norm(self.true.position[:2]) < 0.5
            return ("velocity", down) if home else ("position", above)
        if self.nav_state != OFFBOARD and not stale:
            return "position", self._hold
        if self._controls is Level.RATES:
            return "rates", self._rates
        if self._controls is Level.ATTITUDE:
            return "attitude", self._attitude
        wanted = self._trajectory
        if wanted is None:
            return "position", self._hold
        position, velocity = swap_world(np.asarray(wanted.position)), swap_world(np.asarray(wanted.velocity))
        if np.isfinite(position).all():
            yaw = self.true.yaw if math.isnan(wanted.yaw) else swap_heading(float(wanted.yaw))
            return "position", np.array([*position, math.cos(yaw / 2), math.sin(yaw / 2)])
        rate = 0.0 if math.isnan(wanted.yawspeed) else -float(wanted.yawspeed)
        return "velocity", np.array([*np.nan_to_num(velocity), rate])

    def _here(self) -> np.ndarray:
        """The command that holds the present position and heading."""
        yaw = self.true.yaw
        return np.array([*self.true.position, math.cos(yaw / 2), math.sin(yaw / 2)])

    @property
    def _stamp(self) -> int:
        return round(self.time * 1e6)

    def _say(self) -> None:
        """Put out what is due after this step."""
        changed, self._changed = self._changed, False
        due = {base for base, steps in _EVERY.items() if self._steps % steps == 0}
        if changed:
            due.add("vehicle_control_mode")
        self._untold |= changed
        if self._untold and self._steps - self._told >= SPACED:
            due.add("vehicle_status")
        if "vehicle_status" in due:
            self._untold, self._told = False, self._steps
        if "vehicle_control_mode" in due and self.nav_state == OFFBOARD:
            if self._controls is not self._wanted:
                # Until now PX4's own controllers wrote these setpoints, about to hover.
                hover, (*_, w, z) = self._vehicle.hover_throttle, self._here()
                self._rates, self._attitude = np.array([hover, 0.0, 0.0, 0.0]), np.array([hover, w, 0.0, 0.0, z])
            self._controls = self._wanted
        true = self.true
        told = true._replace(position=true.position + self.offset)
        if "stale_odometry" not in self.faults:
            self._odometry = encode_odometry(told, self._stamp, _VARIANCE, _VARIANCE)
        if "no_odometry" not in self.faults:
            self._out.append(("vehicle_odometry", self._odometry))
        self._out.append(("sensor_combined", self._sensor_combined()))
        for base in sorted(due):
            self._out.append((base, getattr(self, f"_{base}")(told)))

    def _sensor_combined(self) -> Any:
        """While the motors stand still the flight core knows no forces: the ground carries the vehicle."""
        flies = self.armed and self.time - self._armed_at > SPOOL_UP
        felt = self._batch.read("accelerometer")[0] if flies else np.array([0.0, 0.0, GRAVITY])
        turned = self._batch.read("gyro")[0] if flies else np.zeros(3)
        return messages.make(
            "px4_msgs/msg/SensorCombined", timestamp=self._stamp, gyro_rad=swap_body(turned),
            accelerometer_m_s2=swap_body(felt), gyro_integral_dt=round(1e6 * STEP),
            accelerometer_integral_dt=round(1e6 * STEP),
        )  # fmt: skip

    def _vehicle_status(self, _: Odometry) -> Any:
        return messages.make(
            "px4_msgs/msg/VehicleStatus", timestamp=self._stamp, arming_state=ARMED if self.armed else DISARMED,
            nav_state=self.nav_state, nav_state_user_intention=self.nav_state, failsafe=self.failsafe, vehicle_type=1,
            system_id=self.system_id, component_id=1, pre_flight_checks_pass="checks_fail" not in self.faults,
        )  # fmt: skip

    def _vehicle_control_mode(self, _: Odometry) -> Any:
        offboard = self.nav_state == OFFBOARD
        position = self._controls is Level.POSITION or not offboard
        return messages.make(
            "px4_msgs/msg/VehicleControlMode", timestamp=self._stamp, flag_armed=self.armed,
            flag_multicopter_position_control_enabled=position, flag_control_offboard_enabled=offboard,
            flag_control_auto_enabled=NAMES.get(self.nav_state) in ("hold", "return", "land"),
            flag_control_position_enabled=position, flag_control_velocity_enabled=position,
            flag_control_altitude_enabled=position, flag_control_climb_rate_enabled=position,
            flag_control_attitude_enabled=position or self._controls is Level.ATTITUDE, flag_control_rates_enabled=True,
            flag_control_allocation_enabled=True,
        )  # fmt: skip

    def _vehicle_local_position(self, told: Odometry) -> Any:
        valid = "invalid" not in self.faults
        position, velocity = swap_world(told.position), swap_world(told.velocity)
        return messages.make(
            "px4_msgs/msg/VehicleLocalPosition", timestamp=self._stamp, timestamp_sample=self._stamp, xy_valid=valid,
            z_valid=valid, v_xy_valid=valid, v_z_valid=valid, x=position[0], y=position[1], z=position[2],
            vx=velocity[0], vy=velocity[1], vz=velocity[2], heading=swap_heading(told.yaw),
            heading_good_for_control=valid,
        )  # fmt: skip

    def _battery_status(self, _: Odometry) -> Any:
        charge = float(self._batch.read("charge")[0, 0]) if self.battery is None else self.battery
        return messages.make("px4_msgs/msg/BatteryStatus", timestamp=self._stamp, connected=True, remaining=charge)
