import math

import numpy as np
import pytest

from robot_rl import sim
from robot_rl.sim.drone.expert import act
from robot_rl.sim.drone.scene import FIELD_OF_VIEW, NOMINAL, camera_pose, earlier

HEIGHT, WIDTH = 120, 160
pytestmark = pytest.mark.render


def orange(picture: np.ndarray) -> np.ndarray:
    return picture[..., 0].astype(int) - picture[..., 2] > 40


def pixel(pose: tuple[np.ndarray, np.ndarray], point: np.ndarray) -> np.ndarray:
    """Where a pinhole sees a point: right and down from the upper left corner."""
    x, y, z = pose[1].T @ (point - pose[0])
    assert z > 0
    focal = 0.5 * HEIGHT / math.tan(math.radians(FIELD_OF_VIEW) / 2)
    return np.array([WIDTH / 2 + focal * x / z, HEIGHT / 2 + focal * y / z])


@pytest.fixture
def env():
    made = sim.make({"task": "drone/gates", "cameras": {"onboard": [HEIGHT, WIDTH]}})
    made.reset(seed=0)
    return made


@pytest.mark.parametrize("tilt", [(0.0, 0.0), (0.2, 0.0), (0.0, 0.25), (-0.15, 0.1)])
def test_the_next_gate_is_where_the_pinhole_projection_says(env, tilt):
    x, y, z, yaw = env.world.gates[0, 0]
    roll, pitch = tilt
    a, b = np.array([math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)]), np.array([1.0, roll / 2, pitch / 2, 0.0])
    turned = np.array([
        a[0] * b[0] - a[3] * b[3], a[0] * b[1] - a[3] * b[2], a[0] * b[2] + a[3] * b[1], a[0] * b[3] + a[3] * b[0],
    ])  # fmt: skip
    odometry = np.zeros((1, 13))
    odometry[0, :3] = x - 1.2 * math.cos(yaw) + 0.1, y - 1.2 * math.sin(yaw), z - 0.1
    odometry[0, 6:10] = turned / np.linalg.norm(turned)
    env.world.batch.write("odometry", odometry)
    seen = orange(env.observe()["onboard"])
    pose, half = camera_pose(odometry[0]), 0.2
    side, up = np.array([-math.sin(yaw), math.cos(yaw), 0]), np.array([0, 0, 1.0])
    centre = np.array([x, y, z])
    column, row = np.round(pixel(pose, centre)).astype(int)
    assert not seen[row, column]  # the opening
    for across, along in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        inside = pixel(pose, centre + (half - 0.06) * (across * side + along * up)).astype(int)
        frame = pixel(pose, centre + (half + 0.08) * (across * side + along * up)).astype(int)
        assert not seen[inside[1], inside[0]]
        assert seen[frame[1], frame[0]]


def test_the_same_seed_gives_the_same_pictures():
    spec = {"task": "drone/gates", "randomization": "visual", "cameras": {"onboard": [24, 32]}}
    pictures = []
    for seed in (3, 3, 4):
        env = sim.make(spec)
        first, info = env.reset(seed=seed)
        for _ in range(5):
            later, *_ = env.step(act(env.world)[0])
        pictures.append((first["onboard"], later["onboard"], info["randomization"]["appearance"]))
    for one, same, other in zip(*pictures, strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)


def test_one_and_many_give_the_same_pictures():
    spec = {"task": "drone/gates", "randomization": "visual", "cameras": {"onboard": [24, 32], "agentview": [24, 32]}}
    single = sim.make(spec)
    with sim.make_vector(spec, 3) as venv:
        many, _ = venv.reset(seed=range(3))
        one, _ = single.reset(seed=2)
        for camera in spec["cameras"]:
            np.testing.assert_array_equal(many[camera][2], one[camera])


def test_light_and_colours_are_seen(env):
    odometry = env.world.batch.read("odometry")[0]
    bright, dark = (
        env.world._scene.image(
            "agentview", odometry, env.world.gates[0], NOMINAL | {"light": light}, np.empty((24, 32, 3), np.uint8)
        ).mean()
        for light in (1.0, 0.2)
    )
    assert bright > dark + 10


def test_the_vehicle_is_seen_from_behind_and_not_from_on_board(env):
    odometry = env.world.batch.read("odometry")[0]
    odometry[:3] = 0, 0, 5.0
    red = []
    for camera in ("onboard", "agentview"):
        picture = env.world._scene.image(
            camera, odometry, env.world.gates[0], NOMINAL, np.empty((240, 320, 3), np.uint8)
        )
        red.append(int((picture[..., 0] > 4.0 * np.maximum(picture[..., 1], 8)).sum()))
    assert red[0] == 0
    assert red[1] > 10


def test_the_stripe_and_the_walls_of_a_corridor_lie_under_the_way_through_its_arches():
    env = sim.make({"task": "drone/corridor", "cameras": {"onboard": [HEIGHT, WIDTH]}})
    for seed in range(3):
        env.reset(seed=seed)
        arches = env.world.gates[0]
        odometry = np.zeros((1, 13))
        odometry[0, :3] = env.world.table[0, 0, :3]
        # Looks down to where the first piece is, below the frame of the first arch.
        odometry[0, 6:10] = math.cos(0.3), 0.0, math.sin(0.3), 0.0
        env.world.batch.write("odometry", odometry)
        picture = env.observe()["onboard"]
        pose, first = camera_pose(odometry[0]), np.array([*arches[0, :2], 0.0])
        ahead = first - odometry[0, :3] * [1, 1, 0]
        side = np.array([-ahead[1], ahead[0], 0]) / np.linalg.norm(ahead)
        for part in (0.5, 0.6, 0.7):
            point = odometry[0, :3] * [1, 1, 0] + part * ahead
            column, row = pixel(pose, point).astype(int)
            assert orange(picture)[row, column], (seed, part)
            for off in (-0.25, 0.25):
                column, row = pixel(pose, point + off * side).astype(int)
                assert not orange(picture)[row, column], (seed, part, off)
            for off in (-0.5, 0.5):
                column, row = pixel(pose, point + off * side + [0, 0, 0.15]).astype(int)
                if 0 <= column < WIDTH and 0 <= row < HEIGHT:
                    seen = picture[row, column].astype(int)
                    assert seen[2] - seen[0] > 30, (seed, part, off, seen)


def test_a_picture_with_an_exposure_is_smeared_along_the_motion(env):
    x, y, z, yaw = env.world.gates[0, 0]
    odometry, gates = np.zeros(13), env.world.gates[0]
    odometry[:3] = x - 1.2 * math.cos(yaw), y - 1.2 * math.sin(yaw), z
    odometry[6], odometry[9] = math.cos(yaw / 2), math.sin(yaw / 2)

    def shoot(exposure: float, flown: np.ndarray) -> np.ndarray:
        out = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        return env.world._scene.image("onboard", flown, gates, NOMINAL | {"exposure": exposure}, out).astype(int)

    sharp = shoot(0.0, odometry)
    np.testing.assert_array_equal(shoot(0.02, odometry), sharp)
    turning = odometry.copy()
    turning[12] = 5.0
    np.testing.assert_array_equal(shoot(0.0, turning), sharp)
    smeared, before = shoot(0.02, turning), shoot(0.0, earlier(turning, 0.02))
    # A turn by 0.1 rad moves the middle of the picture by about 8 of 160 pixels.
    assert np.abs(before - sharp).mean() > 5
    for picture in (sharp, before):
        assert 0 < np.abs(smeared - picture).mean() < np.abs(before - sharp).mean()
    edges = [np.abs(np.diff(picture, axis=1)).max(axis=(1, 2)).mean() for picture in (sharp, smeared)]
    assert edges[1] < 0.6 * edges[0]
    np.testing.assert_allclose(earlier(turning, 0.02)[9] / earlier(turning, 0.02)[6], math.tan((yaw - 0.1) / 2))


def test_an_exposure_is_drawn_with_the_appearance():
    spec = {"task": "drone/corridor", "randomization": {"appearance": {"exposure": [0.005, 0.015]}}}
    _, info = sim.make(spec).reset(seed=1)
    assert 0.005 <= info["randomization"]["appearance"]["exposure"] <= 0.015


def test_a_camera_that_is_mounted_askew_sees_askew(env):
    odometry, gates = env.world.batch.read("odometry")[0], env.world.gates[0]

    def shoot(camera: list[float]) -> np.ndarray:
        out = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        return env.world._scene.image("onboard", odometry, gates, NOMINAL | {"camera": camera}, out).astype(int)

    straight, rolled = shoot([0.0] * 6), shoot([0, 0, 0, 0, 0, math.pi / 2])
    # A quarter turn counterclockwise about the way back to the eye turns the picture clockwise, in the middle square.
    square = np.s_[:, (WIDTH - HEIGHT) // 2 : (WIDTH + HEIGHT) // 2]
    assert (np.abs(np.rot90(straight[square], -1) - rolled[square]).max(-1) > 40).mean() < 0.02
    assert np.abs(shoot([0.05, 0, 0, 0, 0, 0]) - straight).mean() > 0.5
    np.testing.assert_array_equal(shoot([0.0] * 6), straight)


def test_how_a_camera_is_mounted_is_drawn_with_the_appearance():
    spec = {"task": "drone/corridor", "randomization": {"appearance": {"camera_shift": 0.01, "camera_turn": 0.05}}}
    _, info = sim.make(spec).reset(seed=1)
    camera = np.abs(info["randomization"]["appearance"]["camera"])
    assert (camera > 0).all()
    assert (camera < [0.01, 0.01, 0.01, 0.05, 0.05, 0.05]).all()
