"""DDPM and DDIM against diffusers, and their chains against torch.distributions."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from robot_rl.policies.ddim import DDIM
from robot_rl.policies.ddpm import DDPM
from robot_rl.policies.denoiser import Denoiser, Shapes
from robot_rl.policies.diffusion import Diffusion

SHAPES = Shapes(horizon=4, action_dim=3, obs_horizon=1, context_dim=2)
CONTEXT = torch.zeros(5, 1, 2)


class Wave(Denoiser):
    """Some fixed function of state and time."""

    def __init__(self) -> None:
        super().__init__(SHAPES)
        self.calls: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, time: Tensor, context: Tensor, known: Tensor | None = None) -> Tensor:
        self.calls.append((x, time))
        return 0.7 * x + 0.3 * torch.sin(3 * x + 0.05 * time[:, None, None])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise() -> Tensor:
    return torch.randn(5, 4, 3, generator=seeded(4))


@pytest.mark.parametrize("schedule", ["squaredcos_cap_v2", "linear", "scaled_linear"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("steps", [100, 10, 7])
def test_ddpm_samples_as_diffusers(schedule: Any, prediction: Any, clip: bool, steps: int) -> None:
    ours = DDPM(SHAPES, steps=steps, schedule=schedule, prediction=prediction, clip_sample=clip)
    peer = DDPMScheduler(100, beta_schedule=schedule, prediction_type=prediction, clip_sample=clip)
    peer.set_timesteps(steps)
    x, generator = noise(), seeded(5)
    for t in peer.timesteps:
        output = Wave()(x, t.expand(5).float(), CONTEXT)
        x = peer.step(output, t, x, generator=generator).prev_sample
    sampled = ours.sample(Wave(), CONTEXT, noise(), steps, None, seeded(5))
    torch.testing.assert_close(sampled, x, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(("steps", "eta"), [(10, 0.0), (16, 0.0), (10, 1.0), (50, 0.5)])
def test_ddim_samples_as_diffusers(prediction: Any, clip: bool, steps: int, eta: float) -> None:
    ours = DDIM(SHAPES, steps=steps, prediction=prediction, clip_sample=clip, eta=eta)
    peer = DDIMScheduler(100, beta_schedule="squaredcos_cap_v2", prediction_type=prediction, clip_sample=clip)
    peer.set_timesteps(steps)
    x, generator = noise(), seeded(5)
    for t in peer.timesteps:
        output = Wave()(x, t.expand(5).float(), CONTEXT)
        x = peer.step(output, t, x, eta=eta, generator=generator).prev_sample
    sampled = ours.sample(Wave(), CONTEXT, noise(), steps, None, seeded(5))
    torch.testing.assert_close(sampled, x, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_training_noise_as_diffusers(prediction: Any) -> None:
    process = DDPM(SHAPES, prediction=prediction)
    peer = DDPMScheduler(100, beta_schedule="squaredcos_cap_v2")
    spy, actions = Wave(), torch.rand(5, 4, 3, generator=seeded(1)) * 2 - 1
    loss = process.loss(spy, actions, CONTEXT, None, seeded(2))
    drawn = torch.randn(5, 4, 3, generator=(generator := seeded(2)))
    steps = torch.randint(100, (5,), generator=generator)
    x, time = spy.calls[0]
    assert time.equal(steps.float())
    torch.testing.assert_close(x, peer.add_noise(actions, drawn, steps))
    target = drawn if prediction == "epsilon" else actions
    torch.testing.assert_close(loss, (Wave()(x, time, CONTEXT) - target) ** 2)


@pytest.mark.parametrize("process", [DDPM(SHAPES, steps=20), DDIM(SHAPES, steps=10), DDIM(SHAPES, chain_eta=0.5)])
def test_chain_density_against_torch_distributions_and_diffusers(process: Diffusion) -> None:
    steps = process.steps
    chain = process.chain(Wave(), CONTEXT, noise(), steps, seeded(1))
    assert chain.states.shape == (5, steps + 1, 4, 3)
    if isinstance(process, DDIM):
        peer = DDIMScheduler(100, beta_schedule="squaredcos_cap_v2")
        eta = process.chain_eta
    else:
        # With clipped samples DDPM is DDIM with eta 1 and the noise that belongs to the clipped sample.
        peer, eta = DDIMScheduler(100, beta_schedule="squaredcos_cap_v2"), 1.0
    peer.set_timesteps(steps)
    expected = [torch.distributions.Normal(0, 1).log_prob(chain.states[:, 0])]
    for k, t in enumerate(peer.timesteps):
        x = chain.states[:, k]
        output = Wave()(x, t.expand(5).float(), CONTEXT)
        arguments = {"eta": eta, "use_clipped_model_output": isinstance(process, DDPM)}
        mean = peer.step(output, t, x, variance_noise=torch.zeros_like(x), **arguments).prev_sample
        following = int(t) - 100 // steps
        deviation = eta * float(peer._get_variance(int(t), following)) ** 0.5
        normal = torch.distributions.Normal(mean, max(deviation, 0.1))
        expected.append(normal.log_prob(chain.states[:, k + 1]))
    torch.testing.assert_close(chain.log_density, torch.stack(expected, dim=1), atol=1e-3, rtol=1e-4)
    assert chain.log_density.isfinite().all()


def test_the_last_step_keeps_a_density_because_of_the_floor() -> None:
    chain = DDPM(SHAPES, steps=10, chain_std_min=0.2).chain(Wave(), CONTEXT, noise(), 10, seeded())
    assert chain.log_prob[:, -1].isfinite().all()


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match="epsilon or sample"):
        DDPM(SHAPES, prediction="velocity")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="squaredcos_cap_v2"):
        DDPM(SHAPES, schedule="cosine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected 1 to train_steps = 50, got 100"):
        DDPM(SHAPES, train_steps=50)
    with pytest.raises(ValueError, match="1 to 100"):
        DDIM(SHAPES).sample(Wave(), CONTEXT, noise(), 101, None, None)
    with pytest.raises(ValueError, match="eta"):
        DDIM(SHAPES, eta=1.5)
