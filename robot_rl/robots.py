"""`robot-rl robots`: the robots that there are, whether a robot's file fits itself and a live ROS 2 graph, and arms."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from robot_rl import feetech_arms

if TYPE_CHECKING:
    from robot_rl.hardware.robot_file import RobotFile

LISTEN = 3.0
"""How long a live graph is heard [s]."""


def main(arguments: list[str]) -> int:
    """Run one robot tool; returns the exit status, 1 when something does not match."""
    parser = argparse.ArgumentParser(prog="robot-rl robots", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", metavar="list | check | ports | setup | calibrate", required=True)

    every = verbs.add_parser("list", help="the robots that ship with the package")
    every.set_defaults(run=_list)

    check = verbs.add_parser("check", help="validate a robot's file, and compare it with the live ROS 2 graph")
    check.add_argument("robot", help="name of a shipped robot, or path of a YAML file")
    check.add_argument("--offline", action="store_true", help="check the file alone, without joining a graph")
    check.add_argument("--seconds", type=float, default=LISTEN, help=f"how long to listen (default {LISTEN:g})")
    check.add_argument("--policy", help="checkpoint folder: check that the robot offers what it needs, with its topics")
    check.set_defaults(run=_check)

    feetech_arms.add_verbs(verbs)
    options = parser.parse_args(arguments)
    return int(options.run(options))


def _list(_: argparse.Namespace) -> int:
    from robot_rl.hardware.px4.flight_supervisor import CONTROLLERS
    from robot_rl.hardware.px4.vehicle_file import VehicleFile, load_robot
    from robot_rl.hardware.robot_file import shipped

    for name in shipped():
        robot = load_robot(name)
        if isinstance(robot, VehicleFile):
            print(f"{name:10} a vehicle, {robot.contract.rate_hz:g} Hz, {', '.join(CONTROLLERS)}")
        else:
            print(f"{name:10} {len(robot.joints)} joints, {robot.command_rate_hz:g} Hz, {', '.join(robot.controllers)}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from robot_rl.hardware.robot_file import RobotFile

    robot = RobotFile.load(options.robot)
    if options.policy:
        from robot_rl.policies.prediction import load

        robot = robot.for_policy(load(options.policy)[0].contract)
    _describe(robot)
    if robot.model is not None:
        robot.make_supervisor()
        print("ok    model              loads; kinematics, workspace and self-collision work at home")
    return 0 if options.offline else _live(robot, options.seconds)


def _describe(robot: RobotFile) -> None:
    for name, stream in robot.streams.items():
        rate = f"{stream.rate_hz:g} Hz, " if stream.rate_hz else ""
        print(f"ok    {name:18} {stream.topic} ({stream.type}; {rate}{stream.align}, at most {stream.max_age:g} s old)")
    for name, rule in robot.computed.items():
        print(f"ok    {name:18} computed by {rule}")
    for name, command in robot.commands.items():
        print(f"ok    {'→ ' + name:18} {command.topic} ({command.type})")


def _live(robot: RobotFile, seconds: float) -> int:
    from robot_rl.hardware import robot_check
    from robot_rl.hardware.ros2.graph import GraphError, adapter, open_graph

    try:
        graph = open_graph("robot_rl_check")
    except GraphError as error:
        print(f"note  graph              not compared: {error}")
        return 0
    print(f"\nListening for {seconds:g} s ({adapter()}) …", flush=True)
    with graph:
        heard, endpoints = robot_check.listen(graph, robot, seconds)
    if not robot_check.is_live(robot, endpoints):
        print("note  graph              no robot is on it: the file alone was checked, and is valid")
        print("                         → start the robot's driver; check ROS_DOMAIN_ID with `robot-rl doctor`")
        return 0
    failed = False
    for finding in robot_check.findings(robot, heard, endpoints):
        print(f"{finding.state:4}  {finding.part:28} {finding.text}")
        if finding.mend:
            print(f"      {'':28} → {finding.mend}")
        failed |= finding.state == "FAIL"
    print("Something does not match: see FAIL above." if failed else "Everything matches.")
    return int(failed)
