"""A small convolutional image encoder, fast enough to train on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robot_rl.policies.spatial_softmax import SpatialSoftmax


class CNN(nn.Module):
    """Convolutions of stride 2 with GroupNorm, spatial softmax, and a linear layer.

    Args:
        input_channels: 3 for RGB, 1 for depth.
        channels: of each convolution; the first has a 5×5 kernel, the others 3×3.
        keypoints: of the spatial softmax.
        features: length of the output.
    """

    def __init__(
        self, input_channels: int, *, channels: Sequence[int] = (32, 64, 128), keypoints: int = 32, features: int = 64
    ) -> None:
        super().__init__()
        if not channels or any(width % 8 for width in channels):
            raise ValueError(f"channels: expected multiples of 8 (the groups of GroupNorm), got {list(channels)}")
        self.features = features
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(zip((input_channels, *channels), channels, strict=False)):
            kernel = 5 if index == 0 else 3
            layers += [nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2, bias=False)]
            layers += [nn.GroupNorm(8, after), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.keypoints = SpatialSoftmax(channels[-1], keypoints)
        self.output = nn.Linear(2 * keypoints, features)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """[N, input_channels, height, width] in [0, 1] to [N, features]."""
        features: Tensor = self.output(self.keypoints(self.convolutions(images * 2 - 1)))
        return features
