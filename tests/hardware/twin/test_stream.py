"""Streams of the twin: latency, jitter, loss and noise by their statistics; order, seeds and faults."""

import numpy as np
import pytest

from robot_rl.datasets.contract import Feature
from robot_rl.hardware.twin.stream import JUMP, Impairment, Link, Schedule, Stamps, noisy


def pass_through(impairment, count=4000, period=0.01, seed=0):
    """Arrival time of each message that came."""
    link = Link(np.random.default_rng(seed))
    link.impairment = impairment
    arrivals = {}
    for tick in range(count * 10):
        now = tick * period / 10
        if tick % 10 == 0:
            link.send(tick // 10, now)
        for message in link.receive(now):
            arrivals[message] = now
    return arrivals


def test_a_perfect_link_delivers_at_once():
    link = Link(np.random.default_rng(0))
    link.send("a", 1.0)
    assert link.receive(1.0) == ["a"]
    assert link.receive(2.0) == []


def test_latency_and_jitter_delay_and_keep_the_order():
    arrivals = pass_through(Impairment(latency=0.02, jitter=0.03))
    delays = np.array([time - 0.01 * message for message, time in arrivals.items()])
    assert list(arrivals) == sorted(arrivals)
    assert delays.min() >= 0.02 - 1e-9
    assert delays.max() <= 0.051
    # The latest of three uniform draws, one period apart, shifts the mean above the middle.
    assert 0.035 < delays.mean() < 0.045


def test_loss_is_a_probability_and_decided_by_the_seed():
    arrived = pass_through(Impairment(loss=0.3))
    assert 1 - len(arrived) / 4000 == pytest.approx(0.3, abs=0.025)
    assert pass_through(Impairment(loss=0.3)).keys() == arrived.keys()
    assert pass_through(Impairment(loss=0.3), seed=1).keys() != arrived.keys()


def test_dropped_messages_never_come():
    assert not pass_through(Impairment(fault="drop"), count=10)


def test_stamps_freeze_and_jump_back_and_recover():
    stamps = Stamps()
    assert [stamps.of(t, "") for t in (20.0, 20.1)] == [20.0, 20.1]
    assert [stamps.of(t, "freeze") for t in (20.2, 20.3)] == [20.1, 20.1]
    assert stamps.of(20.4, "back") == 20.4 - JUMP
    assert stamps.of(20.5, "") == 20.5


def test_a_schedule_is_due_once_a_period_whatever_the_tick():
    for rate, tick in ((30.0, 0.005), (100.0, 0.005), (1000.0, 0.002), (20.0, 0.01)):
        schedule = Schedule(rate)
        times = [k * tick for k in range(round(2.0 / tick)) if schedule.due(k * tick)]
        assert len(times) == pytest.approx(2.0 * min(rate, 1 / tick), abs=1)
        assert times[0] == 0.0
    schedule = Schedule(10.0)
    assert [schedule.due(t) for t in (100.0, 100.05, 100.1, 3.0, 3.05)] == [True, False, True, True, False]


def test_noise_has_its_deviation_and_leaves_quaternions_unit():
    generator = np.random.default_rng(0)
    joints = Feature("joint_position", (2000,), unit="rad")
    assert np.std(noisy(np.zeros(2000), joints, 0.01, generator)) == pytest.approx(0.01, rel=0.1)
    pose = Feature("cube_pose", (7,), representation="position_quaternion")
    value = noisy(np.array([1.0, 2, 3, 0, 1, 0, 0]), pose, 0.1, generator)
    assert np.linalg.norm(value[3:]) == pytest.approx(1.0)
    assert noisy(value, pose, 0.0, generator) is value


@pytest.mark.parametrize("values", [{"loss": 1.1}, {"latency": -1.0}, {"fault": "explode"}])
def test_impossible_impairments_are_refused(values):
    with pytest.raises(ValueError, match="expected"):
        Impairment(**values)
