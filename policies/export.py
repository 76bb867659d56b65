"""Export to ONNX: the encoder and the denoiser in its two stages as three graphs, everything else as JSON.

```
encoder.onnx     observations in raw units [B, To, ...] to the context [B, To, C]
parts.onnx       time [K] and context to what a step needs of them alone: time_0, ... [K, ...], context_0, ... [B, ...]
denoiser.onnx    x [B, H, A], rate, the parts (and known [B, H] if trained with a prefix) to `output`, the network's at
                 the last of the K times, and to `moved`: x, with rate times the output added at each time
steering.onnx    only of a steered policy: the context, and if it draws what is drawn [B, H, A], to the noise [B, H, A]
edit.onnx        only of an edited policy: context, N chunks [B, N, H, A] and how far actions are free [B, N, H, 1] to
                 the best [B, H, A] of them and their edits
deviation.onnx   only of a tanh_gaussian that is to draw: the context to the deviation [B, H, A]
export.json      {"format": "robot_rl onnx policy", "version": 2, "config", "action", "process",
                 "correction"}
contract.json    observation and action
```

The loop over the times is part of the graph, because leaving and entering it takes a third of a small network's time.
`onnx_policy.py` runs the folder without torch.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from robot_rl.policies.configuration import PolicyError
from robot_rl.policies.denoiser import Denoiser
from robot_rl.policies.diffusion import Diffusion
from robot_rl.policies.encoder import Encoder
from robot_rl.policies.flow_matching import TIME_UNIT, FlowMatching
from robot_rl.policies.gaussian import Gaussian
from robot_rl.policies.onnx_policy import (
    CONTRACT,
    DENOISER,
    DEVIATION,
    EDIT,
    ENCODER,
    EXPORT,
    FORMAT,
    MISSING_EXTRA,
    PARTS,
    STEERING,
    VERSION,
    draws,
    graph_dtype,
)
from robot_rl.policies.policy import Policy
from robot_rl.policies.shortcut import Shortcut
from robot_rl.policies.tanh_gaussian import TanhGaussian

if TYPE_CHECKING:
    from onnx import ModelProto

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
        name: torch.zeros(batch, policy.obs_horizon, *feature.shape, dtype=getattr(torch, graph_dtype(feature)))
        for name, feature in policy.contract.observation.items()
    }
    encoder = _NamedInputs(policy.encoder, list(observation))
    _write(encoder, observation, {**dict.fromkeys(observation, "batch"), "context": "batch"}, folder / ENCODER)
    encoded = policy.encoder(observation)
    if policy.steering is not None:
        inputs = {"context": encoded}
        if policy.steering.draws:
            inputs["normal"] = torch.zeros(batch, policy.action_horizon, policy.contract.action_dim)
        _write(policy.steering, inputs, dict.fromkeys([*inputs, "noise"], "batch"), folder / STEERING)
    if policy.edit is not None:
        chunks = torch.zeros(batch, policy.edit.candidates, policy.action_horizon, policy.contract.action_dim)
        inputs = {"context": encoded, "chunks": chunks, "free": chunks[..., :1]}
        _write(policy.edit, inputs, dict.fromkeys([*inputs, "best"], "batch"), folder / EDIT)
    if draws(policy.config):
        assert isinstance(policy.process, TanhGaussian)
        _write(
            _Deviation(policy.process), {"context": encoded}, {"context": "batch", "std": "batch"}, folder / DEVIATION
        )
    context = policy.process.told(encoded, policy.process.steps)
    _write_denoiser(policy.denoiser, torch.zeros(3), context, folder)
    for name in (ENCODER, PARTS, DENOISER):
        onnx.checker.check_model(folder / name)

    normalizer = policy.action_normalizer
    action = {"center": normalizer.center, "spread": normalizer.spread, "low": policy.low, "high": policy.high}
    description = {
        "format": FORMAT,
        "version": VERSION,
        "config": policy.config,
        "action": {name: _finite(value) for name, value in action.items()},
        "process": _process(policy),
        "correction": None if policy.correction is None else _lists(policy.correction.to_dict()),
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
        context: Tensor = self.encoder(dict(zip(self.names, values, strict=True)))
        return context


class _Deviation(nn.Module):
    def __init__(self, process: TanhGaussian) -> None:
        super().__init__()
        self.process = process

    def forward(self, context: Tensor) -> Tensor:
        return self.process.deviation(context)


class _Parts(nn.Module):
    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, time: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        by_time, by_context = self.denoiser.parts(time, context)
        return (*by_time, *by_context)


class _Step(nn.Module):
    """One Euler step. The parts of the time come first, then those of the context, then what is known."""

    def __init__(self, denoiser: Denoiser, times: int) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.times = times

    def forward(self, x: Tensor, rate: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        time_parts, context_parts, known = given[: self.times], given[self.times :], None
        if self.denoiser.shapes.prefix:
            context_parts, known = context_parts[:-1], context_parts[-1]
        output = self.denoiser.step(x, time_parts, context_parts, known)
        return x + rate * output, output


def _write_denoiser(denoiser: Denoiser, time: Tensor, context: Tensor, folder: Path) -> None:
    import onnx

    by_time, by_context = denoiser.parts(time, context)
    times, contexts = [f"time_{i}" for i in range(len(by_time))], [f"context_{i}" for i in range(len(by_context))]
    axes = {**dict.fromkeys(["time", *times], "times"), **dict.fromkeys(["context", *contexts], "batch")}
    _write(_Parts(denoiser), {"time": time, "context": context}, axes, folder / PARTS)

    x = torch.zeros(len(context), denoiser.shapes.horizon, denoiser.shapes.action_dim)
    inputs = {"x_k": x, "rate": torch.ones(())}
    inputs |= {f"{name}_k": part[0] for name, part in zip(times, by_time, strict=True)}
    inputs |= dict(zip(contexts, by_context, strict=True))
    axes = dict.fromkeys(["x_k", *contexts, "moved_k", "output_k"], "batch")
    if denoiser.shapes.prefix:
        inputs["known"], axes["known"] = x[..., 0], "batch"
    _write(_Step(denoiser, len(times)), inputs, axes, folder / DENOISER)
    onnx.save(_repeat(onnx.load(folder / DENOISER), onnx.load(folder / PARTS)), folder / DENOISER)


def _write(module: nn.Module, inputs: Mapping[str, Tensor], axes: Mapping[str, str], path: Path) -> None:
    """`axes` names the first dimension of inputs and outputs where that is free; every output is among them."""
    module.eval().requires_grad_(False)
    with torch.no_grad(), warnings.catch_warnings():
        # The tracing exporter writes equally fast graphs in a hundredth of the time that the newer one takes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=[name for name in axes if name not in inputs],
            dynamic_axes={name: {0: axis} for name, axis in axes.items()},
            opset_version=OPSET,
            dynamo=False,
        )


def _repeat(step: ModelProto, parts: ModelProto) -> ModelProto:
    """Take the step at every time, each from where the one before moved x to.

    Tensors of one step end in `_k`; what does not change stays outside the loop.
    """
    from onnx import TensorProto, helper

    times = [item for item in parts.graph.output if item.name.startswith("time_")]
    (state,) = (item for item in step.graph.input if item.name == "x_k")
    others = [item for item in step.graph.input if not item.name.endswith("_k")]
    x, previous, moved, output = (
        helper.make_value_info(name, state.type) for name in ("x", "previous_k", "moved", "output")
    )
    k, more, still = (
        helper.make_tensor_value_info(name, kind, [])
        for name, kind in (("k", TensorProto.INT64), ("more", TensorProto.BOOL), ("still", TensorProto.BOOL))
    )
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["more"], ["still"]),
            *(helper.make_node("Gather", [item.name, "k"], [f"{item.name}_k"], axis=0) for item in times),
            *step.graph.node,
        ],
        "step",
        [k, more, state, previous],
        [still, *step.graph.output],
        step.graph.initializer,
    )
    nodes = [
        helper.make_node("Shape", [times[0].name], ["count"], start=0, end=1),
        helper.make_node("Loop", ["count", "", "x", "x"], ["moved", "output"], body=body),
    ]
    graph = helper.make_graph(nodes, "denoiser", [x, *times, *others], [moved, output])
    return helper.make_model(graph, opset_imports=step.opset_import, ir_version=step.ir_version)


def _process(policy: Policy) -> dict[str, Any]:
    process = policy.process
    described: dict[str, Any] = {"name": policy.config["process"]["name"], "steps": process.steps}
    if isinstance(process, Diffusion):
        described["alphas"] = process.alphas.tolist()
    elif isinstance(process, Gaussian):
        described |= {"query": process.query.tolist(), "std": process.std.tolist()}
    elif isinstance(process, FlowMatching):
        described["time_unit"] = TIME_UNIT
        if isinstance(process, Shortcut):
            described["levels"] = process.levels
    elif not isinstance(process, TanhGaussian):
        raise PolicyError(f"process {described['name']!r}: `OnnxPolicy` cannot sample it; write its steps there first")
    return described


def _lists(found: dict[str, Any]) -> dict[str, Any]:
    """Arrays as nested lists; infinite bounds as the largest numbers."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return np.nan_to_num(value).tolist()
        return [plain(item) for item in value] if isinstance(value, list) else value

    return {name: plain(value) for name, value in found.items()}


def _finite(values: Tensor) -> list[float | None]:
    """Numbers, with null where there is no bound (JSON has no infinity)."""
    return [value if abs(value) < float("inf") else None for value in values.tolist()]
