import json
import struct

import mujoco
import numpy as np
import pytest

from robot_rl.hardware.cockpit.scene import DIRECTIONS, Scene, _hull, _slices
from robot_rl.hardware.robot_file import RobotFile

SO101 = RobotFile.load("so101")


def volume(vertices, triangles):
    """By the divergence theorem; positive when the triangles look outwards."""
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    return np.einsum("ij,ij->", a, np.cross(b, c)) / 6


def read(data):
    """What the page makes of a geometry."""
    (size,) = struct.unpack("<I", data[:4])
    assert size % 4 == 0
    header = json.loads(data[4 : 4 + size])
    vertices = np.frombuffer(data, "<f4", 3 * header["vertices"], 4 + size).reshape(-1, 3)
    triangles = np.frombuffer(data, "<u4", 3 * header["triangles"], 4 + size + vertices.nbytes).reshape(-1, 3)
    assert 4 + size + vertices.nbytes + triangles.nbytes == len(data)
    return header, vertices, triangles


def test_the_hand_is_where_kinematics_has_it():
    scene = Scene(SO101)
    for joints in (np.array(SO101.home), np.array([0.4, -0.3, 0.5, 0.2, -1.0])):
        hand = scene.poses(joints)[-1]
        expected = SO101.kinematics().forward(joints)
        np.testing.assert_allclose(hand[:3], expected[:3], atol=1e-6)
        assert abs(hand[3:] @ expected[3:]) == pytest.approx(1.0, abs=1e-6)


def test_the_geometry_holds_closed_shapes_for_every_pose():
    scene = Scene(SO101)
    header, vertices, triangles = read(scene.geometry())
    assert len(scene.poses(np.array(SO101.home))) == len(header["bodies"]) + 1
    for part in header["parts"]:
        first, count = part["vertices"]
        corner, corners = part["triangles"]
        own = triangles[corner : corner + corners]
        assert own.max() < count
        assert volume(vertices[first : first + count], own) > 0
    assert header["workspace"] == [list(SO101.workspace.lower), list(SO101.workspace.upper)]


def test_objects_without_a_shape_become_cubes():
    scene = Scene(SO101)
    bodies = len(read(scene.geometry())[0]["bodies"])
    assert scene.know(["tag"])
    assert not scene.know(["tag"])
    header, vertices, triangles = read(scene.geometry())
    assert header["bodies"][bodies:] == ["tag"]
    first, count = header["parts"][-1]["vertices"]
    corner, corners = header["parts"][-1]["triangles"]
    cube = vertices[first : first + count]
    assert volume(cube, triangles[corner : corner + corners]) == pytest.approx(0.04**3, rel=1e-5)
    pose = np.array([0.2, 0.1, 0.05, 0, 0, 0, 1])
    np.testing.assert_allclose(scene.poses(np.array(SO101.home), objects={"tag": pose})[-2], pose)
    assert scene.poses(np.array(SO101.home))[-2][2] < -10  # not seen: out of sight


def test_slices_of_a_long_shape_are_nearer_to_it_than_one_hull():
    # An arc of a tube: its hull fills the inside of the bend.
    angle, around = np.meshgrid(np.linspace(0, np.pi, 60), np.linspace(0, 2 * np.pi, 30))
    radius = 0.2 + 0.02 * np.cos(around)
    grid = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0.02 * np.sin(around)], -1)
    quads = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[:-1, 1:], grid[1:, 1:]], 2).reshape(-1, 4, 3)
    corners = np.concatenate([quads[:, [0, 1, 2]], quads[:, [1, 3, 2]]]).reshape(-1, 3)
    whole = volume(*_hull(corners))
    pieces = [_hull(points) for points in _slices(corners)]
    assert len(pieces) > 5
    assert all(len(vertices) <= DIRECTIONS for vertices, _ in pieces)
    assert sum(volume(*piece) for piece in pieces) < 0.6 * whole


def test_flat_shapes_are_left_out():
    assert _hull(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.0]])) is None


def test_a_task_brings_its_objects_and_the_gripper_opens():
    panda = RobotFile.load("panda")
    scene = Scene(panda, "lift")
    assert scene.objects == ["cube"]
    bodies = read(scene.geometry())[0]["bodies"]
    assert "table" in bodies
    pose = np.array([0.5, 0.1, 0.02, np.cos(0.3), 0, 0, np.sin(0.3)])
    poses = scene.poses(np.array(panda.home), 0.04, {"cube": pose})
    np.testing.assert_allclose(poses[bodies.index("cube_main")], pose, atol=1e-6)
    fingers = [index for index, name in enumerate(bodies) if name.endswith("finger")]
    assert len(fingers) == 2

    def gap(opening):
        left, right = scene.poses(np.array(panda.home), opening)[fingers, :3]
        return np.linalg.norm(left - right)

    assert gap(0.07) - gap(0.01) == pytest.approx(0.06, abs=1e-4)
    assert mujoco.mj_name2id(scene._model, mujoco.mjtObj.mjOBJ_BODY, "left_eef_target") >= 0
    assert "left_eef_target" not in bodies
