"""Alignment: against a brute-force oracle, whatever the order of arrival; live and imported rows are equal."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from robot_rl.datasets import Contract
from robot_rl.datasets.contract import Feature
from robot_rl.hardware import bindings
from robot_rl.hardware.alignment import Alignment, AlignmentError, StaleError, interpolate
from robot_rl.hardware.robot_file import RobotFile, Stream
from robot_rl.hardware.ros2 import messages

FORCE = Feature("force", (2,), "float64")
POSE = Feature("pose", (7,), "float64", representation="position_quaternion")


def robot_with(**streams):
    """The Panda with nothing but these streams."""
    panda = RobotFile.load("panda")
    contract = Contract("test", 20, {name: s.feature for name, s in streams.items()}, panda.contract.action)
    return replace(panda, contract=contract, streams=streams, computed={})


def stream(feature=FORCE, **settings):
    return Stream(feature, f"/{feature.name}", "geometry_msgs/msg/WrenchStamped", **settings)


def oracle(samples, settings, tick, by):
    """What a row holds, by the definition: over all samples that count."""
    known = sorted((stamp, value) for stamp, received, value in samples if received <= by)
    past = [(stamp, value) for stamp, value in known if stamp <= tick]
    if not past or (settings.align == "interpolate" and past[0][0] > tick - settings.delay):
        return None
    stamp, value = past[-1]
    if settings.align == "interpolate" and stamp > tick - settings.delay:
        wanted = tick - settings.delay
        before = [item for item in known if item[0] <= wanted][-1]
        after = next(item for item in known if item[0] > wanted)
        stamp, value = before
        if before[0] != wanted and after[0] - before[0] <= settings.max_age:
            part = (wanted - before[0]) / (after[0] - before[0])
            stamp, value = wanted, before[1] + part * (after[1] - before[1])
    return (stamp, value) if tick - stamp <= settings.max_age else None


@st.composite
def recordings(draw):
    """Samples of two streams: stamps in whole milliseconds, each received up to 30 ms later; and settings of both."""
    streams = {}
    for name in ("one", "two"):
        steps = draw(st.lists(st.integers(1, 60), min_size=3, max_size=25))
        stamps = 1000.0 + np.cumsum(steps) / 1000
        delays = draw(st.lists(st.integers(0, 30), min_size=len(steps), max_size=len(steps)))
        received = np.maximum.accumulate(stamps + np.array(delays) / 1000)
        align = draw(st.sampled_from(["latest", "interpolate"]))
        settings_ = {
            "align": align,
            "delay": draw(st.sampled_from([0.0, 0.01, 0.04])) if align == "interpolate" else 0.0,
            "max_age": draw(st.sampled_from([0.05, 0.1, 0.3])),
        }
        values = np.random.default_rng(len(steps)).normal(size=(len(steps), 2))
        samples = list(zip(stamps.tolist(), received.tolist(), values, strict=True))
        streams[name] = (stream(replace(FORCE, name=name), **settings_), samples)
    return streams, draw(st.permutations(range(sum(len(samples) for _, samples in streams.values()))))


@settings(max_examples=50, deadline=None)
@given(recordings())
def test_rows_are_what_the_definition_says_whatever_the_order_of_the_streams(recording) -> None:
    streams, order = recording
    robot = robot_with(**{name: settings_ for name, (settings_, _) in streams.items()})
    merged, shuffled = Alignment(robot), Alignment(robot)
    events = [(name, sample) for name, (_, samples) in streams.items() for sample in samples]
    for name, sample in sorted(events, key=lambda event: event[1][1]):
        merged.push(name, *sample)
    # Between the streams any order; within each, that of arrival.
    queues = {name: list(samples) for name, (_, samples) in streams.items()}
    for name in (events[index][0] for index in order):
        shuffled.push(name, *queues[name].pop(0))
    for tick in 1000.0 + np.arange(0, 1500, 25) / 1000:
        for by in (tick, tick + 0.01, np.inf):
            expected = {name: oracle(samples, s, tick, by) for name, (s, samples) in streams.items()}
            if None in expected.values():
                with pytest.raises(StaleError) as caught:
                    merged.row(tick, by)
                assert set(caught.value.streams) == {name for name, found in expected.items() if found is None}
                continue
            row, again = merged.row(tick, by), shuffled.row(tick, by)
            assert row.stamps == again.stamps
            for name, (stamp, value) in expected.items():
                assert row.stamps[name] == stamp
                np.testing.assert_allclose(row.observation[name], value, rtol=1e-12)
                assert (row.observation[name] == again.observation[name]).all()


@settings(max_examples=50, deadline=None)
@given(recordings(), st.randoms(use_true_random=False))
def test_an_import_restores_what_the_policy_saw_bit_by_bit(recording, random) -> None:
    """Live, samples come between the ticks and only some are there; the importer has other receive times and all."""
    streams, _ = recording
    robot = robot_with(**{name: settings_ for name, (settings_, _) in streams.items()})
    live, imported = Alignment(robot), Alignment(robot)
    events = sorted(
        ((name, sample) for name, (_, samples) in streams.items() for sample in samples), key=lambda e: e[1][1]
    )  # fmt: skip
    rows, tick = [], 1000.0
    for name, (stamp, received, value) in events:
        while tick <= received:
            with suppress(StaleError):
                rows.append(live.row(tick))
            tick += 0.05
        live.push(name, stamp, received, value)
        imported.push(name, stamp, received + random.uniform(0, 0.01), value)
    for row in rows:
        restored = imported.restore(row.stamps)
        for name, value in row.observation.items():
            assert (restored[name] == value).all()
            assert restored[name].dtype == value.dtype


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_rotations_go_along_the_great_circle(seed, part) -> None:
    generator = np.random.default_rng(seed)
    rotations = Rotation.random(2, random_state=seed)
    poses = []
    for xyzw in rotations.as_quat():
        flipped = xyzw * generator.choice([-1, 1])  # the same rotation
        poses.append(np.r_[generator.normal(size=3), flipped[[3, 0, 1, 2]]])
    value = interpolate(POSE, *poses, part)
    np.testing.assert_allclose(value[:3], poses[0][:3] + part * (poses[1][:3] - poses[0][:3]))
    expected = Slerp([0, 1], rotations)(part)
    assert (Rotation.from_quat(value[[4, 5, 6, 3]]).inv() * expected).magnitude() < 1e-7
    assert value[3:][np.argmax(np.abs(value[3:]))] > 0


def test_no_rotation_lies_between_equal_ones() -> None:
    pose = np.array([0.0, 0, 0, 0.6, 0, 0.8, 0])
    assert interpolate(POSE, pose, pose.copy(), 0.3).tolist() == pose.tolist()


def test_latency_is_subtracted_and_shown_in_the_stamps() -> None:
    robot = RobotFile.load("panda")
    arm = replace(robot.streams["joint_position"], latency=0.02, max_age=1.0)
    alignment = Alignment(robot_with(joint_position=arm))
    for k in range(10):
        stamp = 100 + 0.01 * k
        sent = messages.make("sensor_msgs/msg/JointState", name=list(arm.elements), position=np.full(7, float(k)))
        sent.header.stamp = messages.stamp(stamp)
        alignment.take(arm.topic, sent, stamp + 0.001)
    row = alignment.row(100.05)
    assert row.stamps["joint_position"] == pytest.approx(100.05, abs=1e-6)
    assert row.observation["joint_position"].tolist() == [7.0] * 7
    assert row.observation["joint_position"].dtype == np.float32


def test_one_message_feeds_several_features_and_bad_ones_are_counted() -> None:
    robot = RobotFile.load("panda")
    parts = {name: robot.streams[name] for name in ("joint_position", "joint_velocity")}
    alignment = Alignment(robot_with(**parts))
    names = list(parts["joint_position"].elements)
    alignment.take(
        "/franka/joint_states",
        messages.make(
            "sensor_msgs/msg/JointState",
            header=messages.make("std_msgs/msg/Header", stamp=messages.stamp(50.0)),
            name=names, position=np.arange(7), velocity=np.full(7, np.nan),
        ),
        50.0,
    )  # fmt: skip
    # Another device on the topic is no fault.
    alignment.take("/franka/joint_states", messages.make("sensor_msgs/msg/JointState", name=["wheel"]), 50.0)
    assert alignment.health["joint_position"].taken == 1
    assert alignment.health["joint_velocity"].malformed == 1
    with pytest.raises(StaleError) as caught:
        alignment.row(50.0)
    assert list(caught.value.streams) == ["joint_velocity"]
    assert "velocity of panda_joint1" in str(caught.value)
    assert "nothing was received" in str(caught.value)


def test_stamps_that_go_back_are_dropped_and_reported() -> None:
    alignment = Alignment(robot_with(force=stream(max_age=0.1)))
    for k in range(10):
        alignment.push("force", 10 + 0.01 * k, 10 + 0.01 * k, np.full(2, float(k)))
    alignment.push("force", 10.055, 10.1, np.full(2, 5.5))  # late, but in time to count
    alignment.push("force", 9.0, 10.11, np.full(2, -1.0))
    alignment.push("force", 10.09, 10.12, np.full(2, -2.0))
    health = alignment.health["force"]
    assert (health.taken, health.reordered, health.backward, health.repeated) == (11, 1, 1, 1)
    assert alignment.row(10.056).observation["force"].tolist() == [5.5, 5.5]
    assert alignment.row(10.056, by=10.06).observation["force"].tolist() == [5.0, 5.0]
    assert alignment.newest("force")[0] == pytest.approx(10.09)
    for k in range(30):  # the driver's clock stays behind: its stamps never count, and the row says so
        alignment.push("force", 9.0 + 0.01 * k, 10.13 + 0.01 * k, np.zeros(2))
    with pytest.raises(StaleError, match=r"force: 0.310 s old \(limit 0.1 s\); last problem: a stamp .* behind"):
        alignment.row(10.4)


def test_a_stamp_from_the_future_does_not_blind_the_stream() -> None:
    alignment = Alignment(robot_with(force=stream()))
    alignment.push("force", 10.0, 10.0, np.zeros(2))
    alignment.push("force", 99.0, 10.01, np.ones(2))
    alignment.push("force", 10.02, 10.02, np.full(2, 2.0))
    assert alignment.health["force"].future == 1
    assert alignment.row(10.03).observation["force"].tolist() == [2.0, 2.0]


def test_simulated_time_may_begin_anew() -> None:
    alignment = Alignment(robot_with(force=stream()))
    alignment.push("force", 500.0, 500.0, np.zeros(2))
    alignment.push("force", 0.1, 0.1, np.ones(2))
    assert alignment.row(0.1).observation["force"].tolist() == [1.0, 1.0]
    with pytest.raises(StaleError):
        alignment.row(0.05)


def test_samples_are_kept_long_enough_to_be_restored_and_no_longer() -> None:
    alignment = Alignment(robot_with(force=stream(max_age=0.1)), keep=1.0)
    rows = []
    for k in range(400):
        alignment.push("force", 0.01 * k, 0.01 * k, np.full(2, float(k)))
        if k % 5 == 0:
            rows.append(alignment.row(0.01 * k))
    for row in rows[-20:]:
        assert (alignment.restore(row.stamps)["force"] == row.observation["force"]).all()
    with pytest.raises(AlignmentError, match="no sample of time"):
        alignment.restore(rows[0].stamps)
    assert len(alignment._buffers["force"].samples) < 120


def test_receive_times_differ_between_processes_yet_mean_the_same_sample() -> None:
    robot = robot_with(force=stream(clock="receive"))
    live, imported = Alignment(robot), Alignment(robot)
    for k in range(10):
        live.push("force", 1 + 0.01 * k, 1 + 0.01 * k, np.full(2, float(k)))
        imported.push("force", 1 + 0.01 * k + 0.003, 1 + 0.01 * k + 0.003, np.full(2, float(k)))
    row = live.row(1.055)
    assert (imported.restore(row.stamps)["force"] == row.observation["force"]).all()


def test_simulated_time_waits_for_what_belongs_to_it() -> None:
    alignment = Alignment(robot_with(one=stream(replace(FORCE, name="one")), two=stream(replace(FORCE, name="two"))))
    assert not alignment.has(1.0)
    alignment.push("one", 1.0, 1.0, np.zeros(2))
    assert not alignment.has(1.0)
    alignment.push("two", 1.0, 1.0, np.zeros(2))
    assert alignment.has(1.0)
    assert not alignment.has(0.5)
    assert not alignment.has(1.05)


def test_the_wire_changes_no_bit() -> None:
    """What the twin encodes, and the policy decodes and aligns, is what the simulation observed."""
    robot, generator = RobotFile.load("panda"), np.random.default_rng(0)
    wanted = replace(robot, contract=robot.contract.select(["joint_position", "joint_velocity"]), computed={})
    alignment = Alignment(wanted)
    for k in range(5):
        values = {name: generator.normal(size=7).astype(np.float32) for name in ("joint_position", "joint_velocity")}
        for topic, sent in bindings.encode_observations(robot, values, 0.05 * k).items():
            received = messages.decode(messages.encode(sent), "sensor_msgs/msg/JointState")
            alignment.take(topic, received, 0.05 * k)
        row = alignment.row(0.05 * k)
        for name, value in values.items():
            assert (row.observation[name] == value).all()
