"""Commands and odometry on their way between a drone and whoever flies it, see `robot_rl.sim.drone.episode`."""

import numpy as np
import pytest

from robot_rl.sim.drone import episode
from robot_rl.sim.drone.flight import LANES
from robot_rl.sim.drone.variation import link as drawn

PERIOD, SUBSTEPS = 0.02, 10
ODOMETRY = np.array([[0, 0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 0, 0]])


class Transmission:
    """Of drones with the keys given; commands are single numbers."""

    def __init__(self, keys: list[int], record: dict) -> None:
        num = len(keys)
        self.rules = np.zeros(episode.RULES)
        self.rules[[episode.PERIOD, episode.SUBSTEP]] = PERIOD, PERIOD / SUBSTEPS
        self.memory, self.drawn = np.zeros((num, episode.MEMORY)), drawn([record] * num)
        self.keys = np.random.default_rng(0).integers(0, 2**63, 99).astype(np.uint64)[keys]
        self.sent, self.past = np.full((num, 5, 2), episode.NEVER), np.tile(ODOMETRY.astype(np.float32), (9, num, 1))
        self.odometry, self.command = np.zeros((1, 13, LANES), np.float32), np.zeros((1, 6, LANES), np.float32)

    def send(self, commands: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.memory[:, episode.STEPS] = steps
        episode.send(
            commands.astype(np.float32), episode.VELOCITY_YAW_RATE, self.rules, self.memory, self.drawn, self.keys,
            self.sent, self.odometry, self.command,
        )  # fmt: skip
        return self.command[0, :1, : len(steps)].T.copy(), self.command[0, 5, : len(steps)].copy()

    def receive(self, odometry: np.ndarray, steps: np.ndarray) -> np.ndarray:
        self.memory[:, episode.STEPS] = steps
        self.odometry[0, :, : len(steps)] = odometry.T
        episode.receive(np.arange(len(steps)), self.memory, self.drawn, self.keys, self.past, self.odometry)
        return self.memory[:, episode.SEEN : episode.SEEN + episode.ODOMETRY].copy()


def link(record: dict, num: int = 1) -> Transmission:
    return Transmission(list(range(num)), record)


def arrivals(record: dict, steps: int) -> list[tuple[int, float]]:
    """Of commands numbered by their step: (number in force, substep counted from the start) as they come."""
    made, found = link(record), []
    for step in range(steps):
        command, switch = made.send(np.array([[float(step)]]), np.array([step]))
        switch = float(np.atleast_1d(switch)[0])
        if switch < SUBSTEPS:
            found.append((int(command[0, 0]), step * SUBSTEPS + switch))
    return found


def test_without_delay_commands_are_in_force_at_once():
    assert arrivals({}, 4) == [(step, 10 * step) for step in range(4)]


@pytest.mark.parametrize("delay", [0.004, 0.02, 0.038, 0.06])
def test_every_command_comes_after_its_delay(delay):
    late = round(delay / 0.002)
    expected = [(step, 10 * step + late) for step in range(20)]
    assert arrivals({"command": {"delay": delay}}, 30)[: len(expected)] == expected


def test_a_command_that_arrives_in_the_last_substep_is_not_lost():
    assert arrivals({"command": {"delay": 0.019}}, 4) == [(0, 10), (1, 20), (2, 30)]


def test_jitter_changes_when_and_never_the_order():
    found = arrivals({"command": {"delay": 0.03, "jitter": 0.015}}, 300)
    numbers, times = np.array(found).T
    assert (np.diff(numbers) > 0).all()
    delays = times - 10 * numbers
    assert delays.min() >= 7
    assert delays.max() <= 23
    assert delays.std() > 2


def test_some_commands_are_lost():
    found = arrivals({"command": {"delay": 0.0, "drop": 0.3}}, 2000)
    assert 0.66 < len(found) / 2000 < 0.74


def seen(record: dict, steps: int) -> np.ndarray:
    made, rows = link(record), []
    for step in range(1, steps + 1):
        odometry = ODOMETRY.copy()
        odometry[0, 0] = step
        rows.append(made.receive(odometry, np.array([step]))[0])
    return np.array(rows)


def test_odometry_is_late_by_its_delay():
    late = seen({"odometry": {"delay": 3}}, 20)[:, 0]
    np.testing.assert_allclose(late, [0, 0, 0, *range(1, 18)])


def test_lost_odometry_repeats_what_was_seen_last():
    values = seen({"odometry": {"drop": 0.25}}, 2000)[:, 0]
    repeated = np.diff(values) == 0
    assert 0.2 < repeated.mean() < 0.3
    fresh = np.flatnonzero(~repeated) + 1
    np.testing.assert_allclose(values[fresh], fresh + 1)


def test_noise_has_its_deviations_and_is_white():
    record = {"odometry": {"position": 0.1, "velocity": 0.2, "attitude": 0.05, "rates": 0.3}}
    values = seen(record, 4000)
    values[:, 0] -= np.arange(1, 4001)
    for part, deviation in ((slice(0, 3), 0.1), (slice(3, 6), 0.2), (slice(10, 13), 0.3)):
        np.testing.assert_allclose(values[:, part].std(0), deviation, rtol=0.06)
    np.testing.assert_allclose(2 * values[:, 7:10].std(0), 0.05, rtol=0.06)
    np.testing.assert_allclose(np.linalg.norm(values[:, 6:10], axis=1), 1.0)
    white = values[:, :6] / values[:, :6].std(0)
    assert np.abs((white[1:] * white[:-1]).mean(0)).max() < 0.06
    assert np.abs(np.corrcoef(white.T) - np.eye(6)).max() < 0.06


def test_a_drone_sees_the_same_whatever_flies_beside_it():
    record = {"odometry": {"position": 0.1, "drop": 0.2}}
    alone, many = Transmission([2], record), link(record, 4)
    for step in range(1, 20):
        one = alone.receive(ODOMETRY, np.array([step]))
        all_of_them = many.receive(np.repeat(ODOMETRY, 4, 0), np.full(4, step))
        np.testing.assert_array_equal(all_of_them[2], one[0])
    assert not np.array_equal(all_of_them[1], all_of_them[2])
