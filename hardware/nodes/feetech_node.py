"""The `feetech` node: drives an arm of Feetech servos, and offers exactly the topics of the robot's file.

It publishes the joint states, with the time at which the servos were asked, and follows what arrives on the command
topics, on which the Supervisor alone publishes. See `feetech.driver` for when the arm gets torque, holds or refuses.
A fault of a servo also asks the Supervisor for an emergency stop. Without the bus there are no joint states, which the
Supervisor's watchdog notices; the port is looked for again every second.

It also publishes on /diagnostics: mode, problem, and the temperature, voltage, load and errors of every servo.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from robot_rl.hardware import bindings
from robot_rl.hardware.feetech import registers
from robot_rl.hardware.feetech.arm import Arm, State
from robot_rl.hardware.feetech.bus import Bus, BusError, PortError
from robot_rl.hardware.feetech.calibration import CalibrationError, load, place
from robot_rl.hardware.feetech.driver import ArmDriver
from robot_rl.hardware.nodes.command_line import node_main
from robot_rl.hardware.nodes.garbage import startup_spared
from robot_rl.hardware.robot_file import RobotFile, RobotFileError
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Graph, Received, open_graph
from robot_rl.hardware.safety.supervisor_messages import (
    BOOL,
    DIAGNOSTICS,
    JOINT_STATE,
    STOP_REQUEST,
    diagnostic,
    diagnostics,
)
from robot_rl.hardware.twin.stream import Schedule

LOOK = 1.0
"""Between two attempts to find a bus that was lost [s]."""

COMING_TO_REST = 1.0
"""How long the arm may still move when the node ends [s]."""

SINKING = 2.0
"""In which the torque is taken away at exit [s]."""

MISSES = 3
"""Rounds of the bus without an answer, after which it is lost and the port is opened anew."""

_OK, _WARN, _ERROR = 0, 1, 2


class FeetechNode:
    """Binds an arm to a graph.

    Args:
        graph: of this process.
        robot: with a driver.
        connect: opens the bus, and gives the arm checked and configured.

    Raises:
        BusError, CalibrationError, RobotFileError: the arm cannot be driven.
    """

    def __init__(self, graph: Graph, robot: RobotFile, connect: Callable[[], Arm]) -> None:
        self.driver = ArmDriver(robot)
        self._graph, self._robot, self._connect = graph, robot, connect
        self._arm: Arm | None = connect()
        self._state: State | None = None
        self._misses, self._looked, self._problem, self._told = 0, -np.inf, "", ""
        streams = {stream.topic: stream for stream in robot.streams.values() if stream.type == JOINT_STATE}
        self._states = {topic: graph.publisher(topic, JOINT_STATE, stream.qos) for topic, stream in streams.items()}
        rates = {topic: stream.rate_hz or robot.command_rate_hz for topic, stream in streams.items()}
        self._schedules = {topic: Schedule(rate) for topic, rate in rates.items()}
        self._diagnostics = graph.publisher("/diagnostics", DIAGNOSTICS)
        self._stop = graph.publisher(STOP_REQUEST, BOOL)
        for command in robot.commands.values():
            graph.subscribe(command.topic, command.type, partial(self._command, command.topic), command.qos)
        graph.timer(1.0 / robot.command_rate_hz, self.tick, "wall")
        graph.timer(1.0, self.report, "wall")

    def tick(self) -> None:
        """One round of the bus."""
        if self._arm is None and not self._reconnect():
            return
        assert self._arm is not None
        before = self.driver.mode
        try:
            state = self._state = self._arm.read()
            self._misses = 0
            self._act(self._arm, state)
        except PortError as error:
            self._lose(str(error))
            return
        except BusError as error:
            self._misses += 1
            if self._misses >= MISSES:
                self._lose(str(error))
            return
        if self.driver.mode == "fault" and before != "fault":
            self._stop.publish(messages.make(BOOL, data=True))
            self._graph.log.error("%s; the arm comes to rest, an emergency stop is asked for", self.driver.problem)
            self.report()
        self._publish(state)

    def report(self) -> None:
        """Publish the diagnostics."""
        driver, arm = self.driver, self._arm
        problem = self._problem or driver.problem
        if problem != self._told:
            self._told = problem
            if problem and driver.mode != "fault":
                self._graph.log.warning("%s", problem)
        erring = self._state is not None and bool(self._state.errors.any())
        level = _ERROR if arm is None or driver.mode == "fault" else _WARN if problem or erring else _OK
        values: dict[str, Any] = {"mode": "lost" if arm is None else driver.mode, **driver.counts}
        if arm is not None:
            values |= {f"bus.{name}": count for name, count in sorted(arm.bus.counts.items())}
        if self._state is not None and arm is not None:
            values |= _by_servo(arm.names, self._state)
        self._diagnostics.publish(
            diagnostics(self._graph.now(), diagnostic("feetech", level, problem, values, self._robot.name))
        )

    def close(self) -> None:
        """Let the arm come to rest, then take the torque away slowly, or leave it, as the robot's file says."""
        arm, driver = self._arm, self._robot.driver
        if arm is None or driver is None:
            return
        until = time.monotonic() + COMING_TO_REST
        period = 1.0 / self._robot.command_rate_hz
        try:
            while not self.driver.at_rest and time.monotonic() < until:
                self._act(arm, arm.read())
                time.sleep(period)
            if driver.at_exit == "release":
                if arm.read().torque.any():
                    for part in np.linspace(1.0, 0.0, 40)[1:]:
                        arm.weaken(float(part))
                        time.sleep(SINKING / 40)
                arm.release()
        except BusError as error:
            self._graph.log.error("at exit: %s", error)
        arm.bus.close()
        self._arm = None

    def _act(self, arm: Arm, state: State) -> None:
        goal = self.driver.step(state, self._graph.now())
        if goal is not None and goal.engage:
            self._graph.log.info("the arm has torque now")
            arm.hold(state.position)
        if goal is not None:
            arm.move(goal.position, goal.only)

    def _command(self, topic: str, received: Received) -> None:
        try:
            setpoints = bindings.decode_command(self._robot, topic, received.message)
        except (bindings.BindingError, messages.MessageError) as error:
            self.driver.refuse(f"{topic}: {error}")
            return
        self.driver.command(setpoints, self._graph.now())

    def _publish(self, state: State) -> None:
        now = self._graph.now()
        due = [topic for topic, schedule in self._schedules.items() if schedule.due(now)]
        if not due:
            return
        header = messages.make("std_msgs/msg/Header", stamp=messages.stamp(state.stamp))
        message = messages.make(
            JOINT_STATE, header=header, name=list(self.driver.names), position=state.position, velocity=state.velocity
        )
        for topic in due:
            self._states[topic].publish(message)

    def _lose(self, problem: str) -> None:
        assert self._arm is not None
        self._arm.bus.close()
        self._arm, self._state, self._problem = None, None, problem
        self._looked = time.monotonic()
        self.driver.lost()
        self._graph.log.error("%s", problem)
        self._told = problem
        self.report()

    def _reconnect(self) -> bool:
        if time.monotonic() - self._looked < LOOK:
            return False
        self._looked = time.monotonic()
        try:
            self._arm = self._connect()
        except (BusError, CalibrationError) as error:
            self._problem = str(error)
            return False
        self._misses, self._problem = 0, ""
        self._graph.log.info("the bus is there again; the arm follows from where it stands")
        return True


def connect(robot: RobotFile, port: str, name: str) -> Arm:
    """The arm on a port, checked and configured; nothing moves.

    Args:
        name: of its calibration, or the path of that.

    Raises:
        BusError, CalibrationError, RobotFileError: it cannot be driven; the message says what to do.
    """
    if robot.driver is None:
        raise RobotFileError(str(robot.path), [f"driver: missing; {robot.name} is driven by drivers of its own"])
    joints = load(place(name), robot.driver.motors)
    arm = Arm(Bus.open(port), robot.driver, joints)
    try:
        arm.check()
        arm.configure()
    except (BusError, CalibrationError):
        arm.bus.close()
        raise
    return arm


@node_main
def main(argv: Sequence[str]) -> int:
    """Run the node until a signal ends it. Returns the exit status."""
    with open_graph("feetech", argv) as graph:
        name = _setting(graph, "robot", "so101", "name of a robot, or path of its file")
        port = _setting(graph, "port", "", "serial port, such as /dev/ttyACM0")
        calibration = _setting(graph, "calibration", "", "name, or path of its file; empty: the robot's name")
        try:
            robot = RobotFile.load(name)
            node = FeetechNode(graph, robot, partial(connect, robot, port, calibration or robot.name))
        except (RobotFileError, BusError, CalibrationError, ValueError, OSError) as error:
            for line in str(error).splitlines():
                graph.log.error("%s", line)
            return 1
        graph.log.info("drives %s on %s", robot.name, port)
        try:
            with startup_spared():
                graph.spin()
        finally:
            node.close()
    return 0


def _by_servo(names: Sequence[str], state: State) -> dict[str, str]:
    return {
        name: f"{temperature:.0f} °C, {voltage:.1f} V, load {load:+.0%}, {current:.2f} A"
        + (f", {', '.join(registers.errors(int(bits)))}" if bits else "")
        for name, temperature, voltage, load, current, bits in zip(
            names, state.temperature, state.voltage, state.load, state.current, state.errors, strict=True
        )
    }


def _setting(graph: Graph, name: str, default: Any, description: str) -> Any:
    return graph.parameter(name, default, description, read_only=True).value


if __name__ == "__main__":
    sys.exit(main())
