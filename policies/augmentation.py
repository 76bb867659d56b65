"""Image augmentation on the batch, on the device where it lies: crop, shift and colour jitter.

All frames of one sample's observation window are changed alike, so that motion between them stays what it was.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robot_rl.policies import draw


class Augmentation(nn.Module):
    """In training mode random, in evaluation mode only the centre crop. Everything off is the identity.

    Args:
        crop: side [pixel] of the square that is cut out; None keeps the image (Chi et al. 2023: 76 of 84).
        shift: largest shift [pixel] in each direction, edges repeated (Yarats et al. 2021: 4 of 84).
        brightness, contrast, saturation: largest relative change, for example 0.3; RGB images only.
    """

    def __init__(
        self,
        *,
        crop: int | None = None,
        shift: int = 0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
    ) -> None:
        super().__init__()
        if (crop is not None and crop < 1) or min(shift, brightness, contrast, saturation) < 0:
            raise ValueError("augmentation: crop must be positive or null, everything else at least 0")
        self.crop = crop
        self.shift = shift
        self.jitter = (brightness, contrast, saturation)

    def forward(self, images: Tensor, horizon: int, generator: torch.Generator | None = None) -> Tensor:
        """[B * horizon, C, height, width] in [0, 1]; the horizon is the number of consecutive frames of one sample."""
        if self.training:
            if self.shift:
                images = _window(
                    F.pad(images, (self.shift,) * 4, mode="replicate"), images.shape[-2:], horizon, generator
                )
            if self.crop is not None:
                images = _window(images, (self.crop, self.crop), horizon, generator)
            if any(self.jitter) and images.shape[1] == 3:
                images = _jitter(images, self.jitter, horizon, generator)
        elif self.crop is not None:
            top, left = (images.shape[-2] - self.crop) // 2, (images.shape[-1] - self.crop) // 2
            images = images[..., top : top + self.crop, left : left + self.crop]
        return images


def _window(images: Tensor, size: tuple[int, ...], horizon: int, generator: torch.Generator | None) -> Tensor:
    """A random window of that size for each sample."""
    samples = len(images) // horizon
    places = []
    for length, side in zip(images.shape[-2:], size, strict=True):
        start = draw.integers(length - side + 1, (samples,), images.device, generator).repeat_interleave(horizon)
        places.append(start[:, None] + torch.arange(side, device=images.device))
    rows, columns = places
    index = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _jitter(
    images: Tensor, strength: tuple[float, float, float], horizon: int, generator: torch.Generator | None
) -> Tensor:
    samples = len(images) // horizon
    factors = (draw.uniform((samples, 3), images.device, generator) * 2 - 1).unbind(dim=1)
    brightness, contrast, saturation = (
        (1 + most * factor).repeat_interleave(horizon)[:, None, None, None]
        for most, factor in zip(strength, factors, strict=True)
    )
    images = images * brightness
    images = torch.lerp(_grey(images).mean(dim=(-2, -1), keepdim=True).expand_as(images), images, contrast)
    images = torch.lerp(_grey(images).expand_as(images), images, saturation)
    return images.clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    """Luma of Rec. 601, one channel."""
    red, green, blue = images.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue
