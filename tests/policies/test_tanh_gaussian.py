import pytest
import torch
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from robot_rl.policies.configuration import PolicyError
from robot_rl.policies.denoiser import Shapes
from robot_rl.policies.perceptron import Perceptron
from robot_rl.policies.tanh_gaussian import TanhGaussian

SHAPES = Shapes(horizon=4, action_dim=2, obs_horizon=1, context_dim=3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_density_against_torch_distributions() -> None:
    torch.manual_seed(0)
    process, network = TanhGaussian(SHAPES), Perceptron(SHAPES, width=16)
    context = torch.randn(50, 1, 3)
    chunk, density = process.draw(network, context, seeded())
    mean, std = process.distribution(network, context)
    squashed = TransformedDistribution(Normal(mean.double(), std.double()), TanhTransform())
    inside = chunk.abs() < 0.99  # beyond, the inverse of tanh is too coarse in 32 bits to compare with
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(density[inside], squashed.log_prob(chunk.double())[inside].float(), atol=1e-3, rtol=1e-3)
    loss = process.loss(network, chunk, context, None, None)
    torch.testing.assert_close(loss[inside], -density[inside], atol=1e-3, rtol=1e-3)


def test_density_stays_finite_where_tanh_is_one() -> None:
    process, network = TanhGaussian(SHAPES), Perceptron(SHAPES, width=16)
    with torch.no_grad():
        network.layers[-1].bias.fill_(50.0)  # type: ignore[operator,union-attr]
    chunk, density = process.draw(network, torch.zeros(8, 1, 3), seeded())
    assert (chunk == 1).all()
    assert density.isfinite().all()
    density.sum().backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in network.parameters())


def test_the_gradient_written_out_is_that_of_the_draw() -> None:
    torch.manual_seed(0)
    process, network, context = TanhGaussian(SHAPES), Perceptron(SHAPES, width=16), torch.randn(7, 1, 3)
    torch.nn.init.normal_(process.spread.linear[-1].weight)
    of_chunk, of_density = torch.randn(7, 8), torch.randn(7, 8)
    chunk, density = (value.flatten(1) for value in process.draw(network, context, seeded()))
    every = [*network.parameters(), *process.parameters()]
    wanted = torch.autograd.grad((of_chunk * chunk + of_density * density).sum(), every)
    drawn = process.trace(network.layers, context, seeded())
    torch.testing.assert_close((drawn.chunk, drawn.log_density), (chunk.detach(), density.detach()))
    found = {value: torch.empty_like(value) for value in every}
    drawn.pull(of_chunk, of_density, found)
    torch.testing.assert_close(tuple(found.values()), wanted, atol=1e-4, rtol=1e-4)


def test_deviation_begins_at_one_and_keeps_its_bounds() -> None:
    process, network = TanhGaussian(SHAPES), Perceptron(SHAPES, width=16)
    _, std = process.distribution(network, torch.randn(20, 1, 3))
    torch.testing.assert_close(std, torch.ones_like(std), atol=0.1, rtol=0)
    with torch.no_grad():
        process.spread[-1].bias.fill_(100.0)  # type: ignore[operator,union-attr]
    assert process.distribution(network, torch.randn(20, 1, 3))[1].log().max().item() == pytest.approx(2.0)


def test_deployed_it_is_the_squashed_mean_whatever_the_noise() -> None:
    process, network, context = TanhGaussian(SHAPES), Perceptron(SHAPES, width=16), torch.randn(5, 1, 3)
    mean, _ = process.distribution(network, context)
    for noise in (torch.zeros(5, 4, 2), torch.randn(5, 4, 2)):
        torch.testing.assert_close(process.sample(network, context, noise, 1, None, None), torch.tanh(mean))


def test_with_a_temperature_its_samples_have_the_density_it_is_trained_with() -> None:
    process, network = TanhGaussian(SHAPES, temperature=0.5), Perceptron(SHAPES, width=16)
    context = torch.randn(1, 1, 3).expand(20_000, 1, 3)
    noise = torch.randn(20_000, 4, 2, generator=seeded())
    u = torch.atanh(process.sample(network, context, noise, 1, None, None))
    mean, std = process.distribution(network, context[:1])
    torch.testing.assert_close(u.mean(dim=0), mean[0], atol=0.02, rtol=0)
    torch.testing.assert_close(u.std(dim=0), 0.5 * std[0], atol=0, rtol=0.03)


def test_there_is_no_chain_and_wrong_values_are_refused() -> None:
    process, network = TanhGaussian(SHAPES), Perceptron(SHAPES, width=16)
    with pytest.raises(PolicyError, match="train it by sac or rlpd"):
        process.chain(network, torch.zeros(1, 1, 3), torch.zeros(1, 4, 2), 1, None)
    with pytest.raises(ValueError, match="log_std_min < log_std_max"):
        TanhGaussian(SHAPES, log_std_min=3.0)
