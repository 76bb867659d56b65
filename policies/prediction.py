"""Chunks from a policy in torch or from an exported one, with explicit draws."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robot_rl.policies.onnx_policy import EXPORT, OnnxPolicy

if TYPE_CHECKING:
    from robot_rl.policies import Policy
    from robot_rl.policies.prefix import Prefix

AnyPolicy: TypeAlias = "Policy | OnnxPolicy"


def load(path: str | Path, device: str = "cpu", threads: int = 1) -> tuple[AnyPolicy, Path, dict[str, Any]]:
    """A policy, its own folder, and its provenance.

    Args:
        path: a run folder, a checkpoint folder or what `robot-rl export` wrote.
        device: of a policy in torch; an exported one runs on the CPU.
        threads: of an exported one.

    Raises:
        CheckpointError, PolicyError: there is no readable policy.
    """
    from robot_rl.policies.checkpoint import PROVENANCE, checkpoint_folder, load_policy, load_provenance

    if (folder := Path(path)).joinpath(EXPORT).is_file():
        made = folder / PROVENANCE
        return OnnxPolicy(folder, threads), folder, json.loads(made.read_text()) if made.is_file() else {}
    return load_policy(path, device), checkpoint_folder(path), load_provenance(path)


def new_generator(policy: AnyPolicy, seed: int) -> Any:
    """A generator of the kind that the policy draws from."""
    if isinstance(policy, OnnxPolicy):
        return np.random.default_rng(seed)
    import torch

    return torch.Generator().manual_seed(seed)


def predict(
    policy: AnyPolicy,
    observation: Mapping[str, Any],
    generators: Sequence[Any],
    prefix: Prefix | None = None,
    guidance: float | None = None,
) -> NDArray[np.float32]:
    """A chunk [B, H, A] for each row of {name: [B, To, *shape]}.

    Args:
        generators: from `new_generator`, one for all rows or one for each, whose draws do not depend on the others.
        prefix, guidance: see `Policy.sample`.
    """
    if isinstance(policy, OnnxPolicy):
        arrays = {name: np.asarray(value) for name, value in observation.items()}
        rows: Any = _RowGenerators(generators)
        return policy.sample(policy.encode(arrays), prefix=prefix, generator=rows, guidance=guidance)[:, 0]
    import torch

    from robot_rl.policies.draw import RowGenerators

    with torch.no_grad() if guidance else torch.inference_mode():  # what inference mode makes never has gradients
        drawn = RowGenerators(generators)
        chunk = policy.sample(policy.encode(observation), prefix=prefix, generator=drawn, guidance=guidance)
    return np.asarray(chunk[:, 0].cpu().numpy(), np.float32)


class _RowGenerators:
    """What `robot_rl.policies.draw.RowGenerators` is in torch."""

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        self._generators = generators

    def standard_normal(self, shape: Sequence[int], dtype: type[np.float32]) -> NDArray[np.float32]:
        rows = shape[0] // len(self._generators)
        return np.concatenate([each.standard_normal((rows, *shape[1:]), dtype) for each in self._generators])
