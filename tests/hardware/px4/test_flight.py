"""Whole flights in the twin, on simulated time: as planned, and with each fault that must end in a landing."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from robot_rl.hardware.px4.flight_state import LAND, OFFBOARD, Level, Phase
from robot_rl.hardware.px4.frames import swap_attitude
from robot_rl.hardware.px4.px4_twin import RETURN
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.safety.proposal import Proposal
from robot_rl.hardware.safety.supervisor import SupervisorError
from robot_rl.hardware.safety.supervisor_messages import (
    SourceWord,
    describe_actions,
    encode_proposal,
    encode_source,
    pairs,
)
from robot_rl.hardware.safety.supervisor_state import State
from tests.hardware.px4.conftest import EPOCH

HOVER = [0.4905, 0.0, 0.0, 0.0]
REST = {None: HOVER, "px4_attitude": [0.4905, 1.0, 0.0, 0.0, 0.0], "px4_velocity": [0.0, 0.0, 0.0, 0.0]}


def multiply(one, other):
    """The product of two quaternions wxyz."""
    product = np.empty(4)
    mujoco.mju_mulQuat(product, np.asarray(one, float), np.asarray(other, float))
    return product


POSITION = 2  # nav_state


def test_orders_are_addressed_to_the_vehicle(flight):
    flown = flight()
    flown.twin.system_id = 2
    flown.take_off()


def test_takes_off_follows_rates_and_lands(flight):
    f = flight().take_off()
    np.testing.assert_allclose(f.twin.true.position, f.plan.home, atol=0.4)
    assert f.orders == [(176, 1.0), (400, 1.0)]
    f.acquire()
    assert f.run(2.0, HOVER, until=lambda: f.supervisor.phase is Phase.FOLLOWING)
    assert f.state is State.RUNNING
    # A roll rate to the left tilts the vehicle to the left and moves it there: +y, facing east.
    f.run(0.3, [0.4905, -0.5, 0.0, 0.0])
    f.run(0.5, HOVER)
    moved = f.twin.true
    assert moved.velocity[1] > 0.2
    assert abs(moved.velocity[0]) < 0.1
    f.supervisor.release(f.lease.id, f.now)
    assert f.run(5.0, until=lambda: f.supervisor.phase is Phase.HOLDING)
    f.run(3.0)
    f.supervisor.disengage()
    f.finish()
    assert f.state is State.IDLE
    assert f.orders[-1][0] == 21
    assert f.states == [State.IDLE, State.HOMING, State.READY, State.RUNNING, State.READY, State.HELD, State.IDLE]


@pytest.mark.parametrize("controller", ["px4_velocity", "px4_position"])
def test_follows_trajectories(flight, controller):
    f = flight(controller).take_off()
    f.acquire()
    if controller == "px4_velocity":
        f.run(5.0, [0.5, -0.25, 0.1, 0.0])
        np.testing.assert_allclose(f.twin.true.velocity, [0.5, -0.25, 0.1], atol=0.1)
        f.run(3.0, [0.0, 0.0, 0.0, 0.5])
        assert f.twin.true.rates[2] == pytest.approx(0.5, abs=0.1)
    else:
        f.run(6.0, [1.0, -1.0, 2.0, 1.0])
        np.testing.assert_allclose(f.twin.true.position, [1.0, -1.0, 2.0], atol=0.1)
        assert f.twin.true.yaw == pytest.approx(1.0, abs=0.1)
        f.run(4.0, [4.0, 0.0, 2.0, 1.0])
        assert max(odometry.velocity[0] for odometry in f.path) < f.plan.limits.command_speed
    f.supervisor.emergency_stop("test")
    f.finish()
    assert f.state is State.STOPPED


def test_follows_attitudes_no_further_than_they_may_lean(flight):
    f = flight("px4_attitude").take_off()
    f.acquire()
    level, turned = [0.4905, 1.0, 0.0, 0.0, 0.0], np.array([np.cos(0.25), 0.0, 0.0, np.sin(0.25)])
    f.run(0.02, level)
    handing = f.streamed()
    assert handing["offboard_control_mode"].attitude
    assert not handing["offboard_control_mode"].body_rate
    # PX4 still controls the position: its own setpoints are left alone until it does not.
    assert f.supervisor.phase is Phase.HANDING
    assert handing.keys() == {"offboard_control_mode", "trajectory_setpoint"}
    assert f.run(1.0, level, until=lambda: f.supervisor.phase is Phase.FOLLOWING)
    # The nose half a radian to the left, leaning forward: there it flies.
    lean = np.array([np.cos(0.05), 0.0, np.sin(0.05), 0.0])
    f.run(1.5, [0.4905, *multiply(turned, lean)])
    assert f.twin.true.yaw == pytest.approx(0.5, abs=0.1)
    assert f.twin.true.tilt == pytest.approx(0.1, abs=0.03)
    velocity = f.twin.true.velocity
    assert velocity[0] > 0.4
    assert np.arctan2(velocity[1], velocity[0]) == pytest.approx(0.5, abs=0.3)
    f.tick([0.4905, *multiply(turned, [np.cos(0.7), 0.0, np.sin(0.7), 0.0])])
    q = swap_attitude(np.asarray(f.streamed()["vehicle_attitude_setpoint"].q_d, float))
    sent = f.twin.true._replace(quaternion=q)
    assert (sent.tilt, sent.yaw) == (pytest.approx(f.plan.limits.command_tilt), pytest.approx(0.5))
    assert f.supervisor.status.limited == 1
    # No rotation, and then nothing: upright with hover thrust within a tenth of a second, then a held position.
    f.run(0.5, level)
    f.run(0.2, [0.4905, 0.0, 0.0, 0.0, 0.0])
    assert f.supervisor.status.rejected["no_rotation"] > 0
    assert (f.state, f.supervisor.phase) == (State.HELD, Phase.BRAKING)
    q = swap_attitude(np.asarray(f.streamed()["vehicle_attitude_setpoint"].q_d, float))
    assert f.twin.true._replace(quaternion=q).tilt == pytest.approx(0.0, abs=1e-6)
    assert f.run(2.0, until=lambda: f.supervisor.phase is Phase.HOLDING)
    f.supervisor.disengage()
    f.finish()
    assert f.state is State.IDLE


def test_streams_before_it_orders_and_hands_over_when_px4_says_so(flight):
    f = flight().take_off()
    first = next(time for time, base, _ in f.sent if base == "offboard_control_mode")
    ordered = [time for time, base, message in f.sent if base == "vehicle_command" and message.command == 176]
    assert ordered[0] - first >= f.plan.patience.stream - 0.02
    f.acquire()
    f.run(0.02, [0.9, 0.0, 0.0, 0.0])
    handing = f.streamed()
    assert handing["offboard_control_mode"].body_rate
    assert not handing["offboard_control_mode"].position
    # PX4 still controls the position: the action is not let through.
    assert f.supervisor.phase is Phase.HANDING
    assert handing.keys() == {"offboard_control_mode", "trajectory_setpoint"}
    f.run(1.0, HOVER, until=lambda: f.supervisor.phase is Phase.FOLLOWING)
    f.tick([0.6, 0.1, 0.2, 0.3])
    sent = f.streamed()["vehicle_rates_setpoint"]
    np.testing.assert_allclose([sent.roll, sent.pitch, sent.yaw], [0.1, -0.2, -0.3], rtol=1e-6)
    assert sent.thrust_body[2] == pytest.approx(-0.6)


@pytest.mark.parametrize(("rate_hz", "longest"), [(50.0, 0.06), (20.0, 0.09)])
def test_actions_of_a_slow_policy_may_be_late(flight, rate_hz, longest):
    robot = VehicleFile.load("px4")
    plan = robot.for_policy(replace(robot.contract, rate_hz=rate_hz)).plan
    assert plan.watchdog.action == pytest.approx(longest)
    f = flight(watchdog=plan.watchdog).take_off()
    f.acquire()
    f.run(2.0, HOVER, until=lambda: f.supervisor.phase is Phase.FOLLOWING)
    for _ in range(10):  # where 50 ms were meant
        f.tick(HOVER)
        f.keep()
        f.run(0.07)
    assert (set(f.phases[-80:]) == {Phase.FOLLOWING}) == (rate_hz == 20.0)
    f.run(0.03)
    assert f.supervisor.phase is not Phase.FOLLOWING  # within a tenth of a second all the same


def test_actions_that_stop_become_zero_rates_within_a_tenth_of_a_second_then_a_held_position(flight):
    f = flight().take_off()
    f.acquire()
    f.run(2.0, HOVER, until=lambda: f.supervisor.phase is Phase.FOLLOWING)
    f.run(0.5, [0.5, 1.0, 0.0, 0.0])
    last = f.now
    assert f.run(1.0, until=lambda: f.supervisor.phase is Phase.BRAKING)
    assert f.now - last <= 0.1 + 1e-6
    sent = f.streamed()["vehicle_rates_setpoint"]
    assert (sent.roll, sent.pitch, sent.yaw) == (0, 0, 0)
    assert sent.thrust_body[2] == pytest.approx(-f.plan.hover_throttle)
    assert f.state is State.HELD
    assert f.run(2.0, until=lambda: f.supervisor.phase is Phase.HOLDING)
    f.run(5.0)
    assert np.linalg.norm(f.twin.true.velocity) < 0.3
    # Nobody acts: after a while it lands.
    f.finish()
    assert f.state is State.IDLE
    assert "actions stopped" in f.reasons[-1]


def test_whoever_comes_back_in_time_flies_on(flight):
    f = flight().take_off()
    f.acquire()
    f.run(1.5, HOVER)
    f.run(3.0)
    assert (f.state, f.supervisor.phase) == (State.HELD, Phase.HOLDING)
    f.acquire()
    f.run(1.5, HOVER)
    assert (f.state, f.supervisor.phase) == (State.RUNNING, Phase.FOLLOWING)
    f.acquire("device", "person")
    assert f.state is State.INTERVENING
    f.run(1.5, HOVER)
    assert f.supervisor.phase is Phase.FOLLOWING


FAULTS = {
    "odometry": (lambda f: f.twin.faults.add("no_odometry"), "odometry stopped"),
    "jump": (lambda f: f.twin.offset.__iadd__([0.0, 1.0, 0.0]), "jumped by 1.0"),
    "invalid": (lambda f: f.twin.faults.add("invalid"), "not valid"),
    "battery": (lambda f: setattr(f.twin, "battery", 0.1), "battery: 10% remain"),
    "failsafe flag": (lambda f: f.twin.switch(OFFBOARD, failsafe=True), "PX4's failsafe"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("following", [False, True])
def test_a_fault_of_the_vehicle_lands(flight, fault, following):
    f = flight().take_off()
    f.acquire()
    if following:
        f.run(1.5, HOVER)
        assert f.supervisor.phase is Phase.FOLLOWING
    cause, reason = FAULTS[fault]
    cause(f)
    assert f.run(3.0, HOVER if following else None, until=lambda: f.supervisor.phase is Phase.LANDING)
    assert f.state is State.STOPPED
    assert reason in f.reasons[-1]
    with pytest.raises(SupervisorError, match="until it has landed"):
        f.supervisor.clear()
    f.finish()
    assert 21 in [order for order, _ in f.orders]
    f.supervisor.clear()
    assert f.state is State.IDLE


LIMITS = {
    "fence": ([0.5, 0.0, 0.5, 0.0], 0.6, "geofence"),
    "altitude": ([0.85, 0.0, 0.0, 0.0], 1.5, "altitude"),
    "tilt": ([0.5, 3.0, 0.0, 0.0], 0.8, "tilt"),
    "speed": ([0.9, 0.0, 1.2, 0.0], 0.8, "speed|altitude"),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_that_is_touched_lands(flight, limit):
    import re
    from dataclasses import replace

    plan = flight().plan
    changes = {"limits": replace(plan.limits, fence=((-1.0, -1.0, -0.5), (1.0, 1.0, 9.0)))} if limit == "fence" else {}
    f = flight(**changes).take_off()
    f.acquire()
    f.run(2.0, HOVER, until=lambda: f.supervisor.phase is Phase.FOLLOWING)
    action, seconds, reason = LIMITS[limit]
    f.run(seconds, action, until=lambda: f.state is State.STOPPED)
    f.run(5.0, [action[0], 0.0, 0.0, 0.0], until=lambda: f.state is State.STOPPED)
    assert re.match(reason, f.reasons[-1]), f.reasons
    f.finish()


def test_numbers_that_are_none_change_nothing(flight):
    f = flight().take_off()
    f.acquire()
    f.run(1.5, HOVER)
    f.run(1.0, [np.nan, 0.0, 0.0, 0.0])
    assert f.supervisor.status.rejected["non_finite"] >= 5
    assert f.state is State.HELD
    f.finish()


def test_a_loss_of_the_stream_is_px4s_own_to_handle(flight):
    f = flight().take_off()
    f.acquire()
    f.run(1.5, HOVER)
    f.link = False
    began = f.now
    assert f.run(3.0, HOVER, until=lambda: f.twin.nav_state == RETURN)
    assert 1.05 <= f.now - began <= 1.15
    f.run(0.3)
    assert f.state is State.STOPPED
    assert f.reasons[-1] == "PX4's failsafe: return mode"
    f.link = True
    sent = len(f.sent)
    f.finish()
    assert len(f.sent) == sent


@pytest.mark.parametrize("landing", [False, True])
def test_a_pilot_is_never_fought(flight, landing):
    f = flight().take_off()
    f.acquire()
    f.run(1.5, HOVER)
    if landing:
        f.supervisor.emergency_stop("test")
        f.run(0.5)
    while f.twin._told != f.twin._steps:
        f.tick()
    f.twin.switch(POSITION)
    f.run(0.03, HOVER)
    # The status, which says who it was, comes a fifth of a second later.
    assert f.supervisor.phase is (Phase.LANDING if landing else Phase.YIELDED)
    assert f.state is (State.STOPPED if landing else State.HELD)
    sent = len(f.sent)
    f.run(0.2, HOVER)
    assert f.supervisor.phase is Phase.YIELDED
    f.run(3.0, HOVER)
    assert len(f.sent) == sent
    assert f.state is (State.STOPPED if landing else State.IDLE)
    if not landing:
        assert f.reasons[-1] == "the pilot took over: position mode"
        with pytest.raises(SupervisorError, match="somebody flies it"):
            f.supervisor.home(f.now)
    f.twin.switch(LAND)
    f.finish()
    assert len(f.sent) == sent


def test_a_pilot_who_takes_over_and_disarms_before_the_status_tells_of_either_is_left_alone(flight):
    f = flight().take_off()
    while f.twin._told != f.twin._steps:
        f.tick()
    f.twin.switch(POSITION)
    f.run(0.03)
    assert f.supervisor.phase is Phase.YIELDED
    f.twin.armed = False
    f.run(3.0)
    assert (f.state, f.supervisor.phase) == (State.IDLE, Phase.GROUNDED)
    assert f.reasons[-1] == "landed: PX4 is no longer in offboard mode"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("refuse_arming", "arming refused: denied"),
        ("checks_fail", "do not pass"),
        ("ignore_commands", "ordered 3 times"),
    ],
)
def test_a_take_off_that_px4_refuses_ends_on_the_ground(flight, fault, reason):
    f = flight()
    f.twin.faults.add(fault)
    f.run(1.0)
    f.supervisor.home(f.now)
    assert f.run(30.0, until=lambda: f.state is State.IDLE)
    assert reason in f.reasons[-1]
    assert f.supervisor.phase is Phase.GROUNDED
    assert not f.twin.armed
    # Where it was told to arm it is told not to, whatever it has answered.
    assert ((400, 0.0) in f.orders) == ((400, 1.0) in f.orders)
    sent = len(f.sent)
    f.run(1.0)
    assert len(f.sent) == sent


def test_an_order_to_disarm_that_is_lost_is_given_again(flight):
    f = flight()
    f.run(1.0)
    f.supervisor.home(f.now)
    assert f.run(30.0, until=lambda: f.twin.armed)
    f.supervisor.hold("test")
    f.link = False
    f.tick()
    assert f.twin.armed
    f.link = True
    assert f.run(1.5, until=lambda: not f.twin.armed)


def test_answers_to_a_ground_station_are_not_ours(flight):
    f = flight()
    f.run(1.0)
    f.supervisor.home(f.now)
    assert f.run(30.0, until=lambda: (400, 1.0) in f.orders)
    foreign = messages.make(
        "px4_msgs/msg/VehicleCommandAck", command=400, result=2, target_system=255, target_component=190
    )
    f.node.hear_vehicle("vehicle_command_ack", foreign, f.now)
    assert f.run(30.0, until=lambda: f.state is State.READY)


def test_a_pilot_who_arms_first_is_left_alone(flight):
    """PX4 does not hear of offboard mode, and meanwhile somebody arms."""
    f = flight()
    f.twin.faults.add("ignore_commands")
    f.run(1.0)
    f.supervisor.home(f.now)
    assert f.run(30.0, until=lambda: f.supervisor.phase is Phase.ENTERING)
    f.twin.faults.clear()
    f.twin.switch(POSITION)
    f.twin._arm()
    f.run(0.3)
    assert "the vehicle is armed, in position mode: somebody flies it" in f.reasons[-1]
    assert (f.state, f.supervisor.phase) == (State.IDLE, Phase.GROUNDED)
    sent = len(f.sent)
    f.run(5.0)
    assert len(f.sent) == sent
    assert f.twin.nav_state == POSITION
    assert (400, 1.0) not in f.orders


@pytest.mark.parametrize("fault", ["odometry", "invalid", "battery"])
def test_it_does_not_arm_with_a_fault_that_came_while_px4_checked(flight, fault):
    f = flight()
    f.twin.faults.add("checks_fail")
    f.run(1.0)
    f.supervisor.home(f.now)
    assert f.run(30.0, until=lambda: f.supervisor.phase is Phase.ARMING)
    FAULTS[fault][0](f)
    f.run(1.5)
    f.twin.faults.discard("checks_fail")
    f.run(3.0)
    assert (f.state, f.supervisor.phase) == (State.IDLE, Phase.GROUNDED)
    assert (400, 1.0) not in f.orders


@pytest.mark.parametrize("pace", [0.98, pytest.param(0.9, marks=pytest.mark.slow)])
def test_a_simulation_slower_than_real_time_is_flown(flight, pace):
    """PX4 stamps by its agent's clock then, which it gives up to follow now and then: one sample has its own time."""
    f, count = flight("px4_velocity"), 0
    f.pace, hear = pace, f.node.hear_vehicle

    def synchronised(base, message, received):
        nonlocal count
        count += base == "vehicle_odometry"
        if count % 500 != 499:
            for name in {"timestamp", "timestamp_sample"} & vars(message).keys():
                setattr(message, name, getattr(message, name) + round(1e6 * EPOCH))
        hear(base, message, received)

    f.node.hear_vehicle = synchronised
    f.take_off()
    f.acquire()
    f.run(20.0, [0.5, 0.0, 0.0, 0.0], until=lambda: f.twin.true.position[0] > 4)
    assert f.state is State.RUNNING
    f.supervisor.release(f.lease.id, f.now)
    f.run(2.0)
    f.supervisor.disengage()
    f.finish()
    assert State.STOPPED not in f.states
    assert f.node.decoder.unreadable == count // 500


@pytest.mark.parametrize("topic", ["vehicle_local_position", "battery_status"])
def test_a_topic_that_falls_silent_lands(flight, topic):
    f = flight().take_off()
    hear = f.node.hear_vehicle
    f.node.hear_vehicle = lambda base, *rest: None if base == topic else hear(base, *rest)
    assert f.run(20.0, until=lambda: f.state is State.STOPPED)
    assert f.reasons[-1] == f"{topic} stopped"
    f.finish()


@pytest.mark.parametrize(
    "controller",
    [None, *(pytest.param(f"px4_{name}", marks=pytest.mark.slow) for name in ("attitude", "velocity", "position"))],
)
def test_px4s_own_setpoints_are_left_alone_while_it_controls_the_position(flight, controller):
    f = flight(controller).take_off()
    f.acquire()
    controls, tick = {}, f.tick

    def watched(act=None):
        tick(act)
        controls[f.now] = f.node.decoder.telemetry.mode.level

    f.tick = watched
    f.run(1.0, [*f.plan.home, 0.0] if controller == "px4_position" else REST[controller])
    f.run(2.0)
    f.supervisor.disengage()
    f.finish()
    streamed = [time for time, base, _ in f.sent if base in ("vehicle_rates_setpoint", "vehicle_attitude_setpoint")]
    assert all(controls[time] is not Level.POSITION for time in streamed)
    assert bool(streamed) == (controller in (None, "px4_attitude"))


def test_lost_acknowledgements_do_not_matter(flight):
    f = flight()
    f.twin.faults.add("no_acks")
    f.take_off()
    f.supervisor.disengage()
    f.finish()


def test_a_landing_that_px4_does_not_hear_of_is_flown_down_and_asked_for_again(flight):
    f = flight().take_off()
    f.twin.faults.add("ignore_commands")
    f.supervisor.emergency_stop("test")
    f.run(2.0)
    assert f.twin.nav_state == OFFBOARD
    assert f.twin.true.velocity[2] == pytest.approx(-f.plan.landing_speed, abs=0.1)
    f.twin.faults.clear()
    f.finish()
    assert [order for order, _ in f.orders].count(21) >= 3


def test_a_pilot_who_takes_over_a_landing_that_px4_has_not_heard_of_is_not_ordered_to_land(flight):
    f = flight().take_off()
    f.twin.faults.add("ignore_commands")
    while (f.twin._steps + 85) % 20:
        f.tick()
    f.supervisor.emergency_stop("test")
    f.run(0.86)  # the order is given again after 1 s, and a status was just told
    f.twin.faults.clear()
    f.twin.switch(POSITION)
    orders = len(f.orders)
    assert not f.run(0.18, until=lambda: f.supervisor.phase is Phase.YIELDED)  # the control mode alone says so
    assert f.run(0.1, until=lambda: f.supervisor.phase is Phase.YIELDED)
    f.run(3.0)
    assert len(f.orders) == orders
    assert f.twin.nav_state == POSITION
    f.twin.switch(LAND)
    f.finish()


def test_a_second_flight_begins_in_offboard_mode_to_which_px4_goes_back_when_it_disarms(flight):
    f = flight().take_off()
    f.supervisor.disengage()
    f.finish()
    assert f.twin.nav_state == OFFBOARD
    before = len(f.sent)
    f.run(3.0)
    assert len(f.sent) == before
    f.take_off()
    assert f.states.count(State.READY) == 2


def test_the_home_place_may_be_another_one_for_each_flight(flight):
    f = flight().take_off()
    f.supervisor.home(f.now, [1.0, -0.5, 2.0])
    assert f.run(20.0, until=lambda: f.state is State.READY)
    f.run(3.0)
    np.testing.assert_allclose(f.twin.true.position, [1.0, -0.5, 2.0], atol=0.1)
    for place, why in (
        ([1.0, 9.0, 2.0], "within the fence"),
        ([1.0, 0.0, 3.8], "below the altitude"),
        ([1.0], "not enough values"),
    ):
        with pytest.raises(SupervisorError, match=why):
            f.supervisor.home(f.now, place)
    assert f.state is State.READY
    f.supervisor.home(f.now)
    assert f.run(20.0, until=lambda: f.state is State.READY)
    np.testing.assert_allclose(f.twin.true.position, [1.0, -0.5, 2.0], atol=0.1)
    f.supervisor.disengage()
    f.finish()


def test_what_speaks_against_a_take_off_is_listed(flight):
    f = flight()
    with pytest.raises(SupervisorError, match="no fresh vehicle_odometry") as error:
        f.supervisor.home(f.now)
    assert len(str(error.value).splitlines()) > 3
    f.twin.faults.add("invalid")
    f.twin.battery = 0.1
    f.run(2.0)
    with pytest.raises(SupervisorError, match="not valid") as error:
        f.supervisor.home(f.now)
    assert "battery: 10%" in str(error.value)
    f.twin.faults.clear()
    f.twin.battery = 1.0
    f.run(2.0)
    f.supervisor.home(f.now)


def test_a_vehicle_whose_estimate_says_that_it_stands_as_high_as_home_does_not_take_off(flight):
    f = flight()
    f.twin.offset[2] = 1.35
    f.run(1.0)
    with pytest.raises(SupervisorError, match=r"is 0\.1 m above the start"):
        f.supervisor.home(f.now)
    f.supervisor.home(f.now, [0.0, 0.0, 2.8])


def test_an_emergency_stop_on_the_ground_leaves_it_disarmed(flight):
    f = flight()
    f.run(1.0)
    f.supervisor.home(f.now)
    f.run(30.0, until=lambda: f.twin.armed)
    f.supervisor.emergency_stop("test")
    f.run(5.0)
    assert not f.twin.armed
    assert f.state is State.STOPPED
    f.supervisor.clear()
    assert f.state is State.IDLE


def test_an_action_counts_as_followed_once_px4_controls_rates(flight):
    f = flight().take_off()
    word = SourceWord("test", "token", "acquire", "policy", 0, describe_actions(f.robot.contract), "")
    f.node.hear(encode_source(word), f.now)
    followed = []
    for sequence in range(1, 200):
        lease = f.supervisor.status.holder.id
        proposal = Proposal(lease, sequence, f.now, np.array(HOVER))
        assert f.node.propose(encode_proposal(proposal, f.robot.contract.action_names), f.now) is None
        f.tick()
        followed.append(pairs(f.node.tick(f.now + 0.004, f.now).status.status[0])["followed"])
        assert (followed[-1] != "") == (f.supervisor.phase is Phase.FOLLOWING)
        if followed[-1]:
            break
    assert followed[-1] == f"{lease}/{len(followed)}"
    assert 0 < followed.count("") < 60  # PX4 takes up to half a second
