import numpy as np
from scipy.spatial.transform import Rotation

from robot_rl.sim.drone.attitude import between, cross, rotate, rotate_back


def test_agrees_with_scipy():
    generator = np.random.default_rng(0)
    first, second = (Rotation.random(20, generator) for _ in range(2))
    a, b = (rotation.as_quat(scalar_first=True) for rotation in (first, second))
    vectors = generator.normal(size=(20, 3))
    np.testing.assert_allclose(rotate(a, vectors), first.apply(vectors), atol=1e-12)
    np.testing.assert_allclose(rotate_back(a, vectors), first.inv().apply(vectors), atol=1e-12)
    np.testing.assert_allclose(rotate(a, vectors[0]), first.apply(vectors[0]), atol=1e-12)
    turn = Rotation.from_quat(between(a, b), scalar_first=True)
    np.testing.assert_allclose((first * turn).as_matrix(), second.as_matrix(), atol=1e-12)
    np.testing.assert_allclose(cross(vectors, vectors[::-1]), np.cross(vectors, vectors[::-1]), atol=1e-12)
