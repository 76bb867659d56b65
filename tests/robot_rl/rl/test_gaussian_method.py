import pytest
import torch

from robot_rl.rl.method import Method, entropy
from robot_rl.rl.methods import fresh_policy
from robot_rl.rl.ppo import PPO
from tests.robot_rl.rl.line import CONTRACT


@pytest.mark.parametrize("log_std", [-0.5, -9.0])
def test_the_gradient_written_out_is_that_of_the_density(log_std: float) -> None:
    """-9 lies below the smallest deviation, where it has no gradient."""
    torch.manual_seed(0)
    perceptron = {"name": "perceptron", "width": 8, "depth": 2, "activation": "tanh"}
    config = {"obs_horizon": 1, "action_horizon": 4, "process": {"name": "gaussian"}, "denoiser": perceptron}
    method = PPO(fresh_policy(config, CONTRACT))
    method.policy.process.log_std.data.fill_(log_std)
    context = torch.randn(6, 1, method.policy.encoder.features)
    states = method.draw(context, torch.Generator().manual_seed(0)).states
    method.policy.denoiser.layers.linear[-1].bias.data += 0.01
    counted = torch.arange(4) < torch.tensor([4, 1, 2, 3, 4, 4])[:, None]
    slope = torch.randn(6, 1)
    for weight in (0.0, -0.3):
        ours, plain = method.log_prob(states, context, counted), Method.log_prob(method, states, context, counted)
        torch.testing.assert_close(ours.value, plain.value)
        torch.testing.assert_close(entropy(ours.std), entropy(plain.std))
        for a, b in zip(*(each.pull(slope, weight, method.trained()) for each in (ours, plain)), strict=True):
            torch.testing.assert_close(a.view_as(b), b)
