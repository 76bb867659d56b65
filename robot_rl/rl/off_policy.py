"""The one off-policy core: critics and their targets, trained on batches of a replay, for any `OffPolicyMethod`.

Critics regress on y = r + gamma^n V(s') with V of the method and the target critics, which follow by Polyak averaging.
After `update_ratio` such updates, one for each control step, the actor is updated once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from robot_rl.policies.critic_ensemble import CriticEnsemble
from robot_rl.rl.flat_adam import FlatAdam, flatten
from robot_rl.rl.off_policy_method import OffPolicyMethod
from robot_rl.rl.on_policy import FinetuneError
from robot_rl.rl.replay import Batch


@dataclass(frozen=True)
class OffPolicySettings:
    """The keys of `training:`, explained in `configs/finetune.yaml` and `rl/core/off_policy.yaml`."""

    steps: int
    num_envs: int
    rollout_steps: int
    execute: int | None
    discount: float
    learning_rate: float
    critic_learning_rate: float
    gradient_clip: float | None
    critic_width: int
    critic_depth: int
    save_every: int
    evaluate_every: int
    evaluate_episodes: int
    start_steps: int
    update_ratio: int
    batch: int
    demonstration_share: float
    return_chunks: int
    critics: int
    critic_subset: int
    layer_norm: bool
    polyak: float
    precision: str
    scale_observations: bool

    @staticmethod
    def read(plain: Mapping[str, Any]) -> OffPolicySettings:
        """From configuration; unknown, missing and impossible values are errors, all named at once."""
        known, may_be_null = [item.name for item in fields(OffPolicySettings)], ("execute", "gradient_clip")
        problems = [f"{key}: no such key; known are {', '.join(known)}" for key in plain if key not in known]
        problems += [f"{key}: missing" for key in known if plain.get(key) is None and key not in may_be_null]
        given = {key: plain[key] for key in known if plain.get(key) is not None}
        above_zero = ("learning_rate", "critic_learning_rate", "gradient_clip", "discount", "polyak")
        exempt = ("start_steps", "demonstration_share", "layer_norm", "scale_observations", "precision", *above_zero)
        bounds: list[tuple[str, bool, str]] = [
            (key, value >= 1, "at least 1") for key, value in given.items() if key not in exempt
        ]
        bounds += [(key, 0 < given[key] < math.inf, "a finite number above 0") for key in above_zero if key in given]
        bounds += [(key, given[key] <= 1, "at most 1") for key in ("discount", "polyak") if key in given]
        if "start_steps" in given:
            bounds.append(("start_steps", given["start_steps"] >= 0, "at least 0"))
        if "demonstration_share" in given:
            bounds.append(("demonstration_share", 0 <= given["demonstration_share"] < 1, "at least 0 and below 1"))
        if "critics" in given and "critic_subset" in given:
            bounds.append(("critic_subset", given["critic_subset"] <= given["critics"], "no more than critics"))
        if "precision" in given:
            bounds.append(("precision", given["precision"] in ("fp32", "bf16"), "fp32 or bf16"))
        problems += [f"{key}: expected {wanted}, got {given[key]}" for key, fine, wanted in bounds if not fine]
        if problems:
            raise FinetuneError("training: cannot be read:\n" + "\n".join(f"  - {line}" for line in problems))
        return OffPolicySettings(**{**dict.fromkeys(may_be_null), **plain})


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """How a CPU computes updates.

    Matrix products: `bf16` rounds their factors to bfloat16; sums and all else stay float32. What is too small for a
    normal float32 is zero: the averages that Adam keeps of a unit that died decay through such numbers, each operation
    on one of which takes a hundred cycles.
    """
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before, matmul.fp32_precision = matmul.fp32_precision, {"fp32": "ieee", "bf16": "bf16"}[precision]
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        matmul.fp32_precision = before


class Critics(nn.Module):
    """What is trained beside a method's own parameters, and what follows it.

    Attributes:
        method, live: with gradients; one optimizer and one checkpoint hold both.
        target: follows `live`, and has no gradients.
    """

    def __init__(self, method: OffPolicyMethod, settings: OffPolicySettings) -> None:
        super().__init__()
        shapes = method.policy.denoiser.shapes
        inputs = shapes.obs_horizon * method.policy.encoder.features + method.execute * shapes.action_dim
        self.method = method
        self.live, self.target = (
            CriticEnsemble(
                inputs, settings.critics, settings.critic_width, settings.critic_depth, settings.layer_norm
            ).to(method.policy.device)
            for _ in range(2)
        )  # fmt: skip
        self.target.load_state_dict(self.live.state_dict())
        self.target.requires_grad_(False)
        method.follow(self.live)


class Updater:
    """Makes updates, and adds up what is worth logging until it is asked for.

    Attributes:
        optimizer: of critics and method.
    """

    def __init__(self, critics: Critics, settings: OffPolicySettings) -> None:
        self.critics, self.method, self.settings = critics, critics.method, settings
        actor, critic = self.method.trained(), list(critics.live.parameters())
        self.optimizer = FlatAdam([(actor, settings.learning_rate), (critic, settings.critic_learning_rate)])
        self._target = flatten(list(self.critics.target.parameters()))
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def update_critics(self, batch: Batch, generator: torch.Generator) -> None:
        """One step of all critics, and one of their targets."""
        target = self.returns(batch, generator)
        values, trace = self.critics.live.trace(batch.context, batch.chunk)
        error = values - target  # the loss is its mean square, summed over the critics
        trace.pull(error * (2 / len(target)), list(self.optimizer.gradients[1].values()))
        self.optimizer.descend(1, self.settings.gradient_clip)
        self._target.lerp_(self.optimizer.vectors[1], self.settings.polyak)
        self._log({"critic_loss": len(error) * error.square().mean(), "mean_value": values.mean()})

    @torch.no_grad()
    def returns(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """What the critics regress on, [B]."""
        value = self.method.value(batch.following, self.critics.target, self.settings.critic_subset, generator)
        return batch.reward + batch.discount * value

    def update_actor(self, batch: Batch, generator: torch.Generator) -> None:
        """One step of what the method trains."""
        logged = self.method.pull(batch, self.critics.live, self.optimizer.gradients[0], generator)
        self.optimizer.descend(0, self.settings.gradient_clip)
        self.method.follow(self.critics.live)
        self._log(logged)

    def take_log(self) -> dict[str, float]:
        """Means since the last time.

        Raises:
            FinetuneError: one of them is not finite.
        """
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        if not all(abs(value) < float("inf") for value in means.values()):
            raise FinetuneError(
                f"a loss is not finite ({means}). The last checkpoint is kept; lower training.learning_rate, or set "
                "training.gradient_clip."
            )
        return means

    def _log(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1
