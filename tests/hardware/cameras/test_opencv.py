"""OpenCV's V4L2 driver against a stand-in for the kernel, and video files as cameras."""

import time

import cv2
import numpy as np
import pytest

from robot_rl.hardware.cameras.camera import CameraError
from robot_rl.hardware.cameras.opencv import OpenCVSource, choose, stamp_of
from robot_rl.hardware.cameras.synthetic import draw, read_number
from robot_rl.hardware.cameras.v4l2 import Format

OFFERED = [
    Format("MJPG", (480, 640), (30.0, 15.0)), Format("YUYV", (480, 640), (30.0,)), Format("YUYV", (1080, 1920), (5.0,)),
    Format("GREY", (800, 1280), ()),
]  # fmt: skip

OPEN = """
from robot_rl.hardware.cameras.camera import Camera, CameraError
from robot_rl.hardware.cameras.opencv import OpenCVSource
def said(**settings):
    try:
        with Camera(OpenCVSource(**{"device": CAMERA, "size": (48, 64)} | settings)) as camera:
            return camera.wait(None, 10.0) is not None
    except CameraError as error:
        return str(error)
"""


def test_pictures_are_rgb_and_stamped_by_the_driver(with_camera):
    code = """
from robot_rl.hardware.cameras.opencv import OpenCVSource
source = OpenCVSource(CAMERA, (48, 64))
source.open()
frames = [source.read() for _ in range(8)]
source.close()
print(json.dumps({
    "shape": frames[0].picture.shape, "dtype": str(frames[0].picture.dtype),
    "stamps": [frame.stamp for frame in frames], "ages": [frame.received - frame.stamp for frame in frames],
    "means": [float(frame.picture.mean()) for frame in frames], "now": time.time(),
}))"""
    told = with_camera(code, latency=200.0)
    assert (told["shape"], told["dtype"]) == ([48, 64, 3], "uint8")
    assert told["now"] - 100 < told["stamps"][0] < told["now"]
    intervals = np.diff(told["stamps"]) * 30
    np.testing.assert_allclose(intervals, np.round(intervals), atol=0.02)  # of the driver, not of this process
    assert min(told["ages"]) > 0.2 - 1e-3
    assert (np.diff(told["means"]) > 0).all()


def test_a_silent_and_an_unplugged_camera_come_back(with_camera):
    code = """
from robot_rl.hardware.cameras import camera as module, opencv
module.RETRY, opencv.SILENT = 0.05, 0.3
camera = module.Camera(opencv.OpenCVSource(CAMERA, (48, 64)))
camera.open()
told = []
for fault in (["silent"], ["silent", "unplugged"]):
    camera.wait(camera.newest(), 10.0)
    for name in fault:
        (STATE / name).touch()
    while not camera.problem or ("unplugged" in fault and "no such device" not in camera.problem):
        time.sleep(0.01)
    told.append(camera.problem)
    for name in fault:
        (STATE / name).unlink()
    while camera.wait(camera.newest(), 10.0) is None:
        pass
print(json.dumps([*told, camera.counts.reconnects]))
camera.close()"""
    silent, unplugged, reconnects = with_camera(code)
    assert "unplugged" in silent or "no picture for" in silent
    assert "no such device" in unplugged
    assert reconnects >= 2


def test_what_is_wrong_is_said_with_what_mends_it(with_camera):
    assert with_camera(OPEN + "print(json.dumps(said()))") is True
    assert "sudo usermod -aG video" in with_camera(OPEN + "print(json.dumps(said()))", "forbidden")
    assert "is in use" in with_camera(OPEN + "print(json.dumps(said()))", "busy")
    assert "gives no pictures" in with_camera(OPEN + "print(json.dumps(said(device=METADATA)))")
    wrong = with_camera(OPEN + "print(json.dumps(said(size=(480, 640))))")
    assert "does not give 480x640 at 30 Hz" in wrong
    assert "YUYV  48x64 at 30/15 Hz, 16x32 at 30 Hz" in wrong


def test_exposure_is_set_in_seconds_or_refused(with_camera):
    code = """
import cv2
source = OpenCVSource(CAMERA, (48, 64), exposure=0.005)
source.open()
values = [source._capture.get(key) for key in (cv2.CAP_PROP_EXPOSURE, cv2.CAP_PROP_AUTO_EXPOSURE)]
source.close()
source = OpenCVSource(CAMERA, (16, 32))
source.open()
values += [source._capture.get(cv2.CAP_PROP_AUTO_EXPOSURE), source.read().picture.shape]
source.close()
print(json.dumps([values, said(exposure=2.0)]))"""
    values, refused = with_camera(OPEN + code)
    assert values == [50, 1, 3, [16, 32, 3]]
    assert "exposure cannot be set to 2 s" in refused


def test_the_first_format_that_fits_is_taken():
    assert choose("x", OFFERED, (480, 640), 30.0) == "MJPG"
    assert choose("x", OFFERED, (480, 640), 30.0, "YUYV") == "YUYV"
    assert choose("x", OFFERED, (800, 1280), 12.0) == "GREY"
    any_size = [Format("NV12", (1080, 1920), (), (48, 64))]
    assert choose("x", any_size, (480, 640), 30.0) == "NV12"
    with pytest.raises(CameraError, match="48x64 to 1080x1920"):
        choose("x", any_size, (2160, 3840), 30.0)
    with pytest.raises(CameraError, match=r"x does not give 1080x1920 at 30 Hz as MJPG(.|\n)*YUYV.*1080x1920 at 5 Hz"):
        choose("x", OFFERED, (1080, 1920), 30.0, "MJPG")


def test_stamps_of_either_clock_become_wall_time_and_others_do_not_count():
    assert stamp_of(499.9, 1e9, 500.0, 1e9) == pytest.approx(1e9 - 0.1)
    assert stamp_of(1e9 - 0.2, 1e9, 500.0, 1e9) == pytest.approx(1e9 - 0.2)
    for driver in (0.0, 501.0, 7e8):
        assert stamp_of(driver, 1e9, 500.0, 1e9 - 0.01) == 1e9 - 0.01


def test_a_video_file_is_a_camera(tmp_path):
    path = str(tmp_path / "video.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 50.0, (64, 48))
    for number in range(5):
        writer.write(np.ascontiguousarray(draw((48, 64), number, 0.0)[..., ::-1]))
    writer.release()
    source = OpenCVSource(path)
    source.open()
    began = time.time()
    frames = [source.read() for _ in range(5)]
    assert [read_number(frame.picture) for frame in frames] == [0, 1, 2, 3, 4]
    red, _, blue = frames[0].picture[20:, 60:].mean(axis=(0, 1))
    assert red > blue
    assert frames[-1].stamp - frames[0].stamp > 3.9 / 50
    assert all(began <= frame.stamp <= time.time() for frame in frames)
    with pytest.raises(CameraError, match="it has ended"):
        source.read()
    source.close()


def test_a_sequence_of_pictures_is_a_camera(tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"frame_{number:03d}.png"), draw((48, 64), number, 0.0))
    source = OpenCVSource(str(tmp_path / "frame_%03d.png"), rate=100.0)
    source.open()
    assert [read_number(source.read().picture) for _ in range(3)] == [0, 1, 2]
    source.close()


def test_devices_that_are_not_there():
    for device, words in (("/dev/video97", "no such device"), ("97", "/dev/video97"), ("film.mp4", "no such file")):
        with pytest.raises(CameraError, match=words):
            OpenCVSource(device).open()
