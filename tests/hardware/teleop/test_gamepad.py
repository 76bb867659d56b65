"""Events as evdev sends them, through a named pipe; and mapping files."""

import os

import numpy as np
import pytest

from robot_rl.hardware.teleop.control_map import FOLDER, MOVES, ControlMap
from robot_rl.hardware.teleop.device import ANGULAR_SPEED, LINEAR_SPEED, DeviceError
from robot_rl.hardware.teleop.gamepad import AXES, BUTTONS, EVENT, Controls, Gamepad

CODES = {name: code for code, name in (AXES | BUTTONS).items()}


def event(name, value):
    return EVENT.pack(0, 0, 3 if name.startswith("ABS") else 1, CODES[name], value) + EVENT.pack(0, 0, 0, 0, 0)


@pytest.fixture
def pad(tmp_path):
    path = tmp_path / "event0"
    os.mkfifo(path)
    device = Gamepad(ControlMap.load("gamepad"), str(path))
    device.open()
    writer = os.open(path, os.O_WRONLY)
    yield device, lambda *events: os.write(writer, b"".join(events))
    device.close()
    os.close(writer)


@pytest.mark.parametrize(
    ("control", "value", "move", "sign"),
    [("ABS_Y", -32768, "x", 1), ("ABS_X", -32768, "y", 1), ("ABS_RY", -32768, "z", 1), ("ABS_RX", -32768, "yaw", 1),
     ("ABS_HAT0X", 1, "roll", 1), ("ABS_HAT0Y", 1, "pitch", 1)],
)  # fmt: skip
def test_sticks_move_as_the_mapping_file_says(pad, control, value, move, sign):
    device, send = pad
    send(event(control, value))
    index = MOVES.index(move)
    expected = np.eye(6)[index] * sign * (LINEAR_SPEED if index < 3 else ANGULAR_SPEED)
    np.testing.assert_allclose(device.read(1.0).twist, expected, atol=1e-9)


def test_buttons_are_held_or_said_once(pad):
    device, send = pad
    send(event("BTN_TR", 1), event("BTN_NORTH", 1))
    assert device.read(1.0).buttons == {"takeover"}
    device.read(1.1)
    assert device.events() == ["success"]
    send(event("BTN_TR", 0), event("BTN_NORTH", 0), event("BTN_NORTH", 1))
    device.read(1.2)
    assert device.read(1.2).buttons == set()


def test_ranges_of_the_device_count():
    controls = Controls({"ABS_X": (0, 255)})
    for value, wanted in ((0, -1.0), (255, 1.0), (127.5, 0.0)):
        controls.take(event("ABS_X", int(value)))
        assert controls.axes["ABS_X"] == pytest.approx(wanted, abs=0.01)


def test_a_gamepad_that_is_missing_or_forbidden(tmp_path, monkeypatch):
    with pytest.raises(DeviceError, match="by-id"):
        Gamepad(ControlMap.load("gamepad"), str(tmp_path / "none")).open()
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(PermissionError()))
    with pytest.raises(DeviceError, match=r"udev/rules\.d"):
        Gamepad(ControlMap.load("gamepad"), "/dev/input/event5").open()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_files_that_ship_move_every_axis_and_say_the_main_words(path):
    controls = ControlMap.load(path)
    flies = path.stem.endswith("flight")
    assert {moves for moves, _ in controls.axes.values()} == set(MOVES) - ({"roll", "pitch"} if flies else set())
    words = {"takeover", "record", "success", "failure", "discard", "redo", "home", "stop"}
    assert words | {"land" if flies else "gripper"} <= set(controls.buttons.values())
    if not path.stem.startswith("joy"):
        assert {control.rstrip("+-") for control in (*controls.axes, *controls.buttons)} <= set(CODES)


def test_a_mapping_file_that_makes_no_sense_is_told(tmp_path):
    path = tmp_path / "pad.yaml"
    path.write_text("axes: {ABS_X: {moves: sideways}}\nbuttons: {BTN_SOUTH: jump}\n")
    with pytest.raises(DeviceError, match=r"sideways.*jump.*expected x, y"):
        ControlMap.load(path)
    with pytest.raises(DeviceError, match="cannot be read"):
        ControlMap.load(tmp_path / "none.yaml")
