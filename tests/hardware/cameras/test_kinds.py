"""A camera from what a person writes, and what is said of mistakes in it."""

import pytest

from robot_rl.hardware.cameras.camera import CameraError
from robot_rl.hardware.cameras.kinds import KINDS, defaults, make_source


def test_every_kind_can_be_made():
    for kind in KINDS:
        assert make_source({"kind": kind, "device": "1"}).name.startswith(kind)
        assert "device" in defaults(kind)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "opnecv"}, "did you mean opencv"),
        ({"kind": "opencv", "exposur": 0.01}, "did you mean exposure"),
        ({"kind": "topic", "device": "/a", "rate": 30}, "topic has no setting 'rate'"),
        ({"size": [480]}, "expected height and width"),
        ({"size": [480.0, 640.0]}, "expected height and width"),
        ({"rate": 0}, "rate: expected a number above 0"),
        ({"exposure": "auto"}, "exposure: expected a number above 0 s"),
    ],
)
def test_mistakes_are_named(settings, words):
    with pytest.raises(CameraError, match=words):
        make_source(settings)


def test_what_is_none_is_left_at_its_default():
    assert make_source({"kind": "synthetic", "size": None, "rate": 50.0}).name == "synthetic"
