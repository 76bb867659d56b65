"""`robot-rl vehicle` against a graph that answers as a Supervisor and a twin do."""

import subprocess
import sys

import pytest

from robot_rl.hardware.px4.px4_twin import Px4Twin
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import open_graph
from robot_rl.vehicle import VehicleError, main

TRIGGER = "std_srvs/srv/Trigger"


def run(graph, *words):
    """Exit status and output of the command, while the graph is spun."""
    command = [sys.executable, "-m", "robot_rl.cli", "vehicle", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        graph.spin(until=lambda: process.poll() is not None, timeout=60.0)
        assert process.poll() is not None
        return process.returncode, process.stdout.read()


@pytest.fixture
def tower(ros_domain):
    with open_graph("px4_twin") as graph:
        yield graph


def test_each_word_asks_the_service_of_its_name(tower):
    asked = []

    def serve(name):
        def answer(_):
            asked.append(name)
            return messages.make(f"{TRIGGER}_Response", success=name != "home", message=f"{name} was asked")

        tower.service(f"supervisor/{name}", TRIGGER, answer)

    for name in ("home", "disengage", "emergency_stop", "clear"):
        serve(name)
    # A refusal is an exit status, too.
    for word, name, status in (
        ("home", "home", 1), ("land", "disengage", 0), ("stop", "emergency_stop", 0), ("clear", "clear", 0),
    ):  # fmt: skip
        assert run(tower, word, "--wait", "30") == (status, f"{name} was asked\n")
    assert asked == ["home", "disengage", "emergency_stop", "clear"]


@pytest.mark.slow
def test_faults_of_the_twin_are_set_and_taken_back(tower):
    faults = tower.parameter("faults", "", "what is wrong")
    assert run(tower, "fault", "no_odometry", "failsafe", "--wait", "30")[0] == 0
    assert faults.value == "no_odometry,failsafe"
    assert run(tower, "fault", "--wait", "30") == (0, "faults of the twin: none\n")
    assert faults.value == ""


def test_an_unknown_fault_is_told_all_that_there_are():
    with pytest.raises(VehicleError, match=f"no fault lost; there are {', '.join(Px4Twin.FAULTS)}"):
        main(["fault", "lost"])


def test_nobody_there_says_where_was_looked(ros_domain):
    with pytest.raises(VehicleError, match=rf"no Supervisor answers in domain {ros_domain} on this machine only"):
        main(["home", "--wait", "0.5"])
    with pytest.raises(VehicleError, match=r"no twin answers .*: start robot_rl_px4_twin"):
        main(["fault", "--wait", "0.5"])


@pytest.mark.slow
def test_a_supervisor_of_another_middleware_is_told_apart(tower):
    tower.publisher("supervisor/status", "diagnostic_msgs/msg/DiagnosticArray")
    status, said = run(tower, "land", "--wait", "3")
    assert status == 1
    assert "its services are not reached" in said
    assert "RMW_IMPLEMENTATION=rmw_cyclonedds_cpp" in said
