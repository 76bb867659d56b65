"""AdamW with decoupled weight decay (Loshchilov and Hutter 2019) and a warm-up followed by half a cosine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from torch import nn
from torch.optim import AdamW


def build_optimizer(
    module: nn.Module,
    learning_rate: float,
    betas: Sequence[float] = (0.9, 0.999),
    weight_decay: float = 0.0,
    encoder_learning_rate: float | None = None,
) -> AdamW:
    """AdamW over the parameters that require gradients.

    Weight decay acts on the matrices of linear, convolution and attention layers only: biases, normalisation gains and
    embeddings are left alone, because shrinking them removes no capacity and costs accuracy.

    Args:
        encoder_learning_rate: [1/step], for parameters below `encoder.`; the same as the others' when None.
    """
    exempt = {
        id(value) for layer in module.modules() if isinstance(layer, nn.Embedding) for value in layer.parameters()
    }
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, value in module.named_parameters():
        if value.requires_grad:
            decays = value.ndim >= 2 and name.endswith("weight") and id(value) not in exempt
            encoder = encoder_learning_rate is not None and "encoder." in f".{name}"
            groups.setdefault((decays, encoder), []).append(value)
    if not groups:
        raise ValueError("the policy has no parameter that requires gradients: is every part of it frozen?")
    described = [
        {
            "params": values,
            "weight_decay": weight_decay if decays else 0.0,
            "peak": encoder_learning_rate if encoder else learning_rate,
        }
        for (decays, encoder), values in groups.items()
    ]
    # The fused kernel updates all parameters at once: on CUDA without a launch each, on the CPU in one vectorised pass.
    return AdamW(described, lr=learning_rate, betas=(float(betas[0]), float(betas[1])), fused=True)


def warmup_cosine(step: int, steps: int, warmup: int, final: float = 0.0) -> float:
    """Factor on the peak learning rate at a step (the first is 0): linear up to 1, then a half cosine to `final`."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


class Grouped(Protocol):
    """An optimizer with groups of parameters."""

    param_groups: list[dict[str, Any]]


def set_learning_rate(optimizer: Grouped, factor: float) -> float:
    """Give every group its peak times `factor`; returns the first group's learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return float(optimizer.param_groups[0]["lr"])
