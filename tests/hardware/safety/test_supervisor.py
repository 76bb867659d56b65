"""Supervisor: random streams of proposals and faults against limits and the table of transitions; each rule alone."""

from contextlib import suppress

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.datasets import Contract
from robot_rl.hardware.safety.lease import LeaseRefused
from robot_rl.hardware.safety.proposal import Proposal
from robot_rl.hardware.safety.supervisor import Supervisor, SupervisorError
from robot_rl.hardware.safety.supervisor_state import TRANSITIONS, Observation, State, Watchdog
from robot_rl.sim.kinematics import Kinematics
from robot_rl.sim.servo import Gripper, JointLimits, Servo
from robot_rl.sim.spec import load

PERIOD, PERIODS = 0.005, 2
TICK = PERIOD * PERIODS
CONTROL = 0.05
PANDA = JointLimits.from_mapping(load("robot", "panda")["limits"])
HOME = np.array([0.0, 0.2, 0.0, -2.6, 0.0, 2.9, 0.8])
CONTRACT = Contract.from_dict({
    "name": "panda",
    "rate_hz": 20,
    "observation": {"joint_position": {"shape": [7], "unit": "rad"}},
    "action": {"joint_position": {"shape": [7], "unit": "rad"}, "gripper_opening": {"shape": [1], "unit": "m"}},
})

ARM = """
<mujoco><compiler angle="radian"/><default><geom size="0.01" mass="0.1"/></default><worldbody>
 <body name="base"><geom/><body pos="0 0 0.333"><geom/><joint name="a1" axis="0 0 1"/>
 <body euler="-1.5708 0 0"><geom/><joint name="a2" axis="0 0 1"/>
 <body pos="0 -0.316 0" euler="1.5708 0 0"><geom/><joint name="a3" axis="0 0 1"/>
 <body pos="0.0825 0 0" euler="1.5708 0 0"><geom/><joint name="a4" axis="0 0 1"/>
 <body pos="-0.0825 0.384 0" euler="-1.5708 0 0"><geom/><joint name="a5" axis="0 0 1"/>
 <body euler="1.5708 0 0"><geom/><joint name="a6" axis="0 0 1"/>
 <body pos="0.088 0 0" euler="1.5708 0 0"><geom/><joint name="a7" axis="0 0 1"/><site name="tip" pos="0 0 0.2"/>
 </body></body></body></body></body></body></body></body>
</worldbody></mujoco>"""


class Rig:
    """A supervisor, the arm that follows it, and what left it."""

    def __init__(self, checks=(), start=HOME):
        self.supervisor = Supervisor(
            CONTRACT, Servo(PANDA, PERIOD), HOME, Gripper(0.08, 0.2, PERIOD), checks, homing_speed=1.0, periods=PERIODS
        )
        self.now, self.measured, self.sequence = 100.0, np.array(start), 0
        self.rows, self.openings, self.lease = [self.measured[None]] * 3, [], None
        self.states, self.reasons = [State.IDLE], []

    def tick(self, count=1, observed=True, measured=None):
        for _ in range(count):
            self.now += TICK
            observation = Observation(self.now, self.measured if measured is None else measured, 0.04)
            command, self.status = self.supervisor.tick(self.now, observation if observed else None)
            self.note()
            if command is not None:
                self.measured = command.position[-1]
                self.rows.append(command.position)
                self.openings.append(command.gripper_opening)

    def note(self):
        status = self.supervisor.status
        if status.state is not self.states[-1]:
            self.states.append(status.state)
            self.reasons.append(status.reason)

    def ready(self):
        self.tick()
        self.supervisor.home(self.now)
        self.note()
        while self.supervisor.status.state is State.HOMING:
            self.tick()
        return self

    def acquire(self, kind="policy"):
        self.lease = self.supervisor.acquire(kind, kind, self.now)
        self.note()
        return self.lease

    def act(self, target, lease=None, sequence=None, stamp=None):
        self.sequence += 1
        action = target if np.shape(target) != (7,) else np.append(target, 0.02)
        lease = (lease or self.lease).id
        reason = self.supervisor.propose(
            Proposal(lease, sequence or self.sequence, self.now if stamp is None else stamp, action), self.now
        )
        self.note()
        return reason

    def run(self, control_periods, towards=0.0):
        """Follow a slow wave."""
        for k in range(control_periods):
            assert self.act(HOME + towards + 0.1 * np.sin(0.3 * k)) is None
            self.supervisor.heartbeat(self.lease.id, self.now)
            self.tick(round(CONTROL / TICK))

    @property
    def speed(self):
        return np.abs(np.diff(np.concatenate(self.rows)[-2:], axis=0)).max() / PERIOD

    def check(self):
        assert_within_limits(np.concatenate(self.rows))
        for source, target in zip(self.states[:-1], self.states[1:], strict=True):
            assert target in TRANSITIONS[source]


def assert_within_limits(position):
    """A motion whose derivatives are bounded has finite differences with the same bounds."""
    assert (position >= PANDA.lower - 1e-9).all()
    assert (position <= PANDA.upper + 1e-9).all()
    for order, bound in enumerate((PANDA.velocity, PANDA.acceleration, PANDA.jerk), start=1):
        rounding = 1e-14 * 2**order / PERIOD**order
        assert (np.abs(np.diff(position, order, axis=0)) / PERIOD**order <= bound * (1 + 1e-6) + rounding).all()


targets = st.lists(st.floats(-4, 4), min_size=7, max_size=7).map(np.array)
events = st.one_of(
    st.tuples(st.just("act"), targets | targets.map(lambda t: HOME + 0.02 * t)),
    st.tuples(st.just("act"), st.sampled_from([
        np.full(8, np.nan), np.full(8, np.inf), np.full(8, -np.inf), np.full(8, 1e30), np.full(8, 1e300), np.zeros(3),
        np.zeros((1, 8)), np.zeros(0), np.full(8, "a"), None, [0.0] * 8, PANDA.lower, PANDA.upper, 1.0,
    ])),
    st.tuples(st.sampled_from(["stale", "future", "reorder", "stamp_nan", "strange_lease"]), targets),
    st.tuples(st.just("acquire"), st.sampled_from(["policy", "device", "script", "replay"])),
    st.tuples(st.sampled_from([
        "release", "beat", "home", "stop", "clear", "disengage", "hold", "clock_back", "blinded"
    ]), st.none()),
    st.tuples(st.just("tick"), st.integers(1, 12)),
    st.tuples(st.just("tick"), st.sampled_from([5, 5, 200])),
    st.tuples(st.just("blind"), st.integers(1, 25)),
)  # fmt: skip


def play(rig, event, argument):
    supervisor = rig.supervisor
    match event:
        case "act":
            rig.act(argument)
        case "stale":
            assert rig.act(argument, stamp=rig.now - 0.5) is not None
        case "future":
            assert rig.act(argument, stamp=rig.now + 0.5) is not None
        case "stamp_nan":
            assert rig.act(argument, stamp=np.nan) is not None
        case "reorder":
            rig.act(argument, sequence=max(1, rig.sequence - 3))
        case "strange_lease":
            supervisor.propose(Proposal(10**6, 1, rig.now, np.append(argument, 0.0)), rig.now)
        case "acquire":
            rig.acquire(argument)
        case "release":
            supervisor.release(rig.lease.id, rig.now)
        case "beat":
            supervisor.heartbeat(rig.lease.id, rig.now)
        case "home":
            supervisor.home(rig.now)
        case "stop":
            supervisor.emergency_stop("button")
        case "clear":
            supervisor.clear()
        case "disengage":
            supervisor.disengage()
        case "hold":
            supervisor.hold("asked to")
        case "clock_back":
            rig.now -= 3.0
        case "blinded":
            for bad in (np.full(7, np.nan), np.zeros(6), "none"):
                rig.tick(3, measured=bad)
        case "tick":
            rig.tick(argument)
        case "blind":
            rig.tick(argument, observed=False)


@settings(max_examples=120, deadline=None)
@given(st.lists(events, min_size=1, max_size=60))
def test_whatever_happens_the_limits_hold_and_only_documented_transitions_are_taken(sequence):
    rig = Rig().ready()
    rig.acquire()
    for event, argument in sequence:
        stopped = rig.supervisor.status.state is State.STOPPED
        with suppress(LeaseRefused, SupervisorError):
            play(rig, event, argument)
        rig.note()
        if rig.supervisor.status.state is State.IDLE:
            rig.check()
            rig.rows = [rig.measured[None]] * 3
        if stopped and event != "clear":
            assert rig.supervisor.status.state is State.STOPPED
    rig.tick(300)
    rig.check()
    assert rig.supervisor.at_rest
    assert rig.speed == pytest.approx(0.0, abs=1e-9)
    assert rig.supervisor.status.state not in (State.RUNNING, State.INTERVENING)


def test_homing_moves_at_its_speed_and_ends_in_the_home_pose():
    rig = Rig(start=HOME + np.array([1.0, -0.5, 0.3, 0.4, 0.0, 0.1, -1.0]))
    assert rig.supervisor.tick(rig.now)[0] is None
    rig.ready()
    position = np.concatenate(rig.rows)
    np.testing.assert_allclose(position[-1], HOME, atol=1e-9)
    assert np.abs(np.diff(position, axis=0)).max() / PERIOD < 1.3
    assert rig.states == [State.IDLE, State.HOMING, State.READY]
    rig.check()


def test_a_policy_is_followed_and_its_unreachable_actions_are_counted():
    rig = Rig().ready()
    rig.acquire()
    rig.run(20)
    assert rig.status.state is State.RUNNING
    assert rig.status.accepted == 20
    assert rig.status.rejected == {}
    before = rig.status.limited
    rig.act(np.full(7, 1e30))
    rig.tick(5)
    assert rig.status.limited == before + 1
    rig.check()


@pytest.mark.parametrize(
    ("action", "options", "reason"),
    [
        (np.full(8, np.nan), {}, "non_finite"),
        (np.append(HOME, np.inf), {}, "non_finite"),
        (np.zeros(6), {}, "wrong_shape"),
        (np.zeros((1, 8)), {}, "wrong_shape"),
        (None, {}, "wrong_shape"),
        (HOME, {"stamp": 0.0}, "stale"),
        (HOME, {"stamp": np.nan}, "stale"),
        (HOME, {"stamp": 1e9}, "from_the_future"),
        (HOME, {"sequence": 1}, "out_of_order"),
    ],
)
def test_malformed_proposals_are_rejected_by_name(action, options, reason):
    rig = Rig().ready()
    rig.acquire()
    rig.run(3)
    target = rig.supervisor._servo.target
    assert rig.act(action, **options) == reason
    assert rig.supervisor.status.rejected == {reason: 1}
    np.testing.assert_array_equal(rig.supervisor._servo.target, target)


def test_without_a_lease_nothing_is_followed():
    rig = Rig().ready()
    old = rig.acquire()
    rig.supervisor.release(old.id, rig.now)
    assert rig.act(HOME + 0.1, lease=old) == "no_lease"
    rig.tick(20)
    assert rig.status.state is State.READY
    assert rig.speed == 0


FAULTS = {
    "observations stopped": lambda rig: rig.tick(observed=False),
    "actions stopped": lambda rig: (rig.supervisor.heartbeat(rig.lease.id, rig.now), rig.tick()),
    "heartbeat of the lease stopped": lambda rig: (rig.act(HOME + 0.5), rig.tick()),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_fault_is_found_in_time_and_brings_the_arm_to_rest(reason):
    rig = Rig().ready()
    rig.acquire()
    rig.run(10)
    begin = rig.now
    while rig.supervisor.status.state is State.RUNNING:
        FAULTS[reason](rig)
        if reason == "observations stopped":
            rig.act(HOME - 1.0)
    watchdog = Watchdog()
    allowed = watchdog.lease if "lease" in reason else watchdog.action
    assert rig.now - begin <= allowed + TICK + 1e-9 + (CONTROL if "actions" in reason else 0)
    assert rig.supervisor.status.state is State.HELD
    assert rig.supervisor.status.reason == reason
    rig.tick(60)
    assert rig.speed == pytest.approx(0, abs=1e-9)
    rig.check()
    rig.acquire("script")
    rig.run(3)
    assert rig.status.state is State.RUNNING
    rig.check()


def test_a_fault_slows_the_arm_within_two_control_periods_of_detection():
    rig = Rig().ready()
    rig.acquire()
    rig.act(HOME + np.array([2.0, 0, 0, 0, 0, 0, 0]))
    rig.tick(10)
    fast = rig.speed
    rig.supervisor.emergency_stop("button")
    rig.tick(round(2 * CONTROL / TICK))
    assert rig.speed < 0.7 * fast


def test_the_emergency_stop_latches_until_it_is_cleared_at_rest():
    rig = Rig().ready()
    lease = rig.acquire()
    rig.run(4)
    rig.supervisor.emergency_stop("button")
    with pytest.raises(SupervisorError, match="still moves"):
        rig.supervisor.clear()
    assert rig.act(HOME, lease=lease) == "no_lease"
    with pytest.raises(LeaseRefused, match="stopped"):
        rig.acquire("device")
    with pytest.raises(SupervisorError, match="stopped"):
        rig.supervisor.home(rig.now)
    rig.tick(100)
    rig.supervisor.emergency_stop("again")
    assert rig.supervisor.status.reason == "emergency stop: button"
    rig.supervisor.clear()
    assert rig.supervisor.tick(rig.now)[0] is None
    assert rig.supervisor.status.state is State.IDLE
    rig.check()


def test_a_stop_before_homing_commands_nothing():
    rig = Rig()
    rig.supervisor.emergency_stop("button")
    rig.tick(3)
    assert rig.openings == []
    rig.supervisor.clear()


def test_a_person_takes_over_without_a_jump_and_the_policy_waits():
    rig = Rig().ready()
    policy = rig.acquire()
    rig.run(7)
    device = rig.acquire("device")
    assert rig.supervisor.status.state is State.INTERVENING
    assert rig.act(HOME, lease=policy) == "no_lease"
    with pytest.raises(LeaseRefused, match="'device' \\(device\\) holds"):
        rig.supervisor.acquire("policy", "policy", rig.now)
    rig.run(5, towards=0.4)
    rig.supervisor.release(device.id, rig.now)
    assert rig.supervisor.status.state is State.READY
    rig.tick(20)
    rig.acquire()
    rig.run(5, towards=-0.4)
    assert rig.status.state is State.RUNNING
    rig.check()


KINDS = ("policy", "device", "script", "replay")


@pytest.mark.parametrize("giver", KINDS)
@pytest.mark.parametrize("taker", KINDS)
@pytest.mark.parametrize("how", ["released", "expired", "taken"])
def test_every_hand_over_in_motion_is_bumpless(giver, taker, how):
    """Whatever the next source first proposes: the stream goes on from where it is, within all limits."""
    if how == "taken" and (taker != "device" or giver == "device"):
        return
    generator = np.random.default_rng(KINDS.index(giver) * 4 + KINDS.index(taker))
    for ticks in (0, 1, 2, 3, 4, 9):
        rig = Rig().ready()
        lease = rig.acquire(giver)
        rig.run(6, towards=generator.normal(0, 0.3))
        rig.act(HOME + generator.normal(0, 1.0, 7))
        rig.tick(ticks)
        moving = rig.speed
        if how == "released":
            rig.supervisor.release(lease.id, rig.now)
        elif how == "expired":
            rig.now += 1.0
            rig.tick(60)
        before = len(rig.rows)
        rig.acquire(taker)
        assert rig.act(HOME + generator.normal(0, 2.0, 7)) is None
        assert rig.status.holder is None or rig.act(HOME, lease=lease) == "no_lease"
        rig.tick(8)
        assert rig.supervisor.status.state is (State.INTERVENING if taker == "device" else State.RUNNING)
        assert how == "expired" or ticks < 2 or moving > 0.1
        rig.check()
        jump = np.abs(rig.rows[before][0] - rig.rows[before - 1][-1])
        assert (jump <= PANDA.velocity * PERIOD * (1 + 1e-6)).all()


def test_an_arm_that_does_not_follow_is_held_until_it_is_homed_anew():
    rig = Rig().ready()
    rig.acquire()
    rig.run(10)
    stuck = rig.measured.copy()
    for k in range(1, 41):
        if rig.supervisor.status.state is not State.RUNNING:
            break
        rig.act(HOME + 0.02 * k)
        rig.supervisor.heartbeat(rig.lease.id, rig.now)
        for _ in range(5):
            rig.tick(measured=stuck)
    assert rig.supervisor.status.state is State.HELD
    assert "rad away from where it was commanded" in rig.supervisor.status.reason
    error = np.abs(rig.rows[-1][-1] - stuck).max()
    assert 0.1 < error < 0.3
    for _ in range(60):
        rig.tick(measured=stuck)
    rig.check()
    with pytest.raises(LeaseRefused, match="disengage and home"):
        rig.acquire()
    rig.supervisor.disengage()
    rig.note()
    assert rig.supervisor.tick(rig.now, Observation(rig.now, stuck))[0] is None
    rig.measured, rig.rows = stuck, [stuck[None]] * 3
    rig.ready()
    rig.check()
    assert rig.status.state is State.READY


def test_lag_and_stillness_are_no_following_error():
    rig = Rig().ready()
    rig.acquire()
    delayed = [HOME] * 15
    for k in range(40):
        rig.act(HOME + 0.05 * k * np.eye(7)[0])
        rig.supervisor.heartbeat(rig.lease.id, rig.now)
        for _ in range(5):
            rig.tick(measured=delayed.pop(0))
            delayed.append(rig.measured)
    assert rig.status.state is State.RUNNING


def test_disengaging_needs_rest_and_ends_the_commands():
    rig = Rig().ready()
    rig.acquire()
    rig.run(3)
    with pytest.raises(SupervisorError, match="cannot disengage while running"):
        rig.supervisor.disengage()
    rig.supervisor.release(rig.lease.id, rig.now)
    with pytest.raises(SupervisorError, match="still moves"):
        rig.supervisor.disengage()
    rig.tick(60)
    rig.supervisor.disengage()
    assert rig.supervisor.tick(rig.now, Observation(rig.now, HOME))[0] is None
    assert [t.after for t in rig.supervisor.take_transitions()][-2:] == [State.READY, State.IDLE]
    assert rig.supervisor.take_transitions() == []


def test_what_is_told_until_rest_is_what_is_commanded_when_nothing_else_comes():
    rigs = Rig().ready(), Rig().ready()
    for rig in rigs:
        rig.acquire()
        rig.run(5)
        rig.act(HOME + 0.3)
        rig.tick(2)
        rig.supervisor.emergency_stop("button")
    prompt, late = rigs
    times, rest = prompt.supervisor.until_rest(PERIOD)
    begin = len(prompt.rows)
    prompt.tick(len(times) // PERIODS + 3)
    told = np.concatenate(prompt.rows[begin:])
    grid = PERIOD * np.arange(1, len(told) + 1)
    np.testing.assert_allclose(np.interp(grid, times, rest.position[:, 0]), told[:, 0], atol=1e-3)
    np.testing.assert_allclose(rest.velocity[-1], 0, atol=1e-9)
    assert prompt.supervisor.until_rest(PERIOD)[0].size == 0
    # A late tick goes on where the robot is by then.
    command, _ = late.supervisor.tick(late.now + 4 * TICK, None, missed=3)
    np.testing.assert_allclose(command.position[-1], told[4 * PERIODS - 1], atol=1e-9)


def test_a_check_keeps_the_whole_motion_out():
    rig = Rig(checks=[lambda path: "wall" if path[:, 0].max() > 0.3 else None]).ready()
    rig.acquire()
    for k in range(30):
        reason = rig.act(HOME + np.array([0.02 * k, 0, 0, 0, 0, 0, 0]))
        assert reason == ("wall" if 0.02 * k > 0.3 else None) or (reason == "wall" and 0.02 * k > 0.28)
        rig.supervisor.heartbeat(rig.lease.id, rig.now)
        rig.tick(5)
    position = np.concatenate(rig.rows)
    assert position[:, 0].max() <= 0.3
    assert position[-1, 0] > 0.25
    assert rig.status.state is State.RUNNING
    assert rig.status.rejected["wall"] == 15
    assert rig.status.limited >= 15
    rig.check()


def test_malformed_observations_count_as_missing():
    rig = Rig().ready()
    for position in (np.full(7, np.nan), np.zeros(6), "none"):
        rig.tick(6, measured=position)
    assert rig.supervisor.status.state is State.HELD
    assert rig.supervisor.status.rejected == {"observation_non_finite": 6, "observation_wrong_shape": 12}


def test_a_clock_that_goes_back_holds_the_arm():
    rig = Rig().ready()
    rig.acquire()
    rig.run(3)
    rig.now -= 50
    rig.tick(30)
    assert rig.status.state is State.HELD
    assert rig.status.reason == "clock went back"
    rig.acquire()
    rig.run(3)
    rig.check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate_hz": 10}, "at 10.0 Hz"),
        ({"action": {"joint_position": {"shape": [6]}}}, "expected the absolute actions"),
        ({"action": {"ee_delta": {"shape": [6], "mode": "delta", "relative_to": "measured"}}}, "absolute"),
    ],
)
def test_contracts_that_cannot_be_supervised_are_refused(change, message):
    gripper = Gripper(0.08, 0.2, PERIOD)
    with pytest.raises(SupervisorError, match=message):
        Supervisor(Contract.from_dict({**CONTRACT.to_dict(), **change}), Servo(PANDA, PERIOD), HOME, gripper)


def test_pose_actions_are_followed_and_malformed_ones_rejected():
    names = [f"a{k}" for k in range(1, 8)]
    kinematics = Kinematics(mujoco.MjModel.from_xml_string(ARM), names, "tip", "base", HOME, PANDA.lower, PANDA.upper)
    contract = Contract.from_dict({
        **CONTRACT.to_dict(),
        "action": {"ee_pose": {"shape": [9], "representation": "position_rotation_6d"}},
    })
    supervisor = Supervisor(contract, Servo(PANDA, PERIOD, kinematics=kinematics), HOME, periods=10)
    supervisor.tick(0.0, Observation(0.0, HOME))
    supervisor.home(0.0)
    supervisor.tick(0.05, Observation(0.05, HOME))
    lease = supervisor.acquire("script", "script", 0.05)
    command, _ = supervisor.tick(0.05, Observation(0.05, HOME))
    pose = kinematics.forward(HOME)
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, pose[3:])
    x_axis, y_axis = matrix.reshape(3, 3).T[:2]
    for k in range(1, 41):
        now = 0.05 + CONTROL * k
        point = pose[:3] + np.array([0.0, min(0.004 * k, 0.1), 0.0])
        assert supervisor.propose(Proposal(lease.id, k, now, np.concatenate([point, x_axis, y_axis])), now) is None
        supervisor.heartbeat(lease.id, now)
        command, status = supervisor.tick(now, Observation(now, command.position[-1]))
    assert status.state is State.RUNNING
    reached = kinematics.forward(command.position[-1])
    np.testing.assert_allclose(reached[:3], point, atol=1e-3)
    np.testing.assert_allclose(np.abs(reached[3:] @ pose[3:]), 1.0, atol=1e-5)
    for bad in (np.zeros(9), np.full(9, 1e30), np.concatenate([point, x_axis, x_axis])):
        k += 1
        assert supervisor.propose(Proposal(lease.id, k, now, bad), now) == "unreachable"
