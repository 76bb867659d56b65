"""A plain multilayer perceptron of the context: the mean of a Gaussian, where nothing has to be denoised."""

from __future__ import annotations

from torch import Tensor

from robot_rl.policies.denoiser import Denoiser, Shapes
from robot_rl.policies.dense import ACTIVATIONS, Dense


class Perceptron(Denoiser):
    """Linear layers, which read neither the chunk nor the time.

    Args:
        width, depth: of the hidden layers.
        activation: between them, `relu` or `tanh`.
    """

    def __init__(self, shapes: Shapes, *, width: int = 256, depth: int = 2, activation: str = "relu") -> None:
        super().__init__(shapes)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected {' or '.join(ACTIVATIONS)}, got {activation!r}")
        inputs, outputs = shapes.obs_horizon * shapes.context_dim, shapes.horizon * shapes.action_dim
        self.layers = Dense([inputs, *[width] * depth, outputs], activation)

    def forward(self, x: Tensor, time: Tensor, context: Tensor, known: Tensor | None = None) -> Tensor:
        chunk: Tensor = self.layers(context.flatten(1)).reshape(-1, self.shapes.horizon, self.shapes.action_dim)
        return chunk
