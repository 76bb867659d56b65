"""A convolutional encoder of few layers, for small pictures in which it counts where everything is and how large.

What it sees in each cell of a grid goes to a linear layer. Spatial softmax (`robot_rl.policies.cnn`) keeps a place for
each map alone, and loses which of several alike things, such as the gates of a course, stands where.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from robot_rl.policies.configuration import PolicyError


class GridCNN(nn.Module):
    """Convolutions without normalisation, then a linear layer over the grid.

    Args:
        input_channels: 3 for RGB, 1 for depth.
        channels: of each convolution.
        stride: of the first, whose kernel is twice as wide; the others are 3×3 with stride 2.
        grid: rows and columns of cells, over which the last maps are averaged; their own size loses nothing.
        features: length of the output.
    """

    def __init__(
        self, input_channels: int, *, channels: Sequence[int] = (32, 64), stride: int = 4,
        grid: Sequence[int] = (6, 8), features: int = 64,
    ) -> None:  # fmt: skip
        super().__init__()
        if not channels or stride < 2 or stride % 2 or len(grid) != 2 or min(grid) < 1:
            raise ValueError(
                "expected at least one of channels, an even stride and [rows, columns] of a grid; "
                f"got {list(channels)}, {stride} and {list(grid)}"
            )
        self.features, self.grid = features, (int(grid[0]), int(grid[1]))
        layers: list[nn.Module] = [nn.Conv2d(input_channels, channels[0], 2 * stride, stride, stride // 2), nn.ReLU()]
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.output = nn.Linear(channels[-1] * grid[0] * grid[1], features)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """[N, input_channels, height, width] in [0, 1] to [N, features].

        Raises:
            PolicyError: the grid does not divide what the convolutions leave of the picture.
        """
        maps = self.convolutions(images * 2 - 1)
        (rows, columns), (height, width) = self.grid, (int(size) for size in maps.shape[-2:])
        if height % rows or width % columns:
            raise PolicyError(
                f"encoder.grid: {[rows, columns]} does not divide the {[height, width]} that its convolutions leave of "
                f"{list(images.shape[-2:])} pixels; choose divisors"
            )
        if (height, width) != (rows, columns):
            maps = nn.functional.avg_pool2d(maps, (height // rows, width // columns))
        features: Tensor = self.output(maps.flatten(1))
        return features
