import numpy as np
import pytest

from robot_rl import sim
from robot_rl.sim.drone import expert
from robot_rl.sim.drone.mpc_aiming import AimingMpc
from robot_rl.sim.spec import SpecError


@pytest.mark.slow
def test_flies_through_a_corridor_while_it_is_kicked():
    env = sim.make({"task": "drone/corridor", "randomization": "kicked"})
    _, info = env.reset(seed=0)
    act, over = expert.start(env.world, "mpc_aiming"), False
    while not over:
        _, _, terminated, truncated, info = env.step(act()[0])
        over = terminated or truncated
    assert info["success"]


def test_aims_at_the_next_gate_from_where_the_drone_is():
    """In a straight corridor the path begins at the drone and leads through the gate, whatever the moment says."""
    env = sim.make("drone/corridor")
    env.reset(seed=0)
    world = env.world
    for _ in range(40):
        env.step(expert.act(world)[0])
    odometry = world.batch.read("odometry").astype(float)
    odometry[0, :3] += [-0.05, 0.2, -0.1]
    world.place(odometry)
    path = AimingMpc(world)._path(np.arange(0, 3, 0.01)[None])[0]
    np.testing.assert_allclose(path[0, :3], odometry[0, :3], atol=0.01)
    gate = world.gates[0, world.passed[0]]
    assert np.linalg.norm(path[:, :3] - gate[:3], axis=1).min() < 0.02
    before = path[path[:, 0] < gate[0]]
    slope = np.diff(before[:, 1:3], axis=0) / np.diff(before[:, :1], axis=0)
    assert (slope[:, 0] < 0).all()
    moved = np.diff(path[:, :3], axis=0)[:50] / 0.01
    np.testing.assert_allclose(path[:50, 3:6], moved, atol=0.05)


def test_needs_gates():
    with pytest.raises(SpecError, match="aims at gates, and the task has none; choose mpc"):
        expert.start(sim.make("drone/hover").world, "mpc_aiming")
