"""Checkpoint folders: safetensors and JSON, which load with nothing else.

```
model.safetensors   parameters and normaliser
policy.json         {"format": "robot_rl policy", "version": 1, "config": {...}}
contract.json       observation and action
provenance.json     where it came from: data, training, software; free form
```
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from robot_rl.datasets.contract import Contract
from robot_rl.policies.policy import Policy

FORMAT = "robot_rl policy"
VERSION = 1
MODEL, POLICY, CONTRACT, PROVENANCE = "model.safetensors", "policy.json", "contract.json", "provenance.json"


class CheckpointError(ValueError):
    """A checkpoint folder cannot be read."""


def save_policy(policy: Policy, folder: str | Path, provenance: Mapping[str, Any] | None = None) -> Path:
    """Write a checkpoint; each file is replaced as a whole, other files in the folder stay."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in policy.state_dict().items()}
    _replace(folder / MODEL, save(tensors))
    _replace(folder / CONTRACT, (policy.contract.to_json() + "\n").encode())
    _replace(folder / PROVENANCE, _json(provenance or {}))
    _replace(folder / POLICY, _json({"format": FORMAT, "version": VERSION, "config": policy.config}))
    return folder


def load_policy(path: str | Path, device: str | torch.device = "cpu") -> Policy:
    """Read a policy in evaluation mode.

    Args:
        path: a checkpoint folder, or a run folder that holds `checkpoints/best`.

    Raises:
        CheckpointError: for a missing or unreadable file, another format or version, or tensors that do not fit.
    """
    folder = checkpoint_folder(path)
    config = read_policy_json(folder)["config"]
    policy = Policy(config, Contract.from_dict(_read_json(folder / CONTRACT)))
    try:
        tensors = load_file(folder / MODEL)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / MODEL} cannot be read: {error}") from error
    expected = policy.state_dict()
    problems = [f"{name}: missing" for name in expected if name not in tensors]
    problems += [f"{name}: not a part of this policy" for name in tensors if name not in expected]
    problems += [
        f"{name}: expected {expected[name].dtype} {list(expected[name].shape)}, got {tensor.dtype} {list(tensor.shape)}"
        for name, tensor in tensors.items()
        if name in expected and (tensor.shape != expected[name].shape or tensor.dtype != expected[name].dtype)
    ]
    if problems:
        lines = [f"{folder / MODEL} does not fit {POLICY} beside it:", *(f"  - {problem}" for problem in problems)]
        raise CheckpointError("\n".join(lines))
    policy.load_state_dict(tensors)
    return policy.to(device).eval()


def load_provenance(path: str | Path) -> dict[str, Any]:
    """What was said about the checkpoint when it was saved."""
    return _read_json(checkpoint_folder(path) / PROVENANCE)


def checkpoint_folder(path: str | Path) -> Path:
    """The checkpoint itself, or the best one of a run folder."""
    for folder in (Path(path), Path(path) / "checkpoints" / "best"):
        if (folder / POLICY).is_file():
            return folder
    raise CheckpointError(
        f"no policy at {path}: expected a folder with {POLICY} and {MODEL}, or a run folder with checkpoints/best"
    )


def read_policy_json(folder: Path) -> dict[str, Any]:
    """`policy.json`, of this format and version."""
    described = _read_json(folder / POLICY)
    if described.get("format") != FORMAT or described.get("version") != VERSION or "config" not in described:
        raise CheckpointError(
            f"{folder / POLICY}: expected format {FORMAT!r} version {VERSION} with a config, "
            f"got format {described.get('format')!r} version {described.get('version')!r}; "
            "another version of robot_rl wrote it"
        )
    return described


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; the checkpoint is not complete") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _replace(path: Path, data: bytes) -> None:
    """Write beside, sync, rename: a reader sees the old file or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
