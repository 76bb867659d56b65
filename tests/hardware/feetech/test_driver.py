"""What the driver makes of commands and states: no torque before a fitting command, rest when they stop, faults."""

import numpy as np
import pytest

from robot_rl.hardware.bindings import Setpoints
from robot_rl.hardware.feetech.arm import State
from robot_rl.hardware.feetech.driver import ENGAGING, ArmDriver
from robot_rl.hardware.robot_file import RobotFile, RobotFileError

PERIOD = 0.01


class Bench:
    """A driver with servos that are at once where they are told to be, at a time that goes by when a test says so."""

    def __init__(self):
        self.driver = ArmDriver(RobotFile.load("so101"))
        self.now = 1_700_000_000.0
        self.position = np.array([0.1, -0.2, 0.3, 0.0, 0.0, 0.5])
        self.torque, self.errors = np.zeros(6, bool), np.zeros(6, int)
        self.goals, self.engaged = [], 0
        self.stuck = False

    def cycle(self, count=1):
        for _ in range(count):
            self.now += PERIOD
            zeros = np.zeros(6)
            state = State(
                self.now, self.position.copy(), zeros, zeros, zeros, zeros, zeros, self.torque.copy(), self.errors
            )
            goal = self.driver.step(state, self.now)
            if goal is None:
                continue
            if goal.engage:
                self.engaged += 1
                self.torque[:] = True
            self.goals.append(goal)
            if not self.stuck:
                self.position[goal.only] = goal.position[goal.only]

    def command(self, target, start=None, seconds=0.2):
        """A trajectory of one point [5], at rest there."""
        rest = np.zeros((1, 5))
        begin = self.now if start is None else start
        points = Setpoints("joint_position", begin, np.array([seconds]), np.array([target], float), rest, rest)
        self.driver.command(points, self.now)

    def gripper(self, opening):
        self.driver.command(
            Setpoints("gripper_opening", None, np.zeros(1), np.array([[opening]]), None, None), self.now
        )

    def take(self):
        self.cycle()
        self.command(self.position[:5])
        self.cycle()


@pytest.fixture
def bench():
    return Bench()


def test_without_a_command_nothing_is_written(bench):
    bench.cycle(10)
    bench.gripper(0.1)
    bench.cycle(10)
    assert not bench.goals
    assert bench.driver.mode == "limp"


def test_a_command_far_from_the_arm_gives_no_torque(bench):
    bench.command(bench.position[:5])
    assert "has not been seen" in bench.driver.problem
    bench.cycle()
    bench.command(bench.position[:5] + 1.1 * ENGAGING)
    bench.cycle()
    assert not bench.goals
    assert "start where it stands" in bench.driver.problem
    assert bench.driver.counts["rejected"] == 2


def test_the_first_goal_is_where_the_arm_stands_then_it_follows(bench):
    bench.cycle()
    here = bench.position.copy()
    target = here[:5] + 0.05
    bench.command(target)
    bench.cycle()
    assert bench.engaged == 1
    np.testing.assert_allclose(bench.goals[0].position, here, atol=0.002)
    bench.cycle(30)
    np.testing.assert_allclose(bench.position[:5], target)
    steps = np.abs(np.diff([goal.position[:5] for goal in bench.goals], axis=0)).max()
    assert steps < 0.06 * PERIOD / 0.2 * 2.5  # no jump: a quintic's top speed is 1.875 of its mean
    assert bench.driver.problem == ""


def test_the_gripper_moves_at_its_own_speed_from_where_it_is(bench):
    bench.take()
    jaw = bench.position[5]
    bench.gripper(0.13)
    bench.cycle()
    assert 0 < bench.position[5] - jaw < 0.08
    for _ in range(100):
        bench.command(bench.position[:5])
        bench.cycle()
    assert bench.position[5] == pytest.approx(1.727, abs=0.02)  # 0.13 m, by the table of the robot's file


def test_when_commands_stop_it_holds_and_the_next_has_to_begin_there(bench):
    bench.take()
    bench.cycle(60)
    assert bench.driver.mode == "holding"
    count = len(bench.goals)
    bench.command(bench.position[:5] + 0.5)
    assert "away from the arm" in bench.driver.problem
    bench.cycle(5)
    assert len(bench.goals) == count + 5  # it is held actively
    bench.command(bench.position[:5] + 0.05)
    bench.cycle()
    assert bench.driver.mode == "following"


def test_a_clock_that_is_set_back_holds_the_arm_until_the_next_command(bench):
    bench.take()
    bench.command(bench.position[:5] + 0.2, seconds=0.5)
    bench.cycle(20)
    bench.now -= 3600.0
    bench.cycle()
    here = bench.position.copy()
    bench.cycle(50)
    assert bench.driver.mode == "holding"
    np.testing.assert_allclose(bench.position, here)
    target = here[:5] + 0.05
    bench.command(target)
    bench.cycle(30)
    np.testing.assert_allclose(bench.position[:5], target)
    assert bench.driver.problem == ""


def test_while_it_follows_a_command_may_begin_anywhere_on_the_way(bench):
    bench.take()
    bench.command(bench.position[:5] + 0.5)
    assert bench.driver.problem == ""


def test_at_rest_a_command_that_comes_late_is_no_problem(bench):
    bench.take()
    bench.cycle(30)
    bench.command(bench.position[:5], start=bench.now - 0.1, seconds=0.01)
    assert (bench.driver.counts["rejected"], bench.driver.problem) == (0, "")
    bench.command(bench.position[:5] + 0.01, start=bench.now - 0.1, seconds=0.01)
    assert "ended" in bench.driver.problem


@pytest.mark.parametrize(
    ("times", "position"), [([-1.0], 0.1), ([0.2, 0.1], 0.0), ([0.1], np.nan)], ids=["past", "descending", "nan"]
)
def test_malformed_commands_change_nothing(bench, times, position):
    bench.take()
    before = bench.driver.counts["rejected"]
    rows = np.tile(bench.position[:5] + position, (len(times), 1))
    bench.driver.command(Setpoints("joint_position", bench.now, np.array(times), rows, None, None), bench.now)
    bench.cycle()
    assert bench.driver.counts["rejected"] == before + 1
    assert np.isfinite(bench.goals[-1].position).all()


def test_an_overload_brakes_on_the_way_holds_there_and_refuses(bench):
    bench.take()
    bench.command(bench.position[:5] + 0.5, seconds=0.5)
    bench.cycle(20)
    bench.errors[2] = 32
    bench.stuck = True
    bench.cycle()
    assert bench.driver.mode == "fault"
    assert bench.driver.problem == "elbow_flex: overload"
    bench.command(bench.position[:5])
    assert bench.driver.counts["rejected"] == 1
    bench.cycle(60)
    np.testing.assert_allclose(bench.goals[-1].position, bench.position)  # it does not push on
    bench.errors[2] = 0
    bench.cycle(110)
    assert (bench.driver.mode, bench.driver.problem) == ("holding", "")
    bench.command(bench.position[:5])
    bench.cycle()
    assert bench.driver.mode == "following"


def test_an_overloaded_gripper_gives_way_and_the_arm_goes_on(bench):
    bench.take()
    bench.stuck = True  # it holds something
    held = bench.position[5]
    for _ in range(50):
        bench.command(bench.position[:5])
        bench.gripper(0.0)
        bench.cycle()
    assert bench.goals[-1].position[5] < held - 0.3
    bench.errors[5] = 32
    for _ in range(5):
        bench.command(bench.position[:5])
        bench.gripper(0.0)
        bench.cycle()
    assert bench.driver.mode == "following"
    assert held - 0.05 < bench.goals[-1].position[5] <= held
    for _ in range(20):
        bench.command(bench.position[:5])
        bench.gripper(0.13)
        bench.cycle()
    assert bench.goals[-1].position[5] > held + 0.2  # it may be opened
    bench.errors[5] = 4
    bench.cycle()
    assert bench.driver.problem == "gripper: overheated"


def test_an_error_of_a_limp_arm_gives_it_no_torque(bench):
    bench.cycle()
    bench.errors[0] = 1
    bench.cycle(20)
    assert bench.driver.mode == "fault"
    assert not any(goal.only.any() or goal.engage for goal in bench.goals)
    bench.errors[0] = 0
    bench.cycle(110)
    assert bench.driver.mode == "limp"


def test_a_servo_that_lost_its_torque_gets_none_by_a_goal(bench):
    bench.take()
    bench.torque[3] = False
    bench.cycle()
    assert bench.driver.mode == "fault"
    assert "wrist_flex: no torque any longer" in bench.driver.problem
    assert list(bench.goals[-1].only) == [True, True, True, False, True, True]
    bench.position[3] = 0.4  # it sinks
    bench.cycle(110)
    assert bench.driver.mode == "limp"
    bench.command(bench.position[:5])
    bench.cycle()
    assert bench.engaged == 2
    np.testing.assert_allclose(bench.goals[-1].position[:5], bench.position[:5])


def test_after_the_bus_was_lost_a_command_has_to_begin_where_the_arm_stands(bench):
    bench.take()
    bench.driver.lost()
    bench.position += 0.3
    bench.cycle()
    bench.command(bench.position[:5] - 0.3)
    assert "start where it stands" in bench.driver.problem
    bench.command(bench.position[:5])
    bench.cycle()
    assert bench.engaged == 2


def test_a_robot_without_a_driver_is_refused():
    with pytest.raises(RobotFileError, match="driver: missing"):
        ArmDriver(RobotFile.load("panda"))
