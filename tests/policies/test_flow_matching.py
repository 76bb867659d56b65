import pytest
import torch
from torch import Tensor

from robot_rl.policies.denoiser import Denoiser, Shapes
from robot_rl.policies.flow_matching import TIME_UNIT, FlowMatching
from robot_rl.policies.mlp import MLP

SHAPES = Shapes(horizon=4, action_dim=3, obs_horizon=1, context_dim=2)


class GaussianVelocity(Denoiser):
    """The exact marginal velocity when the data are N(mean, std²) and the path is straight."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__(SHAPES)
        self.mean, self.std = mean, std

    def forward(self, x: Tensor, time: Tensor, context: Tensor, known: Tensor | None = None) -> Tensor:
        t = (time / TIME_UNIT)[:, None, None]
        variance = (1 - t) ** 2 + (t * self.std) ** 2
        return self.mean + (t * self.std**2 - (1 - t)) / variance * (x - t * self.mean)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def context(size: int) -> Tensor:
    return torch.randn(size, 1, 2, generator=seeded(9))


def test_the_exact_velocity_carries_noise_to_the_data() -> None:
    """A Gaussian flows to a Gaussian by x ↦ mean + std · x, whatever the noise."""
    process = FlowMatching(SHAPES)
    noise = torch.randn(50, 4, 3, generator=seeded())
    chunk = process.sample(GaussianVelocity(2.0, 0.5), context(50), noise, 1000, None, None)
    torch.testing.assert_close(chunk, 2 + 0.5 * noise, atol=5e-3, rtol=0)


def test_the_exact_velocity_minimises_the_loss() -> None:
    process = FlowMatching(SHAPES)
    data = 2 + 0.5 * torch.randn(4000, 4, 3, generator=seeded(1))

    def loss(denoiser: Denoiser) -> float:
        return float(process.loss(denoiser, data, context(4000), None, seeded(2)).mean())

    best = loss(GaussianVelocity(2.0, 0.5))
    assert best < min(
        loss(GaussianVelocity(2.1, 0.5)), loss(GaussianVelocity(1.9, 0.5)), loss(GaussianVelocity(2.0, 0.7))
    )


@pytest.mark.parametrize(("sampling", "expected"), [("uniform", 0.5), ("beta", 0.999 * (1 - 1.5 / 2.5))])
def test_training_times(sampling: str, expected: float) -> None:
    seen = []

    class Spy(GaussianVelocity):
        def forward(self, x: Tensor, time: Tensor, context: Tensor, known: Tensor | None = None) -> Tensor:
            seen.append(time / TIME_UNIT)
            return x

    process = FlowMatching(SHAPES, time_sampling=sampling)  # type: ignore[arg-type]
    process.loss(Spy(0, 1), torch.zeros(20000, 4, 3), context(20000), None, seeded())
    assert float(seen[0].mean()) == pytest.approx(expected, abs=0.01)
    assert 0 <= seen[0].min() <= seen[0].max() <= 1


@pytest.mark.parametrize("steps", [1, 2, 4, 10])
def test_chain_density_against_torch_distributions(steps: int) -> None:
    process = FlowMatching(SHAPES, chain_std=0.2)
    denoiser = GaussianVelocity(2.0, 0.5)
    chain = process.chain(denoiser, context(6), torch.randn(6, 4, 3, generator=seeded()), steps, seeded(1))
    assert chain.states.shape == (6, steps + 1, 4, 3)
    expected = [torch.distributions.Normal(0, 1).log_prob(chain.states[:, 0])]
    for k in range(steps):
        x = chain.states[:, k]
        velocity = denoiser(x, torch.full((6,), TIME_UNIT * k / steps), context(6))
        expected.append(torch.distributions.Normal(x + velocity / steps, 0.2).log_prob(chain.states[:, k + 1]))
    torch.testing.assert_close(chain.log_density, torch.stack(expected, dim=1))
    torch.testing.assert_close(chain.log_prob, torch.stack(expected, dim=1).sum(dim=(-2, -1)))


def test_learned_noise_is_inside_its_bounds_and_learns() -> None:
    torch.manual_seed(0)
    process = FlowMatching(SHAPES, learned_noise=True, chain_std=0.16, chain_std_min=0.08)
    denoiser = MLP(SHAPES, width=16, depth=1)
    chain = process.chain(denoiser, context(64), torch.randn(64, 4, 3, generator=seeded()), 4, seeded(1))
    jumps = chain.states[:, 1:] - chain.states[:, :-1]
    assert 0.05 < float(jumps.detach().std()) < 0.5
    process.log_density(denoiser, chain.states, context(64)).sum().backward()
    for parameter in (*process.parameters(), *denoiser.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0
    assert process.noise is not None
    std = process.noise(torch.rand(64) * TIME_UNIT, 100 * context(64))
    assert 0.08 - 1e-6 <= std.min() <= std.max() <= 0.16 + 1e-6


def test_noise_and_fewer_steps_are_what_the_caller_says() -> None:
    process = FlowMatching(SHAPES)
    denoiser = GaussianVelocity(0.0, 1.0)
    noise = torch.randn(3, 4, 3, generator=seeded())
    once = process.sample(denoiser, context(3), noise, 1, None, None)
    torch.testing.assert_close(once, noise + denoiser(noise, torch.zeros(3), context(3)))


@pytest.mark.slow
def test_short_training_reproduces_a_gaussian_that_depends_on_the_context() -> None:
    torch.manual_seed(0)
    shapes = Shapes(horizon=1, action_dim=2, obs_horizon=1, context_dim=1)
    process, denoiser = FlowMatching(shapes, steps=20), MLP(shapes, width=64, depth=2, time_features=16)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
    generator = seeded()
    std = torch.tensor([0.2, 0.5])

    def mean(context: Tensor) -> Tensor:
        return torch.cat([context, -0.5 * context], dim=-1)

    for _ in range(500):
        where = torch.rand(256, 1, 1, generator=generator) * 2 - 1
        data = mean(where) + std * torch.randn(256, 1, 2, generator=generator)
        optimizer.zero_grad()
        process.loss(denoiser, data, where, None, generator).mean().backward()
        optimizer.step()
        schedule.step()
    for place in (-0.6, 0.7):
        where = torch.full((2000, 1, 1), place)
        with torch.no_grad():
            chunk = process.sample(denoiser, where, torch.randn(2000, 1, 2, generator=generator), 20, None, None)
        torch.testing.assert_close(chunk.mean(dim=0), mean(where)[0], atol=0.08, rtol=0)
        torch.testing.assert_close(chunk.std(dim=0)[0], std, atol=0.08, rtol=0)


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match="steps"):
        FlowMatching(SHAPES, steps=0)
    with pytest.raises(ValueError, match="uniform or beta"):
        FlowMatching(SHAPES, time_sampling="normal")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chain_std_min <= chain_std"):
        FlowMatching(SHAPES, learned_noise=True, chain_std=0.01)
