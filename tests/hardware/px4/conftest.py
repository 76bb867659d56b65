"""A flight within one process, on simulated time: the node of the Supervisor and the twin, message by message."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from robot_rl.hardware.nodes.px4_node import FlightNode
from robot_rl.hardware.px4 import px4_messages
from robot_rl.hardware.px4.flight_state import FlightPlan, Phase
from robot_rl.hardware.px4.px4_twin import STEP, Px4Twin
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.safety.proposal import Proposal
from robot_rl.hardware.safety.supervisor_state import TRANSITIONS, State
from robot_rl.sim.drone.vehicle_model import load_vehicle

px4_messages.register()

EPOCH = 1.7e9
"""The node's clock when the twin's begins [s]."""


def through_cdr(message):
    """The message as it arrives."""
    return messages.decode(messages.encode(message), message.__msgtype__)


class Flight:
    """A vehicle on the ground, its twin and its Supervisor; `run` lets time pass."""

    def __init__(self, controller=None, parameters=None, **changes):
        robot = VehicleFile.load("px4")
        if controller is not None:
            robot = robot.with_controller(controller)
        if changes:
            robot = replace(robot, plan=replace(robot.plan, **changes))
        self.robot, self.plan = robot, robot.plan
        assert isinstance(self.plan, FlightPlan)
        self.node = FlightNode(robot)
        self.supervisor = self.node.supervisor
        self.twin = Px4Twin(load_vehicle(robot.vehicle), parameters=parameters)
        self.now, self.link, self.lease, self.sequence = EPOCH, True, None, 0
        self.pace = 1.0  # of the twin's time beside the node's
        self.sent, self.path, self.states, self.reasons, self.phases = [], [], [State.IDLE], [], []
        self.orders = []

    def tick(self, act=None):
        """One tick of both; `act` is an action [A], or a function of the true odometry that gives one."""
        self.now += STEP / self.pace
        for base, message in self.twin.advance():
            self.node.hear_vehicle(base, through_cdr(message), self.now + 0.002)
        if act is not None and self.lease is not None:
            action = act(self.twin.true) if callable(act) else np.array(act, float)
            self.sequence += 1
            self.supervisor.propose(Proposal(self.lease.id, self.sequence, self.now, action), self.now)
        output = self.node.tick(self.now + 0.003, self.now)
        for base, message in output.messages:
            self.sent.append((self.now, base, message))
            if base == "vehicle_command":
                self.orders.append((int(message.command), float(message.param1)))
            if self.link:
                self.twin.receive(base, through_cdr(message))
        for change in output.transitions:
            self.reasons.append(change.message)
            self.states.append(State(change.values[1].value))
        self.phases.append(self.supervisor.phase)
        self.path.append(self.twin.true)

    def run(self, seconds, act=None, until=None):
        """Let time pass, at most until something holds; whether it does."""
        for _ in range(round(seconds / STEP)):
            self.tick(act)
            if self.lease is not None and act is not None:
                self.keep()
            if until is not None and until():
                return True
        return until is None

    def keep(self):
        """The lease's heartbeat."""
        holder = self.supervisor.status.holder
        if holder is not None and holder.id == self.lease.id:
            self.supervisor.heartbeat(self.lease.id, self.now)

    @property
    def state(self):
        return self.supervisor.status.state

    def take_off(self):
        """Fly until ready."""
        self.run(1.0)
        self.supervisor.home(self.now)
        assert self.run(30.0, until=lambda: self.state is State.READY), (self.supervisor.status, self.supervisor.phase)
        return self

    def acquire(self, kind="policy", name="test"):
        self.lease = self.supervisor.acquire(name, kind, self.now)
        return self.lease

    def streamed(self):
        """What was sent in the last tick, by topic."""
        last = self.sent[-1][0] if self.sent else 0.0
        return {base: message for time, base, message in self.sent if time == last == self.now}

    def finish(self, seconds=60.0):
        """Wait until the vehicle is disarmed; softly, upright, by known transitions alone."""
        assert self.run(seconds, until=lambda: not self.twin.armed), (self.supervisor.phase, self.twin.nav_state)
        self.run(1.0)
        for before, after in pairwise(self.states):
            assert after in TRANSITIONS[before]
        assert self.twin.landed
        down = next(index for index in reversed(range(len(self.path))) if self.path[index].position[2] > 0.05)
        assert abs(self.path[down].velocity[2]) < 1.2
        assert max(odometry.tilt for odometry in self.path[down - 50 : down]) < 0.3
        assert self.supervisor.phase is Phase.GROUNDED


@pytest.fixture
def flight():
    return Flight
