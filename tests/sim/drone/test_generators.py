import numpy as np
import pytest

from robot_rl.sim.drone.generators import Generators, generate_state

SEEDS = [0, 1, 2, 77, 2**31, 2**32 - 1, 2**32, 2**32 + 5, 2**63 - 1, 2**64 - 1]


@pytest.mark.parametrize("stream", [0, 1, 2**32 - 1])
def test_draws_what_numpy_draws(stream):
    drawn = Generators(SEEDS, stream)
    found = [drawn.uniform(-2.0, 3.5), drawn.integers(0, 2), drawn.uniform(0.0, 1.0, 3), drawn.integers(5, 5)]
    found += [drawn.uniform(0.1, 0.1, 100), drawn.uniform(-1.0, 1.0, 2, 3)]
    for row, seed in enumerate(SEEDS):
        own = np.random.default_rng([seed, stream])
        expected = [own.uniform(-2.0, 3.5), own.integers(0, 2, endpoint=True), own.uniform(0.0, 1.0, 3), 5]
        expected += [own.uniform(0.1, 0.1, 100), own.uniform(-1.0, 1.0, (2, 3))]
        for values, value in zip(found, expected, strict=True):
            np.testing.assert_array_equal(values[row], value)


@pytest.mark.parametrize("count", [2, 9, 1000, 2**16])
def test_integers_are_numpys(count):
    expected = [np.random.default_rng([seed, 1]).integers(3, 2 + count, endpoint=True) for seed in range(400)]
    np.testing.assert_array_equal(Generators(range(400), 1).integers(3, 2 + count), expected)


def test_words_of_a_seed_are_numpys():
    for stream in ((), (2,)):
        for row, seed in enumerate(SEEDS):
            expected = np.random.SeedSequence([seed, *stream]).generate_state(5)
            np.testing.assert_array_equal(generate_state(SEEDS, 5, *stream)[row], expected)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_refuses_seeds_that_are_none(seed):
    with pytest.raises(OverflowError):
        generate_state([seed], 2)
