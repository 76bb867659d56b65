"""A vehicle that nobody flies lands by itself: for every sequence of proposals, silences, leases and orders.

PX4 is played by a few lines, on the Supervisor's own clock: it obeys, hovers, and changes its control level late.
"""

from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.hardware.px4.flight_state import (
    AIRBORNE,
    LAND,
    OFFBOARD,
    Command,
    ControlMode,
    FlightPlan,
    Level,
    Odometry,
    Phase,
    Telemetry,
    VehicleState,
)
from robot_rl.hardware.px4.flight_supervisor import FlightSupervisor
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.safety.lease import LeaseRefused
from robot_rl.hardware.safety.proposal import Proposal
from robot_rl.hardware.safety.supervisor import SupervisorError
from robot_rl.hardware.safety.supervisor_state import State

TICK = 0.01
SILENCE = 0.8
LATE = 0.3  # s, until PX4 controls what it is asked to
POSITION = 2  # nav_state
FLOWN = AIRBORNE - {Phase.CLIMBING}


class Sky:
    """A Supervisor and its vehicle; notes for how long nobody has flown it."""

    def __init__(self, controller="px4_ctbr"):
        robot = VehicleFile.load("px4").with_controller(controller).with_silence(SILENCE)
        plan: FlightPlan = replace(robot.plan, patience=replace(robot.plan.patience, stream=1.1))
        self.supervisor = FlightSupervisor(robot.contract, plan)
        self.hover = np.array([0.49, 1.0, 0.0, 0.0, 0.0] if controller == "px4_attitude" else [0.49, 0.0, 0.0, 0.0])
        self.now, self.sequence, self.lease = 100.0, 0, 0
        self.armed, self.nav_state, self.level, self.asked = False, 4, Level.POSITION, (Level.POSITION, 0.0)
        self.position = np.zeros(3)
        self.flown, self.longest, self.sent = self.now, 0.0, []

    @property
    def state(self):
        return self.supervisor.status.state

    @property
    def phase(self):
        return self.supervisor.phase

    def tick(self):
        self.now += TICK
        telemetry = Telemetry(
            Odometry(self.now, self.position, np.zeros(3), np.array([1.0, 0, 0, 0]), np.zeros(3)),
            VehicleState(self.now, self.armed, self.nav_state),
            ControlMode(self.now, self.nav_state == OFFBOARD, self.level is Level.POSITION, True,
                        self.level is not Level.RATES),
            True, self.now, 1.0, self.now,
        )  # fmt: skip
        command, _ = self.supervisor.tick(self.now, telemetry)
        if command.level is not None or command.orders:
            self.sent.append(self.now)
        for order in command.orders:
            if order.command is Command.SET_MODE:
                self.nav_state = OFFBOARD
            elif order.command is Command.ARM:
                self.armed = order.param1 > 0
            elif order.command is Command.LAND:
                self.nav_state = LAND
        if command.level is not None and command.level is not self.asked[0]:
            self.asked = command.level, self.now
        if self.now - self.asked[1] >= LATE:
            self.level = self.asked[0]
        if self.phase is Phase.CLIMBING and command.trajectory is not None:
            way = command.trajectory.position - self.position
            self.position = self.position + way * min(1.0, 0.1 / max(float(np.linalg.norm(way)), 1e-9))
        if self.nav_state == LAND:
            self.position = self.position - [0, 0, 0.05]
            if self.position[2] <= 0:
                self.position, self.armed = np.zeros(3), False
        if self.phase not in FLOWN:
            self.flown = self.now
        self.longest = max(self.longest, self.now - self.flown)

    def run(self, seconds, act=None):
        for number in range(round(seconds / TICK)):
            if act is not None and number % 2 == 0:
                act()
            self.tick()
        return self

    def take_off(self):
        self.run(0.1)
        self.supervisor.home(self.now)
        for _ in range(2000):
            self.tick()
            if self.state is State.READY:
                return self
        raise AssertionError((self.state, self.phase))

    def acquire(self, kind="policy"):
        with suppress(LeaseRefused):
            self.lease = self.supervisor.acquire("test", kind, self.now).id

    def propose(self, action=None, stamp=0.0, lease=None, beats=True):
        """One proposal; it counts as flown where the Supervisor accepts it."""
        if beats:
            self.beat()
        self.sequence += 1
        lease = self.lease if lease is None else lease
        proposal = Proposal(lease, self.sequence, self.now + stamp, self.hover if action is None else action)
        if self.supervisor.propose(proposal, self.now) is None:
            self.flown = self.now

    def beat(self):
        with suppress(LeaseRefused):
            self.supervisor.heartbeat(self.lease, self.now)

    def ask(self, name, *arguments):
        with suppress(LeaseRefused, SupervisorError):
            getattr(self.supervisor, name)(*arguments)


@cache
def _ready(controller):
    return Sky(controller).take_off()


def ready(controller="px4_ctbr"):
    """A vehicle that hovers at home."""
    return deepcopy(_ready(controller))


MOMENTS = {
    "flies": lambda sky: sky.propose(),
    "proposes no numbers": lambda sky: sky.propose(np.full_like(sky.hover, np.nan)),
    "proposes too late": lambda sky: sky.propose(stamp=-1.0),
    "proposes without a lease": lambda sky: sky.propose(lease=12345),
    "keeps its lease alone": lambda sky: sky.beat(),
    "asks for the lease again and again": lambda sky: sky.acquire(),
    "takes the lease from itself": lambda sky: (sky.acquire("device"), sky.acquire("policy")),
    "is held by somebody": lambda sky: sky.ask("hold", "another node publishes, too"),
    "gives the lease back": lambda sky: sky.ask("release", sky.lease, sky.now),
    "is silent": lambda sky: None,
}


@pytest.mark.parametrize("controller", ["px4_ctbr", "px4_attitude", "px4_velocity"])
@settings(max_examples=15)
@given(st.lists(st.tuples(st.sampled_from(sorted(MOMENTS)), st.sampled_from([0.02, 0.1, 0.3, 0.7])), max_size=8))
def test_it_never_stays_in_the_air_for_longer_than_the_limit_without_a_valid_proposal(controller, story):
    sky = ready(controller)
    sky.acquire()
    for what, seconds in story:
        sky.run(seconds, lambda what=what: MOMENTS[what](sky))
        assert sky.longest <= SILENCE + TICK + 1e-6, (what, sky.state, sky.phase)
        assert sky.phase in (*FLOWN, Phase.LANDING, Phase.GROUNDED)
    # From now on nobody does anything.
    sky.run(SILENCE + 2 * TICK)
    assert sky.phase in (Phase.LANDING, Phase.GROUNDED), (sky.state, sky.phase)
    sky.run(0.5)
    assert (sky.armed, sky.state, sky.phase) == (False, State.IDLE, Phase.GROUNDED)


@settings(max_examples=20)
@given(st.floats(0.0, SILENCE - 0.1), st.sampled_from(["ready", "held"]))
def test_who_comes_back_before_the_limit_takes_over_again(pause, state):
    sky = ready()
    if state == "held":
        sky.acquire()
        sky.run(1.0, sky.propose)
        assert (sky.state, sky.phase) == (State.RUNNING, Phase.FOLLOWING)
    sky.run(pause)
    sky.run(1.0, lambda: (sky.acquire() if sky.supervisor.status.holder is None else None, sky.propose()))
    assert sky.state is State.RUNNING
    sky.run(2 * SILENCE, sky.propose)
    assert (sky.state, sky.phase) == (State.RUNNING, Phase.FOLLOWING)


def test_a_vehicle_that_hovers_ready_and_is_not_flown_lands_and_may_take_off_again():
    sky = ready()
    sky.run(SILENCE - 2 * TICK)
    assert (sky.state, sky.phase) == (State.READY, Phase.HOLDING)
    sky.run(4 * TICK)
    assert (sky.state, sky.phase) == (State.HELD, Phase.LANDING)
    sky.acquire()
    sky.propose()
    assert sky.phase is Phase.LANDING
    sky.run(2.0)
    assert sky.supervisor.status.reason == "landed: no valid proposal for 0.8 s"
    sky.take_off()


def test_the_way_home_counts_as_flown_also_where_it_is_broken_off():
    sky = ready()
    sky.run(SILENCE - 0.1)
    sky.supervisor.home(sky.now)
    sky.run(0.1)
    assert sky.state is State.READY
    sky.run(SILENCE - 0.1)
    assert sky.state is State.READY
    sky.supervisor.home(sky.now)
    sky.tick()
    sky.supervisor.hold("test")
    sky.run(SILENCE - 2 * TICK)
    assert (sky.state, sky.phase) == (State.HELD, Phase.HOLDING)
    sky.run(4 * TICK)
    assert sky.phase is Phase.LANDING


@settings(max_examples=20)
@given(st.floats(0.0, SILENCE + 0.2), st.booleans())
def test_a_pilot_who_takes_over_is_never_fought(moment, followed):
    sky = ready()
    if followed:
        sky.acquire()
        sky.run(0.5, sky.propose)
    sky.run(moment)
    sky.nav_state = POSITION
    sky.tick()
    assert sky.phase is Phase.YIELDED
    sent = len(sky.sent)
    sky.run(2 * SILENCE, sky.propose)
    assert (len(sky.sent), sky.nav_state, sky.armed) == (sent, POSITION, True)


def test_a_limit_below_the_watchdog_is_refused():
    plan = VehicleFile.load("px4").plan
    with pytest.raises(ValueError, match=r"patience.silence: expected more than watchdog.action, 0.06 s"):
        replace(plan, patience=replace(plan.patience, silence=0.05))
