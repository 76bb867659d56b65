"""Clocks that differ, drift, and begin anew."""

import numpy as np
import pytest

from robot_rl.hardware.px4.time_sync import TimeSync


def test_the_offset_is_found_below_jitter():
    sync, generator = TimeSync(), np.random.default_rng(0)
    errors = []
    for index in range(2000):
        taken = 1000.0 + 0.01 * index
        errors.append(sync.hear(round((taken - 970.0) * 1e6), taken + 0.001 + generator.exponential(0.01)) - taken)
    assert max(abs(error - 0.001) for error in errors[300:]) < 0.0015
    assert sync.vehicle_time(1020.0) == pytest.approx(50.0e6 - 1000, abs=1500)


def test_a_late_sample_is_known_to_be_late():
    sync = TimeSync()
    for index in range(100):
        sync.hear(round(1e4 * index), 5.0 + 0.01 * index)
    assert sync.hear(round(1e4 * 100), 5.0 + 1.0 + 0.7) == pytest.approx(6.0)


@pytest.mark.parametrize(("rate", "most"), [(1 - 1e-4, 0.001), (1 + 1e-4, 0.001), (0.98, 0.012), (0.9, 0.06)])
def test_a_clock_that_runs_at_another_rate_is_followed(rate, most):
    """A simulation of PX4 lags behind real time; its odometry is fresh all the same, and its stamps follow smoothly."""
    sync, taken = TimeSync(), []
    for index in range(10_000):
        received = 0.01 * index / rate
        taken.append(sync.hear(round(0.01 * index * 1e6), received))
        assert abs(taken[-1] - received) < most
    assert max(np.diff(taken[100:])) < 0.015


def test_a_vehicle_that_begins_anew():
    sync = TimeSync()
    sync.hear(90_000_000, 100.0)
    told = [sync.hear(1_000_000 + 10_000 * index, 101.0 + 0.01 * index) for index in range(10)]
    assert told == [None] * 9 + [pytest.approx(101.09)]
    assert sync.restarts == 1
    assert sync.hear(1_050_000, 101.1) is not None  # a little out of order
    assert sync.restarts == 1


@pytest.mark.parametrize("back", [0.25, 0.45])
def test_a_clock_that_is_set_back_a_little_is_followed_within_a_tenth_of_a_second(back):
    sync = TimeSync()
    for index in range(200):
        taken = 5.0 + 0.01 * index
        told = sync.hear(round(1e6 * (taken - (back if index >= 100 else 0.0))), taken)
        if not 100 <= index < 109:
            assert told == pytest.approx(taken)
    assert sync.restarts == 0


def test_stamps_of_another_clock_in_between_are_left_out():
    """PX4 that has lost its agent's clock for a moment stamps by its own: decades earlier."""
    sync = TimeSync()
    for index in range(100):
        epoch, boot = 1_800_000_000_000_000 + 10_000 * index, 100_000_000 + 10_000 * index
        lost = index % 20 > 17
        told = sync.hear(boot if lost else epoch, 5.0 + 0.01 * index)
        assert told == (None if lost else pytest.approx(5.0 + 0.01 * index, abs=1e-6))
        assert sync.ours(boot) is None
        assert sync.ours(epoch) is not None
    assert sync.restarts == 0


def test_nothing_is_known_at_first():
    assert TimeSync().vehicle_time(5.0) == 0


def test_on_simulated_time_both_clocks_are_one():
    sync = TimeSync(shared=True)
    assert sync.hear(1_020_000, 1.01) == pytest.approx(1.02)  # heard before /clock was
    assert sync.vehicle_time(1.03) == 1_030_000
