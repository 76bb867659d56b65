"""Holding parts of a chunk at given values while the rest is denoised.

A sampler works on states x = signal · chunk + noise · ε. From each the network predicts the clean chunk, and what is
known of the chunk corrects that prediction before the step is taken:

- *replacement*: the prediction is moved to the target by its weight. So in the end the weight is exactly the target's
  share against the network's last prediction, whatever the number of steps.
- *prefix*, the same for a network that was trained with known first actions: it sees the committed ones clean, and so
  continues them by itself (training-time real-time chunking, Black et al. 2025, arXiv:2512.05964).
- *guidance*: the error at the known actions, weighted, is pulled back through the network, so that the free actions
  change as well (real-time chunking, Black et al. 2025, arXiv:2506.07339, eqs. 2 to 4). It needs gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Inpainting:
    """A prefix in normalised units, as a process applies it in every denoising step.

    Attributes:
        target: [B, H, A], zero where the weight is.
        weight: [B, H, 1] in [0, 1]; 1 where committed.
        committed: [B, H, 1] bool.
        clean: whether committed steps are shown to the network without noise, which it must have been trained for.
        guidance: the largest guidance weight (β in Black et al.); None for no guidance.
    """

    target: Tensor
    weight: Tensor
    committed: Tensor
    clean: bool
    guidance: float | None = None

    @property
    def known(self) -> Tensor | None:
        """[B, H] float mask of the steps that the network sees clean, or None when it was not trained with any."""
        return self.committed.squeeze(-1).to(self.target.dtype) if self.clean else None

    def shown(self, x: Tensor) -> Tensor:
        """The state [B, H, A] as the network sees it."""
        return torch.where(self.committed, self.target, x) if self.clean else x

    def predict(
        self, network: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, signal: float, noise: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ask the network about a state, and say how its prediction is to be corrected.

        Args:
            network: from a state to its output and the clean chunk that follows from it, both [B, H, A].
            x: the state.
            signal, noise: shares of clean chunk and noise in the state.

        Returns:
            The state as shown, the network's output, and what to add to the clean chunk; it is zero where nothing is
            known.
        """
        x = self.shown(x)
        if self.guidance is None:
            output, clean = network(x)
            return x, output, self.weight * (self.target - clean)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            output, clean = network(x)
            error = self.weight * (self.target - clean.detach())
            (pull,) = torch.autograd.grad(clean, x, error)
        # With flow time τ = signal and 1 - τ = noise, (1 - τ) / (τ r²) of the paper is this; so it holds for diffusion
        # as well, whose states are those of a flow, scaled by signal + noise.
        weight = min(self.guidance, (signal**2 + noise**2) / max(signal * noise, 1e-12))
        return x.detach(), output.detach(), noise * weight * pull

    def finish(self, x: Tensor) -> Tensor:
        """Put the committed steps in place of the sampled ones."""
        return torch.where(self.committed, self.target, x)
