"""Lockstep: every order in which answers may come, and none at all."""

import itertools

import pytest

from robot_rl.hardware.twin.lockstep import Lockstep

PERIOD = 0.01


@pytest.fixture
def lockstep():
    """One that has heard the Supervisor before."""
    lockstep = Lockstep(PERIOD, patience=0.5)
    lockstep.begin(1.0, 0.0)
    lockstep.status(1.0, 10)
    lockstep.begin(1.01, 0.0)
    return lockstep


def test_waits_for_the_status_and_every_command_in_any_order():
    for order in set(itertools.permutations("scc")):
        lockstep = Lockstep(PERIOD, patience=0.5)
        lockstep.status(1.0, 10)
        lockstep.begin(1.01, 0.0)
        for index, event in enumerate(order):
            assert not lockstep.may_go_on(0.1), (order, index)
            if event == "s":
                lockstep.status(1.01, 12)
            else:
                lockstep.command()
        assert lockstep.may_go_on(0.1)


def test_a_status_of_an_earlier_tick_is_no_answer(lockstep):
    lockstep.status(1.0, 11)
    assert not lockstep.may_go_on(0.1)
    lockstep.status(1.01, 11)
    assert lockstep.may_go_on(0.1)


def test_silence_is_waited_for_once_then_time_passes_as_on_the_wall(lockstep):
    assert not lockstep.may_go_on(0.49)
    assert lockstep.may_go_on(0.5)
    assert lockstep.timeouts == 1
    lockstep.begin(1.02, 0.5)
    assert not lockstep.may_go_on(0.5 + 0.9 * PERIOD)
    assert lockstep.may_go_on(0.5 + PERIOD)
    assert lockstep.timeouts == 1


def test_a_supervisor_that_is_heard_again_is_waited_for_again(lockstep):
    lockstep.may_go_on(0.5)
    lockstep.begin(1.02, 0.5)
    lockstep.status(1.02, 99)  # restarted, or its count is not known: nothing to wait for yet
    assert lockstep.may_go_on(0.5)
    lockstep.begin(1.03, 0.5)
    assert not lockstep.may_go_on(0.9)


def test_without_a_supervisor_time_passes_as_on_the_wall():
    lockstep = Lockstep(PERIOD)
    assert lockstep.may_go_on(0.0)
    lockstep.begin(0.0, 5.0)
    assert not lockstep.may_go_on(5.005)
    assert lockstep.may_go_on(5.011)
    assert lockstep.timeouts == 0
