"""Adam on vectors: each group of parameters lies in one, so that an update costs a few calls whatever their number.

The networks of reinforcement learning are small: an update of a dozen tensors takes longer to dispatch than to
compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class FlatAdam:
    """Parameters become views of their group's vector, and stay so as long as their data are only changed in place.

    Args:
        groups: of parameters, each with a learning rate.

    Attributes:
        vectors: of each group.
        gradients: of each group, by parameter, views of one vector: where `descend` looks for them.
        param_groups: as of torch's optimizers; `peak` is what a schedule scales.
        state: of each parameter the views of its moments, for checkpoints.
    """

    def __init__(self, groups: Sequence[tuple[Sequence[nn.Parameter], float]], eps: float = 1e-8) -> None:
        self.parameters = [list(values) for values, _ in groups]
        self.param_groups: list[dict[str, Any]] = [{"lr": lr, "peak": lr} for _, lr in groups]
        self.eps = eps
        self.vectors = [flatten(values) for values in self.parameters]
        self._gradients = [torch.zeros_like(vector) for vector in self.vectors]
        self.gradients: list[dict[Tensor, Tensor]] = [
            dict(zip(values, _views(vector, values), strict=True))
            for values, vector in zip(self.parameters, self._gradients, strict=True)
        ]
        self._moments = [(torch.zeros_like(vector), torch.zeros_like(vector)) for vector in self.vectors]
        self._steps = [torch.zeros((), device=vector.device) for vector in self.vectors]
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        for values, moments, step in zip(self.parameters, self._moments, self._steps, strict=True):
            views = (_views(moment, values) for moment in moments)
            for value, mean, square in zip(values, *views, strict=True):
                self.state[value] = {"step": step, "exp_avg": mean, "exp_avg_sq": square}

    @torch.no_grad()
    def move(self, group: int, gradients: Sequence[Tensor], clip: float | None = None) -> None:
        """Move a group down these gradients, one of each parameter.

        Args:
            clip: the largest norm of the whole gradient.
        """
        torch.cat([part.reshape(-1) for part in gradients], out=self._gradients[group])
        self.descend(group, clip)

    @torch.no_grad()
    def descend(self, group: int, clip: float | None = None) -> None:
        """Move a group down what its `gradients` hold."""
        gradient = self._gradients[group]
        if clip is not None:
            gradient.mul_((clip / torch.linalg.vector_norm(gradient)).clamp_(max=1.0))
        mean, square = self._moments[group]
        self._steps[group].add_(1)
        # The kernel of torch's fused AdamW: the class around it takes longer than it does.
        torch._fused_adamw_(
            [self.vectors[group]], [gradient], [mean], [square], [], [self._steps[group]],
            lr=self.param_groups[group]["lr"], beta1=0.9, beta2=0.999, weight_decay=0.0, eps=self.eps, amsgrad=False,
            maximize=False,
        )  # fmt: skip


def flatten(values: Sequence[nn.Parameter]) -> Tensor:
    """A vector of all these parameters, of which they are views from now on."""
    with torch.no_grad():
        vector = torch.cat([value.reshape(-1) for value in values])
        for value, view in zip(values, _views(vector, values), strict=True):
            value.data = view
    return vector


def _views(vector: Tensor, values: Sequence[Tensor]) -> list[Tensor]:
    parts = vector.detach().split([value.numel() for value in values])
    return [part.view(value.shape) for part, value in zip(parts, values, strict=True)]
