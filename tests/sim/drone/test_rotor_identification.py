"""The rotors' response and its fit, apart from any flight."""

import numpy as np
import pytest

from robot_rl.sim.drone.regression import regression
from robot_rl.sim.drone.rotor_identification import fit_rotors, rotor_speeds, signal_of


@pytest.mark.parametrize("curve", [0.0, 0.3, 1.0])
def test_the_signal_is_the_inverse_of_the_thrust_curve(curve: float) -> None:
    signal = np.linspace(0.0, 1.0, 11)
    np.testing.assert_allclose(signal_of(curve * signal**2 + (1 - curve) * signal, curve), signal, atol=1e-12)


def test_speeds_are_those_of_small_steps() -> None:
    random = np.random.default_rng(0)
    moments = np.sort(random.uniform(0.0, 2.0, 40))
    signals = random.uniform(0.1, 0.9, (40, 2))
    step, rise, fall, dead = 1e-4, 0.03, 0.07, 0.013
    speed, times, expected = signals[0].copy(), [], []
    for index in range(round(2.2 / step)):
        now = moments[0] + index * step
        told = signals[max(np.searchsorted(moments, now - dead, "right") - 1, 0)]
        if index % 50 == 0:
            times.append(now)
            expected.append(speed.copy())
        speed += step * (told - speed) / np.where(told > speed, rise, fall)
    found = rotor_speeds(moments, signals, np.array(times), dead, rise, fall)
    np.testing.assert_allclose(found, expected, atol=3e-3)


def test_the_fit_is_exact_without_noise_and_tells_lag_from_dead_time() -> None:
    random = np.random.default_rng(1)
    moments = np.arange(0.0, 20.0, 0.004)
    signals = np.repeat(random.uniform(0.3, 0.7, (50, 4)), 100, axis=0)
    times = np.arange(0.0, 20.0, 0.005)
    along = np.sin(times)
    for dead, rise, fall in ((0.0, 0.05, 0.05), (0.03, 0.02, 0.02), (0.011, 0.03, 0.09)):
        speeds = rotor_speeds(moments, signals, times, dead, rise, fall)
        measured = 3.0 * speeds.mean(1) + 20.0 * (speeds**2).mean(1) - 0.2 * along
        found = fit_rotors(moments, signals, times, measured, along, np.zeros((len(times), 0)))
        assert (found.dead_time, found.rise, found.fall) == pytest.approx((dead, rise, fall), abs=1e-4)
        assert (found.linear, found.quadratic, found.drag) == pytest.approx((3.0, 20.0, 0.2), rel=1e-3)


def test_standard_errors_are_those_of_repeated_draws() -> None:
    """Also where residuals last: those of ordinary least squares would be a third."""
    random = np.random.default_rng(2)
    time = np.arange(0.0, 60.0, 0.02)
    cause = np.repeat(random.normal(size=120), 25)
    values, errors = [], []
    for _ in range(200):
        target = 2.0 * cause + np.repeat(random.normal(size=120), 25)
        value, error, _ = regression(np.stack([cause, np.ones_like(cause)], axis=1), target, time)
        values.append(value[0])
        errors.append(error[0])
    assert np.mean(values) == pytest.approx(2.0, abs=0.03)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.2)


def test_what_rows_do_not_tell_apart_leaves_the_rest_alone() -> None:
    random = np.random.default_rng(3)
    cause, time = random.normal(size=500), np.linspace(0.0, 50.0, 500)
    target = 0.7 * cause + 0.1 + 0.01 * random.normal(size=500)
    one = np.ones(500)
    values, errors, _ = regression(np.stack([cause, one, 3.0 * one], axis=1), target, time)
    assert values[0] == pytest.approx(0.7, abs=5 * errors[0])
    assert errors[0] < 0.002
