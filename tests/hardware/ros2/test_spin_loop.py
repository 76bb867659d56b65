"""The loop without any graph: multiples of a clock, delayed calls, signals."""

import os
import signal
import time

import pytest

from robot_rl.hardware.ros2.spin_loop import LoopTimer, SpinLoop


@pytest.mark.parametrize("start", [0.0, 1.7e9])
def test_a_timer_fires_once_for_each_multiple(start):
    timer = LoopTimer(0.05, lambda: None, "node")
    fired = [timer.time for step in range(1001) if timer.due(start + step * 0.01)]
    assert fired == pytest.approx([start + index * 0.05 for index in range(201)], abs=1e-6)


def test_a_late_timer_leaves_out_what_it_missed_and_follows_a_clock_that_is_set_back():
    timer = LoopTimer(0.1, lambda: None, "node")
    assert timer.due(1.0)
    assert timer.due(1.55)
    assert timer.time == pytest.approx(1.5)
    assert not timer.due(1.59)
    assert timer.left(1.59) == pytest.approx(0.01)
    assert not timer.due(0.42)
    assert timer.due(0.5)
    with pytest.raises(ValueError, match="period must be > 0"):
        LoopTimer(0.0, lambda: None, "node")


def test_simulated_time_fires_node_timers_only_when_the_clock_comes():
    loop = SpinLoop(lambda: None)
    loop.simulated = True
    fired = []
    loop.timer(0.05, lambda: fired.append(loop.now()), "node")
    loop.spin(time.sleep, timeout=0.1)
    assert fired == []
    for now in (0.05, 0.07, 0.1):
        loop.set_clock(now)
    assert fired == [0.05, 0.1]


def test_wall_timers_fire_at_multiples_of_the_epoch():
    loop = SpinLoop(lambda: None)
    times = []
    timer = loop.timer(0.02, lambda: times.append((timer.time, time.time())), "wall")
    assert loop.spin(time.sleep, lambda: len(times) == 10, timeout=20.0)
    for due, fired in times:
        assert due / 0.02 == pytest.approx(round(due / 0.02), abs=1e-4)
        assert fired >= due - 1e-5


def test_delayed_calls_come_in_their_time():
    loop = SpinLoop(lambda: None)
    called = []
    loop.call_later(0.05, lambda: called.append("late"))
    loop.call_later(0.0, lambda: called.append("soon"))
    assert loop.spin(time.sleep, lambda: len(called) == 2, timeout=5.0)
    assert called == ["soon", "late"]


def test_the_same_signal_insists_only_after_a_while(monkeypatch):
    loop = SpinLoop(lambda: None)
    loop.catch_signals()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert not loop.spin(time.sleep, timeout=5.0)
        assert loop.stopped
        monkeypatch.setattr("robot_rl.hardware.ros2.spin_loop.TWICE", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        loop.release_signals()
