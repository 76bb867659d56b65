"""A Gaussian squashed by tanh, the policy of soft actor-critic (Haarnoja et al. 2018, appendix C).

u ~ N(mean, std²), chunk = tanh(u), log p(chunk) = log N(u) - sum log(1 - tanh(u)²). The denoiser gives the mean, a
small network of its own the deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robot_rl.policies import draw
from robot_rl.policies.chain import Chain, gaussian_log_density
from robot_rl.policies.configuration import PolicyError
from robot_rl.policies.denoiser import Denoiser, Shapes
from robot_rl.policies.dense import Dense
from robot_rl.policies.inpainting import Inpainting
from robot_rl.policies.perceptron import Perceptron
from robot_rl.policies.process import Process

INSIDE = 1 - 1e-4
"""Where recorded actions at their bounds are held, so that the inverse of tanh stays finite."""


@dataclass(frozen=True)
class Squashed:
    """Drawn chunks without gradients.

    Attributes:
        chunk, log_density: [B, H · A].
        pull: from the gradients of both, of any shape that fits, writes those of the parameters.
    """

    chunk: Tensor
    log_density: Tensor
    pull: Callable[[Tensor, Tensor, Mapping[Tensor, Tensor]], None]


class TanhGaussian(Process):
    """Normalised actions lie between -1 and 1. There is no chain: a state of one would not be Gaussian.

    Args:
        log_std_min, log_std_max: between which a tanh holds the logarithm of the deviation.
        std_width: hidden units of the network that gives the deviation.
        temperature: factor on the deviation in `sample`; 0 gives tanh(mean). `draw` always draws with 1. What was
            learned by drawing may need it: where a search got the peg in, the mean stays beside the hole.
    """

    deterministic: ClassVar[bool] = True

    def __init__(
        self, shapes: Shapes, *, log_std_min: float = -5.0, log_std_max: float = 2.0, std_width: int = 64,
        temperature: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(shapes, steps=1)
        if not log_std_min < log_std_max or std_width < 1 or temperature < 0:
            raise ValueError(
                "expected log_std_min < log_std_max, std_width >= 1 and temperature >= 0, got "
                f"{log_std_min}, {log_std_max}, {std_width} and {temperature}"
            )
        if shapes.prefix:
            raise ValueError("tanh_gaussian is not trained with a prefix")
        self.low, self.high, self.temperature = log_std_min, log_std_max, temperature
        inputs, outputs = shapes.obs_horizon * shapes.context_dim, shapes.horizon * shapes.action_dim
        self.spread = Dense([inputs, std_width, outputs])
        last = self.spread.linear[-1]
        with torch.no_grad():
            # Begin everywhere with a deviation of 1, or the next that is allowed.
            middle = -(self.high + self.low) / (self.high - self.low)
            last.weight.mul_(0.01)
            last.bias.fill_(math.atanh(min(max(middle, -0.99), 0.99)))

    def distribution(self, denoiser: Denoiser, context: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation [B, H, A] of u, before tanh."""
        return self._mean(denoiser, context), self.deviation(context)

    def deviation(self, context: Tensor) -> Tensor:
        """[B, H, A] of contexts [B, To, C]."""
        return self._log_deviation(context).exp()

    def draw(self, denoiser: Denoiser, context: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Chunks [B, H, A] and their log-densities by element, with gradients through the draw."""
        if isinstance(denoiser, Perceptron) and not torch.is_grad_enabled():
            drawn, shape = self.trace(denoiser.layers, context, generator), (self.shapes.horizon, -1)
            return drawn.chunk.unflatten(1, shape), drawn.log_density.unflatten(1, shape)
        noise, log_std, u = self._unsquashed(denoiser, context, generator)
        return torch.tanh(u), _log_density(noise, log_std, u)

    def explore(self, denoiser: Denoiser, context: Tensor, generator: torch.Generator | None) -> Tensor:
        """The chunks of `draw` alone."""
        return torch.tanh(self._unsquashed(denoiser, context, generator)[2])

    @torch.no_grad()
    def trace(self, layers: Dense, context: Tensor, generator: torch.Generator | None) -> Squashed:
        """As `draw` with the mean of a perceptron of these layers, its gradient written out."""
        flat = context.flatten(1)
        of_mean, of_spread = layers.trace(flat), self.spread.trace(flat)
        inside = torch.tanh(of_spread[-1])
        log_std = self._scaled(inside)
        std, noise = log_std.exp(), draw.normal(tuple(inside.shape), inside.device, generator)
        u = torch.addcmul(of_mean[-1], std, noise)
        chunk = torch.tanh(u)
        tanh_backward = torch.ops.aten.tanh_backward.default

        def pull(of_chunk: Tensor, of_density: Tensor, into: Mapping[Tensor, Tensor]) -> None:
            """d chunk / du = 1 - chunk², d log p / du = 2 chunk, and beside that d log p / d log std = -1."""
            of_u = torch.addcmul(tanh_backward(of_chunk, chunk), of_density, chunk, value=2.0)
            of_log_std = of_u * std * noise - of_density
            of_inside = tanh_backward(of_log_std, inside) * (0.5 * (self.high - self.low))
            layers.pull(of_mean, of_u, into)
            self.spread.pull(of_spread, of_inside, into)

        return Squashed(chunk, _log_density(noise, log_std, u), pull)

    def loss(
        self,
        denoiser: Denoiser,
        actions: Tensor,
        context: Tensor,
        known: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        mean, std = self.distribution(denoiser, context)
        u = torch.atanh(actions.clamp(-INSIDE, INSIDE))
        return log_slope(u) - gaussian_log_density(u, mean, std)

    def sample(
        self,
        denoiser: Denoiser,
        context: Tensor,
        noise: Tensor,
        steps: int,
        inpainting: Inpainting | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        u = self._mean(denoiser, context)
        if self.temperature > 0:
            u = u + self.temperature * self.deviation(context) * noise
        chunk = torch.tanh(u)
        if inpainting is None:
            return chunk
        if inpainting.guidance is not None:
            raise PolicyError("guidance: a Gaussian policy has no denoising steps to guide")
        return inpainting.finish(torch.lerp(chunk, inpainting.target, inpainting.weight))

    def chain(
        self, denoiser: Denoiser, context: Tensor, noise: Tensor, steps: int, generator: torch.Generator | None
    ) -> Chain:
        raise PolicyError(
            "tanh_gaussian: squashed actions are no chain of Gaussians; train it by sac or rlpd, or take gaussian"
        )

    def gaussians(self, denoiser: Denoiser, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        raise PolicyError("tanh_gaussian: squashed actions are no chain of Gaussians; see `distribution`")

    def _unsquashed(
        self, denoiser: Denoiser, context: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Noise, logarithm of the deviation, and u, [B, H, A]."""
        mean, log_std = self._mean(denoiser, context), self._log_deviation(context)
        noise = draw.normal(tuple(mean.shape), mean.device, generator)
        return noise, log_std, torch.addcmul(mean, log_std.exp(), noise)

    def _log_deviation(self, context: Tensor) -> Tensor:
        inside: Tensor = torch.tanh(self.spread(context.flatten(1))).unflatten(1, (self.shapes.horizon, -1))
        return self._scaled(inside)

    def _scaled(self, inside: Tensor) -> Tensor:
        """From -1 ... 1 to the logarithm of the deviation."""
        return 0.5 * (self.high - self.low) * inside + 0.5 * (self.high + self.low)

    def _mean(self, denoiser: Denoiser, context: Tensor) -> Tensor:
        x = context.new_zeros(len(context), self.shapes.horizon, self.shapes.action_dim)
        return denoiser(x, context.new_zeros(len(context)), context).float()


def _log_density(noise: Tensor, log_std: Tensor, u: Tensor) -> Tensor:
    """By element, of tanh(u) where u was made of standard normal noise."""
    return -0.5 * math.log(2 * math.pi) - torch.addcmul(log_std, noise, noise, value=0.5) - log_slope(u)


def log_slope(u: Tensor) -> Tensor:
    """log(1 - tanh(u)²), in a form that stays finite for large |u|."""
    return 2 * (math.log(2.0) - u - nn.functional.softplus(-2 * u))
