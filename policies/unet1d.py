"""Conditional 1-D U-Net over the steps of a chunk, after the CNN policy of Chi et al. 2023 (Diffusion Policy).

Two residual blocks a level; time and context enter every block as FiLM (Perez et al. 2018): one scale and shift for
each channel, the same for all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from robot_rl.policies.denoiser import Denoiser, Shapes, SinusoidalEmbedding


class UNet1D(Denoiser):
    """Args:
    widths: channels of each level, from full to lowest resolution (published: 256, 512, 1024; from images twice that).
    kernel: of the convolutions along the chunk.
    groups: of GroupNorm.
    time_features: of the embedding of time (published: 256; from images 128).
    scale: whether FiLM scales as well as shifts.
    """

    def __init__(
        self,
        shapes: Shapes,
        *,
        widths: Sequence[int] = (256, 512, 1024),
        kernel: int = 5,
        groups: int = 8,
        time_features: int = 256,
        scale: bool = True,
    ) -> None:
        super().__init__(shapes)
        multiple = 2 ** (len(widths) - 1)
        if not widths or shapes.horizon % multiple:
            raise ValueError(
                f"a U-Net of {len(widths)} levels halves the chunk {len(widths) - 1} times: action_horizon must be a "
                f"multiple of {multiple}, got {shapes.horizon}; change it or use fewer widths"
            )
        if any(width % groups for width in widths):
            raise ValueError(f"widths {list(widths)} are not all multiples of groups = {groups}")
        if kernel % 2 == 0:
            raise ValueError(f"kernel: expected an odd number, which leaves a chunk its length, got {kernel}")
        condition = time_features + shapes.obs_horizon * shapes.context_dim

        def block(before: int, after: int) -> _ResidualBlock:
            return _ResidualBlock(before, after, condition, kernel, groups, scale)

        self.time = nn.Sequential(
            SinusoidalEmbedding(time_features),
            nn.Linear(time_features, 4 * time_features),
            nn.Mish(),
            nn.Linear(4 * time_features, time_features),
        )
        levels = list(pairwise((shapes.input_dim, *widths)))
        self.down = nn.ModuleList(nn.ModuleList([block(a, b), block(b, b)]) for a, b in levels)
        self.shrink = nn.ModuleList(nn.Conv1d(width, width, 3, stride=2, padding=1) for width in widths[:-1])
        self.middle = nn.ModuleList([block(widths[-1], widths[-1]), block(widths[-1], widths[-1])])
        self.up = nn.ModuleList(nn.ModuleList([block(2 * b, a), block(a, a)]) for a, b in reversed(levels[1:]))
        self.grow = nn.ModuleList(
            nn.ConvTranspose1d(width, width, 4, stride=2, padding=1) for width in reversed(widths[:-1])
        )
        self.output = nn.Sequential(
            _ConvBlock(widths[0], widths[0], kernel, groups), nn.Conv1d(widths[0], shapes.action_dim, 1)
        )

    def forward(self, x: Tensor, time: Tensor, context: Tensor, known: Tensor | None = None) -> Tensor:
        condition = torch.cat(
            [self.time(time), context.reshape(-1, self.shapes.obs_horizon * self.shapes.context_dim)], dim=-1
        )
        h = self.channels(x, known).transpose(1, 2)
        skips = []
        for level, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, condition)
            skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        for block in self.middle:
            h = block(h, condition)
        for blocks, grow in zip(self.up, self.grow, strict=True):
            h = torch.cat([h, skips.pop()], dim=1)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, condition)
            h = grow(h)
        chunk: Tensor = self.output(h).transpose(1, 2)
        return chunk


class _ConvBlock(nn.Sequential):
    def __init__(self, before: int, after: int, kernel: int, groups: int) -> None:
        super().__init__(nn.Conv1d(before, after, kernel, padding=kernel // 2), nn.GroupNorm(groups, after), nn.Mish())


class _ResidualBlock(nn.Module):
    def __init__(self, before: int, after: int, condition: int, kernel: int, groups: int, scale: bool) -> None:
        super().__init__()
        self.first = _ConvBlock(before, after, kernel, groups)
        self.second = _ConvBlock(after, after, kernel, groups)
        self.scale = scale
        self.film = nn.Sequential(nn.Mish(), nn.Linear(condition, 2 * after if scale else after))
        self.skip = nn.Conv1d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        film = self.film(condition).unsqueeze(-1)
        h = self.first(x)
        if self.scale:
            scale, shift = film.chunk(2, dim=1)
            h = h * scale + shift
        else:
            h = h + film
        y: Tensor = self.second(h) + self.skip(x)
        return y
