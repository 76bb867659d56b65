"""A simulation on the page: shapes, poses, and who acts."""

import json
import struct

import numpy as np

from robot_rl import sim
from robot_rl.hardware.cockpit.world_view import WorldView


def test_shows_where_the_bodies_are_and_who_acts():
    with sim.make_vector("peg", 2) as environments:
        environments.reset(seed=0)
        world = environments.world
        view = WorldView("peg", world.physics.model, 20.0)
        assert view.poses() is None
        version, geometry = view.geometry()
        (size,) = struct.unpack_from("<I", geometry)
        header = json.loads(geometry[4 : 4 + size])
        assert (version, header["robot"], header["bodies"]) == (1, "peg", ["plate", "peg"])
        assert header["vertices"] > 3 * 8
        (low, high) = header["workspace"]
        view.show(world.physics.show(0), "policy", False, 0, False)
        first = view.poses()
        np.testing.assert_allclose(first.values[1, :3], world.physics.qpos[0, :3], atol=1e-6)
        assert first.values.shape == (3, 7)
        assert all(a < x < b for a, x, b in zip(low, first.values[1, :3], high, strict=True))
        assert view.status()["supervisor"]["state"] == "running"
        environments.step(np.full((2, 4), 0.5, np.float32))
        view.show(world.physics.show(0), "keyboard", True, 1, True)
        second = view.poses()
        assert second.sequence == first.sequence + 1
        assert not np.array_equal(first.values, second.values)
    status = view.status()
    assert (status["supervisor"]["state"], status["supervisor"]["holder"]) == ("intervening", "keyboard")
    assert status["success"] is True
    json.dumps(status | view.hello())


def test_being_watched_changes_nothing():
    with sim.make_vector("peg", 2) as watched, sim.make_vector("peg", 2) as alone:
        view = WorldView("peg", watched.world.physics.model, 20.0)
        watched.reset(seed=5)
        alone.reset(seed=5)
        generator = np.random.default_rng(0)
        for step in range(30):
            view.show(watched.world.physics.show(0), "policy", False, step, False)
            actions = generator.uniform(-1, 1, (2, 4)).astype(np.float32)
            ours, theirs = watched.step(actions)[0], alone.step(actions)[0]
            for name in ours:
                np.testing.assert_array_equal(ours[name], theirs[name])
