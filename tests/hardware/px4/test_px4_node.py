"""The flight through real processes over DDS, in lockstep: node of the Supervisor, twin, and a source in this one."""

import math
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from robot_rl.hardware.nodes.px4_node import FlightBinding
from robot_rl.hardware.px4 import px4_messages
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Endpoint, open_graph
from robot_rl.hardware.ros2.qos import LATCHED, RELIABLE, SENSOR
from robot_rl.hardware.safety.source import Source
from robot_rl.hardware.safety.supervisor_messages import DIAGNOSTICS, STATUS, pairs

DEADLINE = 240.0
HOVER = [0.4905, 0.0, 0.0, 0.0]
NAN = [float("nan"), 0.0, 0.0, 0.0]
LEAN = [0.52, 0.0, 0.5, 0.0]
ONWARD = [0.52, 0.0, 0.0, 0.0]
POSITION, RETURN, OFFBOARD, LAND = "2", "5", "14", "18"

POLICY = """
import sys
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.ros2.graph import open_graph
from robot_rl.hardware.safety.source import Source

contract = VehicleFile.load("px4").contract
with open_graph("policy", ["--ros-args", "-p", "use_sim_time:=true"]) as graph:
    source = Source(graph, "victim", "policy", contract)
    source.acquire()
    graph.timer(1 / contract.rate_hz, lambda: source.propose([0.4905, 0.0, 0.0, 0.0], graph.now()))
    graph.spin()
"""


class Tower:
    """Both nodes, and a source that proposes at the control rate while `action`, or a function of time, is set."""

    def __init__(self, folder, graph, robot="px4", silence=600.0, release="v1.17"):
        self.folder, self.graph, self.robot = folder, graph, VehicleFile.load(robot)
        self.status, self.twin, self.action, self.late, self.processes = {}, {}, None, 0.0, []
        self.source = Source(graph, "tower", "policy", self.robot.contract)
        graph.subscribe(STATUS, DIAGNOSTICS, self._hear, LATCHED)
        graph.subscribe("twin/status", DIAGNOSTICS, self._see, LATCHED)
        graph.timer(1 / self.robot.contract.rate_hz, self._act)
        for node, settings in {
            "px4_twin_node": ["real_time:=false", f"release:={release}"],
            "px4_node": ["use_sim_time:=true", "wait_for_proposal:=1.5", f"silence:={silence}"],
        }.items():
            arguments = [part for setting in [f"robot:={robot}", *settings] for part in ("-p", setting)]
            with (folder / f"{node}.txt").open("w") as log:
                command = [sys.executable, "-m", f"robot_rl.hardware.nodes.{node}", "--ros-args", *arguments]
                self.processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))

    def _hear(self, received):
        self.status = pairs(received.message.status[0]) | {"reason": received.message.status[0].message}

    def _see(self, received):
        self.twin = pairs(received.message.status[0])

    def _act(self):
        if self.action is not None:
            action = self.action(self.graph.now()) if callable(self.action) else self.action
            # Who has lost the lease over what are no numbers does not ask again: the vehicle would wait for it.
            asks = self.status.get("state") in ("ready", "held") and all(map(math.isfinite, action))
            if self.source.lease is None and asks:
                self.source.acquire()
            self.source.propose(action, self.graph.now() - self.late)

    def wait(self, condition):
        logs = "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.txt"))
        assert self.graph.spin(until=condition, timeout=DEADLINE), f"{self.status}\n{self.twin}\n{logs}"

    def call(self, name):
        client, answers = self.graph.client(f"supervisor/{name}", "std_srvs/srv/Trigger"), []
        self.wait(lambda: client.ready)
        client.call(messages.make("std_srvs/srv/Trigger_Request"), answers.append, DEADLINE)
        self.wait(lambda: answers)
        return answers[0]

    def ask(self, name):
        """Until the Supervisor agrees: what has happened to the vehicle may not have been heard by it yet."""
        until = time.monotonic() + DEADLINE
        while (answer := self.call(name)) is None or not answer.success:
            assert time.monotonic() < until, (self.status, answer)
            self.graph.spin(timeout=0.2)

    def ask_home(self):
        self.ask("home")
        now = self.graph.now()
        self.wait(lambda: self.graph.now() > now + 0.1)  # a status from before is no longer on its way

    def take_off(self):
        self.wait(lambda: self.status and self.twin)
        until = time.monotonic() + DEADLINE
        while self.status["state"] != "ready":
            assert time.monotonic() < until, self.status
            self.ask_home()
            self.wait(lambda: self.status["state"] in ("ready", "idle", "stopped"))
            assert self.status["state"] != "stopped", self.status
        return self

    def follow(self, action):
        """Act, until PX4 follows."""
        self.action = action
        self.wait(lambda: self.source.followed)

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
    yield from towers(tmp_path, "px4")


def towers(folder, robot, **settings):
    with open_graph("tower", ["--ros-args", "-p", "use_sim_time:=true"]) as graph:
        made = Tower(folder, graph, robot, **settings)
        yield made
        for process in made.processes:
            process.kill()
            process.wait()


@pytest.fixture
def lonely(tmp_path, ros_domain):
    """A vehicle that lands soon when nobody flies it."""
    yield from towers(tmp_path, "px4", silence=20.0)


@pytest.mark.slow
def test_a_flight_by_rates_until_its_source_falls_silent(lonely):
    tower = lonely
    while tower.status.get("state") != "running":
        tower.action = None
        tower.take_off()  # once more, where this process was so late that the vehicle has landed
        tower.action = HOVER
        tower.wait(lambda: tower.status["state"] != "ready")
    # It flies; nobody controls the height, and simulated time is ahead of this process.
    assert float(tower.twin["z"]) == pytest.approx(1.5, abs=1.2)
    tower.action = None
    tower.wait(lambda: tower.status["state"] == "held")
    assert tower.status["reason"] in ("actions stopped", "heartbeat of the lease stopped")
    # Nobody comes back.
    tower.landed()
    tower.wait(lambda: tower.status["state"] == "idle")


@pytest.fixture(scope="module")
def watched(module_domain, tmp_path_factory):
    """A vehicle under PX4 v1.16 with narrow limits and a hasty Supervisor, for one fault after the other."""
    robot, folder = VehicleFile.load("px4"), tmp_path_factory.mktemp("watched")
    limits = replace(robot.plan.limits, tilt=0.7, altitude=2.3, speed=2.5)
    plan = replace(robot.plan, limits=limits, patience=replace(robot.plan.patience, stream=1.2))
    replace(robot, plan=plan).save(folder / "vehicle.yaml")
    yield from towers(folder, str(folder / "vehicle.yaml"), release="v1.16")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "action", "reason"),
    [
        (("faults", "no_odometry"), HOVER, "odometry stopped"),
        (("faults", "stale_odometry"), HOVER, "odometry stopped"),
        (("faults", "invalid"), HOVER, "position or velocity are not valid"),
        (("jump", 1.5), HOVER, "jumped by"),
        (("battery", 0.1), HOVER, "battery: 10% remain"),
        (None, [0.55, 2.0, 0.0, 0.0], "tilt of"),
        (None, [0.55, 0.0, 0.0, 0.0], "altitude of"),
        (None, [0.95, 0.0, 0.0, 0.0], "speed of"),
    ],
)
def test_a_fault_lands(watched, fault, action, reason):
    tower = watched
    tower.take_off()
    tower.follow(HOVER)
    tower.action = action
    if fault is not None:
        tower.set_twin(*fault)
    tower.wait(lambda: tower.status["state"] == "stopped")
    tower.action = None
    assert reason in tower.status["reason"]
    tower.landed()
    assert tower.twin["nav_state"] == OFFBOARD  # where PX4 is again when it has disarmed
    if fault is not None:
        tower.set_twin(fault[0], {"faults": "", "jump": 0.0, "battery": -1.0}[fault[0]])
    down(tower, "stopped")


def test_who_else_commands_the_vehicle_is_found_also_under_our_own_name():
    def publisher(node, base):
        return Endpoint(f"/fmu/in/{base}", "", node, RELIABLE, True)

    binding = FlightBinding.__new__(FlightBinding)
    binding._inputs = {base: SimpleNamespace(topic=f"/fmu/in/{base}") for base in px4_messages.INPUTS}
    own = [publisher("/supervisor", base) for base in px4_messages.INPUTS]
    harmless = [
        publisher("/mocap", "vehicle_visual_odometry"), publisher("", "vehicle_command"),
        Endpoint("/fmu/in/vehicle_command", "", "/bag", RELIABLE, False),
    ]  # fmt: skip
    for further, found in (
        ([], []),
        ([publisher("/other", "vehicle_command")], ["/other publishes /fmu/in/vehicle_command, too"]),
        ([publisher("/supervisor", "trajectory_setpoint")], ["/supervisor publishes /fmu/in/trajectory_setpoint, too"]),
    ):
        endpoints = [*own, *harmless, *further]
        binding._graph = SimpleNamespace(name="/supervisor", endpoints=lambda endpoints=endpoints: endpoints)
        assert binding._others() == found


def test_a_twin_beside_another_vehicle_is_found_because_both_would_obey():
    topic = "/fmu/out/vehicle_odometry"
    px4, twin = (Endpoint(topic, "", node, SENSOR, True) for node in ("", "/px4_twin"))
    listener = Endpoint(topic, "", "/plot", SENSOR, False)
    binding = FlightBinding.__new__(FlightBinding)
    binding._node = SimpleNamespace(robot=VehicleFile.load("px4"))
    for endpoints, found in (
        ([px4, listener], []),
        ([px4, px4], []),  # an agent that was killed and started again is seen twice for a while
        ([twin, listener], []),
        ([px4, twin], [f"/px4_twin publishes {topic} beside another vehicle: end one of them"]),
        ([twin, twin], [f"/px4_twin publishes {topic} beside another vehicle: end one of them"]),
    ):
        binding._graph = SimpleNamespace(endpoints=lambda endpoints=endpoints: endpoints)
        assert binding._vehicles() == found


@pytest.mark.slow
def test_a_twin_does_not_begin_beside_another_vehicle(watched):
    watched.wait(lambda: watched.status and watched.twin)
    command = [sys.executable, "-m", "robot_rl.hardware.nodes.px4_twin_node"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert ended.returncode == 1
    assert "a vehicle publishes /fmu/out/vehicle_odometry already" in ended.stderr + ended.stdout


@pytest.mark.slow
def test_topics_have_the_names_of_the_release(watched):
    named = {"/fmu/out/vehicle_status_v1", "/fmu/out/vehicle_local_position", "/fmu/out/battery_status"}
    watched.wait(lambda: named <= {endpoint.topic for endpoint in watched.graph.endpoints()})
    # As a policy hears them: they stand on the ground, the world is ENU, the body FLU.
    heard = []
    watched.graph.subscribe("imu", "sensor_msgs/msg/Imu", lambda received: heard.append(received.message), SENSOR)
    watched.wait(lambda: heard)
    assert heard[-1].linear_acceleration.z == pytest.approx(9.81, abs=0.01)
    assert heard[-1].orientation_covariance[0] == -1


@pytest.mark.slow
def test_a_pilot_is_left_alone_and_a_dead_supervisor_is_px4s_own_matter(tower):
    tower.take_off()
    tower.follow([0.4905, 0.0, 0.0, 0.5])
    tower.processes[1].kill()  # the Supervisor: the last rates stay until PX4 returns
    tower.wait(lambda: tower.twin["nav_state"] == RETURN)
    assert tower.twin["failsafe"] == "True"
    assert float(tower.twin["tilt"]) < 0.3
    tower.set_twin("nav_state", 18)  # the pilot lands
    tower.landed()


@pytest.fixture
def hasty(tmp_path, ros_domain):
    """A vehicle whose Supervisor is less patient, so that a test takes less time."""
    robot = VehicleFile.load("px4")
    patience = replace(robot.plan.patience, stream=1.2)
    replace(robot, plan=replace(robot.plan, patience=patience)).save(tmp_path / "vehicle.yaml")
    yield from towers(tmp_path, str(tmp_path / "vehicle.yaml"))


def down(tower, state="idle"):
    """Landed, disarmed, and free again."""
    tower.landed()
    tower.wait(lambda: tower.status["state"] == state)
    assert float(tower.twin["tilt"]) < 0.1
    if state == "stopped":
        tower.ask("clear")
        tower.wait(lambda: tower.status["state"] == "idle")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_none_of_these_ends_in_an_uncontrolled_vehicle(hasty, tmp_path):
    tower = hasty
    tower.wait(lambda: tower.status and tower.twin)

    # Arming is refused: it stays on the ground.
    tower.set_twin("faults", "refuse_arming")
    tower.ask_home()
    tower.wait(lambda: tower.status["state"] == "idle")
    assert "arming refused: denied" in tower.status["reason"]
    assert tower.twin["armed"] == "False"
    tower.set_twin("faults", "")

    # A policy's process is killed.
    tower.take_off()
    script = tmp_path / "policy.py"
    script.write_text(POLICY)
    with (tmp_path / "policy.txt").open("w") as log:
        tower.processes.append(subprocess.Popen([sys.executable, str(script)], stdout=log, stderr=subprocess.STDOUT))
    tower.wait(lambda: tower.status["state"] == "running")
    tower.processes[-1].kill()
    tower.wait(lambda: tower.status["state"] != "running")
    assert tower.status["reason"] in ("actions stopped", "heartbeat of the lease stopped")
    assert tower.call("disengage").success
    down(tower)

    # Actions that are no numbers are not followed.
    tower.take_off()
    tower.follow(HOVER)
    tower.action = NAN
    tower.wait(lambda: tower.status["state"] != "running")
    tower.action = None
    assert tower.status["reason"] == "actions stopped"
    assert int(tower.status["rejected.non_finite"]) > 0
    assert tower.call("disengage").success
    down(tower)

    # Nor are actions that are stale.
    tower.take_off()
    tower.follow(HOVER)
    tower.late = 0.5
    tower.wait(lambda: tower.status["state"] != "running")
    tower.action, tower.late = None, 0.0
    assert tower.status["reason"] == "actions stopped"
    assert tower.call("disengage").success
    down(tower)

    # A pilot takes over: nothing is sent any more.
    tower.take_off()
    tower.follow(HOVER)
    tower.set_twin("nav_state", int(POSITION))
    tower.wait(lambda: tower.status["state"] == "idle")
    tower.action = None
    assert tower.status["reason"] == "the pilot took over: position mode"
    sent, now = tower.status["commands"], tower.graph.now()
    tower.wait(lambda: tower.graph.now() > now + 1.0)
    assert tower.status["commands"] == sent
    assert tower.twin["nav_state"] == POSITION
    tower.set_twin("nav_state", int(LAND))
    down(tower)
    tower.set_twin("nav_state", -1)

    # PX4's own failsafe takes the vehicle: it is a stop, and is left to PX4.
    tower.take_off()
    tower.follow(HOVER)
    tower.set_twin("faults", "failsafe")
    tower.wait(lambda: tower.status["state"] == "stopped")
    tower.action = None
    assert "PX4's failsafe" in tower.status["reason"]
    assert tower.twin["nav_state"] in (RETURN, LAND)
    tower.set_twin("faults", "")
    tower.set_twin("nav_state", int(LAND))  # the pilot lands
    down(tower, "stopped")
    tower.set_twin("nav_state", -1)

    # It flies on level until it touches the fence.
    tower.take_off()
    tower.follow(HOVER)
    began = tower.graph.now()
    tower.action = lambda now: LEAN if now - began < 0.6 else ONWARD
    tower.wait(lambda: tower.status["state"] == "stopped")
    tower.action = None
    assert tower.status["reason"].startswith("geofence")
    tower.landed()
    assert tower.twin["nav_state"] == OFFBOARD  # where PX4 is again when it has disarmed
