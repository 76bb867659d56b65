"""ReinFlow: how large the noise of its Euler steps may be, and when."""

import math

import pytest
import torch

from robot_rl.rl.learner import Learner
from robot_rl.rl.reinflow import ReinFlow
from tests.robot_rl.rl.line import Line, line_policy
from tests.robot_rl.rl.test_on_policy import settings

LOW, HIGH = 0.1, 0.3


def trained(hold: float = 0.4, fall: float = 0.5) -> ReinFlow:
    policy = line_policy({"name": "flow_matching"}, horizon=2)
    return ReinFlow(policy, steps=3, std_min=LOW, std_max=HIGH, hold=hold, fall=fall)


def deviations(method: ReinFlow, bias: float = 0.0) -> torch.Tensor:
    """[B, K, H, A] of the Euler steps, with the noise network's last layer moved that far."""
    method.noise.layers[-1].bias.data += bias
    context = method.policy.encode({"place": torch.linspace(-2, 2, 16)[:, None, None]})
    with torch.no_grad():
        drawn = method.draw(context, torch.Generator().manual_seed(0))
        _, std = method.density(drawn.states, context)
    method.noise.layers[-1].bias.data -= bias
    return std[:, 1:]  # before them, the first draw


@pytest.mark.parametrize(
    ("done", "largest"),
    [(0.0, 0.3), (0.4, 0.3), (0.7, 0.25), (0.55, 0.3 - 0.05 * (1 - math.sqrt(0.5))), (1.0, 0.2)],
)
def test_the_largest_deviation_is_held_and_falls_along_half_a_cosine(done: float, largest: float) -> None:
    method = trained()
    method.begin(done)
    torch.testing.assert_close(deviations(method, 100.0), torch.full((16, 3, 2, 1), largest))
    torch.testing.assert_close(deviations(method, -100.0), torch.full((16, 3, 2, 1), LOW))


def test_the_network_begins_within_the_bounds() -> None:
    std = deviations(trained())
    assert LOW < std.min() < std.max() < HIGH


def test_a_training_lowers_the_deviation_as_it_goes_on() -> None:
    method = trained(hold=0.5, fall=1.0)
    learner = Learner(method, Line(4), settings(steps=4 * 32, epochs=1), seed=0)
    bounds = []
    while not learner.finished:
        learner.iterate()
        bounds.append(math.exp(method.noise.log_high))
    expected = [HIGH, HIGH, HIGH, HIGH - (HIGH - LOW) / 2]  # of iterations that begin at 0, 1/4, 1/2, 3/4
    assert bounds == pytest.approx(expected)
