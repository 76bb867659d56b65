"""The twin alone, against what a real PX4 v1.17 did."""

import math

import pytest

from robot_rl.hardware.px4.px4_twin import RETURN, STEP, Px4Twin
from robot_rl.hardware.ros2 import messages
from robot_rl.sim.drone.vehicle_model import load_vehicle
from tests.hardware.px4.conftest import through_cdr

NAN3 = [math.nan] * 3


def test_a_roll_that_nobody_ends_goes_on_as_far_as_it_did_in_px4():
    """Measured there: return mode 1.09 s after the last message, 1 rad/s of roll on to 84°, about 4 m lost."""
    vehicle = load_vehicle("px4_sih")
    twin = Px4Twin(vehicle)

    def say(base, name, **values):
        twin.receive(base, through_cdr(messages.make(f"px4_msgs/msg/{name}", **values)))

    def stream(seconds, roll=None, orders=()):
        for number in range(round(seconds / STEP)):
            say("offboard_control_mode", "OffboardControlMode", position=roll is None, body_rate=roll is not None)
            if roll is None:
                position = {"position": [0, 0, -10], "velocity": NAN3, "acceleration": NAN3, "jerk": NAN3}
                say("trajectory_setpoint", "TrajectorySetpoint", **position, yaw=0.0, yawspeed=0.0)
            else:
                thrust = [0, 0, -vehicle.hover_throttle]
                say("vehicle_rates_setpoint", "VehicleRatesSetpoint", roll=roll, pitch=0.0, yaw=0.0, thrust_body=thrust)
            for when, command, param1, param2 in orders:
                if number == when:
                    say("vehicle_command", "VehicleCommand", command=command, param1=param1, param2=param2)
            twin.advance()

    stream(25.0, orders=[(150, 176, 1.0, 6.0), (160, 400, 1.0, 0.0)])
    stream(1.0, roll=0.0)
    height = twin.true.position[2]
    assert height == pytest.approx(10, abs=0.1)
    stream(STEP, roll=1.0)
    began, states = twin.time - STEP, []
    for _ in range(600):
        twin.advance()
        states.append((twin.time - began, twin.nav_state, twin.true))
    told = next(after for after, mode, _ in states if mode == RETURN)
    assert told == pytest.approx(1.09, abs=0.03)
    assert math.degrees(max(true.tilt for *_, true in states)) == pytest.approx(84, abs=3)
    assert 2 < height - min(true.position[2] for *_, true in states) < 4.5
    assert math.degrees(states[-1][2].tilt) < 5
