"""Reports as a SpaceMouse sends them, byte by byte."""

import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.hardware.teleop import spacemouse
from robot_rl.hardware.teleop.device import ANGULAR_SPEED, LINEAR_SPEED, DeviceError
from robot_rl.hardware.teleop.spacemouse import Reports, SpaceMouse, is_spacemouse

RIGHT, BACK, DOWN = "015e0100000000", "0100005e010000", "01000000005e01"  # 0x015e = 350 in the little end
TILT = "025e0100000000"


@pytest.mark.parametrize(
    ("report", "axis", "sign"),
    [(RIGHT, 1, -1), (BACK, 0, -1), (DOWN, 2, -1), (TILT, 4, -1), ("0200005e010000", 3, -1), ("02000000005e01", 5, -1)],
)
def test_full_deflection_becomes_full_speed_in_flu(report, axis, sign):
    reports = Reports()
    assert reports.take(bytes.fromhex(report))
    scale = [LINEAR_SPEED] * 3 + [ANGULAR_SPEED] * 3
    np.testing.assert_allclose(reports.twist, np.eye(6)[axis] * sign * scale[axis])


def test_the_map_to_flu_is_a_rotation():
    columns = []
    for report in (RIGHT, BACK, DOWN):
        reports = Reports()
        reports.take(bytes.fromhex(report))
        columns.append(reports.twist[:3] / LINEAR_SPEED)
    assert np.linalg.det(np.stack(columns, 1)) == pytest.approx(1.0)


def test_newer_models_send_all_six_in_one_report_and_more_than_full_is_full():
    reports = Reports()
    reports.take(b"\x01" + struct.pack("<6h", 0, -700, 0, 0, 0, -175))
    np.testing.assert_allclose(reports.twist, [LINEAR_SPEED, 0, 0, 0, 0, 0.5 * ANGULAR_SPEED])


@given(st.binary(max_size=20))
def test_no_bytes_break_it(data):
    reports = Reports()
    reports.take(data)
    assert np.isfinite(reports.twist).all()


def connected(queue):
    def report():
        item = queue.pop(0) if queue else b""
        if isinstance(item, OSError):
            raise item
        return item

    return lambda: (report, lambda: None)


def test_buttons_silence_and_a_device_that_is_unplugged():
    queue = [bytes.fromhex(BACK), b"\x03\x05\x00"]
    device = SpaceMouse(("gripper", "takeover", "record"), connected(queue))
    with device:
        reading = device.read(1.0)
        assert reading.buttons == {"gripper"}
        assert device.events() == ["record"]
        assert reading.twist[0] < 0
        assert not device.read(2.0).twist.any()  # no report for a while: the cap is at rest
        queue.append(OSError("gone"))
        assert device.read(2.1) is None
        assert device.read(2.2) is not None  # plugged in again


def test_a_device_that_may_not_be_read_is_told_with_the_rule(tmp_path, monkeypatch):
    entry = tmp_path / "hidraw7" / "device"
    entry.mkdir(parents=True)
    (entry / "uevent").write_text("HID_ID=0003:0000256F:0000C635\nHID_NAME=3Dconnexion SpaceMouse Compact\n")
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(PermissionError()))
    with pytest.raises(DeviceError, match=r"(?s)SpaceMouse Compact.*/dev/hidraw7.*udev/rules\.d"):
        spacemouse._connect_hidraw(tmp_path)
    with pytest.raises(DeviceError, match="none is plugged in"):
        spacemouse._connect_hidraw(tmp_path / "empty")


def test_a_logitech_mouse_is_none():
    assert is_spacemouse(0x046D, 0xC62B)
    assert not is_spacemouse(0x046D, 0xC077)
