"""Image augmentation on the batch, on the device where it lies: shift, crop and colour jitter.

All frames of one sample's observation window are changed alike, so that motion between them stays what it was.
"""

from __future__ import annotations

import torch
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
            raise ValueError("expected a positive crop or null, and everything else at least 0")
        self.crop = crop
        self.shift = shift
        self.jitter = (brightness, contrast, saturation)

    def move(self, images: Tensor, horizon: int, generator: torch.Generator | None = None) -> Tensor:
        """Shift and crop [B * horizon, C, height, width] of any dtype; `horizon` consecutive frames are one sample."""
        height, width = images.shape[-2:]
        if self.training and self.shift:
            images = _window(images, (height, width), self.shift, horizon, generator)
        if self.crop is None:
            return images
        if self.training:
            return _window(images, (self.crop, self.crop), 0, horizon, generator)
        top, left = (height - self.crop) // 2, (width - self.crop) // 2
        return images[..., top : top + self.crop, left : left + self.crop]

    def colour(self, images: Tensor, horizon: int, generator: torch.Generator | None = None) -> Tensor:
        """Change brightness, contrast and saturation of float RGB images [B * horizon, 3, height, width] in [0, 1]."""
        if not (self.training and any(self.jitter) and images.shape[1] == 3):
            return images
        factors = draw.uniform((len(images) // horizon, 3), images.device, generator) * 2 - 1
        brightness, contrast, saturation = (
            (1 + most * factor).repeat_interleave(horizon)[:, None, None, None]
            for most, factor in zip(self.jitter, factors.unbind(dim=1), strict=True)
        )
        images = images * brightness
        images = torch.lerp(_grey(images).mean(dim=(-2, -1), keepdim=True).expand_as(images), images, contrast)
        images = torch.lerp(_grey(images).expand_as(images), images, saturation)
        return images.clamp(0, 1)


def _window(
    images: Tensor, size: tuple[int, int], border: int, horizon: int, generator: torch.Generator | None
) -> Tensor:
    """A random window of that size for each sample, from the image with its edges repeated over a border."""
    samples = len(images) // horizon
    places = []
    for length, side in zip(images.shape[-2:], size, strict=True):
        start = draw.integers(length - side + 2 * border + 1, (samples,), images.device, generator) - border
        place = start.repeat_interleave(horizon)[:, None] + torch.arange(side, device=images.device)
        places.append(place.clamp(0, length - 1))
    rows, columns = places
    index = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _grey(images: Tensor) -> Tensor:
    """Luma of Rec. 601, one channel."""
    red, green, blue = images.split(1, dim=1)
    grey: Tensor = 0.299 * red + 0.587 * green + 0.114 * blue
    return grey
