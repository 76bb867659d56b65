import pytest
import torch

from robot_rl.policies.denoiser import Shapes
from robot_rl.policies.gaussian import Gaussian
from robot_rl.policies.mlp import MLP

SHAPES = Shapes(horizon=4, action_dim=2, obs_horizon=1, context_dim=1)


def test_density_against_torch_distributions() -> None:
    torch.manual_seed(0)
    process, network = Gaussian(SHAPES), MLP(SHAPES, width=16, depth=1)
    torch.nn.init.normal_(process.log_std)
    context, noise = torch.randn(6, 1, 1), torch.randn(6, 4, 2)
    chain = process.chain(network, context, noise, 1, None)
    mean = process.sample(network, context, noise, 1, None, None)
    normal = torch.distributions.Normal(mean, process.log_std.exp().clamp_min(0.01))
    assert chain.states.shape == (6, 1, 4, 2)
    torch.testing.assert_close(chain.states[:, 0], mean + normal.scale * noise)
    torch.testing.assert_close(chain.log_density[:, 0], normal.log_prob(chain.states[:, 0]))
    torch.testing.assert_close(process.loss(network, chain.states[:, 0], context, None, None), -chain.log_density[:, 0])


def test_maximum_likelihood_finds_mean_and_deviation() -> None:
    torch.manual_seed(0)
    process, network = Gaussian(SHAPES), MLP(SHAPES, width=32, depth=1, time_features=8)
    optimizer = torch.optim.Adam([*process.parameters(), *network.parameters()], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        context = torch.rand(256, 1, 1, generator=generator) * 2 - 1
        actions = context + 0.3 * torch.randn(256, 4, 2, generator=generator)
        optimizer.zero_grad()
        process.loss(network, actions, context, None, None).mean().backward()
        optimizer.step()
        schedule.step()
    mean = process.sample(network, torch.tensor([[[0.5]]]), torch.zeros(1, 4, 2), 1, None, None)
    torch.testing.assert_close(mean, torch.full((1, 4, 2), 0.5), atol=0.1, rtol=0)
    torch.testing.assert_close(process.std, torch.full((4, 2), 0.3), atol=0.05, rtol=0)


def test_temperature_scales_the_noise() -> None:
    torch.manual_seed(0)
    network, noise, context = MLP(SHAPES, width=16, depth=1), torch.randn(3, 4, 2), torch.zeros(3, 1, 1)
    process = Gaussian(SHAPES, temperature=0.5)
    mean = process.sample(network, context, torch.zeros_like(noise), 1, None, None)
    torch.testing.assert_close(process.sample(network, context, noise, 1, None, None), mean + 0.5 * noise)


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match="std_min"):
        Gaussian(SHAPES, std_min=0)
