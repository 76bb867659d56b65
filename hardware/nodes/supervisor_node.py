"""The `supervisor` node: the only one that commands the robot.

It alone publishes on the command topics of the robot's file. Whoever wants the robot to move acquires the lease and
publishes proposals (see `supervisor_messages`, and `source` for the client); what leaves this process keeps every limit
of the robot's file, whatever comes in. No parameter switches a check off.

Every message to a trajectory controller also carries the motion until rest, so that the arm brakes within its limits
even if this process is killed; a forward controller takes single points, and then stops where the last one was.

With `homing` = `action` the way home is planned by the Supervisor, but gone by the controller, as one goal of the
robot's FollowJointTrajectory action; what ends the homing cancels the goal.

It does not begin beside another Supervisor. In a terminal any key is an emergency stop. SIGINT, SIGTERM and SIGHUP
brake the arm, too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from robot_rl.datasets import ContractError
from robot_rl.hardware import bindings
from robot_rl.hardware.nodes.alone import is_alone
from robot_rl.hardware.nodes.command_line import node_main
from robot_rl.hardware.nodes.garbage import startup_spared
from robot_rl.hardware.nodes.policy_contract import policy_contract
from robot_rl.hardware.nodes.ticks import Ticks
from robot_rl.hardware.robot_file import TRAJECTORY, RobotFile, RobotFileError, Stream
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import ActionClient, Graph, GraphError, Received, open_graph
from robot_rl.hardware.ros2.qos import LATCHED
from robot_rl.hardware.safety.homing import Route
from robot_rl.hardware.safety.reception import LEVELS, Reception
from robot_rl.hardware.safety.rehearsal import rehearse
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
from robot_rl.hardware.safety.supervisor_state import Observation
from robot_rl.hardware.terminal import own_terminal

HOMINGS = ("servo", "action")
FOLLOW = "control_msgs/action/FollowJointTrajectory"
FOREVER = 3600.0
"""Time-out of a goal [wall s]; the Supervisor's own counts, by the robot's clock."""

BRAKES = 2.0
"""So long an arm may take to come to rest before the node ends [wall s]."""

_OK, _WARN, _ERROR = 0, 1, 2


class Output(NamedTuple):
    """What one tick publishes: commands by topic, the status, and the changes of state since the last tick."""

    commands: dict[str, Any]
    status: Any
    transitions: list[Any]


class SupervisorNode(Reception):
    """Messages in, messages out, around a `Supervisor`; it knows no graph and no clock.

    Args:
        robot: restricted to what the policy needs, or whole.
        device_steps: whether a device, too, proposes an action for every control tick, as a scripted person does.
        homing: by the Supervisor's own commands, or as a route that the robot's `home_action` goes.

    Raises:
        SupervisorError: there is no such way of homing, or not on this robot.
    """

    def __init__(self, robot: RobotFile, device_steps: bool = False, homing: str = "servo") -> None:
        if homing not in HOMINGS:
            raise SupervisorError(f"homing: expected {' or '.join(HOMINGS)}, got {homing!r}")
        if homing == "action" and not robot.commands["joint_position"].home_action:
            raise SupervisorError(
                f"homing=action: {robot.name!r} has no commands.joint_position.home_action in its file"
            )
        self.homes_by_action = homing == "action"
        self.robot, self.supervisor = robot, robot.make_supervisor()
        super().__init__(self.supervisor, robot.contract, robot.name, device_steps)
        self._joints: tuple[float, Any] | None = None
        self._opening: tuple[float, float] | None = None
        self._tails = robot.commands["joint_position"].type == TRAJECTORY

    @property
    def streams(self) -> dict[str, Stream]:
        """The streams that are observed, by feature."""
        return {name: self.robot.streams[name] for name in ("joint_position", "gripper_opening") if self._has(name)}

    def observe(self, feature: str, message: Any, received: float) -> None:
        """Take over a message of the stream of a feature; one that cannot be read is counted, and ages the last one."""
        stream = self.streams[feature]
        try:
            value = bindings.decode(stream, message)
            stamp = bindings.stamp_of(stream, message, received)
        except bindings.ElsewhereError:
            return
        except bindings.BindingError:
            self.supervisor.reject("observation_unreadable")
            return
        if feature == "joint_position":
            self._joints = (stamp, value)
        elif self._opening is None or stamp >= self._opening[0]:
            self._opening = (stamp, float(value[0]))

    def tick(self, now: float, stamp: float, missed: int = 0) -> Output:
        """Everything to publish for one tick.

        Args:
            now: the clock [s].
            stamp: when the motion of this tick begins [s].
            missed: ticks that were left out before this one.
        """
        goes_on = self._tails or self.supervisor.route is not None
        command, _ = self.supervisor.tick(now, self._observation(), missed if goes_on else 0)
        sent = {}
        if command is not None:
            tail = bindings.Tail(*self.supervisor.until_rest()) if self._tails else None
            sent = bindings.encode_command(self.robot, command, stamp, tail)
            self._sent += len(sent)
        self._forget(now)
        return Output(sent, self._status(stamp), self.transitions(now))

    def _observation(self) -> Observation | None:
        """The newest measurement; as old as its oldest part, by the time that this part may have."""
        if self._joints is None or (self._has("gripper_opening") and self._opening is None):
            return None
        stamp, position = self._joints
        if self._opening is None:
            return Observation(stamp, position)
        allowed = self.robot.streams["gripper_opening"].max_age - self.robot.watchdog.observation
        return Observation(min(stamp, self._opening[0] + max(0.0, allowed)), position, self._opening[1])

    def _has(self, feature: str) -> bool:
        return feature in self.robot.streams and (feature != "gripper_opening" or self.robot.gripper is not None)

    def _home(self, now: float) -> None:
        self.supervisor.home(now, self.homes_by_action)


class SupervisorBinding:
    """Binds the node to a graph.

    Args:
        graph: of this process.
        wait: how long the tick of a control period waits for the proposal of that time [wall s]; for simulated time.
    """

    def __init__(self, graph: Graph, node: SupervisorNode, wait: float = 0.0) -> None:
        self._graph, self._node = graph, node
        robot = node.robot
        self._commands = {
            command.topic: graph.publisher(command.topic, command.type, command.qos)
            for command in robot.commands.values()
        }
        self._status = graph.publisher(STATUS, DIAGNOSTICS, LATCHED)
        self._transition = graph.publisher(TRANSITION, DIAGNOSTIC, HISTORY)
        self._diagnostics = graph.publisher("/diagnostics", DIAGNOSTICS)
        for topic, features in _by_topic(node.streams).items():
            stream = node.streams[features[0]]
            graph.subscribe(topic, stream.type, partial(self._observe, features), stream.qos)
        graph.subscribe(SOURCE, DIAGNOSTIC, self._hear, HISTORY)
        graph.subscribe(PROPOSAL, JOINT_STATE, lambda heard: self._ticks.take(heard.message))
        graph.subscribe(STOP_REQUEST, BOOL, self._stop_request)
        for name in ("home", "disengage", "emergency_stop", "clear"):
            graph.service(f"supervisor/{name}", TRIGGER, partial(self._serve, name))
        self._gripper = _GripperAction(graph, robot)
        self._home = _HomeAction(graph, node) if node.homes_by_action else None
        self._last: float | None = None
        self._late, self._missed = 0.0, 0
        rates = robot.tick_rate_hz, robot.contract.rate_hz
        self._ticks = Ticks(graph, *rates, wait, node.awaits, self._run, self._propose)
        graph.timer(1.0, self._report, "wall")

    def emergency_stop(self, reason: str) -> None:
        """Brake and stay stopped."""
        self._node.supervisor.emergency_stop(reason)
        self._ticks.settle()

    def close(self) -> None:
        """Bring the arm to rest."""
        supervisor = self._node.supervisor

        def rests() -> bool:
            supervisor.hold("the Supervisor was shut down")  # again, where a lease was granted meanwhile
            return supervisor.at_rest

        self._graph.spin(until=rests, timeout=BRAKES)
        if self._last is not None:
            self._publish(self._graph.now(), self._last + self._ticks.period)

    def _run(self, stamp: float) -> None:
        now, period = self._graph.now(), self._ticks.period
        missed = 0 if self._last is None else max(0, min(1000, round((stamp - self._last) / period) - 1))
        self._late, self._missed = max(self._late, now - stamp), self._missed + missed
        self._publish(now, stamp, missed)
        self._last = stamp

    def _publish(self, now: float, stamp: float, missed: int = 0) -> None:
        output = self._node.tick(now, stamp, missed)
        for topic, message in output.commands.items():
            self._commands[topic].publish(message)
        self._status.publish(output.status)
        for change in output.transitions:
            self._transition.publish(change)
            self._graph.log.log(30 if change.level else 20, "%s: %s", change.values[1].value, change.message)
        if self._home is not None:
            self._home.follow(self._node.supervisor.route)
        if output.commands:
            self._gripper.command(self._node.supervisor.gripper_target, now)

    def _observe(self, features: Sequence[str], received: Received) -> None:
        for feature in features:
            self._node.observe(feature, received.message, received.received)

    def _hear(self, received: Received) -> None:
        self._node.hear(received.message, self._graph.now())
        self._ticks.settle()

    def _propose(self, message: Any) -> None:
        rejected = self._node.propose(message, self._graph.now())
        if rejected:
            self._graph.log.debug("proposal %s rejected: %s", message.header.frame_id, rejected)

    def _stop_request(self, received: Received) -> None:
        if received.message.data:
            self.emergency_stop("topic")

    def _serve(self, name: str, _: Any) -> Any:
        if name == "home" and self._home is not None and not self._home.ready:
            success, message = False, f"cannot home: no server of the action {self._home.name}; start the controller"
            self._graph.log.warning("%s", message)
        else:
            success, message = self._node.request(name, self._graph.now())
        self._ticks.settle()
        return messages.make(f"{TRIGGER}_Response", success=success, message=message)

    def _report(self) -> None:
        """Publish diagnostics; and brake when somebody else may command the robot, too."""
        others = {
            f"{endpoint.node} publishes {endpoint.topic}, too"
            for endpoint in self._graph.endpoints()
            if endpoint.is_publisher and endpoint.topic in self._own_topics() and _is_other(endpoint.node, self._graph)
        }
        status = self._node.supervisor.status
        level, message = LEVELS.get(status.state, _OK), f"{status.state}: {status.reason}"
        if others:
            level, message = _ERROR, "; ".join(sorted(others))
            self._node.supervisor.hold(message)
        elif self._missed:
            level = max(level, _WARN)
        values = {
            "state": status.state, "ticks missed": self._missed, "tick late [ms]": f"{1e3 * self._late:.2f}",
            "limited": status.limited, "rejected": sum(status.rejected.values()),
        }  # fmt: skip
        self._late, self._missed = 0.0, 0
        report = diagnostic(f"{self._graph.name}: {self._node.robot.name}", level, message, values)
        self._diagnostics.publish(diagnostics(self._graph.now(), report))

    def _own_topics(self) -> set[str]:
        return {publisher.topic for publisher in self._commands.values()}


class _GripperAction:
    """Sends goals to a gripper that is commanded by action, where its server is there."""

    def __init__(self, graph: Graph, robot: RobotFile) -> None:
        self._goals = bindings.GripperGoals(robot)
        self._client: ActionClient | None = None
        command = robot.commands.get("gripper_opening")
        if command is not None and command.action is not None:
            with suppress(GraphError):
                self._client = graph.action_client(command.action.name, "control_msgs/action/GripperCommand")

    def command(self, target: float | None, now: float) -> None:
        """Head for an opening [m]."""
        if self._client is not None and target is not None and self._client.ready:
            goal = self._goals.next(target, now)
            if goal is not None:
                self._client.send(goal, lambda _, __: None)


class _HomeAction:
    """Has the robot's controller go the Supervisor's routes, one goal for each, which is cancelled with its route."""

    def __init__(self, graph: Graph, node: SupervisorNode) -> None:
        self._node = node
        self.name = node.robot.commands["joint_position"].home_action
        self._client: ActionClient = graph.action_client(self.name, FOLLOW)
        self._route: Route | None = None

    @property
    def ready(self) -> bool:
        return self._client.ready

    def follow(self, route: Route | None) -> None:
        """Go this route from now on, or none."""
        if route is self._route:
            return
        if self._route is not None:
            self._client.cancel()
        self._route = route
        if route is not None:
            goal = bindings.home_goal(self._node.robot, bindings.Tail(route.times, route.references))
            supervisor = self._node.supervisor

            def accepted() -> None:
                if supervisor.route is route:
                    supervisor.route_begins()

            def done(ending: str, result: Any | None) -> None:
                if supervisor.route is not route:
                    return
                if ending == "succeeded" and result is not None and result.error_code == 0:
                    supervisor.route_ends()
                else:
                    supervisor.route_fails(_ending(ending, result))

            self._client.send(goal, done, FOREVER, accepted)


def _ending(ending: str, result: Any | None) -> str:
    """How a goal of FollowJointTrajectory ended, for people."""
    if result is None:
        return f"goal {ending}"
    return f"goal {ending}, error {result.error_code}" + (f": {result.error_string}" if result.error_string else "")


@node_main
def main(argv: Sequence[str]) -> int:
    """Run the node until a signal ends it. Returns the exit status."""
    with open_graph("supervisor", argv) as graph:
        name = _setting(graph, "robot", "panda", "name of a robot, or path of its file")
        policy = _setting(graph, "policy", "", "whose contract is followed: a run, checkpoint, export or contract file")
        wait = _setting(graph, "wait_for_proposal", 0.0, "of every control period, for simulated time [wall s]")
        steps = _setting(graph, "wait_for_device", False, "wait for a device, too: a scripted person is no person")
        homing = _setting(
            graph, "homing", "servo", "servo, or action: the way home is a goal of the robot's home_action"
        )
        try:
            robot = RobotFile.load(name)
            node = SupervisorNode(robot.for_policy(policy_contract(policy)) if policy else robot, steps, homing)
            rehearse(node.robot)
        except (RobotFileError, ContractError, SupervisorError, ValueError, OSError) as error:
            for line in str(error).splitlines():
                graph.log.error("%s", line)
            return 1
        if not is_alone(graph):
            return 1
        if graph.stopped:
            return 0
        binding = SupervisorBinding(graph, node, wait)
        graph.log.info("supervises %s: %s", robot.name, describe_actions(node.robot.contract))
        with own_terminal() as terminal:
            if terminal is not None:
                graph.log.info("any key in this terminal is an emergency stop")
                graph.timer(0.02, lambda: binding.emergency_stop("keyboard") if terminal.keys() else None, "wall")
            with startup_spared():
                graph.spin()
        binding.close()
    return 0


def _by_topic(streams: dict[str, Stream]) -> dict[str, list[str]]:
    topics: dict[str, list[str]] = {}
    for feature, stream in streams.items():
        topics.setdefault(stream.topic, []).append(feature)
    return topics


def _is_other(node: str, graph: Graph) -> bool:
    """Whether this is a node that is known, and not this one; a process that has died loses its name first."""
    return node.startswith("/") and node != graph.name


def _setting(graph: Graph, name: str, default: Any, description: str) -> Any:
    return graph.parameter(name, default, description, read_only=True).value


if __name__ == "__main__":
    sys.exit(main())
