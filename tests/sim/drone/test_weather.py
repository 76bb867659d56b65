import numpy as np
import pytest
from scipy.signal import welch

from robot_rl.sim.drone.batch import DroneBatch
from robot_rl.sim.drone.vehicle_model import load_vehicle
from robot_rl.sim.drone.weather import battery_rows, dryden, kick_rows, wind_rows


def blow(num: int, steps: int, **wind) -> np.ndarray:
    """Wind [T, N, 3] at 50 Hz."""
    batch = DroneBatch(load_vehicle("x500"), num, 10)
    batch.begin(range(num), range(num), np.array([0, 0, 10.0]), parameters=wind_rows(batch.period, **wind))
    series = []
    for _ in range(steps):
        batch.step()
        series.append(batch.read("wind"))
    return np.stack(series).astype(float)


def test_gusts_have_drydens_strengths_and_spectra():
    wind, altitude, speed = 8.0, 10.0, 5.0
    strength, length = dryden(altitude, wind)
    series = blow(128, 6000, mean=(0.0, speed, 0.0), gusts=wind, altitude=altitude)[1000:]
    # The mean wind blows along y: along is y, across is -x.
    along, across, upwards = series[..., 1] - speed, series[..., 0], series[..., 2]
    for values, deviation in zip((along, across, upwards), strength, strict=True):
        assert values.std() == pytest.approx(deviation, rel=0.1)
    for values, deviation, scale, second in (
        (along, strength[0], length[0], False),
        (across, strength[1], length[1], True),
        (upwards, strength[2], length[2], True),
    ):
        frequency, power = welch(values, fs=50, nperseg=2048, axis=0)
        band = (frequency > 0.1) & (frequency < 2)
        t, w = scale / speed, 2 * np.pi * frequency[band]
        # MIL-F-8785C, one-sided in Hz.
        shape = (1 + 3 * (t * w) ** 2) / (1 + (t * w) ** 2) ** 2 if second else 2 / (1 + (t * w) ** 2)
        expected = 2 * deviation**2 * t * shape
        np.testing.assert_allclose(power[band].mean(1).sum(), expected.sum(), rtol=0.15)


def test_calm_air_is_still():
    assert (blow(2, 20) == 0).all()


def test_gust_strength_does_not_depend_on_the_call_duration():
    for period in (0.002, 0.02, 0.05):
        rows = wind_rows(period, (4.0, 0, 0), 6.0)
        b, n = rows["gust_b"], 200_000
        noise = np.random.default_rng(0).normal(size=n)
        first = second = 0.0
        out = np.empty(n)
        for step in range(n):
            first = b * first + (1 - b) * noise[step]
            second = b * second + (1 - b) * first
            out[step] = rows["gust_v"] * (3**0.5 * first + (1 - 3**0.5) * second)
        assert out.std() == pytest.approx(dryden(3.0, 6.0)[0][1], rel=0.15)


def test_kicks_come_at_their_rate():
    batch = DroneBatch(load_vehicle("x500"), 200, 10)
    batch.begin(range(200), range(200), np.array([0, 0, 50.0]), parameters=kick_rows(batch.period, 0.5, 2.0, 0.0))
    kicked = 0
    for _ in range(100):
        before = batch.read("velocity")
        batch.step()
        kicked += int((np.linalg.norm(batch.read("velocity") - before, axis=1) > 0.7).sum())
    # 200 drones x 2 s x 0.5 per s, of which nearly all are stronger than the threshold.
    assert 140 < kicked < 220


def test_the_battery_lasts_as_long_as_it_says():
    vehicle = load_vehicle("px4_sih")
    batch = DroneBatch(vehicle, 1, 10)
    rows = {**battery_rows(batch.period, 10.0, 0.0, 0.0), "floor": -1e6}
    batch.begin([0], [0], np.zeros(3), parameters=rows)
    for _ in range(250):
        batch.command(np.array([[1.0, 0, 0, 0]]))
        batch.step()
    assert batch.read("charge")[0, 0] == pytest.approx(0.5, abs=0.01)
