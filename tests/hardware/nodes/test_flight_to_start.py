"""`deploy` brings a vehicle to the start of its task: the deployment, its Supervisor, and a twin for the vehicle."""

import numpy as np
import pytest

from robot_rl.deployment import DeployError
from robot_rl.flight_deployment import FlightDeployment
from robot_rl.hardware.px4.flight_state import LAND
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.parameters import from_message
from tests.hardware.nodes.test_flight_teleop import Rig

POSITION = 2  # nav_state


class Deployed(Rig):
    def __init__(self, graph):
        super().__init__(graph)
        graph.spin, graph.stopped = self.spin, False
        done = messages.make("std_srvs/srv/Trigger_Response", success=True)
        graph.services["policy/stop"] = lambda _: done
        for node in ("supervisor", "policy"):
            graph.services[f"{node}/set_parameters"] = self.set_parameters
        self.deployment = FlightDeployment(
            graph, [], 50.0, False, False, False, start_of=lambda seed: [0.5 * seed, 0.0, 1.2]
        )
        graph.step(1.5)

    def spin(self, until=None, timeout=60.0):
        for _ in range(round(min(timeout, 60.0) * 1000)):
            if until is not None and until():
                return True
            self.graph.step(0.001)
        return False

    def set_parameters(self, request):
        for parameter in request.parameters:
            if parameter.name in self.graph.parameters:
                self.graph.parameters[parameter.name].value = from_message(parameter.value)
        result = messages.make("rcl_interfaces/msg/SetParametersResult", successful=True)
        return messages.make("rcl_interfaces/srv/SetParameters_Response", results=[result])

    def when(self, condition, action):
        """Do something as soon as a condition holds."""

        def look():
            if condition():
                timer.cancel()
                action()

        timer = self.graph.timer(0.01, look)

    def assert_stays_down(self):
        """Nobody has asked for it again."""
        for _ in range(40):
            self.graph.step(0.5)
            assert not self.twin.armed


@pytest.fixture
def rig(local_graph):
    return Deployed(local_graph())


@pytest.mark.slow
def test_each_flight_begins_where_its_task_does(rig):
    rig.deployment.prepare(0)
    np.testing.assert_allclose(rig.twin.true.position, [0.0, 0.0, 1.2], atol=0.05)
    rig.deployment.prepare(2)
    np.testing.assert_allclose(rig.twin.true.position, [1.0, 0.0, 1.2], atol=0.05)
    with pytest.raises(DeployError, match="within the fence"):
        rig.deployment.prepare(20)
    assert rig.deployment.state == "ready"


@pytest.mark.slow
def test_a_take_off_that_is_refused_is_not_asked_for_again(rig):
    rig.twin.battery = 0.1
    rig.graph.parameters["battery"].value = 0.1
    rig.graph.step(2.0)
    with pytest.raises(DeployError, match="battery: 10% remain"):
        rig.deployment.prepare(0)
    rig.graph.parameters["battery"].value = 1.0
    rig.assert_stays_down()


@pytest.mark.slow
def test_a_vehicle_that_was_just_connected_is_waited_for(rig):
    rig.graph.parameters["faults"].value = "no_odometry"
    rig.graph.step(2.0)
    connected = rig.graph.now() + 5.0
    rig.when(lambda: rig.graph.now() > connected, lambda: setattr(rig.graph.parameters["faults"], "value", ""))
    rig.deployment.prepare(0)
    assert rig.state == "ready"


@pytest.mark.slow
def test_a_pilot_who_flies_first_and_lands_keeps_it_on_the_ground(rig):
    rig.twin.switch(POSITION)
    rig.twin._arm()
    rig.graph.step(1.0)
    lands = rig.graph.now() + 5.0
    rig.when(lambda: rig.graph.now() > lands, lambda: rig.twin.switch(LAND))
    with pytest.raises(DeployError, match="somebody flies it"):
        rig.deployment.prepare(0)
    rig.wait(lambda: not rig.twin.armed)
    rig.assert_stays_down()


@pytest.mark.slow
def test_a_pilot_who_has_landed_the_vehicle_keeps_it_on_the_ground(rig):
    rig.when(lambda: rig.state == "ready", lambda: rig.twin.switch(POSITION))
    with pytest.raises(DeployError, match="the pilot took over"):
        rig.deployment.prepare(0)
    rig.twin.switch(LAND)
    rig.wait(lambda: not rig.twin.armed)
    rig.assert_stays_down()
    rig.deployment.prepare(0)  # a person has asked anew
    assert rig.state == "ready"


@pytest.mark.slow
def test_a_stop_that_is_cleared_is_no_new_take_off(rig):
    rig.when(lambda: rig.twin.true.position[2] > 0.5, rig.deployment.emergency_stop)
    with pytest.raises(DeployError, match="did not get to the start of the task: stopped"):
        rig.deployment.prepare(0)
    with pytest.raises(DeployError, match="robot-rl vehicle clear"):
        rig.deployment.prepare(0)
    rig.wait(lambda: not rig.twin.armed)
    rig.graph.step(0.5)
    assert rig.graph.call("supervisor/clear").success
    rig.assert_stays_down()
