"""The task of a vehicle, against the simulator's own flights of it."""

import subprocess
import sys

import numpy as np
import pytest

from robot_rl.datasets import ContractError
from robot_rl.hardware.alignment import StaleError
from robot_rl.hardware.nodes.px4_node import encode_ros_odometry
from robot_rl.hardware.px4 import px4_messages
from robot_rl.hardware.px4.flight_state import Odometry
from robot_rl.hardware.px4.flight_task import FlightTask, environment
from robot_rl.hardware.px4.frames import swap_body
from robot_rl.hardware.px4.px4_codec import decode_inertial
from robot_rl.hardware.px4.twin_cameras import TwinCameras
from robot_rl.hardware.px4.vehicle_file import IMU, ODOMETRY, VehicleFile
from robot_rl.hardware.ros2 import messages
from robot_rl.sim.drone.env import DroneEnv
from robot_rl.sim.drone.expert import act

px4_messages.register()

SEEN = {
    "drone/figure8": ["position", "velocity", "attitude", "body_rates", "reference", "last_action"],
    "drone/gates": ["attitude", "accelerometer", "gyro", "next_gate", "gate_after", "poles", "last_action"],
    "drone/corridor": ["velocity", "accelerometer", "gyro", "attitude", "goal", "last_action", "onboard"],
}


def vehicle(task):
    return VehicleFile.load("px4").for_task(
        [0.0, 0.0, 1.0], {"drone/figure8": "x500", "drone/gates": "cf21B_500", "drone/corridor": "cf21B_500"}[task]
    )


def true(env, time):
    read = env.world.batch.read
    return Odometry(time, *(read(name)[0].astype(float) for name in ("position", "velocity", "quaternion", "rates")))


def told(env, time):
    return encode_ros_odometry(true(env, time))


def felt(env, time):
    read = env.world.batch.read
    message = messages.make(
        "px4_msgs/msg/SensorCombined", accelerometer_m_s2=swap_body(read("accelerometer")[0]),
        gyro_rad=swap_body(read("gyro")[0]),
    )  # fmt: skip
    return decode_inertial(message, time)


@pytest.mark.parametrize(
    ("task", "horizon"),
    [
        ("drone/figure8", 60),
        pytest.param("drone/gates", 500, marks=pytest.mark.slow),
        pytest.param("drone/corridor", 300, marks=pytest.mark.slow),
    ],
)
def test_a_flight_is_observed_and_judged_as_in_the_simulator(task, horizon):
    robot = vehicle(task)
    sizes = {"onboard": (24, 32)} if "onboard" in SEEN[task] else {}
    cameras = {name: list(size) for name, size in sizes.items()}
    whole = DroneEnv({"task": task, "randomization": "none", "horizon": horizon, "cameras": cameras})
    contract = whole.contract.select(SEEN[task])
    env = DroneEnv(environment(robot, contract, task, horizon))
    flight = FlightTask(robot, contract, task, horizon)
    observation, _ = env.reset(seed=3)
    flight.begin(3)
    eyes = TwinCameras(robot, task, sizes, seed=3)
    period, over, info = env.world.period, False, {}
    step = 0
    while not over:
        time = round(5.0 + step * period, 6)
        flight.take(ODOMETRY, told(env, time), time)
        flight.take(IMU, felt(env, time), time)
        for stream, picture, info in eyes.look(true(env, time), time):
            flight.take(stream.topic, picture, time)
            assert info.k[0] == whole.contract.observation["onboard"].calibration["fx"]
        row = flight.row(time)
        assert list(row.observation) == list(contract.observation)
        for name, value in row.observation.items():
            np.testing.assert_allclose(value, observation[name], atol=2e-5, err_msg=name)
            assert row.stamps[name] == pytest.approx(time)
        assert flight.result is None
        (action,) = act(env.world)
        flight.act(action, followed=True)
        observation, _, terminated, truncated, info = env.step(action)
        over, step = terminated or truncated, step + 1
    time = round(5.0 + step * period, 6)
    flight.take(ODOMETRY, told(env, time), time)
    flight.row(time)
    assert info["success"]
    assert flight.result is not None
    assert flight.result["success"] is True
    assert flight.result["steps"] == step
    for name, value in info["metrics"].items():
        assert flight.result[name] == pytest.approx(value, abs=1e-4), name


def test_the_task_waits_for_the_hand_over_and_a_tick_that_is_missed_counts():
    task = "drone/figure8"
    robot = vehicle(task)
    env = DroneEnv(environment(robot, DroneEnv(task).contract, task))
    flight = FlightTask(robot, env.contract.select(SEEN[task]), task)
    flight.begin(0)
    with pytest.raises(StaleError):
        flight.row(1.0)
    env.reset(seed=0)
    begin = env.world.table[0, 0, :3]

    def reference(time, followed):
        time = round(time, 6)
        flight.take(ODOMETRY, told(env, time), time)
        row = flight.row(time).observation
        flight.act(np.array([0.4, 0, 0, 0], np.float32), followed)
        return row["reference"][:3] + row["position"], row["last_action"]

    for step in range(20):
        now, last = reference(1.0 + 0.02 * step, step == 19)
        np.testing.assert_allclose(now, begin, atol=1e-6)
        assert last[0] != pytest.approx(0.4)  # nobody followed it
    now, last = reference(1.0 + 0.02 * 70, True)  # one second later
    np.testing.assert_allclose(now, env.world.table[0, 51, :3], atol=1e-5)
    assert last[0] == pytest.approx(0.4)


FLY = """
import gc
import numpy as np
from numba.core.dispatcher import Dispatcher
from robot_rl.hardware.nodes.px4_node import encode_ros_odometry
from robot_rl.hardware.px4.flight_state import Odometry
from robot_rl.hardware.px4.flight_task import FlightTask
from robot_rl.hardware.px4.vehicle_file import ODOMETRY, VehicleFile
from robot_rl.sim.drone.env import DroneEnv

def loaded():
    return {(each.__qualname__, len(each.signatures)) for each in gc.get_objects() if isinstance(each, Dispatcher)}

contract = DroneEnv("drone/figure8").contract.select(["position", "velocity", "reference", "last_action"])
flight = FlightTask(VehicleFile.load("px4").for_task([0.0, 0.0, 1.0], "x500"), contract, "drone/figure8")
before = loaded()
flight.begin(3)
for step in range(3):
    place, upright = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0, 0.0])
    rest = Odometry(1.0 + 0.02 * step, place, np.zeros(3), upright, np.zeros(3))
    flight.take(ODOMETRY, encode_ros_odometry(rest), rest.stamp)
    flight.row(rest.stamp)
    flight.act(np.array([0.4, 0.0, 0.0, 0.0], np.float32), True)
print(len(before), sorted(loaded() - before))
"""


def test_no_compiled_code_is_loaded_in_flight():
    """It takes half a second, for which the Supervisor does not wait."""
    done = subprocess.run([sys.executable, "-c", FLY], capture_output=True, text=True, check=True, timeout=200)
    known, _, new = done.stdout.strip().partition(" ")
    assert int(known) > 5
    assert new == "[]"


def test_a_vehicle_that_strays_has_failed():
    task = "drone/figure8"
    robot = vehicle(task)
    env = DroneEnv(environment(robot, DroneEnv(task).contract, task))
    env.reset(seed=0)
    flight = FlightTask(robot, env.contract.select(SEEN[task]), task)
    flight.begin(0)
    for step in range(3):
        flight.take(ODOMETRY, told(env, 1.0 + 0.02 * step), 1.0 + 0.02 * step)
        flight.row(1.0 + 0.02 * step)
        flight.act(env.rest_action(), followed=True)
        env.world.batch.write("position", [[0.0, 0.0, 3.0]])
    assert flight.result is not None
    assert flight.result["success"] is False
    assert flight.result["steps"] == 1


def test_what_no_vehicle_tells_cannot_be_observed():
    contract = DroneEnv("drone/figure8").contract
    with pytest.raises(ContractError, match=r"(?s)no optical_flow.*policy.observation"):
        FlightTask(vehicle("drone/figure8"), contract.select(["position", "optical_flow"]), "drone/figure8")
