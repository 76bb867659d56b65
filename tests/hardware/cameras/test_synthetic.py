"""The synthetic camera's picture keeps its number through what happens to pictures."""

import cv2
import numpy as np
import pytest

from robot_rl.hardware.cameras.camera import CameraError
from robot_rl.hardware.cameras.synthetic import SyntheticSource, draw, read_number


@pytest.mark.parametrize("number", [0, 1, 0b1010101010101010, 65535, 65536 + 77])
def test_the_number_survives_jpeg_and_scaling(number):
    picture = draw((480, 640), number, 0.3)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 60])
    small = cv2.resize(cv2.imdecode(data, cv2.IMREAD_COLOR), (84, 84), interpolation=cv2.INTER_AREA)
    assert read_number(small) == number % 65536


def test_another_picture_has_no_number():
    assert read_number(np.full((48, 64, 3), 128, np.uint8)) is None


def test_the_disc_moves():
    first, second = draw((96, 96), 5, 0.0), draw((96, 96), 5, 0.5)
    assert (first[12:] != second[12:]).any()


def test_impossible_settings_are_refused():
    with pytest.raises(CameraError, match="drop from 0 to below 1"):
        SyntheticSource(drop=1.0)
