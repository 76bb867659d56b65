"""The command `robot-rl cameras`, on synthetic cameras and one that films the clock."""

import re

import cv2
import numpy as np
import pytest

from robot_rl import cameras
from robot_rl.cameras import settings
from robot_rl.hardware.cameras import kinds
from robot_rl.hardware.cameras.display_clock import draw, tick_at
from robot_rl.hardware.cameras.synthetic import SyntheticSource, read_number


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("/dev/video2", {"kind": "opencv", "device": "/dev/video2"}),
        ("0", {"kind": "opencv", "device": "0"}),
        ("rtsp://cam/1", {"kind": "opencv", "device": "rtsp://cam/1"}),
        ("/wrist/image_raw", {"kind": "topic", "device": "/wrist/image_raw"}),
        ("topic:wrist", {"kind": "topic", "device": "wrist"}),
        ("realsense", {"kind": "realsense"}),
        ("realsense:8316", {"kind": "realsense", "device": "8316"}),
    ],
)
def test_cameras_are_named_in_a_word(word, expected):
    assert settings(word, {"size": None}) == expected


def test_options_are_settings():
    given = settings("0", {"size": [480, 640], "rate": 30.0, "exposure": None})
    assert given == {"kind": "opencv", "device": "0", "size": [480, 640], "rate": 30.0}


def test_check_tells_what_came_and_saves_what_is_seen(tmp_path, capsys):
    arguments = ["check", "synthetic:left", "synthetic:right", "--size", "96x128", "--rate", "50", "--seconds", "1"]
    assert cameras.main([*arguments, "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("96x128") == 2
    assert len(re.findall(r"rate +\d+\.\d\d Hz, by the stamps; \d+ pictures", out)) == 2
    for name in ("left", "right"):
        picture = cv2.imread(str(tmp_path / f"synthetic_{name}.png"))
        assert read_number(picture) is not None
        blue, _, red = picture[-1, -1]
        assert (blue, red) == pytest.approx((110, 160), abs=3)


def test_check_fails_where_nothing_comes(tmp_path, capsys):
    assert cameras.main(["check", "synthetic", "--seconds", "0", "--output", str(tmp_path)]) == 1
    assert "too few pictures" in capsys.readouterr().err


def test_a_wrong_size_is_an_error_of_usage(capsys):
    with pytest.raises(SystemExit):
        cameras.main(["check", "synthetic", "--size", "480"])
    assert "expected HEIGHTxWIDTH such as 480x640" in capsys.readouterr().err


def test_list_without_cameras_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr("robot_rl.hardware.cameras.v4l2.devices", list)
    monkeypatch.setattr("robot_rl.hardware.cameras.realsense.cameras", list)
    assert cameras.main(["list"]) == 0
    assert "No camera. Plug one in" in capsys.readouterr().out


class Filming(SyntheticSource):
    """A camera before the clock, late by a known time and stamped late by another."""

    latency, late = 0.12, 0.04

    def __init__(self, device="", size=(480, 640), rate=40.0):
        super().__init__(device, size, rate, self.latency, scene=self._film)

    def _film(self, now):
        pattern = np.pad(draw(tick_at(now), 12), 40, constant_values=255)
        return np.repeat(cv2.GaussianBlur(pattern, (0, 0), 1.5)[..., None], 3, axis=2)

    def read(self):
        frame = super().read()
        return type(frame)(frame.picture, frame.stamp + self.late, frame.received, frame.number)


def test_latency_of_a_camera_that_films_the_clock(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(kinds, "_class", lambda kind: Filming)
    assert cameras.main(["check", "synthetic", "--latency", "--seconds", "2", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "Open http://127.0.0.1:" in out
    measured = float(out.rsplit("latency:", 1)[1])
    assert measured == pytest.approx(Filming.late, abs=1 / 30)
    assert (tmp_path / "synthetic.png").exists()


def test_a_camera_that_sees_no_clock_is_told_how(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cameras, "AIMING", 0.3)
    assert cameras.main(["check", "synthetic", "--latency", "--size", "96x128", "--output", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "all four corners visible" in said.err
    assert (tmp_path / "synthetic.png").exists()
