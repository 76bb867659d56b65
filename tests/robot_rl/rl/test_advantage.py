"""Advantages against the sums that define them, written out."""

import numpy as np
import pytest

from robot_rl.rl.advantage import generalised_advantage


def brute_force(reward, value, following, discount, ended, decay):
    """A_t = sum over k of (product of discount · lambda over the decisions before) · delta_k, to the episode's end."""
    T, N = reward.shape
    advantage = np.zeros((T, N))
    for n in range(N):
        for t in range(T):
            weight = 1.0
            for k in range(t, T):
                delta = reward[k, n] + discount[k, n] * following[k, n] - value[k, n]
                advantage[t, n] += weight * delta
                if ended[k, n]:
                    break
                weight *= discount[k, n] * decay
    return advantage


@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_equals_the_sum_that_defines_it(decay: float) -> None:
    draw = np.random.default_rng(0)
    shape = (40, 5)
    ended = draw.uniform(size=shape) < 0.15
    terminated = ended & (draw.uniform(size=shape) < 0.5)
    steps = draw.integers(1, 5, shape)
    arguments = (
        draw.normal(size=shape), draw.normal(size=shape), draw.normal(size=shape),
        np.where(terminated, 0.0, 0.9**steps), ended, decay,
    )  # fmt: skip
    np.testing.assert_allclose(generalised_advantage(*arguments), brute_force(*arguments), atol=1e-12)


def test_a_cut_off_is_worth_what_would_have_come_and_an_end_nothing() -> None:
    one, value = np.ones((1, 2)), np.zeros((1, 2))
    discount, ended = np.array([[0.9, 0.0]]), np.ones((1, 2), bool)
    np.testing.assert_allclose(generalised_advantage(one, value, 10 * one, discount, ended, 0.95), [[10.0, 1.0]])


def test_with_decay_1_the_return_is_that_of_the_steps() -> None:
    """Chunks of unequal length: the advantage of the first decision is the discounted return of all steps."""
    gamma, lengths = 0.9, [3, 1, 4]
    steps = np.random.default_rng(1).normal(size=sum(lengths))
    starts = np.cumsum([0, *lengths[:-1]])
    reward = np.array([[sum(gamma**i * steps[s + i] for i in range(n))] for s, n in zip(starts, lengths, strict=True)])
    discount = np.array([[gamma**n] for n in lengths])
    value, following = np.zeros((3, 1)), np.array([[0.0], [0.0], [5.0]])
    ended = np.array([[False], [False], [True]])
    expected = sum(gamma**i * r for i, r in enumerate(steps)) + gamma ** sum(lengths) * 5.0
    assert generalised_advantage(reward, value, following, discount, ended, 1.0)[0, 0] == pytest.approx(expected)
