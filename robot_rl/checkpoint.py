"""The state of a training beside its policy: complete enough to go on exactly where it stopped.

A checkpoint folder holds the policy as it is deployed (see `robot_rl.policies.save_policy`) and, in `checkpoints/last`,
beside it:

- `training.safetensors`: the live weights `weights/<name>`, their average `average/<name>` and the optimizer's moments
  `optimizer/<name>/<moment>`;
- `training.json`: steps done, sampling position, scaler, best values.

Random draws need no place in it: those of a step depend on the seed and the number of the step alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from robot_rl.ema import Ema


class Optimizer(Protocol):
    """What is kept of torch's optimizers, or of one that keeps its moments alike."""

    state: Any


class ResumeError(RuntimeError):
    """A training cannot go on from what its run folder holds; the message says what to do."""


def save_training(
    folder: Path, policy: nn.Module, average: Ema | None, optimizer: Optimizer, plain: Mapping[str, Any]
) -> None:
    """Write `training.safetensors` and `training.json` into a checkpoint folder.

    Args:
        plain: all other state, of plain JSON types.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {f"weights/{name}": value for name, value in _trained(policy).items()}
    if average is not None:
        tensors |= {f"average/{name}": value for name, value in average.state_dict().items()}
    for name, value in _trained(policy).items():
        tensors |= {f"optimizer/{name}/{moment}": state for moment, state in optimizer.state.get(value, {}).items()}
    # Apart from each other, as the file holds them: some are views of one vector.
    apart = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    save_file(apart, folder / "training.safetensors")
    updates = average.updates if average is not None else 0
    (folder / "training.json").write_text(json.dumps({**plain, "average_updates": updates}, indent=2) + "\n")


def load_training(folder: Path, policy: nn.Module, average: Ema | None, optimizer: Optimizer) -> dict[str, Any]:
    """Restore weights, average and moments in place; returns the plain state.

    Raises:
        ResumeError: a file is missing, or it belongs to another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / "training.safetensors")
        plain: dict[str, Any] = json.loads((folder / "training.json").read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise ResumeError(f"{folder} cannot be resumed from: {error}. Start again with overwrite=true.") from error
    trained = _trained(policy)
    stored = {name.removeprefix("weights/"): value for name, value in tensors.items() if name.startswith("weights/")}
    if wrong := _differences(trained, stored):
        raise ResumeError(f"{folder} holds another network:\n" + "\n".join(f"  - {line}" for line in wrong))
    with torch.no_grad():
        for name, value in trained.items():
            value.copy_(stored[name])
            own = optimizer.state.setdefault(value, {})
            for moment, state in _below(tensors, f"optimizer/{name}/").items():
                if moment not in own:
                    # With the memory layout and device of its weight, as the optimizer would have made it.
                    like = torch.empty((), device=value.device) if moment == "step" else value
                    own[moment] = torch.empty_like(like, dtype=state.dtype)
                own[moment].copy_(state)
    if average is not None:
        average.load_state_dict(_below(tensors, "average/"), int(plain["average_updates"]))
    return plain


def _trained(policy: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in policy.named_parameters() if value.requires_grad}


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _differences(wanted: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> list[str]:
    lines = [f"{name}: only in the configured policy" for name in wanted if name not in stored]
    lines += [f"{name}: only in the checkpoint" for name in stored if name not in wanted]
    return lines + [
        f"{name}: shape {list(stored[name].shape)} in the checkpoint, {list(wanted[name].shape)} configured"
        for name in wanted.keys() & stored.keys()
        if wanted[name].shape != stored[name].shape
    ]
