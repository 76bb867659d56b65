"""Spatial softmax: feature maps to the image coordinates where they respond (Finn et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robot_rl.policies.configuration import PolicyError


class SpatialSoftmax(nn.Module):
    """[N, channels, height, width] to [N, 2 * keypoints]: x of all keypoints, then y, in [-1, 1]."""

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(channels, keypoints, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        """The expected coordinates under the softmax of each map."""
        maps = self.maps(features).float()
        if min(maps.shape[-2:]) < 2:
            raise PolicyError(
                f"the image is too small for its encoder: {list(maps.shape[-2:])} pixels are left, where coordinates "
                "need at least 2; use larger images, a larger crop or a shallower encoder"
            )
        weight = maps.flatten(2).softmax(dim=-1).unflatten(-1, maps.shape[-2:])
        x = torch.linspace(-1, 1, maps.shape[-1], device=maps.device)
        y = torch.linspace(-1, 1, maps.shape[-2], device=maps.device)
        return torch.cat([(weight.sum(dim=-2) * x).sum(dim=-1), (weight.sum(dim=-1) * y).sum(dim=-1)], dim=-1)
