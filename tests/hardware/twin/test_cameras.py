"""CameraThread: pictures equal to the simulation's, every camera in its turn, and a clean end."""

import threading
import time

import numpy as np
import pytest

from robot_rl import sim
from robot_rl.hardware.twin.cameras import CameraThread
from robot_rl.hardware.twin.twin import Twin

pytestmark = pytest.mark.render
SPEC = {"task": "lift", "cameras": {"agentview": [24, 32], "robot0_eye_in_hand": [16, 16]}}


@pytest.fixture
def twin():
    twin = Twin(SPEC, seed=3)
    yield twin
    twin.close()


def test_renders_the_state_it_was_asked_for_though_the_twin_goes_on(twin):
    expected = sim.make(SPEC).reset(seed=3)[0]
    pictures, complete = {}, threading.Event()

    def deliver(camera, stamp, picture):
        pictures[camera] = (stamp, picture)
        if len(pictures) == 2:
            complete.set()

    cameras = CameraThread(twin, deliver)
    for camera in SPEC["cameras"]:
        cameras.request(camera, 5.0)
    twin.follow(np.array([0.2]), (twin.state()["joint_position"] + 0.05)[None])
    twin.advance(0.5)
    assert complete.wait(60)
    cameras.close()
    for camera, (stamp, picture) in pictures.items():
        assert stamp == 5.0
        np.testing.assert_array_equal(picture, expected[camera])
    assert cameras.skipped == 0


def test_a_camera_that_is_asked_for_again_does_not_push_the_others_aside(twin):
    begun, go_on, delivered = threading.Event(), threading.Event(), []

    def deliver(camera, stamp, picture):
        delivered.append((camera, stamp))
        begun.set()
        assert go_on.wait(60)

    cameras = CameraThread(twin, deliver)
    cameras.request("agentview", 0.0)
    assert begun.wait(60)
    for stamp in (1.0, 2.0, 3.0):
        cameras.request("agentview", stamp)
        cameras.request("robot0_eye_in_hand", stamp)
    assert cameras.skipped == 4
    go_on.set()
    while len(delivered) < 3:
        time.sleep(0.01)
    cameras.close()
    assert delivered == [("agentview", 0.0), ("agentview", 3.0), ("robot0_eye_in_hand", 3.0)]


def test_without_opengl_says_so_at_once(twin, monkeypatch):
    from robot_rl.hardware.twin import cameras as twin_cameras
    from robot_rl.sim.render import RenderError

    def refuse(*_):
        raise RenderError("cannot render here")

    monkeypatch.setattr(twin_cameras, "Renderer", refuse)
    with pytest.raises(RenderError, match="cannot render here"):
        CameraThread(twin, lambda *_: None)
