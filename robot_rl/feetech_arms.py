"""`robot-rl robots ports | setup | calibrate`: arms of Feetech servos, from new servos to a calibrated arm."""

from __future__ import annotations

import argparse
import select
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robot_rl.hardware.feetech.bus import Bus
    from robot_rl.hardware.feetech.calibration import Procedure
    from robot_rl.hardware.feetech.registers import Register
    from robot_rl.hardware.robot_file import Driver, RobotFile

LOOK = 0.02
"""Between two looks at the joints while they are moved [s]."""

IDS = range(1, 21)
"""Among which servos are looked for."""

CALIBRATE = """Calibrating {name}: {motors}. Nothing moves by itself. Hold the arm: its torque is taken away.

1. Bring every joint to the middle of its range: {middle}."""


class ArmError(ValueError):
    """The arm is not as it has to be; the message says what to do."""


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to those of `robot-rl robots`."""
    ports = verbs.add_parser("ports", help="serial ports, and the servos that answer on each")
    ports.set_defaults(run=lambda _: show_ports())

    setup = verbs.add_parser("setup", help="give new servos of an arm their ids, one by one")
    calibrate = verbs.add_parser("calibrate", help="calibrate an arm by hand: middle, then range of every joint")
    for parser in (setup, calibrate):
        parser.add_argument("robot", help="name of a robot, such as so101, or path of its file")
        parser.add_argument("--port", required=True, help="serial port, such as /dev/ttyACM0")
    setup.set_defaults(run=lambda options: set_up(options.robot, options.port))
    calibrate.add_argument("--leader", action="store_true", help="it is the leader: kept as <robot>_leader")
    calibrate.add_argument("--name", help="to keep it under; several arms of a kind need different ones")
    calibrate.set_defaults(run=_calibrate)


def show_ports() -> int:
    """List the serial ports with the servos on each. Returns the exit status."""
    from robot_rl.hardware.feetech import bus as buses
    from robot_rl.hardware.feetech import registers

    found = buses.ports()
    if not found:
        print("No USB serial port: plug the board of the arm in. In a container, pass it on: --device /dev/ttyACM0")
        return 1
    for port, text in found:
        print(f"{port:14} {text}")
        try:
            with closing(buses.Bus.open(port)) as bus:
                servos = bus.scan(IDS)
                volts = f", {0.1 * bus.read(servos[0], registers.PRESENT_VOLTAGE):.1f} V" if servos else ""
            print(f"{'':14} servos {', '.join(map(str, servos)) or 'none: is the power on?'}{volts}")
        except buses.BusError as error:
            print(f"{'':14} → {error}")
    print("Which arm is which: unplug one and look again.")
    return 0


def set_up(robot: str, port: str, ask: Callable[[str], str] = input) -> int:
    """Give the servos of an arm their ids, with one servo at a time on the board. Returns the exit status.

    Raises:
        ArmError: more than one servo is connected, or none.
        BusError: a servo does not answer.
    """
    from robot_rl.hardware.feetech.bus import Bus

    motors = reversed(list(_driver(robot)[1].motors.items()))
    Bus.open(port).close()  # a port that is not there is told before anything is plugged in
    for name, motor in motors:
        ask(f"Connect the servo of {name} alone to the board, and press Enter.")
        before = _give_id(port, motor.id)
        print(f"{name}: servo {before} is servo {motor.id} now")
    print("Done. Connect them one after the other, in the order of the arm.")
    return 0


def _give_id(port: str, number: int) -> int:
    """Make the one servo on the port have an id, at the fastest rate; its id before."""
    from robot_rl.hardware.feetech import registers
    from robot_rl.hardware.feetech.bus import Bus

    rate, before = _alone(port)
    with closing(Bus.open(port, rate)) as bus:
        bus.write(before, registers.TORQUE_ENABLE, 0)
        if rate != registers.BAUD_RATES[0]:
            bus.write(before, registers.LOCK, 0)
            _confirmed_or_not(bus, before, registers.BAUD_RATE, 0)
    with closing(Bus.open(port)) as bus:
        if before != number:
            bus.write(before, registers.LOCK, 0)
            _confirmed_or_not(bus, before, registers.ID, number)
        if bus.read(number, registers.ID) != number:
            raise ArmError(f"{port}: servo {before} has not become servo {number}; disconnect its power, and try again")
        bus.write(number, registers.LOCK, 1)
    return before


def _alone(port: str) -> tuple[int, int]:
    """Rate and id of the one servo on a port."""
    from robot_rl.hardware.feetech.bus import Bus
    from robot_rl.hardware.feetech.registers import BAUD_RATES

    for rate in BAUD_RATES:
        with closing(Bus.open(port, rate)) as bus:
            servos = bus.scan()
        if len(servos) > 1:
            raise ArmError(f"{port}: servos {', '.join(map(str, servos))} answer; connect one alone")
        if servos:
            return rate, servos[0]
    raise ArmError(f"{port}: no servo answers at any rate. Is the power on, is the cable plugged in?")


def _confirmed_or_not(bus: Bus, servo: int, register: Register, value: int) -> None:
    """Write what a servo may confirm under its new id, or at its new rate."""
    from robot_rl.hardware.feetech.bus import BusError

    with suppress(BusError):
        bus.write(servo, register, value)


def calibrate(
    robot: str, port: str, name: str, leader: bool, ask: Callable[[str], str] = input,
    moved: Callable[[Procedure], None] | None = None,
) -> int:  # fmt: skip
    """Calibrate an arm with a person. Returns the exit status.

    Args:
        name: under which the calibration is kept.
        leader: whose handle turns less far than the follower's jaw.
        ask: shows a text and waits for Enter.
        moved: observes while the person moves the joints; default: until Enter, showing the ranges.

    Raises:
        CalibrationError: joints were not moved as asked; what the arm held before is gone.
        BusError: servos do not answer.
    """
    from robot_rl.hardware.feetech import calibration
    from robot_rl.hardware.feetech.bus import Bus
    from robot_rl.hardware.feetech.calibration import Procedure

    file, driver = _driver(robot)
    path = calibration.place(name)
    with closing(Bus.open(port)) as bus:
        procedure = Procedure(bus, driver.motors, _expected(file, driver, leader))
        print(CALIBRATE.format(name=name, motors=", ".join(driver.motors), middle=driver.middle or "all of them"))
        procedure.begin()
        ask("   Press Enter when they are.")
        procedure.set_middle()
        turned = [joint for joint, motor in driver.motors.items() if motor.range == "measured"]
        print(f"2. Move {', '.join(turned)} from one end to the other, each. Press Enter when all were.")
        (moved or _observe)(procedure)
        found = procedure.finish()
    if path.exists():
        kept = path.with_name(f"{path.stem}.before-{time.strftime('%Y%m%d-%H%M%S')}.json")
        shutil.copy2(path, kept)
        print(f"{name} was calibrated before; that is kept as {kept}. A second arm of this kind wants its own --name.")
    calibration.save(found, path)
    print(f"Calibrated: {path}, and written into the servos.")
    return 0


def _observe(procedure: Procedure) -> None:
    while not select.select([sys.stdin], [], [], 0)[0]:
        here = procedure.observe()
        if sys.stdout.isatty():
            rows = [
                f"{name:14} {procedure.lowest[name]:5} … {here[name]:5} … {procedure.highest[name]:5}" for name in here
            ]
            print("\n".join(f"\x1b[2K{row}" for row in rows) + f"\x1b[{len(rows)}A\r", end="", flush=True)
        time.sleep(LOOK)
    sys.stdin.readline()
    if sys.stdout.isatty():
        print("\n" * len(procedure.lowest))


def _expected(robot: RobotFile, driver: Driver, leader: bool) -> Mapping[str, float]:
    """How far each joint turns by the robot's file [rad]."""
    limits = robot.limits
    names = robot.commands["joint_position"].elements
    found = dict(zip(names, (limits.upper - limits.lower).tolist(), strict=True))
    gripper = robot.streams.get("gripper_opening")
    if not leader and gripper is not None and gripper.scale is not None:
        found |= dict.fromkeys(gripper.elements, abs(gripper.scale.graph[-1] - gripper.scale.graph[0]))
    return {name: turns for name, turns in found.items() if driver.motors[name].range == "measured"}


def _driver(robot: str) -> tuple[RobotFile, Driver]:
    from robot_rl.hardware.robot_file import RobotFile

    file = RobotFile.load(robot)
    if file.driver is None:
        raise ArmError(f"{file.name} is no arm of Feetech servos: its file has no `driver`; so101 is one")
    return file, file.driver


def _calibrate(options: argparse.Namespace) -> int:
    robot = _driver(options.robot)[0].name
    name = options.name or (f"{robot}_leader" if options.leader else robot)
    return calibrate(options.robot, options.port, name, options.leader)
