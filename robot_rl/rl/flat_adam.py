"""Adam on vectors: each group of parameters lies in one, so that an update costs a few calls whatever their number.

The networks of reinforcement learning are small: an update of a dozen tensors takes longer to dispatch than to
compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW


class FlatAdam:
    """Parameters become views of their group's vector, and stay so as long as their data are only changed in place.

    Args:
        groups: of parameters, each with a learning rate.

    Attributes:
        param_groups: those of torch's optimizer; `peak` is what a schedule scales.
        state: of each parameter the views of its moments, for checkpoints.
    """

    def __init__(self, groups: Sequence[tuple[Sequence[nn.Parameter], float]], eps: float = 1e-8) -> None:
        self.parameters = [list(values) for values, _ in groups]
        self._vectors = [_flatten(values) for values in self.parameters]
        self._adam = AdamW(
            [{"params": [v], "lr": lr, "peak": lr} for v, (_, lr) in zip(self._vectors, groups, strict=True)],
            weight_decay=0.0, eps=eps, fused=True,
        )  # fmt: skip
        self.param_groups: list[dict[str, Any]] = self._adam.param_groups
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        for vector, values in zip(self._vectors, self.parameters, strict=True):
            moments = {name: torch.zeros_like(vector) for name in ("exp_avg", "exp_avg_sq")}
            step = torch.zeros((), device=vector.device)
            self._adam.state[vector] = {"step": step, **moments}
            views = {name: _views(moment, values) for name, moment in moments.items()}
            for number, value in enumerate(values):
                self.state[value] = {"step": step, **{name: views[name][number] for name in moments}}

    def step(self, loss: Tensor, groups: Sequence[int], clip: float | None = None) -> None:
        """Move these groups down the gradient of the loss; no others get one.

        Args:
            clip: the largest norm of each group's gradient.
        """
        every = [value for group in groups for value in self.parameters[group]]
        found = list(torch.autograd.grad(loss, every, allow_unused=True, materialize_grads=True))
        for group in groups:
            own, found = found[: len(self.parameters[group])], found[len(self.parameters[group]) :]
            gradient = torch.cat([part.reshape(-1) for part in own])
            if clip is not None:
                gradient.mul_((clip / (gradient.norm() + 1e-6)).clamp(max=1.0))
            self._vectors[group].grad = gradient
        self._adam.step()
        for group in groups:
            self._vectors[group].grad = None


def _flatten(values: Sequence[nn.Parameter]) -> nn.Parameter:
    """A vector of all these parameters, of which they are views from now on."""
    with torch.no_grad():
        vector = torch.cat([value.reshape(-1) for value in values])
        for value, view in zip(values, _views(vector, values), strict=True):
            value.data = view
    return nn.Parameter(vector)


def _views(vector: Tensor, values: Sequence[Tensor]) -> list[Tensor]:
    parts = vector.detach().split([value.numel() for value in values])
    return [part.view(value.shape) for part, value in zip(parts, values, strict=True)]
