"""One training: the step, the average of the weights, the held-out loss, and the state that an exact resume needs.

A batch may be spread over processes and accumulated in parts. Loss and gradient are those of the undivided batch: every
part counts by its rows, and sees the random draws that belong to them (only dropout draws anew in each part). The draws
of a step are seeded by the run's seed and the step's number, so that they need no place in a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from robot_rl import checkpoint
from robot_rl.ema import Ema
from robot_rl.optimizer import build_optimizer, set_learning_rate, warmup_cosine
from robot_rl.policies import Policy
from robot_rl.policies.draw import BatchPart
from robot_rl.processes import Processes
from robot_rl.seed import mixed

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

_HELD_OUT = 1 << 40  # a step that no training reaches: seeds the draws of the held-out loss


class TrainingError(ValueError):
    """A setting is not possible, or the training has failed; the message says what to do."""


@dataclass(frozen=True)
class Settings:
    """The keys of `training:`, explained in `configs/train.yaml`."""

    steps: int
    batch_size: int
    learning_rate: float
    accumulate: int
    betas: tuple[float, float]
    weight_decay: float
    encoder_learning_rate: float | None
    warmup: int
    final_learning_rate: float
    gradient_clip: float | None
    ema: bool
    ema_power: float
    ema_max_decay: float
    precision: str
    compile: bool
    workers: int
    log_every: int
    save_every: int
    held_out_every: int
    held_out_batches: int
    evaluate_every: int
    evaluate_episodes: int
    best: str

    @staticmethod
    def read(plain: Mapping[str, Any]) -> Settings:
        """From configuration; unknown, missing and impossible values are errors, all named at once."""
        known = [item.name for item in fields(Settings)]
        problems = [f"{key}: no such key; known are {', '.join(known)}" for key in plain if key not in known]
        problems += [f"{key}: missing" for key in known if key not in plain]
        may_be_null = ("encoder_learning_rate", "gradient_clip")
        problems += [
            f"{key}: expected a value, got null"
            for key in known
            if plain.get(key, 0) is None and key not in may_be_null
        ]
        plain = {key: value for key, value in plain.items() if value is not None}
        least = dict.fromkeys(("warmup", "workers", "weight_decay", "final_learning_rate", "evaluate_every"), 0)
        least |= dict.fromkeys(("steps", "batch_size", "accumulate", "log_every", "save_every", "held_out_every"), 1)
        least |= dict.fromkeys(("held_out_batches", "evaluate_episodes"), 1)
        problems += [
            f"{key}: expected at least {value}, got {plain[key]}"
            for key, value in least.items()
            if key in plain and not plain[key] >= value
        ]
        problems += [
            f"{key}: expected a finite number above 0, got {plain[key]}"
            for key in ("learning_rate", "encoder_learning_rate", "gradient_clip", "ema_power")
            if key in plain and not 0 < plain[key] < math.inf
        ]
        betas = plain.get("betas", (0.9, 0.999))
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            problems.append(f"betas: expected two numbers from 0 to below 1, got {list(betas)}")
        if not 0 <= plain.get("ema_max_decay", 0) <= 1:
            problems.append(f"ema_max_decay: expected 0 to 1, got {plain['ema_max_decay']}")
        if plain.get("precision", "fp32") not in PRECISIONS:
            problems.append(f"precision: expected {', '.join(PRECISIONS)}; got {plain['precision']!r}")
        if plain.get("best", "last") not in ("success", "held_out_loss", "last"):
            problems.append(f"best: expected success, held_out_loss or last; got {plain['best']!r}")
        if plain.get("best") == "success" and not plain.get("evaluate_every"):
            problems.append("best: success needs evaluate_every, to measure it")
        if problems:
            raise TrainingError("training: cannot be read:\n" + "\n".join(f"  - {line}" for line in problems))
        return Settings(**{**dict.fromkeys(may_be_null), **plain, "betas": tuple(plain["betas"])})


class Training:
    """Trains a policy on batches. Every process makes the same steps on its rows of each batch.

    Args:
        policy: on the device of this process.
        seed: of all draws of the training.
    """

    def __init__(self, policy: Policy, settings: Settings, processes: Processes, seed: int) -> None:
        parts = processes.size * settings.accumulate
        if settings.batch_size % parts:
            raise TrainingError(
                f"training.batch_size={settings.batch_size}: expected a multiple of {parts} "
                f"({processes.size} processes, accumulate={settings.accumulate})"
            )
        if settings.precision == "fp16" and processes.device.type != "cuda":
            raise TrainingError("training.precision=fp16 needs a CUDA device; use bf16 or fp32 here")
        self.policy, self.settings, self.processes, self.seed, self.steps = policy, settings, processes, seed, 0
        self.optimizer = build_optimizer(
            policy, settings.learning_rate, settings.betas, settings.weight_decay, settings.encoder_learning_rate
        )
        self.average = Ema(policy, settings.ema_power, settings.ema_max_decay) if settings.ema else None
        self.learning_rate = 0.0
        self._trained = [value for value in policy.parameters() if value.requires_grad]
        self._scaler = torch.amp.GradScaler(processes.device.type, enabled=settings.precision == "fp16")
        self._summed = torch.zeros(2, device=processes.device, dtype=torch.float64)
        self._counted = 0
        policy.train()
        if settings.compile:
            policy.compile_networks()
        self._model: nn.Module = policy
        if processes.size > 1:
            self._model = nn.parallel.DistributedDataParallel(
                policy, broadcast_buffers=False, gradient_as_bucket_view=True,
                # The learned noise of a flow policy's chain is trained by reinforcement learning alone.
                find_unused_parameters=bool(policy.config["process"].get("learned_noise")),
            )  # fmt: skip

    def step(self, batch: Mapping[str, Any]) -> None:
        """One update of the weights and of their average, from the rows of the batch that are this process' own."""
        factor = warmup_cosine(self.steps, self.settings.steps, self.settings.warmup, self.settings.final_learning_rate)
        self.learning_rate = set_learning_rate(self.optimizer, factor)
        size, parts = self.processes.size, self.settings.accumulate
        rows = len(batch["action"]) // parts
        whole = rows * parts * size
        loss = torch.zeros((), device=self.processes.device)
        for number in range(parts):
            part = _to(_rows(batch, number * rows, rows), self.processes.device)
            draws = self._draws(self.steps, (self.processes.rank * parts + number) * rows, rows, whole)
            with self._unsynced() if number < parts - 1 else nullcontext():
                with self._autocast():
                    value = self._model(part, generator=draws) / (parts * size)
                # Gradients are averaged over the processes, and the parts of the batch are to be summed.
                self._scaler.scale(value * size).backward()
            loss += value.detach()
        self._scaler.unscale_(self.optimizer)
        limit = self.settings.gradient_clip if self.settings.gradient_clip is not None else float("inf")
        norm = nn.utils.clip_grad_norm_(self._trained, limit, foreach=True)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        self.steps += 1
        self._summed += torch.stack([loss, norm / size])
        self._counted += 1

    def take_means(self) -> tuple[float, float]:
        """Loss and gradient norm, averaged over the steps since the last call.

        Raises:
            TrainingError: the loss is not finite.
        """
        loss, norm = (self.processes.total(self._summed) / max(1, self._counted)).tolist()
        self._summed.zero_()
        self._counted = 0
        self._check(loss)
        return loss, norm

    @torch.no_grad()
    def held_out_loss(self, batches: Iterator[Mapping[str, Any]]) -> float:
        """Mean loss of the averaged weights over batches, always with the same draws."""
        total, count = 0.0, 0
        with self.averaged():
            for number, batch in enumerate(batches):
                rows = len(batch["action"])
                draws = self._draws(_HELD_OUT + number, 0, rows, rows)
                with self._autocast():
                    loss = self.policy.loss(_to(batch, self.processes.device), generator=draws)
                total += rows * float(loss)
                count += rows
        return total / count if count else float("nan")

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the policy is in evaluation mode with the averaged weights (its own, when there is no average)."""
        return _Averaged(self.policy, self.average)

    def state(self) -> dict[str, Any]:
        """What `save` writes beside the tensors. All processes must ask at the same moment.

        Raises:
            TrainingError: the loss is no longer finite: such weights shall not replace good ones.
        """
        summed = (self.processes.total(self._summed) / self.processes.size).tolist()
        self._check(summed[0])
        return {
            "steps": self.steps,
            "scaler": self._scaler.state_dict(),
            "summed": summed,
            "counted": self._counted,
        }

    def save(self, folder: Path, plain: Mapping[str, Any]) -> None:
        """Write all that `load` needs: weights, their average, the optimizer, and `plain`, which holds `state()`."""
        checkpoint.save_training(folder, self.policy, self.average, self.optimizer, plain)

    def load(self, folder: Path) -> dict[str, Any]:
        """Restore what `save` wrote; returns its `plain`."""
        plain = checkpoint.load_training(folder, self.policy, self.average, self.optimizer)
        self.steps, self._counted = int(plain["steps"]), int(plain["counted"])
        self._summed.copy_(torch.tensor(plain["summed"], dtype=torch.float64))
        if plain["scaler"]:
            self._scaler.load_state_dict(plain["scaler"])
        return plain

    def _check(self, loss: float) -> None:
        if not np.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} after step {self.steps}. The last checkpoint is kept. Check the data with "
                "`robot-rl data check`, or lower training.learning_rate, or use training.precision=fp32."
            )

    def _draws(self, step: int, start: int, rows: int, total: int) -> torch.Generator:
        """The generator of some rows of a step's batch. Also seeds torch's global one, from which dropout draws."""
        torch.manual_seed(mixed(self.seed, step, start, 1))
        generator = BatchPart(start, rows, total, self.processes.device)
        generator.manual_seed(mixed(self.seed, step))
        return generator

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = PRECISIONS[self.settings.precision]
        return torch.autocast(self.processes.device.type, dtype) if dtype else nullcontext()

    def _unsynced(self) -> AbstractContextManager[Any]:
        model = self._model
        return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()


class _Averaged(AbstractContextManager[None]):
    def __init__(self, policy: nn.Module, average: Ema | None) -> None:
        self._policy = policy
        self._weights = average.applied() if average is not None else nullcontext()

    def __enter__(self) -> None:
        self._policy.eval()
        self._weights.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._weights.__exit__(*error)
        self._policy.train()


def _rows(batch: Mapping[str, Any], start: int, number: int) -> dict[str, Any]:
    return {
        key: _rows(value, start, number) if isinstance(value, Mapping) else value[start : start + number]
        for key, value in batch.items()
    }


def _to(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        key: _to(value, device) if isinstance(value, Mapping) else value.to(device, non_blocking=True)
        for key, value in batch.items()
    }
