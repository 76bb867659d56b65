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


@pytest.mark.parametrize("rate", [1 - 1e-4, 1 + 1e-4])
def test_drift_is_followed(rate):
    sync = TimeSync()
    for index in range(10_000):
        received = 0.01 * index
        taken = sync.hear(round(received * rate * 1e6), received)
    assert abs(taken - received) < 0.002


def test_a_vehicle_that_begins_anew():
    sync = TimeSync()
    sync.hear(90_000_000, 100.0)
    assert sync.hear(1_000_000, 101.0) == pytest.approx(101.0)
    assert sync.restarts == 1
    sync.hear(900_000, 101.1)  # a little out of order
    assert sync.restarts == 1


def test_nothing_is_known_at_first():
    assert TimeSync().vehicle_time(5.0) == 0


def test_on_simulated_time_both_clocks_are_one():
    sync = TimeSync(shared=True)
    assert sync.hear(1_020_000, 1.01) == pytest.approx(1.02)  # heard before /clock was
    assert sync.vehicle_time(1.03) == 1_030_000
