"""Residual MLP over the flattened chunk: the smallest and fastest denoiser, for low-dimensional observations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from robot_rl.policies.denoiser import Denoiser, Shapes, SinusoidalEmbedding


class MLP(Denoiser):
    """Pre-norm residual blocks of two layers.

    Args:
        width: features of the residual stream.
        depth: number of blocks.
        time_features: of the sinusoidal embedding of time.
        conditioning: `concat` adds time and context to the input; `film` scales and shifts each block's input by them.
        dropout: inside each block.
    """

    def __init__(
        self,
        shapes: Shapes,
        *,
        width: int = 256,
        depth: int = 3,
        time_features: int = 64,
        conditioning: Literal["concat", "film"] = "concat",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(shapes)
        if conditioning not in ("concat", "film"):
            raise ValueError(f"denoiser.conditioning: expected concat or film, got {conditioning!r}")
        condition = time_features + shapes.obs_horizon * shapes.context_dim
        chunk = shapes.horizon * shapes.input_dim
        film = conditioning == "film"
        self.time_features = time_features
        self.time = SinusoidalEmbedding(time_features)
        self.condition = nn.Sequential(nn.Linear(condition, width), nn.SiLU()) if film else None
        self.input = nn.Linear(chunk if film else chunk + condition, width)
        self.blocks = nn.ModuleList(_Block(width, dropout, film) for _ in range(depth))
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, shapes.horizon * shapes.action_dim))

    def forward(self, x: Tensor, time: Tensor, context: Tensor, known: Tensor | None = None) -> Tensor:
        condition = torch.cat(
            [self.time(time), context.reshape(-1, self.shapes.obs_horizon * self.shapes.context_dim)], dim=-1
        )
        chunk = self.channels(x, known).reshape(-1, self.shapes.horizon * self.shapes.input_dim)
        if self.condition is None:
            h = self.input(torch.cat([chunk, condition], dim=-1))
        else:
            condition = self.condition(condition)
            h = self.input(chunk)
        return self._blocks(h, condition)

    def parts(self, time: Tensor, context: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """The shares of time and context in the first layer that reads them, [K, width] and (with bias) [B, width]."""
        first, linear = self._first, nn.functional.linear
        _, of_time, of_context = self._first_weights()
        return (linear(self.time(time), of_time),), (linear(context.flatten(1), of_context, first.bias),)

    def step(
        self, x: Tensor, time_parts: Sequence[Tensor], context_parts: Sequence[Tensor], known: Tensor | None = None
    ) -> Tensor:
        condition = time_parts[0] + context_parts[0]
        chunk = self.channels(x, known).reshape(-1, self.shapes.horizon * self.shapes.input_dim)
        if self.condition is None:
            return self._blocks(torch.addmm(condition, chunk, self._first_weights()[0].t()), condition)
        return self._blocks(self.input(chunk), self.condition[1](condition))

    @property
    def _first(self) -> nn.Linear:
        """The layer that reads time and context."""
        first = self.input if self.condition is None else self.condition[0]
        assert isinstance(first, nn.Linear)
        return first

    def _first_weights(self) -> tuple[Tensor, ...]:
        """Of chunk (none with FiLM), time and context in that layer."""
        time, context = self.time_features, self.shapes.obs_horizon * self.shapes.context_dim
        sizes = [self._first.in_features - time - context, time, context]
        weights: tuple[Tensor, ...] = self._first.weight.split(sizes, dim=1)
        return weights

    def _blocks(self, h: Tensor, condition: Tensor) -> Tensor:
        for block in self.blocks:
            h = block(h, condition)
        chunk: Tensor = self.output(h).reshape(-1, self.shapes.horizon, self.shapes.action_dim)
        return chunk


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float, film: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.film = nn.Linear(width, 2 * width) if film else None
        self.layers = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width))

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        inner = self.norm(h)
        if self.film is not None:
            scale, shift = self.film(condition).chunk(2, dim=-1)
            inner = inner * (1 + scale) + shift
        y: Tensor = h + self.layers(inner)
        return y
