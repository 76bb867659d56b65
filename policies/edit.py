"""Small edits to the chunks of a policy, and the choice of the best chunk by critics (EXPO, Dong et al. 2025).

N chunks are drawn from the policy. A network moves each by at most `bound`; edited and unedited ones are candidates,
and the one of which the critics think most is executed. So a policy that imitates never has to follow the slope of a
critic itself. Trying draws edits from a squashed Gaussian; a deployed policy takes its mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

import torch
from torch import Tensor, nn

from robot_rl.policies.critic_ensemble import CriticEnsemble
from robot_rl.policies.denoiser import Shapes
from robot_rl.policies.perceptron import Perceptron
from robot_rl.policies.tanh_gaussian import TanhGaussian


class Edit(nn.Module):
    """Chunks are normalised. What is chosen lies between -1 and 1, as all that the critics have seen.

    Args:
        shapes: of the chunk and the encoder's context.
        bound: beta, largest absolute value of an edit; 0: nothing is edited, and the best of the N chunks is executed.
        candidates: N, chunks that are drawn for each that is executed.
        width, depth: of the hidden layers.
        critics, critic_width, critic_depth, layer_norm: of the ensemble.
    """

    def __init__(
        self, shapes: Shapes, *, bound: float = 0.1, candidates: int = 4, width: int = 256, depth: int = 2,
        critics: int = 2, critic_width: int = 256, critic_depth: int = 2, layer_norm: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if not 0 <= bound < inf or candidates < 1:
            raise ValueError(
                f"edit: expected a finite bound of at least 0 and at least 1 candidate, got {bound} and {candidates}"
            )
        self.bound, self.candidates = bound, candidates
        inputs = shapes.obs_horizon * shapes.context_dim + shapes.horizon * shapes.action_dim
        seen = replace(shapes, obs_horizon=1, context_dim=inputs, prefix=False)
        if bound > 0:
            self.mean = Perceptron(seen, width=width, depth=depth)
            self.process = TanhGaussian(seen)
        self.critics = CriticEnsemble(inputs, critics, critic_width, critic_depth, layer_norm)

    def forward(self, context: Tensor, chunks: Tensor, free: Tensor) -> Tensor:
        """The best [B, H, A] of N chunks [B, N, H, A] and their edits.

        Args:
            context: [B, To, C].
            free: [B, N, H, 1], how far each action may be edited, 1 where nothing holds it.
        """
        if self.bound > 0:
            seen = self.seen(context, chunks)
            x = seen.new_zeros(1)  # the perceptron reads the context alone
            edits = self.bound * torch.tanh(self.mean(x, x, seen)).view_as(chunks)
            chunks = torch.cat([chunks, chunks + free * edits], dim=1)
        return best(self.critics, context.flatten(1), chunks.clamp(-1.0, 1.0))[0]

    def draw(self, context: Tensor, chunks: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Edits [B, N, H, A] to try, and the log-densities of edit / bound by element, with gradients."""
        unit, density = self.process.draw(self.mean, self.seen(context, chunks), generator)
        return self.bound * unit.view_as(chunks), density.view_as(chunks)

    def seen(self, context: Tensor, chunks: Tensor) -> Tensor:
        """What the network sees of contexts [B, To, C] and chunks [B, N, H, A], [B · N, 1, To · C + H · A]."""
        each = context.flatten(1)[:, None].expand(-1, chunks.shape[1], -1)
        return torch.cat([each, chunks.flatten(2)], dim=2).flatten(0, 1)[:, None]


def best(critics: Callable[[Tensor, Tensor], Tensor], flat: Tensor, chunks: Tensor) -> tuple[Tensor, Tensor]:
    """The chunk [B, H, A] with the highest mean among each row of [B, M, H, A], and what each critic says of it [E, B].

    Args:
        critics: values [E, B · M] of contexts and flattened chunks.
        flat: contexts [B, F].
    """
    M = chunks.shape[1]
    each = flat[:, None].expand(-1, M, -1).flatten(0, 1)
    values = critics(each, chunks.flatten(2).flatten(0, 1)).unflatten(1, (-1, M))
    chosen = values.mean(dim=0).argmax(dim=1)
    picked = chosen[:, None, None, None].expand(-1, 1, *chunks.shape[2:])
    index = chosen[None, :, None].expand(len(values), -1, 1)
    return chunks.gather(1, picked)[:, 0], values.gather(2, index)[..., 0]
