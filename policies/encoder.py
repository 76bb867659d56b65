"""The observation encoder: normalised low-dimensional features beside one image backbone for each camera.

With an estimator, what that makes of the whole window stands beside each of the last observations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from robot_rl.datasets.contract import Contract
from robot_rl.policies.augmentation import Augmentation
from robot_rl.policies.configuration import PolicyError
from robot_rl.policies.estimator import Estimator
from robot_rl.policies.normalizer import Normalizer
from robot_rl.policies.rotation import quaternion_to_6d


class Encoder(nn.Module):
    """Observations in raw units to the context [B, To, C].

    Args:
        contract: with exactly the features that are observed.
        backbones: for each camera a module from [N, channels, height, width] to [N, module.features].
        augmentation: applied to images in training mode; in evaluation it only crops the centre.
        horizon: To, observations of the context, the last of those given.
        estimator: see `Estimator`; its features may be others than those of the contract.
        frames: how many pictures are seen, the last ones; None: To. What the first of them shows stands beside the
            earlier observations as well.
        rotation: `rotation_6d` turns quaternions to six continuous numbers (q and -q to the same), `keep` leaves them.
    """

    def __init__(
        self,
        contract: Contract,
        backbones: Mapping[str, nn.Module],
        augmentation: Augmentation,
        rotation: Literal["keep", "rotation_6d"],
        horizon: int,
        estimator: Estimator | None = None,
        frames: int | None = None,
    ) -> None:
        super().__init__()
        if rotation not in ("keep", "rotation_6d"):
            raise PolicyError(f"normalizer.rotation: expected keep or rotation_6d, got {rotation!r}")
        self.states = [name for name, feature in contract.observation.items() if not feature.is_frame]
        self.cameras = [name for name, feature in contract.observation.items() if feature.is_frame]
        self.normalizer = Normalizer(sum(contract.observation[name].size for name in self.states))
        self.backbones = nn.ModuleDict({_key(name): module for name, module in backbones.items()})
        self.augmentation = augmentation
        self.horizon = horizon
        self.frames = horizon if frames is None else frames
        self.estimator = estimator
        self._quaternions: list[int] = []
        start = 0
        for name in self.states:
            feature = contract.observation[name]
            if rotation == "rotation_6d" and feature.representation in ("quaternion", "position_quaternion"):
                assert feature.rotation is not None
                self._quaternions.append(start + feature.rotation.start)
            start += feature.size
        widths = [int(module.features) for module in backbones.values()]  # type: ignore[arg-type]
        start += 2 * len(self._quaternions)
        self.features = start + sum(widths)
        self._pictures = slice(start, self.features)
        if estimator is not None:
            self.features += estimator.features

    def forward(self, observation: Mapping[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """{name: [B, T, *shape]}, T at least To, to [B, To, C]; one observation alone to [B, 1, C].

        The generator draws augmentation, in training mode.
        """
        parts, estimate = [], None
        if self.estimator is not None:
            estimate = self.estimator(observation).unsqueeze(1).expand(-1, self.horizon, -1)
            own = (*self.states, *self.cameras)
            observation = {name: observation[name][:, -self.horizon :] for name in own}
        if self.states:
            flat = torch.cat([_flat(observation[name]).float() for name in self.states], dim=-1)
            parts.append(self._rotations_to_6d(self.normalizer.normalize(flat)))
        for name in self.cameras:
            parts.append(self._see(name, observation[name], generator))
        if estimate is not None:
            parts.append(estimate)
        return torch.cat(parts, dim=-1)

    def remembered(self, seen: Tensor) -> Tensor:
        """The context [B, To, C] of observations that were encoded one by one, [B, To, C], which it changes."""
        hidden = self.horizon - self.frames
        if hidden > 0:
            seen[:, :hidden, self._pictures] = seen[:, hidden : hidden + 1, self._pictures]
        return seen

    def _see(self, name: str, frames: Tensor, generator: torch.Generator | None) -> Tensor:
        given, frames = frames.shape[1], frames[:, -self.frames :]
        horizon = frames.shape[1]
        # Frames come with the channels last in memory: the permuted view is already in channels_last format.
        # Depth becomes float (metres) first, because torch cannot index uint16.
        colour = frames.dtype == torch.uint8
        frames = frames if colour else frames.float()
        images = self.augmentation.move(frames.flatten(0, 1).permute(0, 3, 1, 2), horizon, generator)
        scale = 1 / 255 if colour else 1e-3
        images = self.augmentation.colour(images.float() * scale, horizon, generator)
        features: Tensor = self.backbones[_key(name)](images).float().unflatten(0, (-1, horizon))
        if horizon == given:
            return features
        earlier = features[:, :1].expand(-1, given - horizon, -1)
        return torch.cat([earlier, features], dim=1)

    def _rotations_to_6d(self, states: Tensor) -> Tensor:
        parts, start = [], 0
        for place in self._quaternions:
            parts += [states[..., start:place], quaternion_to_6d(states[..., place : place + 4])]
            start = place + 4
        return torch.cat([*parts, states[..., start:]], dim=-1) if parts else states


def _flat(value: Tensor) -> Tensor:
    """[B, To, *shape] to [B, To, size]. What is flat already stays out of an exported graph."""
    return value if value.dim() == 3 else value.unsqueeze(2).flatten(2)


def _key(name: str) -> str:
    """A camera's name as a module key, which must not contain a dot."""
    return name.replace(".", "_dot_")
