"""The critic of the on-policy methods."""

import torch

from robot_rl.policies.dense import Dense
from robot_rl.rl.critic import Critic


def test_begins_close_to_0() -> None:
    """A hundredth of what layers as torch makes them would say."""
    torch.manual_seed(0)
    context = torch.randn(256, 2, 5)
    torch.manual_seed(1)
    plain = Dense([10, 256, 256, 1], "tanh")(context.flatten(1)).squeeze(-1)
    torch.manual_seed(1)
    values = Critic(10)(context)
    assert 0 < values.abs().max() < 0.02
    torch.testing.assert_close(values, 0.01 * plain)


def test_no_gradient_reaches_the_context() -> None:
    critic, context = Critic(10, width=8), torch.randn(4, 2, 5, requires_grad=True)
    values = critic(context)
    values.sum().backward()
    assert context.grad is None
    torch.testing.assert_close(critic.trace(context)[0], values.detach())
