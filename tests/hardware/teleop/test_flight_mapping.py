"""From twists to velocities of a vehicle: heading, speeds, rest, and what does not fit."""

import numpy as np
import pytest

from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.teleop.device import ANGULAR_SPEED, LINEAR_SPEED, DeviceError, Reading
from robot_rl.hardware.teleop.devices import make_device
from robot_rl.hardware.teleop.flight_mapping import FlightMapping
from robot_rl.hardware.teleop.mapping import Mapping, MappingError, Settings

PX4 = VehicleFile.load("px4")
CONTRACT = PX4.with_controller("px4_velocity").contract


def mapping(**settings):
    given = {"frame": "heading", "linear_speed": 2.0, "angular_speed": 1.0, "smoothing": 0.0, "dead_band": 0.0}
    return FlightMapping(CONTRACT, Settings(**{**given, **settings}))


def attitude(yaw, roll=0.0):
    """Turned by yaw, and then rolled about its nose."""
    c, s, cr, sr = np.cos(yaw / 2), np.sin(yaw / 2), np.cos(roll / 2), np.sin(roll / 2)
    return np.array([c * cr, c * sr, s * sr, s * cr])


def twist(*parts):
    return Reading(0.0, twist=np.array(parts, float) * np.repeat([LINEAR_SPEED, ANGULAR_SPEED], 3))


@pytest.mark.parametrize(
    ("parts", "yaw", "expected"),
    [
        ((1, 0, 0, 0, 0, 0), 0.0, [2, 0, 0, 0]),  # east
        ((1, 0, 0, 0, 0, 0), np.pi / 2, [0, 2, 0, 0]),  # north
        ((0, 0.5, 0, 0, 0, 0), np.pi / 2, [-1, 0, 0, 0]),  # left of north: west
        ((0, 0, -1, 0, 0, 1), 1.0, [0, 0, -2, 1]),
        ((0, 0, 0, 1, 1, 0), 1.0, [0, 0, 0, 0]),  # roll and pitch are the vehicle's own
        ((1, 1, 0, 0, 0, 0), 0.0, [2**0.5, 2**0.5, 0, 0]),  # no faster along the diagonal
    ],
)
def test_full_deflection_flies_at_full_speed_where_the_nose_points(parts, yaw, expected):
    flown = mapping()
    flown.begin(attitude(yaw))
    np.testing.assert_allclose(flown.step(twist(*parts), attitude(yaw, roll=0.3), 0.0, 0.02), expected, atol=1e-9)


def test_by_the_world_the_nose_does_not_count():
    flown = mapping(frame="base", yaw=np.pi)
    np.testing.assert_allclose(flown.step(twist(1, 0, 0, 0, 0, 0), attitude(1.0), 0.0, 0.02), [-2, 0, 0, 0], atol=1e-9)


def test_the_speed_comes_softly_and_goes_at_once():
    flown = mapping(smoothing=0.1, slow=0.25)
    speeds = [flown.step(twist(1, 0, 0, 0, 0, 0), attitude(0.0), 0.0, 0.02)[0] for _ in range(50)]
    assert 0.0 < speeds[0] < 0.5
    assert speeds[-1] == pytest.approx(2.0, abs=0.01)
    assert not flown.step(twist(0, 0, 0, 0, 0, 0), attitude(0.0), 0.0, 0.02).any()
    slow = Reading(0.0, twist=np.array([LINEAR_SPEED, 0, 0, 0, 0, 0]), buttons=frozenset({"slow"}))
    for _ in range(50):
        action = flown.step(slow, attitude(0.0), 0.0, 0.02)
    assert action[0] == pytest.approx(0.5, abs=0.01)


def test_what_asks_for_the_vehicle():
    flown = mapping(dead_band=0.05)
    assert flown.is_moved(twist(0.1, 0, 0, 0, 0, 0))
    assert not flown.is_moved(twist(0.04, 0, 0, 1, 1, 0))
    assert flown.is_moved(Reading(0.0, twist=np.zeros(6), buttons=frozenset({"takeover"})))


def test_what_does_not_fit_is_told():
    with pytest.raises(MappingError, match="px4_velocity"):
        FlightMapping(PX4.contract, Settings(frame="heading"))
    with pytest.raises(MappingError, match="heading or base"):
        FlightMapping(CONTRACT, Settings(frame="tool"))
    with pytest.raises(MappingError, match="heading is of a vehicle"):
        Mapping(RobotFile.load("panda").contract, None, Settings(frame="heading"))
    with pytest.raises(MappingError, match="twists alone"):
        mapping().step(Reading(0.0, joint_position=np.zeros(7)), attitude(0.0), 0.0, 0.02)
    for device in ("leader", "pose"):
        with pytest.raises(DeviceError, match="does not move a vehicle"):
            make_device(device, None, PX4)
