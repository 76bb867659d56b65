import math

import numpy as np
import pytest

from robot_rl import sim
from robot_rl.sim.drone import contact, episode, expert
from robot_rl.sim.drone.batch import DroneBatch
from robot_rl.sim.drone.flight import GRAVITY
from robot_rl.sim.drone.vehicle_model import load_vehicle
from robot_rl.sim.spec import SpecError, resolve

HARD = {"friction": 0.6, "bounce": 0.0}


class Ground:
    """One vehicle without a course, under a constant command; what it does at each 20 ms."""

    def __init__(self, robot, position, parameters=None, level="rates", touches=HARD, **state):
        self.vehicle = load_vehicle(robot)
        self.batch = DroneBatch(self.vehicle, 1, 10, level)
        flown = {**(parameters or {}), "floor": contact.NO_FLOOR}
        self.batch.begin([0], [0], np.array([position], float), parameters=flown, **state)
        self.contacts = [contact.Contact(None, self.vehicle, **touches)]
        self.contacts[0].begin(np.zeros((0, 4)), 1.0)
        self.touched = np.zeros(1)

    def fly(self, seconds: float, command) -> np.ndarray:
        """Odometry at the end of each step [T, 13]."""
        rows = []
        for _ in range(round(seconds / self.batch.period)):
            self.batch.command(np.array([command], float))
            contact.fly(self.batch, self.contacts, self.touched)
            rows.append(self.batch.read("odometry")[0].astype(float))
        return np.array(rows)


def upright(odometry: np.ndarray) -> np.ndarray:
    return 1 - 2 * (odometry[..., 7] ** 2 + odometry[..., 8] ** 2)


@pytest.mark.parametrize("task", ["drone/hover", "drone/gates", "drone/corridor"])
def test_is_the_compiled_flight_until_something_is_touched(task):
    spec = {"task": task, "randomization": "full"}
    plain, touching = sim.make(spec), sim.make({**spec, "contact": "mujoco"})
    (_, info), (_, other) = plain.reset(seed=4), touching.reset(seed=4)
    assert info == other
    for _ in range(100):
        action = expert.act(plain.world)[0]
        one, same = plain.step(action), touching.step(action)
        assert one[1:4] == same[1:4]
        for name, value in one[0].items():
            np.testing.assert_array_equal(same[0][name], value, err_msg=name)
    assert touching.world.metrics(0)["contact_time"] == 0


def test_a_drop_without_bounce_rests_on_the_ground():
    drone = Ground("x500", [0, 0, 0.5])
    flown = drone.fly(2.0, [0.0, 0, 0, 0])
    landed = np.argmax(flown[:, 2] < 0.005)
    assert np.abs(flown[landed:, 2]).max() < 6e-3
    assert flown[landed:, 5].max() < 0.13  # out of what one substep went in
    np.testing.assert_allclose(flown[-1, :3], 0, atol=1e-3)
    np.testing.assert_allclose(flown[-1, 3:6], 0, atol=1e-3)
    assert upright(flown[-1]) > 0.99999
    np.testing.assert_allclose(drone.batch.read("accelerometer")[0], [0, 0, GRAVITY], atol=0.02)
    # The rotors slow down on the way, by their lag of 54 ms.
    assert 2.4 < drone.batch.read("impact")[0, 0] < math.sqrt(2 * GRAVITY * 0.5)
    assert drone.touched[0] == pytest.approx(2.0 - landed * 0.02, abs=0.05)
    risen = drone.fly(1.0, [1.3 * drone.vehicle.hover_throttle, 0, 0, 0])
    assert risen[-1, 2] > 0.5


@pytest.mark.parametrize("bounce", [0.3, 0.6])
def test_bounces_as_it_was_told(bounce):
    drone = Ground("x500", [0, 0, 0.5], touches={"friction": 0.6, "bounce": bounce})
    flown = drone.fly(1.0, [0.0, 0, 0, 0])
    down = np.argmax(np.diff(flown[:, 5]) > 1.0)
    assert flown[down + 1 :, 5].max() / -flown[down, 5] == pytest.approx(bounce, abs=0.06)


def test_slides_to_a_halt_by_coulombs_friction():
    drone = Ground("x500", [0, 0, 0.0])
    drone.fly(1.0, [0.0, 0, 0, 0])
    drone.batch.write("velocity", [[2.0, 0, 0]])
    start = drone.batch.read("position")[0, 0]
    flown = drone.fly(1.0, [0.0, 0, 0, 0])
    assert flown[-1, 0] - start == pytest.approx(2.0**2 / (2 * HARD["friction"] * GRAVITY), rel=0.02)
    np.testing.assert_allclose(flown[-1, 3:6], 0, atol=1e-3)
    assert np.abs(flown[:, 2]).max() < 1e-3


@pytest.mark.parametrize(("wind", "moves"), [(0.9, False), (1.1, True)])
def test_wind_moves_it_beyond_the_friction_cone_alone(wind, moves):
    vehicle = load_vehicle("px4_sih")
    most = HARD["friction"] * vehicle.mass * GRAVITY / vehicle.drag[0]
    drone = Ground("px4_sih", [0, 0, 0.0], {"wind_x": wind * most})
    drone.fly(1.0, [0.0, 0, 0, 0])
    flown = drone.fly(1.0, [0.0, 0, 0, 0])
    assert (flown[-1, 0] - flown[0, 0] > 0.1) == moves
    if not moves:
        assert abs(flown[-1, 0] - flown[0, 0]) < 2e-3


@pytest.mark.parametrize(("tilt", "up"), [(50, 1.0), (130, -1.0)])
def test_tips_over_its_edge_to_the_nearer_side(tilt, up):
    half = math.radians(tilt) / 2
    drone = Ground("cf21B_500", [0, 0, 0.3], quaternion=np.array([[math.cos(half), math.sin(half), 0, 0]]))
    flown = drone.fly(3.0, [0.0, 0, 0, 0])
    assert upright(flown[-1]) == pytest.approx(up, abs=1e-3)
    assert flown[-1, 2] == pytest.approx(0, abs=2e-3)


def test_lies_still_under_rotors_that_do_not_carry_it():
    drone = Ground("cf21B_500", [0, 0, 0.0])
    flown = drone.fly(2.0, [0.5 * drone.vehicle.hover_throttle, 0, 0, 0])
    np.testing.assert_allclose(flown[50:, :2], flown[-1:, :2].repeat(50, 0), atol=1e-3)
    assert np.abs(flown[:, 2]).max() < 1e-3


def at_obstacle(contact_options, x, y, height, heading):
    """A flight at 2 m/s of `drone/gates` from `x`, `y`: odometry [T, 13], the environment and the last step."""
    env = sim.make({"task": "drone/gates", "controller": "velocity", "contact": contact_options})
    env.world.rules[episode.DISTANCE] = 9.0
    env.reset(seed=0)
    odometry = np.zeros((1, 13))
    odometry[0, :3], odometry[0, 3:5] = (x, y, height), (2 * math.cos(heading), 2 * math.sin(heading))
    odometry[0, 6] = 1.0
    env.world.batch.write("odometry", odometry)
    rows = []
    for _ in range(40):
        step = env.step(np.array([2 * math.cos(heading), 2 * math.sin(heading), 0, 0], np.float32))
        rows.append(env.world.batch.read("odometry")[0].astype(float))
        if step[2] or step[3]:
            break
    return np.array(rows), env, step


def test_a_pole_stops_it_and_the_flight_goes_on():
    """Hit by the rim in the middle the hull comes to rest where its radius and the pole's meet."""
    x, y = 0.8, 0.8
    flown, env, (_, _, terminated, truncated, _) = at_obstacle(HARD, x - 0.5, y, 1.0, 0.0)
    assert len(flown) == 40
    assert not terminated
    assert not truncated
    reach = env.world.vehicle.radius + env.world.task["pole_radius"]
    assert flown[:10, 3].max() > 1.5
    hit = np.argmax(flown[:, 3] < 0.5)
    assert 5 < hit < 25
    # The rim turns up or down there as the drone leans: what is left is a few millimetres, and no way through.
    assert np.hypot(flown[:, 0] - x, flown[:, 1] - y).min() > 0.7 * reach
    assert flown[hit, 0] < x
    assert env.world.metrics(0)["contact_time"] > 0
    plain, _, (_, _, terminated, _, _) = at_obstacle(None, x - 0.5, y, 1.0, 0.0)
    assert terminated
    np.testing.assert_array_equal(plain[: hit - 2], flown[: hit - 2])


def test_the_frame_of_a_gate_is_hit_and_its_opening_is_free():
    def through(across: float) -> tuple[np.ndarray, int]:
        flown, env, _ = at_obstacle(HARD, 2.0 + across, -0.5, 0.8, math.pi / 2)
        return flown, env.world.passed[0]

    free, passed = through(0.0)
    assert passed == 1
    assert free[-1, 1] > 0.5
    hit, passed = through(0.28)
    assert passed == 0
    assert hit[:, 1].max() < 0


def test_takes_off_and_lands():
    with sim.make_vector({"task": "drone/takeoff_land", "contact": "mujoco", "randomization": "test"}, 2) as venv:
        _, info = venv.reset(seed=range(2))
        finals = []
        while info["active"].any():
            _, _, terminated, truncated, info = venv.step(expert.act(venv.world))
            finals += [info["final_info"][row] for row in np.flatnonzero(terminated | truncated)]
    assert [final["success"] for final in finals] == [True, True]
    assert all(final["metrics"]["contact_time"] > 0.5 for final in finals)


def test_continues_from_a_state_bit_by_bit_while_it_touches():
    spec = {"task": "drone/takeoff_land", "contact": "mujoco", "randomization": "full", "controller": "position"}
    env, other = sim.make(spec), sim.make(spec)
    action = np.array([3.0, 0, 0.0, 0], np.float32)
    env.reset(seed=2)
    for _ in range(20):
        env.step(action)
    state = env.get_state()
    assert env.world.metrics(0)["contact_time"] > 0.1
    wanted = [env.step(action)[0]["position"] for _ in range(20)]
    other.reset(seed=2)
    other.set_state(state)
    np.testing.assert_array_equal([other.step(action)[0]["position"] for _ in range(20)], wanted)
    assert env.world.metrics(0) == other.world.metrics(0)


def test_the_entry_is_resolved_and_refused():
    spec = resolve({"task": "drone/hover", "contact": "mujoco"})
    assert spec["contact"] == contact.DEFAULTS
    assert resolve(spec) == spec
    assert resolve({"task": "drone/hover"})["contact"] is None
    for wrong in (
        "bullet",
        {"stiffness": 1.0},
        {"bounce": 1.0},
        {"friction": 0.0},
        {"friction": "abc"},
        {"friction": math.inf},
        {"bounce": [0.3]},
    ):
        with pytest.raises(SpecError, match=f"contact.*{next(iter(wrong)) if isinstance(wrong, dict) else wrong}"):
            resolve({"task": "drone/hover", "contact": wrong})
