"""The flight through real processes over DDS, in lockstep: node of the Supervisor, twin, and a source in this one."""

import subprocess
import sys
import time

import pytest

from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import open_graph
from robot_rl.hardware.ros2.qos import LATCHED
from robot_rl.hardware.safety.source import Source
from robot_rl.hardware.safety.supervisor_messages import DIAGNOSTICS, STATUS, pairs

DEADLINE = 240.0
HOVER = [0.4905, 0.0, 0.0, 0.0]


class Tower:
    """Both nodes, and a source that proposes at the control rate while `action` is set."""

    def __init__(self, folder, graph):
        self.folder, self.graph, self.robot = folder, graph, VehicleFile.load("px4")
        self.status, self.twin, self.phases, self.action, self.processes = {}, {}, [], None, []
        self.source = Source(graph, "tower", "policy", self.robot.contract)
        graph.subscribe(STATUS, DIAGNOSTICS, self._hear, LATCHED)
        graph.subscribe("twin/status", DIAGNOSTICS, self._see, LATCHED)
        graph.timer(1 / self.robot.contract.rate_hz, self._act)
        for node, settings in {
            "px4_twin_node": ["real_time:=false"],
            "px4_node": ["use_sim_time:=true", "wait_for_proposal:=1.5"],
        }.items():
            arguments = [part for setting in settings for part in ("-p", setting)]
            with (folder / f"{node}.txt").open("w") as log:
                command = [sys.executable, "-m", f"robot_rl.hardware.nodes.{node}", "--ros-args", *arguments]
                self.processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))

    def _hear(self, received):
        self.status = pairs(received.message.status[0]) | {"reason": received.message.status[0].message}

    def _see(self, received):
        self.twin = pairs(received.message.status[0])

    def _act(self):
        if self.action is not None:
            if self.source.lease is None and self.status.get("state") in ("ready", "held"):
                self.source.acquire()
            self.source.propose(self.action, self.graph.now())

    def wait(self, condition):
        logs = "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.txt"))
        assert self.graph.spin(until=condition, timeout=DEADLINE), f"{self.status}\n{self.twin}\n{logs}"

    def call(self, name):
        client, answers = self.graph.client(f"supervisor/{name}", "std_srvs/srv/Trigger"), []
        self.wait(lambda: client.ready)
        client.call(messages.make("std_srvs/srv/Trigger_Request"), answers.append, DEADLINE)
        self.wait(lambda: answers)
        return answers[0]

    def take_off(self):
        self.wait(lambda: self.status and self.twin)
        until = time.monotonic() + DEADLINE
        while self.status["state"] != "ready":
            assert time.monotonic() < until, self.status
            answer = self.call("home")
            if answer is None or not answer.success:
                self.graph.spin(timeout=0.2)  # the vehicle has not been found, or not heard yet
                continue
            self.wait(lambda: self.status["state"] in ("ready", "idle", "stopped"))
            assert self.status["state"] != "stopped", self.status
        return self

    def set_twin(self, name, value):
        kinds = {str: (4, "string_value"), float: (3, "double_value"), int: (2, "integer_value")}
        number, field = kinds[type(value)]
        parameter = messages.make(
            "rcl_interfaces/msg/Parameter", name=name,
            value=messages.make("rcl_interfaces/msg/ParameterValue", type=number, **{field: value}),
        )  # fmt: skip
        client, answers = self.graph.client("px4_twin/set_parameters", "rcl_interfaces/srv/SetParameters"), []
        self.wait(lambda: client.ready)
        request = messages.make("rcl_interfaces/srv/SetParameters_Request", parameters=[parameter])
        client.call(request, answers.append, DEADLINE)
        self.wait(lambda: answers)
        assert answers[0].results[0].successful

    def landed(self):
        self.wait(lambda: self.twin.get("armed") == "False" and self.twin.get("landed") == "True")


@pytest.fixture
def tower(tmp_path, ros_domain):
    with open_graph("tower", ["--ros-args", "-p", "use_sim_time:=true"]) as graph:
        made = Tower(tmp_path, graph)
        yield made
        for process in made.processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_flight_by_rates_until_its_source_falls_silent(tower):
    tower.take_off()
    tower.action = HOVER
    tower.wait(lambda: tower.status["state"] == "running")
    assert float(tower.twin["z"]) == pytest.approx(1.5, abs=0.6)
    tower.action = None
    tower.wait(lambda: tower.status["state"] == "held")
    assert tower.status["reason"] in ("actions stopped", "heartbeat of the lease stopped")
    # Nobody comes back.
    tower.landed()
    tower.wait(lambda: tower.status["state"] == "idle")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("faults", "no_odometry", "odometry stopped"),
        ("battery", 0.1, "battery: 10% remain"),
        ("jump", 1.5, "jumped by"),
    ],
)
def test_a_fault_lands(tower, name, value, reason):
    tower.take_off()
    tower.set_twin(name, value)
    tower.wait(lambda: tower.status["state"] == "stopped")
    assert reason in tower.status["reason"]
    tower.landed()
    assert tower.twin["nav_state"] == "18"


@pytest.mark.slow
def test_a_pilot_is_left_alone_and_a_dead_supervisor_is_px4s_own_matter(tower):
    tower.take_off()
    tower.processes[1].kill()  # the Supervisor
    tower.wait(lambda: tower.twin["nav_state"] == "5")  # PX4 returns
    assert tower.twin["failsafe"] == "True"
    tower.set_twin("nav_state", 18)  # the pilot lands
    tower.landed()
