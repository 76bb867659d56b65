"""The `supervisor` node of a vehicle under PX4: the only one that commands it.

Sources, people and recorders speak with it as with the Supervisor of an arm, see `supervisor_messages`: the lease,
proposals, `supervisor/status` (here with `phase`, `mode`, `armed`, `battery`, and in `preflight` what forbids a
take-off), `supervisor/home` (takes off), `supervisor/disengage` (lands), the latched stop. Toward the vehicle it alone
publishes on `/fmu/in/...`, after `flight_supervisor`. It waits for the vehicle's topics, and takes the versions of
messages from their names.

- `odometry` (nav_msgs/Odometry, ENU and FLU): where PX4 says that the vehicle is, by our clock;
- `imu` (sensor_msgs/Imu, FLU): its inertial sensors, where the contract has them;
- `external_pose` (nav_msgs/Odometry, ENU and FLU), heard: motion capture or visual-inertial odometry, given to PX4 as
  `/fmu/in/vehicle_visual_odometry` for flight indoors.

In a terminal any key lands. SIGINT, SIGTERM and SIGHUP land, too, and the node goes when the vehicle is disarmed, or
after a while; a second one ends it at once, and PX4's own fallback is what remains.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from robot_rl.datasets import ContractError
from robot_rl.hardware.nodes.alone import is_alone
from robot_rl.hardware.nodes.command_line import node_main
from robot_rl.hardware.nodes.garbage import startup_spared
from robot_rl.hardware.nodes.policy_contract import policy_contract
from robot_rl.hardware.nodes.ticks import Ticks
from robot_rl.hardware.px4 import px4_messages
from robot_rl.hardware.px4.flight_state import Odometry, Phase, mode_name
from robot_rl.hardware.px4.flight_supervisor import FlightSupervisor
from robot_rl.hardware.px4.px4_codec import (
    TelemetryDecoder,
    decode_inertial,
    encode_command,
    encode_odometry,
    is_answer_to_us,
)
from robot_rl.hardware.px4.vehicle_file import IMU, INERTIAL, ODOMETRY, VehicleFile
from robot_rl.hardware.robot_file import RobotFileError
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.dds_configuration import where_others_are_found
from robot_rl.hardware.ros2.graph import Graph, Received, open_graph
from robot_rl.hardware.ros2.qos import LATCHED, SENSOR
from robot_rl.hardware.safety.reception import LEVELS, Reception
from robot_rl.hardware.safety.supervisor import SupervisorError
from robot_rl.hardware.safety.supervisor_messages import (
    BOOL,
    DIAGNOSTIC,
    DIAGNOSTICS,
    HISTORY,
    JOINT_STATE,
    PROPOSAL,
    SOURCE,
    STATUS,
    STOP_REQUEST,
    TRANSITION,
    TRIGGER,
    describe_actions,
    diagnostic,
    diagnostics,
)
from robot_rl.hardware.terminal import Terminal, own_terminal
from robot_rl.sim.rotation import matrix_from_quaternion

EXTERNAL_POSE = "external_pose"
_ODOMETRY = "nav_msgs/msg/Odometry"
_INERTIAL = "sensor_combined"
SIMULATED_SILENCE = 120.0
"""As `Patience.silence` where simulated time waits for proposals: it runs on, and fast, while sources start [s]."""

_LANDS_WITHIN = 60.0  # s, after a signal
_LOOK = 0.5  # s, between two looks for the vehicle's topics


class FlightOutput(NamedTuple):
    """What one tick publishes: messages by topic of the vehicle, the status, and the changes of state."""

    messages: list[tuple[str, Any]]
    status: Any
    transitions: list[Any]


class FlightNode(Reception):
    """Messages in, messages out, around a `FlightSupervisor`; it knows no graph and no clock.

    Args:
        shared_clock: with PX4, on simulated time.
        device_steps: see `Reception`.
    """

    def __init__(self, robot: VehicleFile, shared_clock: bool = False, device_steps: bool = False) -> None:
        self.robot, self.supervisor = robot, FlightSupervisor(robot.contract, robot.plan)
        super().__init__(self.supervisor, robot.contract, robot.name, device_steps)
        self.decoder = TelemetryDecoder(shared_clock)
        self._accepted = ""
        self.place: Sequence[float] | None = None  # where `home` goes, other than the vehicle's file says [3] m

    def hear_vehicle(self, base: str, message: Any, received: float) -> None:
        """A message of a topic of `px4_messages.OUTPUTS`."""
        if base == "vehicle_command_ack":
            if is_answer_to_us(message, self.decoder.address):
                self.supervisor.acknowledge(int(message.command), int(message.result))
        else:
            self.decoder.hear(base, message, received)

    def propose(self, message: Any, now: float) -> str | None:
        """As every Supervisor; an action that waits for PX4 to change its control level is not followed yet."""
        followed = self._followed
        rejected = super().propose(message, now)
        if rejected is None:
            self._accepted, self._followed = self._followed, followed
        return rejected

    def external_pose(self, message: Any, now: float) -> Any | None:
        """VehicleOdometry of a nav_msgs/Odometry in ENU and FLU, without its velocity, which many leave at zero.

        None where numbers are not finite, the quaternion is none, or the stamp is not of the last half second.
        """
        pose, twist = message.pose.pose, message.twist.twist
        position = np.array([pose.position.x, pose.position.y, pose.position.z])
        quaternion = np.array([pose.orientation.w, pose.orientation.x, pose.orientation.y, pose.orientation.z])
        seen = Odometry(
            messages.seconds(message.header.stamp), position, np.full(3, np.nan), quaternion,
            np.array([twist.angular.x, twist.angular.y, twist.angular.z]),
        )  # fmt: skip
        known = np.isfinite(np.concatenate([position, quaternion])).all()
        age, skew = now - seen.stamp, self.robot.plan.watchdog.skew
        if not known or abs(np.linalg.norm(quaternion) - 1.0) > 0.05 or not -skew <= age < 0.5:
            self.supervisor.reject("external_pose")
            return None
        variances = np.maximum(np.asarray(message.pose.covariance, float)[:: 6 + 1], 1e-4)
        return encode_odometry(seen, self.decoder.time.vehicle_time(seen.stamp), variances[:3], variances[3:])

    def tick(self, now: float, stamp: float) -> FlightOutput:
        """Everything to publish for the tick of a time [s]; it may be later by now."""
        command, _ = self.supervisor.tick(now, self.decoder.telemetry)
        if self.supervisor.phase is Phase.FOLLOWING:
            self._followed = self._accepted
        sent = encode_command(command, self.decoder.time.vehicle_time(now), self.decoder.address)
        self._sent += len(sent)
        self._forget(now)
        return FlightOutput(sent, self._status(stamp), self.transitions(now))

    def _home(self, now: float) -> None:
        self.supervisor.home(now, self.place)

    def _further(self) -> dict[str, object]:
        """What is done with the vehicle, what PX4 says that it does, the battery, and what forbids a take-off now."""
        told = self.decoder.telemetry
        status = told.status
        return {
            "phase": self.supervisor.phase,
            "mode": "" if status is None else mode_name(status.nav_state),
            "armed": "" if status is None else status.armed,
            "battery": "" if told.battery is None else f"{told.battery:.2f}",
            "preflight": "; ".join(self.supervisor.preflight),
        }

    def odometry(self) -> Any | None:
        """The newest odometry as nav_msgs/Odometry, velocities in the body's frame as ROS wants it; None without."""
        told = self.decoder.telemetry.odometry
        return None if told is None or not told.finite else encode_ros_odometry(told)

    def inertial(self, message: Any) -> Any | None:
        """A SensorCombined as sensor_msgs/Imu by our clock; None where it tells nothing, or that is not known."""
        stamp = self.decoder.time.ours(int(message.timestamp))
        return None if stamp is None else decode_inertial(message, stamp)


def encode_ros_odometry(told: Odometry) -> Any:
    """nav_msgs/Odometry from `world` (ENU) to `body` (FLU)."""
    w, x, y, z = told.quaternion
    velocity = matrix_from_quaternion(told.quaternion).T @ told.velocity
    point = messages.make("geometry_msgs/msg/Point", **dict(zip("xyz", told.position, strict=True)))
    turn = messages.make("geometry_msgs/msg/Quaternion", w=w, x=x, y=y, z=z)
    linear, angular = (
        messages.make("geometry_msgs/msg/Vector3", **dict(zip("xyz", vector, strict=True)))
        for vector in (velocity, told.rates)
    )
    pose = messages.make("geometry_msgs/msg/Pose", position=point, orientation=turn)
    twist = messages.make("geometry_msgs/msg/Twist", linear=linear, angular=angular)
    return messages.make(
        _ODOMETRY, header=messages.make("std_msgs/msg/Header", stamp=messages.stamp(told.stamp), frame_id="world"),
        child_frame_id="body", pose=messages.make("geometry_msgs/msg/PoseWithCovariance", pose=pose),
        twist=messages.make("geometry_msgs/msg/TwistWithCovariance", twist=twist),
    )  # fmt: skip


class FlightBinding:
    """Binds the node to a graph; the vehicle's topics as soon as they are there.

    Args:
        wait: how long the tick of a control period waits for the proposal of that time [wall s]; for simulated time.
    """

    def __init__(self, graph: Graph, node: FlightNode, wait: float = 0.0) -> None:
        self._graph, self._node = graph, node
        self._inputs: dict[str, Any] = {}
        self._resets: int | None = None  # of PX4's estimator, as it counts them
        self._status = graph.publisher(STATUS, DIAGNOSTICS, LATCHED)
        self._transition = graph.publisher(TRANSITION, DIAGNOSTIC, HISTORY)
        self._diagnostics = graph.publisher("/diagnostics", DIAGNOSTICS)
        self._odometry = graph.publisher(ODOMETRY, _ODOMETRY, SENSOR)
        inertial = INERTIAL.keys() & node.robot.contract.observation.keys()
        self._imu = graph.publisher(IMU, "sensor_msgs/msg/Imu", SENSOR) if inertial else None
        self._home = graph.parameter("home", [], "where `home` goes, in the world [m]; empty: as its file says")
        self._missing = ["the vehicle has not been looked for yet"]
        self._nobody = f"no vehicle {where_others_are_found()}: "
        self._unheard = {base: name for base, name in px4_messages.OUTPUTS.items() if inertial or base != _INERTIAL}
        graph.subscribe(SOURCE, DIAGNOSTIC, lambda heard: node.hear(heard.message, graph.now()), HISTORY)
        graph.subscribe(PROPOSAL, JOINT_STATE, lambda heard: self._ticks.take(heard.message))
        graph.subscribe(STOP_REQUEST, BOOL, self._stop_request)
        graph.subscribe(EXTERNAL_POSE, _ODOMETRY, self._external_pose, SENSOR)
        for name in ("home", "disengage", "emergency_stop", "clear"):
            graph.service(f"supervisor/{name}", TRIGGER, partial(self._serve, name))
        self._look_timer = graph.timer(_LOOK, self._look, "wall")
        rates = node.robot.plan.tick_rate_hz, node.robot.contract.rate_hz
        self._ticks = Ticks(graph, *rates, wait, node.awaits, self._run, self._propose)
        graph.timer(1.0, self._report, "wall")

    def _run(self, stamp: float) -> None:
        output = self._node.tick(self._graph.now(), stamp)
        for base, message in output.messages:
            self._inputs[base].publish(message)
        self._status.publish(output.status)
        for change in output.transitions:
            self._transition.publish(change)
            self._graph.log.log(30 if change.level else 20, "%s: %s", change.values[1].value, change.message)

    def _look(self) -> None:
        """Look for the vehicle, and join its topics once those that it needs are there.

        PX4 offers an output when it says something on it for the first time. One without which a vehicle is complete
        may come later, and is waited for where its version is a question.
        """
        robot, graph, joined = self._node.robot, self._graph, bool(self._inputs)
        needed = ["vehicle_attitude_setpoint"] if robot.contract.controller == "px4_attitude" else []
        try:
            found, missing = px4_messages.detect(graph.endpoints(), robot.namespace, needed, robot.px4_msgs)
            if missing:
                self._missing = self._missing if joined else [f"no {base}" for base in missing]
                return
            plain = {name for name, known in px4_messages.DEFINITIONS.items() if len(known) == 1}
            new = {base: name for base, name in self._unheard.items() if name in plain | found.keys()}
            versions = {**px4_messages.V1_17, **found}
            px4_messages.register(versions, robot.px4_msgs, {*px4_messages.INPUTS.values(), *new.values()})
        except (px4_messages.Px4MessageError, messages.MessageError) as error:
            self._look_timer.cancel()
            self._missing = [str(error)]
            graph.log.error("%s", error)
            return
        topics = px4_messages.table(versions, robot.namespace)
        for base in () if joined else px4_messages.INPUTS:
            self._inputs[base] = graph.publisher(topics[base].name, topics[base].type, px4_messages.IN)
        for base in new:
            graph.subscribe(topics[base].name, topics[base].type, partial(self._hear, base), px4_messages.OUT)
            del self._unheard[base]
        if new:
            graph.log.info("hears the vehicle: %s", ", ".join(topics[base].name for base in new))
        self._missing = []
        if not self._unheard:
            self._look_timer.cancel()

    def _hear(self, base: str, received: Received) -> None:
        if base == _INERTIAL:
            if self._imu is not None and (imu := self._node.inertial(received.message)) is not None:
                self._imu.publish(imu)
            return
        self._node.hear_vehicle(base, received.message, received.received)
        if base == "vehicle_odometry":
            resets = int(received.message.reset_counter)
            if self._resets not in (None, resets):
                self._graph.log.warning("PX4's estimator was reset: where it says that the vehicle is may have jumped")
            self._resets = resets
            if (message := self._node.odometry()) is not None:
                self._odometry.publish(message)

    def _external_pose(self, received: Received) -> None:
        message = self._node.external_pose(received.message, self._graph.now())
        if message is not None and "vehicle_visual_odometry" in self._inputs:
            self._inputs["vehicle_visual_odometry"].publish(message)

    def _propose(self, message: Any) -> None:
        self._node.propose(message, self._graph.now())

    def _stop_request(self, received: Received) -> None:
        if received.message.data:
            self._node.supervisor.emergency_stop("topic")

    def _serve(self, name: str, _: Any) -> Any:
        if name == "home" and self._missing:
            success, message = False, self._nobody + ", ".join(self._missing)
        elif name == "home" and (others := [*self._others(), *self._vehicles()]):
            success, message = False, "; ".join(others)
        else:
            self._node.place = self._home.value or None
            success, message = self._node.request(name, self._graph.now())
        return messages.make(f"{TRIGGER}_Response", success=success, message=message)

    def _others(self) -> list[str]:
        """Who else commands the vehicle; one of our own name may be a second Supervisor. PX4's agent has no name."""
        own = {self._inputs[base].topic for base in px4_messages.COMMANDS & self._inputs.keys()}
        found = [
            (endpoint.node, endpoint.topic)
            for endpoint in self._graph.endpoints()
            if endpoint.is_publisher and endpoint.topic in own and endpoint.node.startswith("/")
        ]
        for topic in own & {topic for node, topic in found if node == self._graph.name}:
            found.remove((self._graph.name, topic))
        return sorted(f"{node} publishes {topic}, too" for node, topic in set(found))

    def _vehicles(self) -> list[str]:
        """What a twin beside another vehicle says, and both would obey; of PX4 itself the topics have no node."""
        topic = px4_messages.table(prefix=self._node.robot.namespace)["vehicle_odometry"].name
        found = [end.node for end in self._graph.endpoints() if end.is_publisher and end.topic == topic]
        twins = {node for node in found if node.startswith("/")} if len(found) > 1 else ()
        return [f"{node} publishes {topic} beside another vehicle: end one of them" for node in sorted(twins)]

    def _report(self) -> None:
        """Publish diagnostics; and hold when somebody else may command the vehicle, too."""
        others, supervisor = self._others(), self._node.supervisor
        status = supervisor.status
        level, message = LEVELS.get(status.state, 0), f"{status.state}: {status.reason}"
        if others:
            level, message = 2, "; ".join(others)
            supervisor.hold(message)
        elif self._missing:
            level, message = 1, self._nobody + ", ".join(self._missing)
        values = {
            "state": status.state, "phase": supervisor.phase, "limited": status.limited,
            "rejected": sum(status.rejected.values()), "unreadable": self._node.decoder.unreadable,
            "unheard": ", ".join(self._unheard),
        }  # fmt: skip
        report = diagnostic(f"{self._graph.name}: {self._node.robot.name}", level, message, values)
        self._diagnostics.publish(diagnostics(self._graph.now(), report))


@node_main
def main(argv: Sequence[str]) -> int:
    """Run the node until a signal ends it. Returns the exit status."""
    with open_graph("supervisor", argv) as graph:
        name = _setting(graph, "robot", "px4", "name of a vehicle, or path of its file")
        policy = _setting(graph, "policy", "", "whose contract is followed: a run, checkpoint, export or contract file")
        level = _setting(
            graph, "controller", "", "px4_ctbr, px4_attitude, px4_velocity or px4_position, where there is no policy"
        )
        wait = _setting(
            graph, "wait_for_proposal", 0.0, "of every control period, for the twin's simulated time [wall s]"
        )
        silence = _setting(
            graph,
            "silence",
            0.0,
            "in the air without a valid proposal, until the vehicle lands [s]; 0: as its file says",
        )
        silence = silence or (SIMULATED_SILENCE if wait > 0 else 0.0)
        steps = _setting(graph, "wait_for_device", False, "wait for a device, too: a scripted pilot is no person")
        try:
            robot = VehicleFile.load(name)
            robot = robot.with_controller(level) if level else robot
            robot = robot.with_silence(silence) if silence else robot
            node = FlightNode(robot.for_policy(policy_contract(policy)) if policy else robot, wait > 0, steps)
        except (RobotFileError, ContractError, SupervisorError, ValueError, OSError) as error:
            for line in str(error).splitlines():
                graph.log.error("%s", line)
            return 1
        if not is_alone(graph):
            return 1
        if graph.stopped:
            return 0
        FlightBinding(graph, node, wait)
        graph.log.info("supervises %s: %s", robot.name, describe_actions(node.robot.contract))
        with own_terminal() as terminal:
            if terminal is not None:
                graph.log.info("any key in this terminal lands")
                graph.timer(0.02, partial(_land_by_key, node, terminal), "wall")
            with startup_spared():
                graph.spin()
            _land(graph, node)
    return 0


def _land_by_key(node: FlightNode, terminal: Terminal) -> None:
    if terminal.keys():
        node.supervisor.emergency_stop("keyboard")


def _land(graph: Graph, node: FlightNode) -> None:
    """Land before the node goes."""
    supervisor = node.supervisor
    supervisor.emergency_stop("the Supervisor was shut down")
    if supervisor.phase is Phase.LANDING:
        graph.log.warning("lands before it ends; a second signal ends it at once")
    graph.spin(timeout=0.1)
    graph.spin(lambda: supervisor.phase is not Phase.LANDING, _LANDS_WITHIN)


def _setting(graph: Graph, name: str, default: Any, description: str) -> Any:
    return graph.parameter(name, default, description, read_only=True).value


if __name__ == "__main__":
    sys.exit(main())
