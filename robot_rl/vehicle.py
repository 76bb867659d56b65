"""`robot-rl vehicle`: take-off, landing and stops of a vehicle under PX4, and faults of its twin, from a terminal.

Asks the Supervisor that runs, `robot_rl_px4`, and says what it answers; it alone commands the vehicle.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robot_rl.hardware.ros2.graph import Graph

WORDS = {
    "home": ("home", "take off, go to the home place, be ready; land if nobody flies it"),
    "land": ("disengage", "land, and release the vehicle"),
    "stop": ("emergency_stop", "land, and stay stopped until `clear`"),
    "clear": ("clear", "end a stop"),
}
"""Of the command line: service of the Supervisor, and what it does."""

ANSWER = 5.0
"""How long the Supervisor is looked for, and then waited for [s]."""

_TRIGGER, _SET = "std_srvs/srv/Trigger", "rcl_interfaces/srv/SetParameters"


class VehicleError(RuntimeError):
    """Nobody answers; the message says what to do."""


def main(arguments: list[str]) -> int:
    """Ask once; returns the exit status, 1 where the answer is no."""
    parser = argparse.ArgumentParser(prog="robot-rl vehicle", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", metavar=" | ".join([*WORDS, "fault"]), required=True)
    for word, (_, summary) in WORDS.items():
        verbs.add_parser(word, help=summary).set_defaults(run=_ask_supervisor)
    fault = verbs.add_parser("fault", help="what is wrong with the twin from now on; without a name nothing is")
    fault.add_argument("fault", nargs="*", metavar="FAULT", help="such as no_odometry; a wrong name lists all")
    fault.set_defaults(run=_set_faults)
    for verb in verbs.choices.values():
        verb.add_argument("--namespace", default="", help="of the Supervisor or the twin, where it has one: /left")
        verb.add_argument("--wait", type=float, default=ANSWER, help=f"for an answer [s] (default {ANSWER:g})")
    options = parser.parse_args(arguments)
    return int(options.run(options))


def _ask_supervisor(options: argparse.Namespace) -> int:
    from robot_rl.hardware.ros2 import messages

    service, _ = WORDS[options.verb]
    answer = _ask(options, "supervisor", service, _TRIGGER, messages.make(f"{_TRIGGER}_Request"))
    print(answer.message)
    return 0 if answer.success else 1


def _set_faults(options: argparse.Namespace) -> int:
    from robot_rl.hardware.px4.px4_twin import Px4Twin
    from robot_rl.hardware.ros2 import messages
    from robot_rl.hardware.ros2.parameters import to_message

    if unknown := [name for name in options.fault if name not in Px4Twin.FAULTS]:
        raise VehicleError(f"no fault {', '.join(unknown)}; there are {', '.join(Px4Twin.FAULTS)}")
    value = to_message(",".join(options.fault))
    parameter = messages.make("rcl_interfaces/msg/Parameter", name="faults", value=value)
    request = messages.make(f"{_SET}_Request", parameters=[parameter])
    (result,) = _ask(options, "px4_twin", "set_parameters", _SET, request).results
    print(result.reason or f"faults of the twin: {', '.join(options.fault) or 'none'}")
    return 0 if result.successful else 1


def _ask(options: argparse.Namespace, node: str, service: str, kind: str, request: Any) -> Any:
    """The response of a service of a node."""
    from robot_rl.hardware.ros2.graph import open_graph

    with open_graph("robot_rl_vehicle", namespace=options.namespace) as graph:
        client = graph.client(f"{node}/{service}", kind)
        answers: list[Any] = []
        if not graph.spin(lambda: client.ready, options.wait):
            raise VehicleError(_absent(graph, node))
        client.call(request, answers.append, options.wait)
        if not graph.spin(lambda: bool(answers), options.wait + 1.0) or answers[0] is None:
            raise VehicleError(f"{node}/{service} has not answered within {options.wait:g} s; its terminal says more")
        return answers[0]


def _absent(graph: Graph, node: str) -> str:
    """Why a node does not answer, as far as the graph tells."""
    from robot_rl.hardware.ros2.dds_configuration import where_others_are_found

    name, program = ("Supervisor", "robot_rl_px4") if node == "supervisor" else ("twin", "robot_rl_px4_twin")
    speaks = any(each.is_publisher and each.topic.endswith(f"/{node}/status") for each in graph.endpoints())
    if speaks:
        return (
            f"the {name} is heard, but its services are not reached: it runs on another middleware, or in another "
            "namespace; start it with RMW_IMPLEMENTATION=rmw_cyclonedds_cpp, or give --namespace"
        )
    return f"no {name} answers {where_others_are_found()}: start {program} in another terminal, with the same variables"
