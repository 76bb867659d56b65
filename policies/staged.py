"""Two denoisers of one kind, one for the noisy steps and one for the last, as fine-tuning by DPPO leaves them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robot_rl.policies.configuration import construct, resolve
from robot_rl.policies.denoiser import Denoiser, Shapes
from robot_rl.policies.mlp import MLP
from robot_rl.policies.transformer import Transformer
from robot_rl.policies.unet1d import UNet1D

KINDS: dict[str, type] = {"mlp": MLP, "unet1d": UNet1D, "transformer": Transformer}


class Staged(Denoiser):
    """Args:
    denoiser: configuration of both.
    boundary: the diffusion step below which `last` denoises; from there on `first` does.
    """

    def __init__(self, shapes: Shapes, *, denoiser: Mapping[str, Any] | None = None, boundary: float = 0.0) -> None:
        super().__init__(shapes)
        resolved = resolve("denoiser.denoiser", denoiser or {"name": "mlp"}, KINDS)
        self.boundary = boundary
        self.first: Denoiser = construct("denoiser.denoiser", resolved, KINDS, shapes)
        self.last: Denoiser = construct("denoiser.denoiser", resolved, KINDS, shapes)

    def forward(self, x: Tensor, time: Tensor, context: Tensor, known: Tensor | None = None) -> Tensor:
        late = time < self.boundary
        if not torch.onnx.is_in_onnx_export():  # an exported graph cannot branch, and computes both
            if bool(late.all()):
                return self.last(x, time, context, known)
            if not bool(late.any()):
                return self.first(x, time, context, known)
        return torch.where(
            late[:, None, None], self.last(x, time, context, known), self.first(x, time, context, known)
        )  # fmt: skip
