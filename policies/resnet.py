"""ResNet-18 (He et al. 2016) with GroupNorm and spatial softmax, the image encoder of Chi et al. 2023.

Batch statistics do not go together with the averaged weights of evaluation, which is why GroupNorm stands in for
BatchNorm, with 16 channels a group.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robot_rl.policies.spatial_softmax import SpatialSoftmax

CHANNELS_PER_GROUP = 16


class ResNet18(nn.Module):
    """Args:
    input_channels: 3 for RGB, 1 for depth.
    keypoints: of the spatial softmax.
    features: length of the output.
    width: channels of the first stage; the next three double it.
    """

    def __init__(self, input_channels: int, *, keypoints: int = 32, features: int = 64, width: int = 64) -> None:
        super().__init__()
        if width % CHANNELS_PER_GROUP:
            raise ValueError(f"width: expected a multiple of {CHANNELS_PER_GROUP}, got {width}")
        self.features = features
        stem = nn.Conv2d(input_channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.stem = nn.Sequential(stem, _norm(width), nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
        stages: list[nn.Module] = []
        for before, after, stride in (
            (width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 8 * width, 2),
        ):  # fmt: skip
            stages += [_BasicBlock(before, after, stride), _BasicBlock(after, after, 1)]
        self.stages = nn.Sequential(*stages)
        self.keypoints = SpatialSoftmax(8 * width, keypoints)
        self.output = nn.Linear(2 * keypoints, features)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """[N, input_channels, height, width] in [0, 1] to [N, features]."""
        features: Tensor = self.output(self.keypoints(self.stages(self.stem(images * 2 - 1))))
        return features


class _BasicBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False),
            _norm(after),
            nn.ReLU(),
            nn.Conv2d(after, after, kernel_size=3, padding=1, bias=False),
            _norm(after),
        )
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.skip = nn.Sequential(nn.Conv2d(before, after, kernel_size=1, stride=stride, bias=False), _norm(after))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layers(x) + self.skip(x))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)
