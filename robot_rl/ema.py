"""Exponential moving average of a network's weights: what is evaluated, saved and deployed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

POWER = 0.75
MAX_DECAY = 0.9999


def decay(updates: int, power: float = POWER, max_decay: float = MAX_DECAY) -> float:
    """Share of the old average that is kept, `1 - (1 + n)^-power`, bounded by `max_decay`.

    Schedule and constants are those of diffusion_policy (Chi et al. 2023, `EMAModel`): the first update copies the
    weights, then the average grows longer as training settles.

    Args:
        updates: n, how many updates came before.
    """
    share: float = 1.0 - (1.0 + updates) ** -power
    return min(max_decay, share)


class Ema:
    """The moving average of the trained parameters of a module. Frozen parameters and buffers are the module's own."""

    def __init__(self, module: nn.Module, power: float = POWER, max_decay: float = MAX_DECAY) -> None:
        self.power, self.max_decay, self.updates = power, max_decay, 0
        self._live = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self._average = {name: value.detach().clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights; call once after each optimizer step."""
        weight = 1.0 - decay(self.updates, self.power, self.max_decay)
        torch._foreach_lerp_(list(self._average.values()), [value.detach() for value in self._live.values()], weight)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the module computes with the averaged weights; afterwards with its own again."""
        own = [value.detach().clone() for value in self._live.values()]
        self._copy(self._average.values())
        try:
            yield
        finally:
            self._copy(own)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights by parameter name. `updates` is kept beside them."""
        return dict(self._average)

    def load_state_dict(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Restore what `state_dict` gave, after that many updates."""
        for name, value in self._average.items():
            value.copy_(state[name])
        self.updates = updates

    @torch.no_grad()
    def _copy(self, values: object) -> None:
        torch._foreach_copy_([value.detach() for value in self._live.values()], list(values))  # type: ignore[call-overload]
