import mujoco
import numpy as np
import pytest

from robot_rl.sim.drone.batch import DroneBatch
from robot_rl.sim.drone.flight import GRAVITY, LANES, PARAMETERS, ROWS, STATE, SUBSTEP
from robot_rl.sim.drone.vehicle_model import Vehicle, available, load_vehicle

from .reference import Reference

VEHICLES = available()
NO_RATE_LOOP = {f"rate_{gain}{axis}": 0.0 for gain in "pid" for axis in "xyz"}
SKY = {"floor": -1e6}


def fly(vehicle: Vehicle, seconds: float, command, *, level="rates", start=None, parameters=None, num=1, **state):
    """All positions, velocities and rates [T, N, 3] of a flight under `command(t)` at 500 Hz."""
    batch = DroneBatch(vehicle, num, 1, level)
    start = np.zeros(3) if start is None else start
    batch.begin(np.arange(num), np.arange(num), start, parameters={**SKY, **(parameters or {})}, **state)
    rows = []
    for step in range(round(seconds / SUBSTEP)):
        batch.command(np.broadcast_to(np.asarray(command(step * SUBSTEP), float), (num, len(command(0.0)))))
        batch.step()
        rows.append([batch.read(name) for name in ("position", "velocity", "rates")])
    positions, velocities, rates = (np.stack(series) for series in zip(*rows, strict=True))
    return batch, positions, velocities, rates


@pytest.fixture
def sih() -> Vehicle:
    return load_vehicle("px4_sih")


@pytest.mark.parametrize("name", VEHICLES)
def test_hovers_at_its_hover_throttle(name):
    vehicle = load_vehicle(name)
    _, positions, _, _ = fly(vehicle, 2.0, lambda t: [vehicle.hover_throttle, 0, 0, 0])
    assert np.abs(positions).max() < 1e-4


def test_the_hover_throttles_are_those_of_the_sources(sih):
    assert sih.hover_throttle == pytest.approx(0.4905)
    assert load_vehicle("sousvide").hover_throttle == pytest.approx(0.407, abs=1e-3)
    assert 1 / load_vehicle("cf2x").hover_throttle == pytest.approx(2.25)
    assert 1 / load_vehicle("racer").hover_throttle == pytest.approx(4.17)


def test_falls_freely():
    vehicle = load_vehicle("cf2x")
    _, positions, velocities, _ = fly(vehicle, 1.0, lambda t: [0.0, 0, 0, 0])
    t = np.arange(1, 501) * SUBSTEP
    np.testing.assert_allclose(velocities[:, 0, 2], -GRAVITY * t, rtol=1e-4, atol=2e-3)
    np.testing.assert_allclose(positions[:, 0, 2], -GRAVITY * t**2 / 2, rtol=1e-3, atol=2e-3)


def test_falls_at_terminal_velocity_relative_to_the_air(sih):
    wind = {"wind_x": 3.0, "wind_z": 1.0, **NO_RATE_LOOP}
    _, _, velocities, _ = fly(sih, 12.0, lambda t: [0.0, 0, 0, 0], parameters=wind)
    np.testing.assert_allclose(velocities[-1, 0], [3.0, 0.0, 1.0 - sih.mass * GRAVITY / sih.drag[1]], atol=1e-3)


def test_a_pure_spin_goes_on():
    vehicle = load_vehicle("racer")
    spin = np.array([0.0, 0.0, 8.0])
    batch, _, _, rates = fly(vehicle, 1.0, lambda t: [0.0, 0, 0, 0], parameters=NO_RATE_LOOP, rates=spin)
    np.testing.assert_allclose(rates[-1, 0], spin, atol=1e-5)
    w, _, _, z = batch.read("quaternion")[0].astype(float)
    assert np.angle((w + 1j * z) ** 2 * np.exp(-8j)) == pytest.approx(0, abs=1e-4)


FULL = (0.02, 0.03, 0.045, 0.003, -0.002, 0.004)


def tumbling(inertia=FULL) -> Vehicle:
    thrust = {"linear": 5.0, "quadratic": 0.0, "maximum": 5.0}
    return Vehicle("tumbler", 1.0, inertia, (0.2, 0.15), thrust, 0.02, (0.0, 0.0), (9.0, 9.0, 9.0))


def test_tumbling_conserves_angular_momentum_and_energy():
    vehicle = tumbling()
    start = np.array([4.0, -3.0, 5.0])
    batch, _, _, rates = fly(vehicle, 3.0, lambda t: [0.0, 0, 0, 0], parameters=NO_RATE_LOOP, rates=start)
    w, x, y, z = batch.read("quaternion")[0].astype(float)
    turn = np.empty(9)
    mujoco.mju_quat2Mat(turn, np.array([w, x, y, z]))
    matrix, last = vehicle.inertia_matrix, rates[-1, 0]
    # The filter's first substep lets the rotors spin down from hover: no torque, so nothing is left of it.
    np.testing.assert_allclose(turn.reshape(3, 3) @ matrix @ last, matrix @ start, rtol=2e-4, atol=2e-4)
    assert last @ matrix @ last == pytest.approx(start @ matrix @ start, rel=2e-4)


def test_moves_like_a_free_body_of_mujoco():
    vehicle = tumbling()
    xx, yy, zz, xy, xz, yz = FULL
    model = mujoco.MjModel.from_xml_string(f"""
        <mujoco><option timestep="0.0002" integrator="RK4" gravity="0 0 -{GRAVITY}"/><worldbody><body name="b">
        <freejoint/><inertial pos="0 0 0" mass="1" fullinertia="{xx} {yy} {zz} {xy} {xz} {yz}"/></body></worldbody>
        </mujoco>""")
    data = mujoco.MjData(model)
    mujoco.mj_resetData(model, data)
    torque = np.array([0.05, -0.08, 0.03])
    # Constant torques: the integral asks for them, and nothing else does.
    asked = torque / np.array([4 * 0.15 * 5, 4 * 0.2 * 5, 4 * 0.02 * 5]) * np.array([2**0.5, 2**0.5, 1])
    batch = DroneBatch(vehicle, 1, 1)
    batch.begin(
        [0], [0], np.zeros(3), rates=np.array([1.0, 2.0, -1.0]), parameters={**SKY, **NO_RATE_LOOP, "rate_lim": 9.0}
    )
    for axis, name in enumerate(("ix", "iy", "iz")):
        batch._put(np.array([0]), name, asked[axis])
    data.qvel[3:] = [1.0, 2.0, -1.0]
    throttle = 0.5
    for _ in range(500):
        batch.command(np.array([[throttle, 0, 0, 0]]))
        batch.step()
        for _ in range(10):
            turn = data.xmat[1].reshape(3, 3) if data.time else np.eye(3)
            data.xfrc_applied[1] = [*(turn @ [0, 0, 4 * 5 * throttle]), *(turn @ torque)]
            mujoco.mj_step(model, data)
    np.testing.assert_allclose(batch.read("position")[0], data.qpos[:3], atol=2e-3)
    np.testing.assert_allclose(batch.read("quaternion")[0], data.qpos[3:], atol=2e-4)
    np.testing.assert_allclose(batch.read("rates")[0], data.qvel[3:], atol=5e-3)


def test_rotors_that_spin_turn_a_roll_into_a_pitch():
    """The gyroscopic torque of a rotor momentum h along z is -w x h: (-wy h, wx h, 0)."""
    vehicle = tumbling((0.02, 0.02, 0.04))
    batch = DroneBatch(vehicle, 1, 1)
    batch.begin(
        [0],
        [0],
        np.zeros(3),
        rates=np.array([1.0, 0, 0]),
        parameters={**SKY, **NO_RATE_LOOP, "rotor_h": 1e-3, "torque": 0.0},
    )
    batch._put(np.array([0]), "iz", -0.2)  # Slows the clockwise rotors: the momentum points up.
    batch.write("rotors", [0.7, 0.7, 0.3, 0.3])
    for _ in range(2):
        batch.command(np.array([[0.5, 0, 0, 0]]))
        batch.step()
    momentum = 1e-3 * 4 * 0.2
    x, y, _ = batch.read("rates")[0]
    assert y == pytest.approx(2 * SUBSTEP * momentum / 0.02, rel=0.05)
    assert x == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "x500",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("cf2x", "cf2x_L250", "cf21B_500", "px4_sih", "racer")
        ),
    ],
)
def test_follows_rk4_at_a_tenth_of_the_step(name):
    vehicle = load_vehicle(name)
    wind = (2.0, -1.0, 0.5)
    reference, worst, steepest = Reference(vehicle, wind), 0.0, 1.0
    batch = DroneBatch(vehicle, 1, 1)
    batch.begin(
        [0], [0], np.zeros(3), parameters={**SKY, **dict(zip(("wind_x", "wind_y", "wind_z"), wind, strict=True))}
    )
    for step in range(1000):
        t = step * SUBSTEP
        swing = min(1.0, 2 * t)
        throttle = vehicle.hover_throttle * (1 + 0.2 * np.sin(5 * t))
        rates = swing * np.array([3.0 * np.sin(4 * t), 2.5 * np.cos(3 * t), 0.3 * np.sin(2 * t)])
        reference.step(throttle, rates)
        batch.command(np.array([[throttle, *rates]]))
        batch.step()
        worst = max(worst, np.abs(batch.read("position")[0] - reference.p).max())
        steepest = min(steepest, 1 - 2 * (reference.q[1] ** 2 + reference.q[2] ** 2))
    assert steepest < 0.5, "the flight is not aggressive"
    assert worst < 1e-3
    np.testing.assert_allclose(batch.read("rotors")[0] * vehicle.greatest_speed, reference.speed, rtol=1e-4)


def test_direct_rates_are_followed_exactly():
    vehicle = load_vehicle("sousvide")
    batch, _, _, rates = fly(vehicle, 0.5, lambda t: [vehicle.hover_throttle, 1.0, 0, 0])
    np.testing.assert_allclose(rates[0, 0], [1.0, 0, 0], atol=1e-6)
    w, x, _, _ = batch.read("quaternion")[0]
    assert 2 * np.arctan2(x, w) == pytest.approx(0.5, abs=1e-4)


def test_mirrored_commands_give_mirrored_flights(sih):
    fast = {"rotor_h": 0.0}
    command = np.array([[0.55, 1.0, 0.4, 0.0], [0.55, -1.0, 0.4, 0.0], [0.55, 1.0, -0.4, 0.0]])
    batch = DroneBatch(sih, 3, 1)
    batch.begin(range(3), range(3), np.zeros(3), parameters={**SKY, **fast})
    for _ in range(400):
        batch.command(command)
        batch.step()
    a, b, c = batch.read("position").astype(float)
    np.testing.assert_allclose(a * [1, -1, 1], b, atol=1e-5)
    np.testing.assert_allclose(a * [-1, 1, 1], c, atol=1e-5)


def test_the_mixer_gives_yaw_away_first(sih):
    """At full thrust a yaw command changes nothing but a little thrust, a roll command is obeyed."""
    batch = DroneBatch(sih, 2, 1)
    batch.begin(range(2), range(2), np.zeros(3), parameters=SKY)
    for _ in range(50):
        batch.command(np.array([[1.0, 3.0, 0, 0], [0.0, 3.0, 0, 3.0]]))
        batch.step()
    full, empty = batch.read("rotors")
    assert full[1] > full[0] + 0.2
    assert full.max() <= 1.0
    np.testing.assert_allclose(empty, empty[0], atol=1e-6)


@pytest.mark.parametrize("name", VEHICLES)
def test_rates_settle_quickly_and_without_much_overshoot(name):
    vehicle = load_vehicle(name)
    _, _, _, rates = fly(vehicle, 1.0, lambda t: [vehicle.hover_throttle, 1.0, 0, 0])
    roll = rates[:, 0, 0]
    assert np.argmax(roll > 0.9) * SUBSTEP < 0.2
    assert roll.max() < 1.25
    assert abs(roll[-1] - 1) < 0.06
    assert np.abs(rates[:, 0, 1:]).max() < 0.02


@pytest.mark.parametrize("name", VEHICLES)
def test_attitude_velocity_and_position_are_reached(name):
    vehicle = load_vehicle(name)
    half = np.radians(10)
    batch, *_ = fly(
        vehicle, 2.0, lambda t: [vehicle.hover_throttle, np.cos(half), np.sin(half), 0, 0], level="attitude"
    )
    np.testing.assert_allclose(batch.read("quaternion")[0], [np.cos(half), np.sin(half), 0, 0], atol=0.02)

    batch, _, velocities, _ = fly(vehicle, 12.0, lambda t: [1.0, 0.5, 0.3, 0.5], level="velocity")
    np.testing.assert_allclose(velocities[-1, 0], [1.0, 0.5, 0.3], atol=0.1)
    assert batch.read("rates")[0, 2] == pytest.approx(0.5, abs=0.1)

    yaw = 1.0
    goal = [1.0, -0.5, 0.7, np.cos(yaw / 2), np.sin(yaw / 2)]
    batch, positions, _, _ = fly(vehicle, 12.0, lambda t: goal, level="position")
    np.testing.assert_allclose(positions[-1, 0], goal[:3], atol=0.05)
    assert positions[:, 0, 0].max() < 1.25
    np.testing.assert_allclose(np.abs(batch.read("quaternion")[0, [0, 3]]), goal[3:], atol=0.05)


def test_velocity_and_tilt_keep_their_limits(sih):
    batch = DroneBatch(sih, 1, 1, "position")
    batch.begin([0], [0], np.array([0, 0, 50.0]), parameters=SKY)
    fastest, tilt = np.zeros(3), 0.0
    for _ in range(4000):
        batch.command(np.array([[100.0, 0, 0, 1, 0]]))
        batch.step()
        fastest = np.maximum(fastest, np.abs(batch.read("velocity")[0]))
        _, x, y, _ = batch.read("quaternion")[0]
        tilt = max(tilt, np.arccos(1 - 2 * (x * x + y * y)))
    assert fastest[2] < 1.5 * 1.1
    assert tilt < np.radians(50)
    assert 4 < fastest[0] < 12.5


def test_the_battery_sags():
    vehicle = load_vehicle("x500")
    sag = {"sag_empty": 0.2, "sag_load": 0.1, "drain": 0.002, "charge": 1.0}
    _, positions, _, _ = fly(vehicle, 2.0, lambda t: [vehicle.hover_throttle, 0, 0, 0], parameters=sag)
    batch, *_ = fly(vehicle, 6.0, lambda t: [1.0, 0, 0, 0], parameters=sag)
    assert positions[-1, 0, 2] < -0.3, "under load the same throttle lifts less"
    assert batch.read("charge")[0, 0] < 0.5
    assert batch.read("rotors").max() < 0.95


def test_the_ground_holds_and_tells_how_hard_it_was_touched(sih):
    batch = DroneBatch(sih, 1, 10)
    batch.begin([0], [0], np.array([0, 0, 0.5]))
    for _ in range(100):
        batch.command(np.array([[0.4, 0, 0, 0]]))
        batch.step()
    assert batch.read("position")[0, 2] == 0
    assert (batch.read("velocity") == 0).all()
    assert 0.5 < batch.read("impact")[0, 0] < 3.0
    for _ in range(50):
        batch.command(np.array([[0.7, 0, 0, 0]]))
        batch.step()
    assert batch.read("position")[0, 2] > 0.5


def test_the_accelerometer_feels_all_but_gravity(sih):
    bias = {"acb_x": 0.1, "gyr_z": 0.02}
    batch, *_ = fly(sih, 1.0, lambda t: [sih.hover_throttle, 0, 0, 0], parameters=bias)
    np.testing.assert_allclose(batch.read("accelerometer")[0], [0.1, 0, GRAVITY], atol=0.02)
    assert batch.read("gyro")[0, 2] - batch.read("rates")[0, 2] == pytest.approx(0.02, abs=1e-6)
    batch, *_ = fly(load_vehicle("cf2x"), 0.5, lambda t: [0.0, 0, 0, 0])
    np.testing.assert_allclose(batch.read("accelerometer")[0], 0, atol=1e-3)


def test_noise_is_white_and_each_drone_has_its_own():
    vehicle = load_vehicle("x500")
    batch = DroneBatch(vehicle, 64, 1)
    batch.begin(range(64), range(64), np.zeros(3), parameters={**SKY, "gyr_n": 0.1, "acb_n": 0.5, **NO_RATE_LOOP})
    series = []
    for _ in range(400):
        batch.step()
        series.append(
            np.concatenate([(batch.read("gyro") - batch.read("rates")) / 0.1, batch.read("accelerometer") / 0.5], 1)
        )
    noise = np.stack(series)
    noise[..., 5] -= GRAVITY / 0.5
    assert np.abs(noise.mean((0, 1))).max() < 0.05
    np.testing.assert_allclose(noise.std((0, 1)), 1.0, atol=0.05)
    flat = noise.reshape(400, -1)
    correlation = np.corrcoef(flat.T) - np.eye(flat.shape[1])
    assert np.abs(correlation).max() < 0.3
    assert np.abs(np.mean(flat[1:] * flat[:-1], 0)).max() < 0.25


def noisy_batch(num: int, seeds, vehicle) -> DroneBatch:
    batch = DroneBatch(vehicle, num, 5)
    batch.begin(np.arange(num), seeds, np.zeros(3), parameters={
        **SKY, "gyr_n": 0.05, "acb_n": 0.2,
        "gust_u": 0.3, "gust_a": 0.9, "gust_b": 0.9, "gust_d": 0.8, "gust_v": 2.0, "gust_w": 1.0,
        "gust_c": 1.0, "kick_p": 0.2, "kick_v": 0.3, "kick_w": 0.5,
    })  # fmt: skip
    return batch


def test_a_flight_depends_on_its_seed_alone():
    vehicle = load_vehicle("x500")
    few, many = noisy_batch(1, [7], vehicle), noisy_batch(LANES + 5, range(LANES + 5), vehicle)
    for _ in range(100):
        few.step()
        many.step()
    np.testing.assert_array_equal(few.read("position")[0], many.read("position")[7])
    assert not np.array_equal(many.read("position")[7], many.read("position")[8])


def test_continues_from_a_state_bit_by_bit():
    vehicle = load_vehicle("x500")
    batch = noisy_batch(3, [1, 2, 3], vehicle)
    for _ in range(20):
        batch.step()
    state = batch.get_state()
    for _ in range(20):
        batch.step()
    there = batch.get_state()
    other = noisy_batch(3, [4, 5, 6], vehicle)
    other.set_state(state)
    for _ in range(20):
        other.step()
    np.testing.assert_array_equal(other.get_state(), there)
    with pytest.raises(ValueError, match="expected states"):
        other.set_state(state[:2])


def test_a_command_arrives_at_its_substep(sih):
    batch = DroneBatch(sih, 3, 10)
    batch.begin(range(3), range(3), np.zeros(3), parameters=SKY)
    batch.command(np.tile([0.9, 0, 0, 0], (3, 1)), np.array([0, 5, 10]))
    batch.step()
    now, half, never = batch.read("velocity")[:, 2]
    assert now > half > 0
    assert never == pytest.approx(0, abs=1e-5)
    batch.command(np.tile([0.9, 0, 0, 0], (3, 1)), np.array([10, 10, 10]))
    batch.step()
    assert (batch.read("velocity")[:, 2] - [now, half, never] > 0.01).tolist() == [True, True, False]


def test_the_layout_is_whole():
    import robot_rl.sim.drone.flight as flight

    for index, name in enumerate((*STATE, *PARAMETERS)):
        assert int(getattr(flight, name.upper())) == index * LANES, name
    assert len(set(STATE) | set(PARAMETERS)) == ROWS
