"""The camera's thread: newest frames with their stamps, counts of what is lost, and a device that comes back."""

import time

import numpy as np
import pytest

from robot_rl.hardware.cameras import camera as module
from robot_rl.hardware.cameras.camera import Camera, CameraError, Frame, Gaps
from robot_rl.hardware.cameras.synthetic import SyntheticSource, read_number

PATIENCE = 30.0
PICTURE = np.zeros((2, 2, 3), np.uint8)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "RETRY", 0.02)


def frames(camera, count):
    found = [camera.wait(None, PATIENCE)]
    while len(found) < count:
        found.append(camera.wait(found[-1], PATIENCE))
    return found


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "nothing came in time"
        time.sleep(0.005)


class Numbered:
    """A source that gives the frames of a list, then is lost; `refusals` is how often it then cannot be opened."""

    name, calibration = "numbered", {}

    def __init__(self, *runs, refusals=0):
        self.runs, self.refusals, self.closed = [list(run) for run in runs], refusals, 0
        self.opened = False

    def open(self):
        if self.opened and self.refusals:
            self.refusals -= 1
            raise CameraError("not yet")
        self.opened = True
        self.run = self.runs.pop(0) if self.runs else []

    def read(self):
        if not self.run:
            raise CameraError("lost")
        return self.run.pop(0)

    def close(self):
        self.closed += 1


def numbered(*numbers):
    return [Frame(PICTURE, float(number), 0.0, number) for number in numbers]


def test_gives_the_newest_frame_and_waits_for_the_next():
    with Camera(SyntheticSource(size=(96, 128), rate=100.0, latency=0.02)) as camera:
        shown = frames(camera, 5)
        assert [read_number(frame.picture) for frame in shown] == [frame.number % 2**16 for frame in shown]
        assert np.all(np.diff([frame.stamp for frame in shown]) > 0)
        for frame in shown:
            assert frame.picture.shape == (96, 128, 3)
            assert frame.received - frame.stamp >= 0.02
            assert frame.stamp == pytest.approx(time.time(), abs=PATIENCE)
        assert camera.newest().number >= shown[-1].number
        assert camera.counts.frames >= 5
    assert camera.wait(camera.newest(), 0.0) is None


def test_counts_what_is_lost_and_connects_again_until_the_device_is_back():
    source = Numbered(numbered(1, 2, 5), numbered(100, 101), refusals=2)
    heard = []
    with Camera(source, lambda frame: heard.append(frame.number)) as camera:
        until(lambda: len(heard) == 5)
        until(lambda: camera.counts.reconnects >= 1)
        assert camera.counts.dropped == 2  # 3 and 4; a device that was away has not dropped 6 to 99
        assert heard == [1, 2, 5, 100, 101]
        assert camera.newest().number == 101
        until(lambda: camera.problem == "lost")
    assert source.closed >= 3


def test_a_stalled_and_an_unplugged_camera_come_back(monkeypatch):
    monkeypatch.setattr("robot_rl.hardware.cameras.synthetic.SILENT", 0.05)
    source = SyntheticSource(size=(32, 32), rate=200.0)
    with Camera(source) as camera:
        frames(camera, 2)
        for fault, words in (("stall", "no picture"), ("disconnect", "not there")):
            source.fault = fault
            until(lambda words=words: words in camera.problem)
            kept = camera.newest()
            source.fault = ""
            assert camera.wait(kept, PATIENCE).stamp > kept.stamp
            until(lambda: camera.problem == "")
        assert camera.counts.reconnects >= 2


def test_a_camera_that_is_missing_at_the_start_is_an_error():
    source = SyntheticSource("left")
    source.fault = "disconnect"
    camera = Camera(source)
    with pytest.raises(CameraError, match="synthetic left: it is not there"):
        camera.open()
    source.fault = ""
    with camera:
        assert camera.wait(None, PATIENCE) is not None


def test_losses_of_the_synthetic_camera_are_those_that_are_counted():
    source = SyntheticSource(size=(32, 32), rate=400.0, drop=0.5, seed=1)
    heard = []
    with Camera(source, lambda frame: heard.append(frame.number)) as camera:
        until(lambda: len(heard) >= 40)
    assert camera.counts.dropped == heard[-1] - heard[0] + 1 - len(heard) > 0


def test_gaps_without_numbers_are_told_by_the_stamps():
    gaps, stamps = Gaps(), [*np.arange(10) / 30, 13 / 30, *(14 / 30 + np.arange(60) / 15)]
    shown = [Frame(PICTURE, stamp, stamp) for stamp in stamps]
    missing = [gaps.between(before, after) for before, after in zip([None, *shown], shown, strict=False)]
    assert missing[:12] == [0] * 10 + [3, 0]
    assert sum(missing[40:]) == 0  # at half the rate, as in the dark, nothing is lost
