"""The RealSense source on frames of librealsense's own software device; a camera itself is not at hand."""

import sys
import time

import numpy as np
import pytest

from robot_rl.hardware.cameras.camera import CameraError
from robot_rl.hardware.cameras.realsense import Connection, RealSenseSource

HEIGHT, WIDTH = 48, 64


class SoftwareCamera:
    """Two sensors that give what they are told, through librealsense's own synchroniser."""

    def __init__(self, rs, unit):
        self.rs, self.number, self.unit = rs, 0, unit
        self.device, self.syncer = rs.software_device(), rs.syncer()
        self.streams = {}
        lens = rs.intrinsics()
        lens.width, lens.height, lens.fx, lens.fy, lens.ppx, lens.ppy = WIDTH, HEIGHT, 50.0, 50.0, 32.0, 24.0
        lens.model, lens.coeffs = rs.distortion.none, [0.0] * 5
        for uid, (kind, form, size) in enumerate([
            (rs.stream.color, rs.format.rgb8, 3),
            (rs.stream.depth, rs.format.z16, 2),
        ]):
            stream = rs.video_stream()
            stream.type, stream.index, stream.uid, stream.fmt, stream.bpp = kind, 0, uid + 1, form, size
            stream.width, stream.height, stream.fps, stream.intrinsics = WIDTH, HEIGHT, 30, lens
            sensor = self.device.add_sensor(f"sensor {uid}")
            if size == 2:
                sensor.add_read_only_option(rs.option.depth_units, unit)
            self.streams[size] = (sensor, sensor.add_video_stream(stream))
        same = rs.extrinsics()
        same.rotation, same.translation = [1, 0, 0, 0, 1, 0, 0, 0, 1], [0, 0, 0]
        self.streams[2][1].register_extrinsics_to(self.streams[3][1], same)
        self.device.create_matcher(rs.matchers.default)
        for sensor, profile in self.streams.values():
            sensor.open(profile)
            sensor.start(self.syncer)

    def wait(self, domain=None, stamp=0.0):
        """The first set with both pictures; the synchroniser wants to see some before it gives one."""
        for _ in range(200):
            self.number += 1
            self.give(domain, stamp + self.number / 30)
            time.sleep(0.02)
            frames = self.syncer.poll_for_frames()
            if frames and frames.size() == 2:
                return frames
        raise RuntimeError("the pictures were never together")

    def give(self, domain, stamp):
        for size, (sensor, profile) in self.streams.items():
            frame = self.rs.software_video_frame()
            frame.stride, frame.bpp, frame.frame_number = WIDTH * size, size, self.number
            frame.timestamp, frame.profile = stamp * 1000.0, profile.as_video_stream_profile()
            frame.domain = self.rs.timestamp_domain.global_time if domain is None else domain
            if size == 3:
                frame.pixels = np.full((HEIGHT, WIDTH, 3), [200, 100, 50], np.uint8)
            else:
                frame.pixels, frame.depth_units = np.full((HEIGHT, WIDTH), 1000, np.uint16), self.unit
            sensor.on_video_frame(frame)


@pytest.mark.parametrize(("unit", "millimetres"), [(0.001, 1000), (0.0001, 100)])
def test_colour_depth_number_and_stamp_come_from_the_library(unit, millimetres):
    rs = pytest.importorskip("pyrealsense2")
    camera, now, stopped = SoftwareCamera(rs, unit), time.time(), []
    connection = Connection(lambda: camera.wait(stamp=now), lambda: stopped.append(True), {"fx": 50.0})
    source = RealSenseSource(depth=True, connect=lambda: connection)
    source.open()
    frame = source.read()
    assert source.calibration == {"fx": 50.0}
    assert frame.picture.shape == (HEIGHT, WIDTH, 3)
    assert frame.picture[5, 5].tolist() == [200, 100, 50]
    assert frame.depth.dtype == np.uint16
    assert frame.depth[24, 32] == millimetres
    assert 1 <= frame.number <= camera.number
    assert frame.stamp == pytest.approx(now + frame.number / 30, abs=1e-3)
    source.close()
    assert stopped == [True]


def test_a_stamp_of_the_cameras_own_clock_does_not_count():
    rs = pytest.importorskip("pyrealsense2")
    camera = SoftwareCamera(rs, 0.001)
    own = Connection(lambda: camera.wait(rs.timestamp_domain.hardware_clock, 5000.0), lambda: None, {})
    source = RealSenseSource(connect=lambda: own)
    source.open()
    frame = source.read()
    assert frame.stamp == frame.received
    assert frame.depth is None


def test_a_camera_that_says_nothing_is_lost():
    pytest.importorskip("pyrealsense2")

    def wait():
        raise RuntimeError("Frame didn't arrive within 2000")

    source = RealSenseSource("831612", connect=lambda: Connection(wait, lambda: None, {}))
    source.open()
    with pytest.raises(CameraError, match="realsense 831612: Frame didn't arrive"):
        source.read()


def test_no_camera_and_no_library_are_said(monkeypatch):
    rs = pytest.importorskip("pyrealsense2")
    monkeypatch.setattr(rs, "context", lambda: type("Empty", (), {"query_devices": lambda self: []})())
    with pytest.raises(CameraError, match="not found; there are: none is plugged in"):
        RealSenseSource().open()
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    with pytest.raises(CameraError, match=r"robot_rl\[realsense\]"):
        RealSenseSource().open()
