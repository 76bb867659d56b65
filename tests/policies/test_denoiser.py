"""Properties that MLP, U-Net and transformer share; each one's own are in a file of its name."""

from collections.abc import Callable

import pytest
import torch

from robot_rl.policies.denoiser import Denoiser, Shapes, SinusoidalEmbedding
from robot_rl.policies.mlp import MLP
from robot_rl.policies.transformer import Transformer
from robot_rl.policies.unet1d import UNet1D

NETWORKS: dict[str, Callable[[Shapes], Denoiser]] = {
    "mlp": lambda shapes: MLP(shapes, width=16, depth=2, time_features=8),
    "mlp_film": lambda shapes: MLP(shapes, width=16, depth=2, time_features=8, conditioning="film"),
    "unet1d": lambda shapes: UNet1D(shapes, widths=(8, 16), groups=4, time_features=8),
    "unet1d_shift": lambda shapes: UNet1D(shapes, widths=(8, 16), groups=4, time_features=8, scale=False),
    "transformer": lambda shapes: Transformer(shapes, width=16, layers=2, heads=2, dropout=0.0),
    "transformer_open": lambda shapes: Transformer(shapes, width=16, layers=1, heads=2, dropout=0.0, causal=False),
}


@pytest.fixture(params=NETWORKS)
def build(request: pytest.FixtureRequest) -> Callable[[Shapes], Denoiser]:
    torch.manual_seed(0)
    return NETWORKS[request.param]


def inputs(shapes: Shapes, size: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, shapes.horizon, shapes.action_dim, generator=generator)
    context = torch.randn(size, shapes.obs_horizon, shapes.context_dim, generator=generator)
    return [x, torch.rand(size, generator=generator) * 100, context]


@pytest.mark.parametrize("prefix", [False, True])
def test_shape_and_gradient_of_every_parameter_and_input(build: Callable[[Shapes], Denoiser], prefix: bool) -> None:
    shapes = Shapes(horizon=6, action_dim=3, obs_horizon=2, context_dim=5, prefix=prefix)
    network = build(shapes)
    given = [value.requires_grad_() for value in inputs(shapes)]
    known = torch.rand(3, 6).requires_grad_() if prefix else None
    output = network(*given, known)
    assert output.shape == (3, 6, 3)
    output.square().sum().backward()
    for name, value in [
        *network.named_parameters(),
        *enumerate(given),
        *([("known", known)] if known is not None else []),
    ]:
        assert value.grad is not None, name
        assert value.grad.abs().max() > 0, name


@pytest.mark.parametrize("prefix", [False, True])
def test_the_two_stages_are_the_network(build: Callable[[Shapes], Denoiser], prefix: bool) -> None:
    shapes = Shapes(horizon=4, action_dim=3, obs_horizon=2, context_dim=5, action_offset=-1, prefix=prefix)
    network = build(shapes).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
        x, times, context = inputs(shapes)
        known = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(3, 1) if prefix else None
        time_parts, context_parts = network.parts(times[:2], context)
        for k, time in enumerate(times[:2]):
            staged = network.step(x, [part[k] for part in time_parts], context_parts, known)
            torch.testing.assert_close(staged, network(x, time.expand(3), context, known), atol=1e-5, rtol=1e-4)


def test_samples_of_a_batch_do_not_mix(build: Callable[[Shapes], Denoiser]) -> None:
    shapes = Shapes(horizon=4, action_dim=2, obs_horizon=1, context_dim=3)
    network = build(shapes)
    given = inputs(shapes)
    torch.testing.assert_close(network(*given)[1:2], network(*(value[1:2] for value in given)), atol=1e-6, rtol=1e-5)


def test_without_a_mask_nothing_is_known(build: Callable[[Shapes], Denoiser]) -> None:
    shapes = Shapes(horizon=4, action_dim=2, obs_horizon=1, context_dim=3, prefix=True)
    network = build(shapes)
    given = inputs(shapes)
    assert network(*given).equal(network(*given, torch.zeros(3, 4)))
    assert not network(*given).equal(network(*given, torch.ones(3, 4)))


def test_the_embedding_tells_all_times_apart() -> None:
    embedded = SinusoidalEmbedding(32)(torch.arange(100.0))
    distance = torch.cdist(embedded, embedded) + 10 * torch.eye(100)
    assert embedded.shape == (100, 32)
    assert distance.min() > 0.1


def test_published_sizes() -> None:
    """Parameters of the published networks: 66 M for the low-dimensional U-Net, 9 M for the transformer."""
    shapes = Shapes(horizon=16, action_dim=10, obs_horizon=2, context_dim=20)
    millions = {kind: sum(value.numel() for value in kind(shapes).parameters()) / 1e6 for kind in (UNet1D, Transformer)}
    assert millions[UNet1D] == pytest.approx(66, abs=1)
    assert millions[Transformer] == pytest.approx(9, abs=0.2)
