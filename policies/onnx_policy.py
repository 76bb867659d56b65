"""An exported policy, run by onnxruntime behind the interface of `Policy`, with NumPy arrays and without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.datasets.contract import Contract, Feature
from robot_rl.policies import transition
from robot_rl.policies.configuration import PolicyError
from robot_rl.policies.correction import Correction
from robot_rl.policies.observation import check_observation, observed_steps
from robot_rl.policies.prefix import Prefix, check_prefix_length

FORMAT = "robot_rl onnx policy"
VERSION = 2
ENCODER, PARTS, DENOISER, STEERING, EDIT, DEVIATION, EXPORT, CONTRACT = FILES = (
    "encoder.onnx",
    "parts.onnx",
    "denoiser.onnx",
    "steering.onnx",
    "edit.onnx",
    "deviation.onnx",
    "export.json",
    "contract.json",
)
MISSING_EXTRA = 'ONNX export and its runtime need the extra "export": pip install "robot_rl[export]"'


def graph_dtype(feature: Feature) -> str:
    """The dtype in which the encoder's graph takes a feature: the exporter knows no uint16."""
    return "int32" if feature.dtype == "uint16" else feature.dtype


class OnnxPolicy:
    """A policy from `export_policy`. `encode` and `sample` as in `Policy`; there is no loss, chain or training mode.

    Args:
        folder: what `export_policy` wrote.
        threads: of onnxruntime.

    Raises:
        ImportError: where the extra `export` is not installed, naming the command that installs it.
        PolicyError: where the folder holds no export of this version.
    """

    def __init__(self, folder: str | Path, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(MISSING_EXTRA) from error
        folder = Path(folder)
        described = _read_description(folder)
        self.config: dict[str, Any] = described["config"]
        self.contract = Contract.from_dict(json.loads((folder / CONTRACT).read_text()))
        self.obs_horizon = observed_steps(self.config)
        self.action_horizon = int(self.config["action_horizon"])
        self.action_offset = int(self.config["action_offset"])
        prefix = self.config["prefix"]
        self.prefix_max_length = int(prefix["max_length"]) if prefix["probability"] > 0 else 0
        self.execute: int | None = self.config.get("execute")
        correction = described.get("correction")
        self.correction = None if correction is None else Correction.from_dict(correction)
        self._process: dict[str, Any] = described["process"]
        action = described["action"]
        self._center, self._spread = (np.array(action[key], np.float32) for key in ("center", "spread"))
        self._low = np.array([-np.inf if value is None else value for value in action["low"]], np.float32)
        self._high = np.array([np.inf if value is None else value for value in action["high"]], np.float32)
        self._chunk = self.action_horizon, self.contract.action_dim
        self._query, self._std = (np.array(self._process.get(key, 0.0), np.float32) for key in ("query", "std"))

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Waiting threads must not take a core from the control loop.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions = {
            name: onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in _graphs(self.config)
        }
        self._encoder, self._parts, self._denoiser = (self._sessions[name] for name in (ENCODER, PARTS, DENOISER))
        edit = self.config.get("edit")
        self._candidates = 1 if edit is None else int(edit["candidates"])
        self._part_names = [output.name for output in self._parts.get_outputs()]

    def encode(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Context [B, To, C] of {name: [B, To, *shape]} in raw units, exactly the features of `contract`."""
        check_observation(self.contract, self.obs_horizon, observation)
        features = self.contract.observation
        inputs = {name: np.asarray(value, graph_dtype(features[name])) for name, value in observation.items()}
        context: np.ndarray = self._encoder.run(None, inputs)[0]
        return context

    def sample(
        self,
        context: np.ndarray,
        n: int = 1,
        noise: np.ndarray | None = None,
        prefix: Prefix | None = None,
        generator: np.random.Generator | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> np.ndarray:
        """Chunks [B, n, H, A] float32 in raw units; see `Policy.sample`. Guidance needs gradients, which are not here.

        Raises:
            PolicyError: as there, and with any guidance.
        """
        if guidance is not None:
            raise PolicyError(
                "guidance: an exported policy has no gradients; use its checkpoint in torch, or train it with a prefix"
            )
        batch = len(context)
        drawn = n * self._candidates
        shape = (batch, drawn, *self._chunk)
        alone = context if n == 1 else np.repeat(context, n, axis=0)
        context = context if drawn == 1 else np.repeat(context, drawn, axis=0)
        noise = self._begin(context, noise, shape, generator)
        held = None if prefix is None else _Held(self, prefix, batch, drawn)
        name, steps = self._process["name"], steps or int(self._process["steps"])
        if name in ("flow_matching", "shortcut"):
            x = self._flow(context, noise, steps, held)
        elif name == "gaussian":
            x = self._gaussian(context, noise, held)
        elif name == "tanh_gaussian":
            x = self._tanh_gaussian(context, noise, held)
        else:
            x = self._diffusion(context, noise, steps, held, generator or np.random.default_rng())
        if EDIT in self._sessions:
            x = self._edited(alone, x, held)
        chunk = x * self._spread + self._center
        if self.config["clip_actions"]:
            chunk = np.minimum(np.maximum(chunk, self._low), self._high)
        chunk = chunk.reshape(batch, n, *self._chunk)
        if held is None:
            return chunk
        committed, actions = (
            part.reshape(batch, drawn, *part.shape[1:])[:, :n] for part in (held.committed, held.actions)
        )
        return np.where(committed, actions, chunk)

    def _begin(
        self,
        context: np.ndarray,
        noise: np.ndarray | None,
        shape: tuple[int, ...],
        generator: np.random.Generator | None,
    ) -> np.ndarray:
        """What denoising begins with, [B · n, H, A], in contexts [B · n, To, C]."""
        if noise is not None:
            if noise.shape != shape:
                raise PolicyError(f"noise: expected shape {list(shape)}, got {list(noise.shape)}")
            return np.asarray(noise, np.float32).reshape(-1, *self._chunk)
        steering = self._sessions.get(STEERING)
        if steering is not None and len(steering.get_inputs()) == 1:
            chosen: np.ndarray = steering.run(None, {"context": context})[0]
            return chosen
        normal = (generator or np.random.default_rng()).standard_normal(shape, np.float32).reshape(-1, *self._chunk)
        return normal if steering is None else steering.run(None, {"context": context, "normal": normal})[0]

    def _edited(self, context: np.ndarray, x: np.ndarray, held: _Held | None) -> np.ndarray:
        """The best of each N candidates [B · N, H, A] and their edits, [B, H, A]."""
        session = self._sessions[EDIT]
        free = np.ones_like(x[..., :1]) if held is None else 1 - held.weight
        grouped = {
            name: part.reshape(-1, self._candidates, *part.shape[1:]) for name, part in (("chunks", x), ("free", free))
        }
        given = {"context": context, **grouped}
        best: np.ndarray = session.run(None, {item.name: given[item.name] for item in session.get_inputs()})[0]
        return best

    def _flow(self, context: np.ndarray, noise: np.ndarray, steps: int, held: _Held | None) -> np.ndarray:
        if levels := self._process.get("levels"):  # a shortcut model is told the size of its steps, 1 / 2^k
            if steps & (steps - 1) or steps.bit_length() > levels:
                raise PolicyError(f"steps: expected a power of 2 from 1 to {2 ** (levels - 1)}, got {steps}")
            size = np.eye(levels, dtype=np.float32)[steps.bit_length() - 1]
            context = np.concatenate([context, np.broadcast_to(size, (*context.shape[:2], levels))], axis=2)
        times = np.arange(steps) / steps
        denoiser = _Denoiser(self, self._process["time_unit"] * times, context, held)
        if held is None:
            return denoiser.integrate(noise, 1 / steps)
        x = noise
        for k, t in enumerate(times):
            x = held.shown(x)
            velocity = denoiser.output(x, k)
            velocity = velocity + held.correction(x + np.float32(1 - t) * velocity) / np.float32(1 - t)
            x = x + velocity / np.float32(steps)
        return x

    def _diffusion(
        self, context: np.ndarray, noise: np.ndarray, steps: int, held: _Held | None, generator: np.random.Generator
    ) -> np.ndarray:
        options = self.config["process"]
        bound = np.float32(1 if options["clip_sample"] else np.inf)
        alphas = [*self._process["alphas"], 1.0]
        timesteps = transition.leading_timesteps(options["train_steps"], steps)
        denoiser = _Denoiser(self, [step for step, _ in timesteps], context, held)
        x = noise
        for k, (step, following) in enumerate(timesteps):
            alpha, alpha_next = alphas[step], alphas[following]
            x = x if held is None else held.shown(x)
            output = denoiser.output(x, k)
            clean, epsilon = transition.split_prediction(output, x, alpha, options["prediction"])
            clean = np.clip(clean, -bound, bound)
            if held is not None:
                corrected = np.clip(clean + held.correction(clean), -bound, bound)
                epsilon = epsilon - np.float32((alpha / (1 - alpha)) ** 0.5) * (corrected - clean)
                clean = corrected
            if options["name"] == "ddpm":
                x, std = transition.ddpm(clean, x, alpha, alpha_next)
            else:
                x, std = transition.ddim(clean, epsilon, alpha, alpha_next, options["eta"])
            if std > 0:
                x = x + np.float32(std) * generator.standard_normal(x.shape, np.float32)
        return x

    def _gaussian(self, context: np.ndarray, noise: np.ndarray, held: _Held | None) -> np.ndarray:
        x = np.ascontiguousarray(np.broadcast_to(self._query, noise.shape))
        chunk: np.ndarray = _Denoiser(self, [0.0], context, held).output(x if held is None else held.shown(x), 0)
        chunk = chunk + np.float32(self.config["process"]["temperature"]) * self._std * noise
        return chunk if held is None else chunk + held.correction(chunk)

    def _tanh_gaussian(self, context: np.ndarray, noise: np.ndarray, held: _Held | None) -> np.ndarray:
        u = _Denoiser(self, [0.0], context, held).output(np.zeros_like(noise), 0)
        if DEVIATION in self._sessions:
            std = self._sessions[DEVIATION].run(None, {"context": context})[0]
            u = u + np.float32(self.config["process"]["temperature"]) * std * noise
        chunk: np.ndarray = np.tanh(u)
        return chunk if held is None else chunk + held.correction(chunk)


class _Denoiser:
    """The network at the given times and context, of which it computes once what does not depend on x."""

    def __init__(self, policy: OnnxPolicy, times: Sequence[float], context: np.ndarray, held: _Held | None) -> None:
        self._session = policy._denoiser
        parts = policy._parts.run(None, {"time": np.asarray(times, np.float32), "context": context})
        named = dict(zip(policy._part_names, parts, strict=True))
        self._times = {name: part for name, part in named.items() if name.startswith("time")}
        self._given = {name: part for name, part in named.items() if name.startswith("context")}
        if policy.prefix_max_length > 0:
            none = np.zeros((len(context), policy.action_horizon), np.float32)
            self._given["known"] = none if held is None else held.committed[..., 0].astype(np.float32)

    def integrate(self, x: np.ndarray, rate: float) -> np.ndarray:
        """x [B, H, A] after all times, each adding the output times the rate."""
        inputs = {"x": x, "rate": np.array(rate, np.float32), **self._times, **self._given}
        moved: np.ndarray = self._session.run(["moved"], inputs)[0]
        return moved

    def output(self, x: np.ndarray, k: int) -> np.ndarray:
        """[B, H, A] of x at time k."""
        time = {name: part[k : k + 1] for name, part in self._times.items()}
        inputs = {"x": x, "rate": np.zeros((), np.float32), **time, **self._given}
        output: np.ndarray = self._session.run(["output"], inputs)[0]
        return output


class _Held:
    """A prefix, repeated for the n chunks of each context: what `Inpainting` is in torch."""

    def __init__(self, policy: OnnxPolicy, prefix: Prefix, batch: int, n: int) -> None:
        shape = (batch, *policy._chunk)
        actions = np.asarray(prefix.actions, np.float32)
        weights = np.asarray(prefix.weights, np.float32)
        length = np.asarray(prefix.length)
        for name, value, expected in (
            ("actions", actions, shape), ("weights", weights, shape[:2]), ("length", length, shape[:1]),
        ):  # fmt: skip
            if value.shape != expected:
                raise PolicyError(f"prefix.{name}: expected shape {list(expected)}, got {list(value.shape)}")
        committed = np.arange(shape[1]) < length[:, None]
        self.clean = policy.prefix_max_length > 0
        if self.clean:
            check_prefix_length(int(length.max()), policy.prefix_max_length)
        weight = np.where(committed, np.float32(1), weights)[..., None]
        target = np.where(weight > 0, (actions - policy._center) / policy._spread, np.float32(0))
        self.actions, self.target, self.weight, self.committed = (
            np.repeat(value, n, axis=0) for value in (actions, target, weight, committed[..., None])
        )

    def shown(self, x: np.ndarray) -> np.ndarray:
        return np.where(self.committed, self.target, x) if self.clean else x

    def correction(self, clean: np.ndarray) -> np.ndarray:
        shift: np.ndarray = self.weight * (self.target - clean)
        return shift


def draws(config: Mapping[str, Any]) -> bool:
    """Whether a policy of this configuration samples a squashed Gaussian about its mean."""
    process = config["process"]
    return bool(process["name"] == "tanh_gaussian" and process.get("temperature", 0) > 0)


def _graphs(config: Mapping[str, Any]) -> list[str]:
    """The files of the networks."""
    optional = {STEERING: config.get("steering"), EDIT: config.get("edit"), DEVIATION: draws(config) or None}
    return [ENCODER, PARTS, DENOISER, *(name for name, used in optional.items() if used is not None)]


def _read_description(folder: Path) -> dict[str, Any]:
    lacking = [name for name in (EXPORT, CONTRACT) if not (folder / name).is_file()]
    if lacking:
        raise PolicyError(f"no exported policy at {folder}: it lacks {', '.join(lacking)}; `export_policy` writes them")
    described: dict[str, Any] = json.loads((folder / EXPORT).read_text())
    if described.get("format") != FORMAT or described.get("version") != VERSION:
        raise PolicyError(
            f"{folder / EXPORT}: expected format {FORMAT!r} version {VERSION}, got "
            f"{described.get('format')!r} version {described.get('version')!r}; export the policy again"
        )
    if lacking := [name for name in _graphs(described["config"]) if not (folder / name).is_file()]:
        raise PolicyError(f"{folder} lacks {', '.join(lacking)}; export the policy again")
    return described
