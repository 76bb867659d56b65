"""The Supervisor of a flight: the safety layer between every source of actions and PX4. No clock, threads or network.

    lease = supervisor.acquire("mlp", "policy", now)
    supervisor.propose(Proposal(lease.id, sequence, stamp, action), now)      # heartbeat(lease.id, now) beside it
    command, status = supervisor.tick(now, telemetry)                         # every 10 ms

Its states, leases, proposals and latched stop are those of `robot_rl.hardware.safety.supervisor`; what rest is to an
arm, holding a position is to a vehicle. Within a state a flight has phases:

| phase     | what is streamed                     | ends when                                                       |
|-----------|--------------------------------------|-----------------------------------------------------------------|
| grounded  | nothing                              | `home()`, nothing speaks against it                             |
| streaming | the present position                 | PX4 has had a stream for long enough: offboard mode is ordered  |
| entering  | the same                             | PX4 says that it is in offboard mode                            |
| arming    | the same                             | PX4's checks pass, arming is ordered, PX4 says that it is armed |
| climbing  | above the start, then the home place | the vehicle is there: `ready`                                   |
| holding   | one position                         | an action is accepted                                           |
| handing   | that, and the level that is wanted   | PX4 says that it controls rates, or the attitude                |
| following | the action                           | the lease ends, or a fault                                      |
| braking   | hover thrust with zero rates, or     | PX4 says that it controls the position                          |
|           | upright; the present position        |                                                                 |
| landing   | a descent, until PX4 says that it    | PX4 says that it is disarmed: `idle`, or `stopped` stays        |
|           | lands by itself                      |                                                                 |
| yielded   | nothing                              | PX4 says that it is disarmed                                    |

Rates and attitudes are streamed only while PX4 does not control the position: its own controllers write the same
setpoints then. Whether it is still in offboard mode is believed to whichever says first that it is not, the control
mode or the status, of which PX4 sends two a second, and at a change up to five.

A fault of the source (actions or heartbeats stop) brakes and holds. Who comes back takes over again; but `silence`
after the last valid proposal, or after the home place was reached or the way there broken off, the vehicle lands by
itself, in whatever state it is and whoever holds the lease. A fault of the vehicle, of the estimate or of a limit lands
and stays `stopped`. A pilot who changes the mode gets the vehicle at once: nothing is sent any more until `home()` is
asked for on the ground. The same holds where PX4's own failsafe changes it; that is a stop, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from robot_rl.datasets import Contract
from robot_rl.hardware.px4.flight_state import (
    AIRBORNE,
    LAND,
    OFFBOARD,
    Ack,
    AttitudeSetpoint,
    Command,
    FlightCommand,
    FlightPlan,
    Level,
    Odometry,
    Order,
    Phase,
    RatesSetpoint,
    Telemetry,
    TrajectorySetpoint,
    mode_name,
)
from robot_rl.hardware.safety.lease import Lease, LeaseRefused, SourceKind
from robot_rl.hardware.safety.proposal import Proposal
from robot_rl.hardware.safety.supervision import FOLLOWING, Supervision
from robot_rl.hardware.safety.supervisor import SupervisorError
from robot_rl.hardware.safety.supervisor_state import TRANSITIONS, State, Status

CONTROLLERS: dict[str, dict[str, int]] = {
    "px4_ctbr": {"throttle": 1, "body_rates": 3},
    "px4_attitude": {"throttle": 1, "attitude": 4},
    "px4_velocity": {"velocity": 3, "yaw_rate": 1},
    "px4_position": {"position": 3, "yaw": 1},
}
"""Controllers of contracts that can be flown, and the sizes of their actions."""

ARRIVED = (0.3, 0.5)
"""At a place: distance [m] and speed [m/s]."""

LEAST_CLIMB = 0.5
"""Of the home place above that of the take-off [m]: well beyond `ARRIVED`, or it would be there on the ground."""

CUSTOM_MODE, PX4_OFFBOARD = 1.0, 6.0  # parameters of SET_MODE
_OURS = frozenset({Phase.ARMING, *AIRBORNE})
_ON_GROUND = frozenset({Phase.STREAMING, Phase.ENTERING, Phase.ARMING})
_NAN3 = np.full(3, math.nan)
_ZERO3 = np.zeros(3)


class FlightSupervisor(Supervision):
    """Turns telemetry and proposals into setpoints and orders.

    Args:
        contract: whose controller is one of `CONTROLLERS`.
        plan: limits, times and places.

    Raises:
        SupervisorError: the contract cannot be flown.
    """

    def __init__(self, contract: Contract, plan: FlightPlan) -> None:
        _flyable(contract)
        super().__init__(contract.action_dim, plan.watchdog)
        self.plan, self._controller = plan, contract.controller
        self._thrusts = {"px4_ctbr": Level.RATES, "px4_attitude": Level.ATTITUDE}.get(contract.controller)
        self._slices = contract.action_slices
        self._telemetry = Telemetry()
        self.phase = Phase.GROUNDED
        self._now, self._since, self._acted = (-math.inf,) * 3
        self._aloft = math.inf  # since when PX4 says that it is armed, in offboard mode
        self._unexplained = False  # whether it has left that mode, and nobody said for which
        self._flown = -math.inf  # since when the vehicle has been in the air without a valid proposal
        self._fence = np.array(plan.limits.fence, float)
        self._action = np.zeros(contract.action_dim)
        self._start, self._anchor, self._yaw = np.zeros(3), np.zeros(3), 0.0
        self._odometry: Odometry | None = None
        self._jump: str | None = None
        self._restarts = 0
        self._orders: list[Order] = []
        self._disarming: list[Order] = []  # given again while it lands
        self._order: Order | None = None
        self._given, self._tries, self._refused = -math.inf, 0, ""
        self._sent: tuple[Level | None, float] = (None, -math.inf)

    def acquire(self, source: str, kind: SourceKind, now: float) -> Lease:
        """Grant a source the lease; the vehicle holds its position until the first proposal.

        Raises:
            LeaseRefused: another source holds the lease, or the state does not allow one.
        """
        if self._state not in (State.READY, State.HELD, *FOLLOWING):
            raise LeaseRefused(f"source {source!r}: no lease while {self._state} ({self._reason}); take off by `home`")
        if self._state is State.HELD and self.phase is not Phase.HOLDING:
            raise LeaseRefused(f"source {source!r}: no lease while held and {self.phase} ({self._reason}); wait")
        lease = self._desk.acquire(source, kind, now)
        self._acted = now
        if self._state is State.HELD:
            self._enter(State.READY, f"lease granted to {source!r}")
        elif self._state in FOLLOWING:
            self._brake()
            if self._state is State.RUNNING and kind == "device":
                self._enter(State.INTERVENING, f"{source!r} takes over")
            else:
                self._enter(State.READY, f"lease granted to {source!r}, the last one had expired")
        return lease

    def propose(self, proposal: Proposal, now: float) -> str | None:
        """Follow an action from now on, or count and return the reason why not."""
        reason: str | None = self._screening.rejection(proposal, self._desk, now)
        if reason is None and self._state not in (State.READY, *FOLLOWING):
            reason = "wrong_state"
        if reason is None and self._thrusts is Level.ATTITUDE:
            length = float(np.linalg.norm(proposal.action[self._slices["attitude"]]))
            reason = None if 0.5 < length < 2.0 else "no_rotation"
        if reason is not None:
            self.reject(reason)
            return reason
        self._acted = self._flown = now
        self._accepted += 1
        action = self._limit(proposal.action)
        self._limited += bool(np.abs(action - proposal.action).max() > 1e-6)
        self._action = action
        if self._state is State.READY:
            holder = self._desk.holder
            assert holder is not None
            following = State.INTERVENING if holder.kind == "device" else State.RUNNING
            self._enter(following, f"{holder.source!r} acts")
        if self.phase in (Phase.HOLDING, Phase.BRAKING):
            self._go(Phase.FOLLOWING if self._thrusts is None else Phase.HANDING)
        return None

    def problems(self, now: float) -> list[str]:
        """What speaks against a take-off; one line for each."""
        told, found = self._telemetry, list[str]()
        odometry, status = self._odometry, told.status
        if odometry is None or now - odometry.stamp > self.plan.watchdog.observation:
            found.append("no fresh vehicle_odometry: is the estimator running, and the agent connected?")
        if status is None or now - status.stamp > self.plan.patience.status:
            found.append("no fresh vehicle_status: is the agent connected?")
        elif status.armed:
            found.append(
                f"the vehicle is armed, in {mode_name(status.nav_state)} mode: somebody flies it; land and disarm"
            )
        if told.mode is None:
            found.append("no vehicle_control_mode has been heard")
        if told.position_valid is None or now - told.position_told > self.plan.patience.status:
            found.append("no fresh vehicle_local_position: is the agent connected?")
        elif not told.position_valid:
            found.append("PX4 says that position or velocity are not valid; indoors it needs an external pose")
        limits = self.plan.limits
        if told.battery is not None and told.battery <= limits.battery:
            found.append(f"battery: {told.battery:.0%} remain, the limit is {limits.battery:.0%}")
        if odometry is not None:
            if odometry.tilt > 0.35:
                found.append(f"the vehicle stands tilted by {math.degrees(odometry.tilt):.0f} degrees")
            if np.linalg.norm(odometry.velocity) > 0.5:
                found.append(f"the estimate moves at {np.linalg.norm(odometry.velocity):.1f} m/s on the ground")
            if not self._is_inside(np.array([*odometry.position[:2], self.plan.home[2]])):
                found.append(f"the fence {self.plan.limits.fence} does not hold the place above the start")
            if (climb := self.plan.home[2] - odometry.position[2]) < LEAST_CLIMB:
                found.append(
                    f"home, at a height of {self.plan.home[2]:g} m, is {climb:.1f} m above the start, less than "
                    f"{LEAST_CLIMB} m: PX4 says that the vehicle stands at {odometry.position[2]:.1f} m"
                )
            elif climb > limits.altitude:
                found.append(f"home is higher above the start than the altitude {limits.altitude} m")
        return found

    @property
    def preflight(self) -> list[str]:
        """What speaks against a take-off as of the last tick; empty while the vehicle is not idle, too."""
        return self.problems(self._now) if self._state is State.IDLE else []

    def home(self, now: float, place: Sequence[float] | None = None) -> None:
        """Take off and go to the home place; or go there.

        Args:
            place: is the home place from now on [3] m; default: the last one.

        Raises:
            SupervisorError: something speaks against it; the message lists all of it.
        """
        if State.HOMING not in TRANSITIONS[self._state]:
            then = "wait" if self._state is State.HOMING else "release or clear the stop"
            raise SupervisorError(f"cannot home while {self._state} ({self._reason}); {then}")
        if self.phase not in (Phase.GROUNDED, Phase.YIELDED, Phase.HOLDING):
            raise SupervisorError(f"cannot home while the vehicle is {self.phase}; wait")
        if place is not None:
            try:
                x, y, z = place
                self.plan = replace(self.plan, home=(x, y, z))
            except ValueError as error:
                raise SupervisorError(str(error)) from error
        if self.phase is Phase.HOLDING:
            self._go(Phase.CLIMBING, now)
        else:
            if found := self.problems(now):
                raise SupervisorError("cannot take off:\n" + "\n".join(f"  - {problem}" for problem in found))
            odometry = self._odometry
            assert odometry is not None
            self._start = odometry.position.copy()
            self._anchor, self._yaw = self._start.copy(), odometry.yaw
            self._restarts, self._jump = self._telemetry.restarts, None
            self._go(Phase.STREAMING, now)
        self._desk.revoke()
        self._enter(State.HOMING, "asked to home")

    def disengage(self) -> None:
        """Land; the vehicle is released once it is disarmed. Raises `SupervisorError` while somebody acts."""
        if self._state not in (State.READY, State.HELD):
            raise SupervisorError(f"cannot disengage while {self._state}; release")
        self._desk.revoke()
        if self._state is State.READY:
            self._enter(State.HELD, "asked to land")
        if self.phase in AIRBORNE:
            self._land()
        elif self.phase in (Phase.GROUNDED, Phase.YIELDED):
            self._enter(State.IDLE, "disengaged")

    def hold(self, reason: str) -> None:
        """Brake, hold the position and end the lease. A take-off is broken off. Does nothing when idle or stopped."""
        if self._state is State.HOMING and self.phase in _ON_GROUND:
            self._abort(reason)
        elif State.HELD in TRANSITIONS[self._state]:
            self._desk.revoke()
            self._brake()
            self._enter(State.HELD, reason)

    def emergency_stop(self, reason: str) -> None:
        """Land at once and stay stopped until `clear()`. Never fails, and never stops motors in the air."""
        self._stop(f"emergency stop: {reason}")

    def clear(self) -> None:
        """Undo the stop, on purpose. Raises `SupervisorError` unless stopped and disarmed on the ground."""
        if self._state is not State.STOPPED or self.phase is not Phase.GROUNDED:
            raise SupervisorError(f"nothing to clear while {self._state} and {self.phase}; wait until it has landed")
        self._enter(State.IDLE, "stop cleared")

    def acknowledge(self, command: int, result: int) -> None:
        """PX4 answers an order."""
        if self._order is None or command != self._order.command:
            return
        if result in (Ack.DENIED, Ack.UNSUPPORTED, Ack.FAILED) or result > Ack.IN_PROGRESS:
            self._refused = next((answer.name.lower() for answer in Ack if answer == result), f"result {result}")

    def tick(self, now: float, telemetry: Telemetry) -> tuple[FlightCommand, Status]:
        """All that PX4 is told now, and the status to publish."""
        back = now < self._now
        self._now = now
        self._take(telemetry, now)
        if back:
            self._since, self._given = now, now
            self._desk.revoke()
            if self.phase in AIRBORNE | _ON_GROUND:
                self._stop("clock went back")
        self._yield_or_ground()
        if fault := self._vehicle_fault(now):
            self._stop(fault)
        elif self._is_forsaken(now):
            if self._state is not State.HELD:
                self._enter(State.HELD, f"no valid proposal for {self.plan.patience.silence:g} s")
            self._land()
        elif fault := self._source_fault(now):
            self.hold(fault)
        elif self._state is State.READY and self._desk.expired(now):
            self._desk.revoke()
        self._advance(now)
        command = self._stream(now)
        if command.level is not self._sent[0]:
            self._sent = command.level, now
        self._orders = []
        return command, self.status

    def _take(self, telemetry: Telemetry, now: float) -> None:
        """Take over odometry that is newer and makes sense; other samples age the last one, which a fault is."""
        self._telemetry = telemetry
        new, last = telemetry.odometry, self._odometry
        if new is None or (last is not None and new.stamp == last.stamp):
            return
        if not new.finite or abs(np.linalg.norm(new.quaternion) - 1.0) > 0.05:
            self.reject("odometry_non_finite")
        elif new.stamp > now + max(self.plan.watchdog.skew, 0.02):
            self.reject("odometry_from_the_future")
        elif last is not None and -1.0 < new.stamp - last.stamp < 0:
            self.reject("odometry_out_of_order")
        else:
            if last is not None and self.phase in AIRBORNE:
                self._jump = self._jump or self._jumps(last, new)
            self._odometry = new

    def _jumps(self, last: Odometry, new: Odometry) -> str | None:
        passed = new.stamp - last.stamp
        error = float(np.linalg.norm(new.position - last.position - passed * (new.velocity + last.velocity) / 2))
        return f"odometry jumped by {error:.2f} m" if error > self.plan.limits.jump else None

    def _yield_or_ground(self) -> None:
        """See that the vehicle is disarmed, or that somebody else flies it."""
        status = self._telemetry.status
        if self.phase in AIRBORNE and self._has_left_since(self._aloft):
            # The status tells why; until then nothing is sent, and nobody fought.
            self._desk.revoke()
            self._go(Phase.YIELDED)
            self._unexplained = True
            if self._state not in (State.HELD, State.STOPPED):
                self._enter(State.HELD, "PX4 is no longer in offboard mode")
        if status is None or status.stamp < self._since:
            return
        if not status.armed and self.phase in (Phase.LANDING, Phase.YIELDED):
            self._go(Phase.GROUNDED)
            if self._state is State.HELD:
                self._enter(State.IDLE, f"landed: {self._reason}")
        elif status.nav_state not in self._own_modes:
            self._yield(f"{mode_name(status.nav_state)} mode", status.failsafe and not status.user_took_over)
        elif self.phase in AIRBORNE and not status.armed:
            self._go(Phase.GROUNDED)
            self._stop("disarmed in flight")

    def _has_left_since(self, since: float) -> bool:
        """Whether the control mode, heard later than `since`, says that PX4 is not in offboard mode."""
        mode = self._telemetry.mode
        return mode is not None and mode.stamp > since and not mode.offboard

    @property
    def _own_modes(self) -> tuple[int, ...] | range:
        """Values of nav_state that are by our own will."""
        if self.phase in _OURS or self._unexplained:
            return (OFFBOARD,)
        return (OFFBOARD, LAND) if self.phase is Phase.LANDING else range(256)

    def _yield(self, mode: str, failsafe: bool) -> None:
        """Somebody else flies from now on: never fight them."""
        self._desk.revoke()
        self._go(Phase.YIELDED)
        if self._state is State.STOPPED:
            return
        if failsafe:
            self._enter(State.STOPPED, f"PX4's failsafe: {mode}")
        else:
            if self._state is not State.HELD:
                self._enter(State.HELD, f"the pilot took over: {mode}")
            self._enter(State.IDLE, f"the pilot took over: {mode}")

    def _vehicle_fault(self, now: float) -> str | None:
        """What makes the vehicle land."""
        told, status, odometry, limits = self._telemetry, self._telemetry.status, self._odometry, self.plan.limits
        if self.phase not in AIRBORNE or status is None or odometry is None:
            return None
        if told.restarts != self._restarts:
            return "the vehicle's clock went back"
        if now - status.stamp > self.plan.patience.status:
            return "vehicle_status stopped"
        if status.failsafe:
            return "PX4's failsafe"
        if now - odometry.stamp > self.plan.watchdog.observation:
            return "odometry stopped"
        if self._jump:
            return self._jump
        if now - told.position_told > self.plan.patience.status:
            return "vehicle_local_position stopped"
        if now - told.battery_told > self.plan.patience.battery:
            return "battery_status stopped"
        if told.position_valid is False:
            return "PX4 says that position or velocity are not valid"
        if odometry.tilt > limits.tilt:
            return f"tilt of {math.degrees(odometry.tilt):.0f} degrees"
        if (speed := float(np.linalg.norm(odometry.velocity))) > limits.speed:
            return f"speed of {speed:.1f} m/s"
        if (height := odometry.position[2] - self._start[2]) > limits.altitude:
            return f"altitude of {height:.1f} m"
        if told.battery is not None and told.battery <= limits.battery:
            return f"battery: {told.battery:.0%} remain"
        if not self._is_inside(odometry.position):
            return "geofence: at " + ", ".join(f"{number:.2f}" for number in odometry.position)
        waits = self.phase in (Phase.HANDING, Phase.BRAKING)
        if waits and now - self._since > self.plan.patience.hand_over:
            return f"PX4 did not change the control level in {self.plan.patience.hand_over} s"
        if self.phase is Phase.CLIMBING and now - self._since > self.plan.patience.take_off:
            return f"home was not reached in {self.plan.patience.take_off:g} s"
        return None

    def _source_fault(self, now: float) -> str | None:
        if self._state not in FOLLOWING:
            return None
        if self._desk.expired(now):
            return "heartbeat of the lease stopped"
        return "actions stopped" if not 0 <= now - self._acted <= self.plan.watchdog.action else None

    def _is_forsaken(self, now: float) -> bool:
        """Whether nobody has flown the vehicle for too long. A climb counts as flown: it has its own limit of time."""
        if self.phase not in AIRBORNE or self.phase is Phase.CLIMBING:
            self._flown = now
        return now - self._flown > self.plan.patience.silence

    def _advance(self, now: float) -> None:
        """Go on to the next phase where this one is over."""
        status, mode, patience = self._telemetry.status, self._telemetry.mode, self.plan.patience
        may_turn_back = self.phase in _ON_GROUND and not (self.phase is Phase.ARMING and self._order is not None)
        if may_turn_back and (found := self.problems(now)):
            self._abort(found[0])
            return
        match self.phase:
            case Phase.STREAMING:
                if now - self._since >= patience.stream:
                    self._go(Phase.ENTERING, now)
                    self._give(Order(Command.SET_MODE, CUSTOM_MODE, PX4_OFFBOARD), now)
            case Phase.ENTERING:
                if status is not None and status.stamp > self._since and status.nav_state == OFFBOARD:
                    self._go(Phase.ARMING, now)
                else:
                    self._insist(now, "offboard mode")
            case Phase.ARMING:
                if status is not None and status.stamp > self._since and status.armed:
                    self._aloft = now
                    self._go(Phase.CLIMBING, now)
                elif self._order is not None:
                    self._insist(now, "arming")
                elif status is not None and status.stamp > self._since and status.checks_pass:
                    self._give(Order(Command.ARM, 1.0), now)
                elif now - self._since > patience.checks:
                    self._abort("PX4's pre-flight checks do not pass in offboard mode; see its own messages")
            case Phase.CLIMBING:
                self._approach_home()
            case Phase.HANDING:
                if mode is not None and mode.stamp > self._sent[1] and mode.level is self._sent[0] is self._thrusts:
                    self._go(Phase.FOLLOWING, now)
            case Phase.BRAKING:
                if mode is not None and mode.stamp > self._sent[1] and mode.level is self._sent[0] is Level.POSITION:
                    self._go(Phase.HOLDING, now)
                else:
                    self._stay_here()
            case Phase.LANDING:
                if now - self._given >= patience.answer:
                    self._given = now
                    self._orders += [Order(Command.LAND)] * (not self._lands()) + self._disarming

    def _lands(self) -> bool:
        """Whether PX4 lands by itself, or somebody else flies: the control mode tells that before the status."""
        status = self._telemetry.status
        return self._has_left_since(self._since) or (status is not None and status.nav_state == LAND)

    def _approach_home(self) -> None:
        """First straight up, then sideways, at a pace."""
        assert self._odometry is not None
        position, home = self._odometry.position, np.array(self.plan.home, float)
        if self._anchor[2] != home[2]:
            self._anchor[2] = home[2]
        elif abs(position[2] - home[2]) < ARRIVED[0]:
            way = home - self._anchor
            distance, stride = float(np.linalg.norm(way)), self.plan.homing_speed / self.plan.tick_rate_hz
            self._anchor = home if distance <= stride else self._anchor + way * (stride / distance)
        near = np.linalg.norm(position - home) < ARRIVED[0]
        if near and (self._anchor == home).all() and np.linalg.norm(self._odometry.velocity) < ARRIVED[1]:
            self._go(Phase.HOLDING)
            self._enter(State.READY, "home")

    def _stream(self, now: float) -> FlightCommand:
        orders = tuple(self._orders)
        here = TrajectorySetpoint(self._anchor.copy(), _NAN3, self._yaw, math.nan)
        match self.phase:
            case Phase.GROUNDED | Phase.YIELDED:
                return FlightCommand(orders=orders)
            case Phase.HANDING:
                return self._hovering(self._thrusts, here, orders)
            case Phase.BRAKING:
                return self._hovering(Level.POSITION, here, orders)
            case Phase.FOLLOWING:
                return self._follow(orders)
            case Phase.LANDING:
                if self._lands():
                    return FlightCommand(orders=orders)
                down = TrajectorySetpoint(_NAN3, np.array([0.0, 0.0, -self.plan.landing_speed]), self._yaw, math.nan)
                return self._hovering(Level.POSITION, down, orders)
        return FlightCommand(Level.POSITION, None, here, orders)

    def _hovering(self, level: Level | None, wanted: TrajectorySetpoint, orders: tuple[Order, ...]) -> FlightCommand:
        """A trajectory, and what replaces the last action for as long as PX4 controls rates or the attitude still."""
        throttle, mode = self.plan.hover_throttle, self._telemetry.mode
        if self._thrusts is None or (mode is not None and mode.level is Level.POSITION):
            return FlightCommand(level, None, wanted, orders)
        if self._thrusts is Level.RATES:
            return FlightCommand(level, RatesSetpoint(throttle, _ZERO3), wanted, orders)
        upright = np.array([math.cos(self._yaw / 2), 0.0, 0.0, math.sin(self._yaw / 2)])
        return FlightCommand(level, None, wanted, orders, AttitudeSetpoint(throttle, upright))

    def _follow(self, orders: tuple[Order, ...]) -> FlightCommand:
        part = {name: self._action[where] for name, where in self._slices.items()}
        if self._thrusts is Level.RATES:
            return FlightCommand(
                Level.RATES, RatesSetpoint(float(part["throttle"][0]), part["body_rates"]), None, orders
            )
        if self._thrusts is Level.ATTITUDE:
            attitude = AttitudeSetpoint(float(part["throttle"][0]), part["attitude"])
            return FlightCommand(Level.ATTITUDE, None, None, orders, attitude)
        if self._controller == "px4_velocity":
            wanted = TrajectorySetpoint(_NAN3, part["velocity"], math.nan, float(part["yaw_rate"][0]))
        else:
            wanted = TrajectorySetpoint(part["position"], _NAN3, float(part["yaw"][0]), math.nan)
        return FlightCommand(Level.POSITION, None, wanted, orders)

    def _limit(self, action: np.ndarray) -> np.ndarray:
        """The nearest action that may be commanded."""
        limits, limited = self.plan.limits, np.array(action, float)
        for name, where in self._slices.items():
            match name:
                case "throttle":
                    limited[where] = np.clip(limited[where], *limits.throttle)
                case "body_rates":
                    limited[where] = np.clip(limited[where], -np.array(limits.rates), limits.rates)
                case "attitude":
                    limited[where] = _upright_enough(limited[where], limits.command_tilt)
                case "velocity":
                    speed = float(np.linalg.norm(limited[where]))
                    limited[where] *= min(1.0, limits.command_speed / max(speed, 1e-9))
                case "yaw_rate":
                    limited[where] = np.clip(limited[where], -limits.yaw_rate, limits.yaw_rate)
                case "position":
                    # PX4 flies at about 1 m/s for each metre that it has to go.
                    here = self._anchor if self._odometry is None else self._odometry.position
                    way = np.clip(limited[where], *self._fence) - here
                    limited[where] = here + way * min(1.0, limits.command_speed / max(float(np.linalg.norm(way)), 1e-9))
        return limited

    def _is_inside(self, position: np.ndarray) -> bool:
        """Within the fence; its floor counts for nothing near the ground, where everything begins and ends."""
        lower, upper = self._fence
        inside = (position <= upper).all() and (position[:2] >= lower[:2]).all()
        return bool(inside and position[2] >= min(lower[2], self._start[2] - 0.5))

    def _brake(self) -> None:
        """Hold the position from now on: through zero rates where PX4 may control rates, else at once."""
        if self.phase in (Phase.HANDING, Phase.FOLLOWING, Phase.CLIMBING):
            self._stay_here()
            self._go(Phase.HOLDING if self._sent[0] is Level.POSITION else Phase.BRAKING)

    def _stay_here(self) -> None:
        if self._odometry is not None:
            self._anchor, self._yaw = self._odometry.position.copy(), self._odometry.yaw

    def _stop(self, reason: str) -> None:
        """Land where the vehicle flies, and stay stopped."""
        if self.phase in _ON_GROUND:
            self._give_up()
        elif self.phase in AIRBORNE:
            self._land()
        self._desk.revoke()
        if self._state is not State.STOPPED:
            self._enter(State.STOPPED, reason)

    def _land(self) -> None:
        if self._odometry is not None:
            self._yaw = self._odometry.yaw
        self._desk.revoke()
        self._go(Phase.LANDING)
        self._given, self._disarming = self._now, []
        self._orders.append(Order(Command.LAND))

    def _abort(self, reason: str) -> None:
        """The take-off is broken off on the ground."""
        self._give_up()
        self._enter(State.HELD, reason)
        if self.phase is Phase.GROUNDED:
            self._enter(State.IDLE, reason)

    def _give_up(self) -> None:
        """Leave the vehicle on the ground; see that it is disarmed where it was told to arm, whatever it answered."""
        if self.phase is Phase.ARMING and self._order is not None:
            self._land()
            self._disarming = [Order(Command.ARM, 0.0)]  # which PX4 refuses in the air
            self._orders += self._disarming
        else:
            self._go(Phase.GROUNDED)

    def _give(self, order: Order, now: float) -> None:
        self._order, self._given, self._tries, self._refused = order, now, 1, ""
        self._orders.append(order)

    def _insist(self, now: float, what: str) -> None:
        """Give the order again where PX4 has not done it; break off where it refuses, or after the last try."""
        assert self._order is not None
        if self._refused:
            self._abort(f"{what} refused: {self._refused}")
        elif now - self._given >= self.plan.patience.answer:
            if self._tries >= self.plan.patience.tries:
                self._abort(f"{what}: ordered {self._tries} times, and PX4 has not done it")
                return
            self._given, self._tries = now, self._tries + 1
            self._orders.append(self._order)

    def _go(self, phase: Phase, now: float | None = None) -> None:
        self.phase, self._since = phase, self._now if now is None else now
        self._order, self._refused, self._unexplained = None, "", False


def _upright_enough(quaternion: np.ndarray, tilt: float) -> np.ndarray:
    """The rotation of a quaternion wxyz with its heading, but leaning no further than `tilt` [rad].

    A rotation is one about the vertical axis, then one by the tilt about an axis on the level.
    """
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    lean = math.hypot(x, y)  # the sine of half the tilt
    if lean <= math.sin(tilt / 2):
        return np.array([w, x, y, z])
    level, part = math.cos(tilt / 2) / max(math.hypot(w, z), 1e-9), math.sin(tilt / 2) / lean
    return np.array([w * level, x * part, y * part, z * level]) if w or z else np.array([1.0, 0.0, 0.0, 0.0])


def _flyable(contract: Contract) -> None:
    wanted = CONTROLLERS.get(contract.controller)
    found = {name: feature.size for name, feature in contract.action.items()}
    if wanted is None:
        raise SupervisorError(
            f"contract {contract.name!r}: expected a controller in {list(CONTROLLERS)}, got {contract.controller!r}"
        )
    if found != wanted or any(feature.mode != "absolute" for feature in contract.action.values()):
        raise SupervisorError(f"contract {contract.name!r}: expected the absolute actions {wanted}, got {found}")
