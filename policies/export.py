"""Export to ONNX: the encoder and one denoising step as two graphs, everything else as JSON.

```
encoder.onnx     observations in raw units [B, To, ...] to the context [B, To, C]
denoiser.onnx    x [B, H, A], time [B], context (and known [B, H] if trained with a prefix) to the network's output
export.json      {"format": "robot_rl onnx policy", "version": 1, "config", "action", "process"}
contract.json    observation and action
```

`onnx_policy.py` runs the folder without torch.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robot_rl.policies.configuration import PolicyError
from robot_rl.policies.denoiser import Denoiser
from robot_rl.policies.diffusion import Diffusion
from robot_rl.policies.encoder import Encoder
from robot_rl.policies.flow_matching import TIME_UNIT, FlowMatching
from robot_rl.policies.gaussian import Gaussian
from robot_rl.policies.onnx_policy import CONTRACT, DENOISER, ENCODER, EXPORT, FORMAT, MISSING_EXTRA, VERSION
from robot_rl.policies.policy import Policy

OPSET = 18


def export_policy(policy: Policy, folder: str | Path) -> Path:
    """Write the graphs and their description; the batch size stays free.

    Raises:
        ImportError: where the extra `export` is not installed, naming the command that installs it.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError(MISSING_EXTRA) from error
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    policy = copy.deepcopy(policy).cpu().eval()
    batch = 2
    observation = {
        name: torch.zeros(batch, policy.obs_horizon, *feature.shape, dtype=getattr(torch, feature.dtype))
        for name, feature in policy.contract.observation.items()
    }
    _write(_NamedInputs(policy.encoder, list(observation)), observation, "context", folder / ENCODER)

    x = torch.zeros(batch, policy.action_horizon, policy.contract.action_dim)
    inputs = {"x": x, "time": x[:, 0, 0], "context": policy.encoder(observation)}
    if policy.denoiser.shapes.prefix:
        inputs["known"] = x[..., 0]
    _write(_Denoise(policy.denoiser), inputs, "output", folder / DENOISER)
    for name in (ENCODER, DENOISER):
        onnx.checker.check_model(folder / name)

    normalizer = policy.action_normalizer
    action = {"center": normalizer.center, "spread": normalizer.spread, "low": policy.low, "high": policy.high}
    description = {
        "format": FORMAT,
        "version": VERSION,
        "config": policy.config,
        "action": {name: _finite(value) for name, value in action.items()},
        "process": _process(policy),
    }
    (folder / CONTRACT).write_text(policy.contract.to_json() + "\n")
    (folder / EXPORT).write_text(json.dumps(description, indent=2) + "\n")
    return folder


class _NamedInputs(nn.Module):
    """The exporter passes inputs by position; the encoder takes them by name."""

    def __init__(self, encoder: Encoder, names: Sequence[str]) -> None:
        super().__init__()
        self.encoder = encoder
        self.names = names

    def forward(self, *values: Tensor) -> Tensor:
        return self.encoder(dict(zip(self.names, values, strict=True)))


class _Denoise(nn.Module):
    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, time: Tensor, context: Tensor, known: Tensor | None = None) -> Tensor:
        return self.denoiser(x, time, context, known)


def _write(module: nn.Module, inputs: Mapping[str, Tensor], output: str, path: Path) -> None:
    module.eval()
    with torch.no_grad(), warnings.catch_warnings():
        # The tracing exporter writes equally fast graphs in a hundredth of the time that the newer one takes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes={name: {0: "batch"} for name in (*inputs, output)},
            opset_version=OPSET,
            dynamo=False,
        )


def _process(policy: Policy) -> dict[str, Any]:
    process = policy.process
    described: dict[str, Any] = {"name": policy.config["process"]["name"], "steps": process.steps}
    if isinstance(process, Diffusion):
        described["alphas"] = process.alphas.tolist()
    elif isinstance(process, Gaussian):
        described |= {"query": process.query.tolist(), "std": process.std.tolist()}
    elif isinstance(process, FlowMatching):
        described["time_unit"] = TIME_UNIT
    else:
        raise PolicyError(f"process {described['name']!r}: `OnnxPolicy` cannot sample it; write its steps there first")
    return described


def _finite(values: Tensor) -> list[float | None]:
    """Numbers, with null where there is no bound (JSON has no infinity)."""
    return [value if abs(value) < float("inf") else None for value in values.tolist()]
