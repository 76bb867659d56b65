"""A vehicle flown by hand: teleop node, the flight's Supervisor and the twin on one graph within the test."""

from types import SimpleNamespace

import numpy as np
import pytest

from robot_rl.hardware.cockpit.dead_man import Input
from robot_rl.hardware.cockpit.device import ABSENT, WebDevice
from robot_rl.hardware.cockpit.pilot import Pilot
from robot_rl.hardware.nodes.px4_node import FlightBinding, FlightNode
from robot_rl.hardware.nodes.px4_twin_node import Faults, Px4TwinNode
from robot_rl.hardware.nodes.teleop_node import TeleopNode
from robot_rl.hardware.opened import Opened
from robot_rl.hardware.px4 import px4_messages
from robot_rl.hardware.px4.px4_twin import Px4Twin
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.safety.supervisor_messages import pairs
from robot_rl.hardware.teleop.device import ANGULAR_SPEED, LINEAR_SPEED, Reading
from robot_rl.hardware.teleop.flight_mapping import FlightMapping
from robot_rl.hardware.teleop.mapping import Settings
from robot_rl.hardware.teleop.session import RecordingSession
from robot_rl.sim.drone.vehicle_model import load_vehicle

PX4 = VehicleFile.load("px4").with_controller("px4_velocity")
REST = np.zeros(6)
FORWARD = np.array([LINEAR_SPEED, 0, 0, 0, 0, 0])
TURN = np.array([0, 0, 0, 0, 0, ANGULAR_SPEED])

px4_messages.register()


class Stick(Opened):
    name = "stick"

    def __init__(self):
        self.twist, self.lost, self.words = REST, False, []

    def read(self, now):
        return None if self.lost else Reading(now, twist=self.twist)

    def events(self):
        words, self.words = self.words, []
        return words


class Page:
    """The cockpit's page as far as its pilot knows it: says what is held, while it is there."""

    def __init__(self, graph):
        self.graph, self.twist, self.stops = graph, REST, 0
        self.pilot = Pilot(self.stop, graph.now)
        self.device = WebDevice(self.pilot, patience=ABSENT)
        self.speaks, self.open = False, False
        graph.timer(0.04, self.beat)

    def stop(self):
        self.stops += 1
        self.graph.send("supervisor/emergency_stop_request", messages.make("std_msgs/msg/Bool", data=True))

    def visit(self):
        self.pilot.connect(1)
        self.open = self.speaks = True

    def leave(self):
        self.pilot.disconnect(1)
        self.open = self.speaks = False

    def beat(self):
        if self.open and self.speaks:
            self.pilot.take(1, Input(self.graph.now(), self.twist))

    def press(self, word):
        self.pilot.word(1, word, self.graph.now())


class Rig:
    def __init__(self, graph, robot=PX4, device=None):
        self.graph, self.stick = graph, Stick()
        graph.endpoints = self.endpoints
        graph.client = lambda name, _: SimpleNamespace(
            ready=True,
            call=lambda request, done, timeout=5.0: graph.call_soon(lambda: done(graph.services[name](request))),
        )
        self.twin = Px4Twin(load_vehicle(PX4.vehicle))
        seed = SimpleNamespace(value=0)
        Px4TwinNode(
            graph,
            self.twin,
            robot,
            True,
            px4_messages.RELEASES["v1.17"],
            cameras=None,
            seed=seed,
            faults=Faults.declare(graph),
        )
        self.supervisor = FlightBinding(graph, FlightNode(robot))
        settings = Settings(frame="heading", linear_speed=1.0, angular_speed=1.0)
        self.session = RecordingSession(countdown=0.2)
        self.node = TeleopNode(graph, PX4, device or self.stick, FlightMapping(PX4.contract, settings), self.session)

    @staticmethod
    def endpoints():
        topics = px4_messages.table()
        return [
            SimpleNamespace(topic=topics[base].name, is_publisher=offered, node="twin")
            for bases, offered in ((px4_messages.OUTPUTS, True), (px4_messages.INPUTS, False))
            for base in bases
        ]

    def say(self, word):
        self.stick.words.append(word)

    def wait(self, condition, seconds=30.0):
        for _ in range(round(seconds / 0.02)):
            if condition():
                return
            self.graph.step(0.02)
        raise AssertionError(f"{self.status} {self.twin.true}")

    def take_off(self):
        self.graph.step(1.5)
        self.say("home")
        self.wait(lambda: self.state in ("ready", "intervening") and self.status["busy"] == "False")

    @property
    def state(self):
        return pairs(self.graph.published["supervisor/status"][-1].status[0])["state"]

    @property
    def status(self):
        return pairs(self.graph.published["teleop/status"][-1].status[0])

    @property
    def cues(self):
        return [pairs(message.status[0])["cue"] for message in self.graph.published["teleop/status"]]

    @property
    def marks(self):
        return [message.data.split()[0] for message in self.graph.published.get("recorder/command", [])]


@pytest.fixture
def rig(local_graph):
    return Rig(local_graph())


@pytest.mark.slow
def test_a_pilot_takes_off_flies_hovers_and_lands(rig):
    rig.graph.step(1.5)
    rig.stick.twist = FORWARD
    rig.graph.step(1.0)
    assert (rig.state, rig.twin.armed) == ("idle", False)  # a stick is no take-off
    rig.say("record")
    rig.graph.step(0.5)
    assert (rig.state, rig.status["phase"], rig.marks) == ("idle", "idle", [])
    assert "takes off" in rig.status["cue"]
    rig.stick.twist = REST
    rig.take_off()
    start = rig.twin.true.position.copy()

    rig.stick.twist = FORWARD
    rig.graph.step(2.0)
    assert rig.state == "intervening"
    assert 0.6 < rig.twin.true.velocity[0] < 1.2
    rig.stick.twist = REST
    rig.graph.step(1.5)
    assert rig.state == "intervening"
    hover = rig.twin.true.position.copy()
    rig.graph.step(1.0)
    np.testing.assert_allclose(rig.twin.true.position, hover, atol=0.15)
    assert hover[0] > start[0] + 1.0

    # A quarter turn to the left: forward is north now.
    rig.stick.twist = TURN
    rig.wait(lambda: rig.twin.true.yaw > np.pi / 2 - 0.1)
    rig.stick.twist = REST
    rig.graph.step(1.0)
    before = rig.twin.true.position.copy()
    rig.stick.twist = FORWARD
    rig.graph.step(1.5)
    way = rig.twin.true.position - before
    assert way[1] > 0.5
    assert abs(way[0]) < 0.3

    rig.stick.twist = REST
    rig.say("land")
    rig.wait(lambda: rig.status["cue"] == "landed")
    assert rig.twin.landed
    assert not rig.twin.armed
    assert rig.state == "idle"


@pytest.mark.slow
def test_a_lost_device_leaves_the_vehicle_where_it_is_until_it_has_been_at_rest(rig):
    rig.take_off()
    rig.stick.twist = FORWARD
    rig.graph.step(1.5)
    rig.stick.lost = True
    rig.graph.step(2.0)
    assert rig.state == "ready"
    assert "lost" in rig.status["cue"]
    hover = rig.twin.true.position.copy()
    rig.stick.lost = False  # and still pushed
    rig.graph.step(1.0)
    assert rig.state == "ready"
    np.testing.assert_allclose(rig.twin.true.position, hover, atol=0.3)
    assert np.linalg.norm(rig.twin.true.velocity) < 0.2
    rig.stick.twist = REST
    rig.graph.step(0.1)
    rig.stick.twist = FORWARD
    rig.graph.step(0.5)
    assert rig.state == "intervening"
    # The emergency stop lands, and stays until it is cleared on the ground.
    rig.say("stop")
    rig.wait(lambda: not rig.twin.armed)
    assert rig.twin.landed
    assert rig.state == "stopped"
    rig.stick.twist = REST
    rig.graph.step(0.5)
    rig.say("clear")
    rig.graph.step(0.5)
    assert rig.state == "idle"


@pytest.mark.slow
def test_a_vehicle_hovers_under_a_device_at_rest_and_lands_without_one(local_graph):
    rig = Rig(local_graph(), PX4.with_silence(2.0))
    rig.take_off()
    rig.graph.step(4.0)
    assert (rig.state, rig.twin.landed) == ("intervening", False)
    hover = rig.twin.true.position.copy()
    rig.stick.lost = True
    rig.graph.step(1.0)
    assert rig.state == "ready"
    rig.stick.lost = False  # back in time, and at rest
    rig.graph.step(4.0)
    assert rig.state == "intervening"
    np.testing.assert_allclose(rig.twin.true.position, hover, atol=0.3)
    rig.stick.lost = True
    rig.wait(lambda: rig.state == "held")
    rig.stick.lost = False  # too late
    rig.wait(lambda: rig.state == "idle")
    assert rig.twin.landed
    assert not rig.twin.armed
    assert "no valid proposal for 2 s" in rig.status["reason"]
    # Who gives it back on purpose does not take it by being at rest.
    rig.take_off()
    rig.say("release")
    rig.wait(lambda: rig.state == "idle")
    assert rig.twin.landed


@pytest.mark.slow
def test_a_page_flies_the_vehicle_and_its_loss_holds_and_then_lands_it(local_graph):
    graph = local_graph()
    page = Page(graph)
    rig = Rig(graph, PX4.with_silence(2.0), page.device)
    graph.step(1.5)
    page.visit()
    page.press("home")
    rig.wait(lambda: rig.state == "intervening")  # hands off
    page.twist = FORWARD
    graph.step(1.5)
    assert 0.6 < rig.twin.true.velocity[0] < 1.2
    # The network is cut, while a key is held and the server does not know.
    page.speaks = False
    rig.wait(lambda: rig.state == "ready", 2.0)
    graph.step(0.7)
    assert np.linalg.norm(rig.twin.true.velocity) < 0.3
    page.speaks = True  # the key is held still: it has to be pressed anew
    graph.step(0.5)
    assert rig.state == "ready"
    page.twist = REST
    graph.step(3.0)
    assert rig.state == "intervening"  # hands off, again
    page.leave()
    rig.wait(lambda: rig.state == "ready", 1.0)
    rig.wait(lambda: rig.state == "held", 2.5)
    page.visit()
    page.press("stop")
    rig.wait(lambda: not rig.twin.armed)
    assert (page.stops, rig.state, rig.twin.landed) == (1, "stopped", True)


@pytest.mark.slow
def test_after_an_episode_it_flies_back_but_never_takes_off_by_itself(rig):
    rig.take_off()
    rig.say("record")
    rig.wait(lambda: rig.status["phase"] == "recording")
    rig.stick.twist = FORWARD
    rig.graph.step(1.5)
    rig.stick.twist = REST
    rig.say("success")
    rig.wait(lambda: rig.status["phase"] == "idle")
    np.testing.assert_allclose(rig.twin.true.position, PX4.plan.home, atol=0.35)
    assert rig.marks == ["start", "success"]
    rig.say("record")
    rig.wait(lambda: rig.status["phase"] == "recording")
    rig.say("land")
    rig.graph.step(1.0)
    rig.say("success")  # while it goes down
    rig.wait(lambda: not rig.twin.armed)
    rig.graph.step(3.0)
    assert not rig.twin.armed
    assert rig.twin.landed
    assert rig.marks[2:] == ["start", "success"]
    assert (rig.state, rig.status["phase"]) == ("idle", "idle")


@pytest.mark.slow
def test_what_speaks_against_a_take_off_is_told(rig):
    rig.graph.step(1.5)
    rig.twin.faults = frozenset({"no_odometry"})
    rig.graph.parameters["faults"].value = "no_odometry"
    rig.graph.step(1.0)
    rig.say("home")
    rig.graph.step(0.5)
    assert any("no fresh vehicle_odometry" in cue for cue in rig.cues)
    assert rig.cues[-1].startswith("it does not take off")
    rig.graph.step(3.0)
    assert rig.cues[-1].startswith("no take-off yet: no fresh vehicle_odometry")
    rig.graph.parameters["faults"].value = ""
    rig.graph.step(5.0)  # nobody asks again
    assert rig.cues[-1] == "h takes off, v lands"
    assert (rig.state, rig.twin.armed) == ("idle", False)
