"""The policy: observation encoder, denoiser network and generative process behind one interface.

`build_policy(config, contract, statistics)` takes a plain mapping. Every key has a default; an unknown one is an error.

```yaml
obs_horizon: 2              # To, observations a policy sees
action_horizon: 16          # H, actions of a chunk
action_offset: 0            # first action after the last observation; in diffusion_policy 1 - obs_horizon
observation: null           # names; null: all features of role `policy` that the encoder can read
frames: null                # pictures that it sees of these To, the last ones; null: all
estimator: null             # of `build_policy`, as JSON: {config, contract}; To stays what the policy itself observes
clip_actions: true          # to the finite bounds of the contract
execute: null               # actions executed of each chunk, unless it is said otherwise; null: half of H
process:                    # one of
  {name: flow_matching, steps: 10, time_sampling: uniform | beta, alpha: 1.5,
   chain_std: 0.1, chain_std_min: 0.05, learned_noise: false}
  {name: shortcut, steps: 1, finest: 128, share: 0.25, chain_std: 0.1, chain_std_min: 0.05, learned_noise: false}
  {name: ddpm, train_steps: 100, steps: 100, schedule: squaredcos_cap_v2 | linear | scaled_linear,
   prediction: epsilon | sample, clip_sample: true, chain_std_min: 0.1}
  {name: ddim, train_steps: 100, steps: 10, schedule: …, prediction: …, clip_sample: true, eta: 0.0,
   chain_eta: 1.0, chain_std_min: 0.1}
  {name: gaussian, std_min: 0.01, temperature: 0.0}
  {name: tanh_gaussian, log_std_min: -5.0, log_std_max: 2.0, std_width: 64}
  {name: bernoulli}                                         # of a classifier: probabilities instead of actions
denoiser:                   # one of
  {name: mlp, width: 256, depth: 3, time_features: 64, conditioning: concat | film, dropout: 0.0}
  {name: unet1d, widths: [256, 512, 1024], kernel: 5, groups: 8, time_features: 256, scale: true}
  {name: transformer, width: 256, layers: 8, heads: 4, dropout: 0.3, causal: true}
  {name: perceptron, width: 256, depth: 2}                  # reads the observation alone: for the Gaussians
  {name: staged, denoiser: {name: mlp, …}, boundary: 0.0}   # as fine-tuning by DPPO leaves it
encoder:                    # one of
  {name: low_dim}
  {name: cnn, channels: [32, 64, 128], keypoints: 32, features: 64}
  {name: resnet18, keypoints: 32, features: 64, width: 64}
  {name: grid_cnn, channels: [32, 64], stride: 4, grid: [6, 8], features: 64}
normalizer: {observation: min_max | mean_std | quantile | none, action: min_max | …, rotation: rotation_6d | keep}
augmentation: {crop: null, shift: 0, brightness: 0.0, contrast: 0.0, saturation: 0.0}
prefix: {probability: 0.0, max_length: 0}   # training with a known prefix of random length 1 … max_length
residual: null              # or {scale: 0.1, policy: {…}}: corrects actions as they are executed, see `correction.py`
steering: null              # or {bound: 1.5, temperature: 0.0, …}: chooses the noise, see `steering.py`
edit: null                  # or {bound: 0.1, candidates: 4, …}: chooses among drawn and edited chunks, see `edit.py`
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from robot_rl.datasets.contract import Contract, satisfies
from robot_rl.policies import draw
from robot_rl.policies.augmentation import Augmentation
from robot_rl.policies.bernoulli import Bernoulli
from robot_rl.policies.chain import Chain
from robot_rl.policies.cnn import CNN
from robot_rl.policies.configuration import PolicyError, complete, construct, options, plain, resolve
from robot_rl.policies.correction import Correction, residual_contract
from robot_rl.policies.ddim import DDIM
from robot_rl.policies.ddpm import DDPM
from robot_rl.policies.denoiser import Denoiser, Shapes
from robot_rl.policies.edit import Edit
from robot_rl.policies.encoder import Encoder
from robot_rl.policies.estimator import Estimator
from robot_rl.policies.flow_matching import FlowMatching
from robot_rl.policies.gaussian import Gaussian
from robot_rl.policies.grid_cnn import GridCNN
from robot_rl.policies.inpainting import Inpainting
from robot_rl.policies.mlp import MLP
from robot_rl.policies.normalizer import Normalizer, fit_normalizers
from robot_rl.policies.observation import check_observation, observed_steps
from robot_rl.policies.perceptron import Perceptron
from robot_rl.policies.prefix import Prefix, check_prefix_length
from robot_rl.policies.process import Process
from robot_rl.policies.resnet import ResNet18
from robot_rl.policies.shortcut import Shortcut
from robot_rl.policies.staged import Staged
from robot_rl.policies.steering import Steering
from robot_rl.policies.tanh_gaussian import TanhGaussian
from robot_rl.policies.transformer import Transformer
from robot_rl.policies.unet1d import UNet1D


class LowDim:
    """No image backbone: the features of kind `state`, concatenated."""


PROCESSES: dict[str, type[Process]] = {
    "flow_matching": FlowMatching, "shortcut": Shortcut, "ddpm": DDPM, "ddim": DDIM, "gaussian": Gaussian,
    "tanh_gaussian": TanhGaussian, "bernoulli": Bernoulli,
}  # fmt: skip
DENOISERS: dict[str, type] = {
    "mlp": MLP, "unet1d": UNet1D, "transformer": Transformer, "perceptron": Perceptron, "staged": Staged,
}  # fmt: skip

ENCODERS: dict[str, type] = {"low_dim": LowDim, "cnn": CNN, "resnet18": ResNet18, "grid_cnn": GridCNN}

DEFAULTS: dict[str, Any] = {
    "obs_horizon": 2,
    "action_horizon": 16,
    "action_offset": 0,
    "observation": None,
    "frames": None,
    "estimator": None,
    "clip_actions": True,
    "execute": None,
    "process": {"name": "flow_matching"},
    "denoiser": {"name": "mlp"},
    "encoder": {"name": "low_dim"},
    "normalizer": {"observation": "min_max", "action": "min_max", "rotation": "rotation_6d"},
    "augmentation": options(Augmentation),
    "prefix": {"probability": 0.0, "max_length": 0},
    "residual": None,
    "steering": None,
    "edit": None,
}


class Policy(nn.Module):
    """A generative policy over action chunks. It owns its normaliser and its contract.

    Attributes:
        config: complete configuration, plain JSON types.
        contract: of the observations that it needs and the action that it gives.
        obs_horizon: observations to be given: To, or more where an estimator needs them.
        action_horizon, action_offset: H, step of the first action after the last observation.
        prefix_max_length: the most actions that it was trained to continue; 0 if it was not trained with a prefix.
        residual: what corrects each action when it is executed, a policy under `residual_contract`; None: nothing does.
        steering: what chooses the noise of `sample`; None: it is drawn.
        edit: what chooses among several drawn chunks and their edits; None: the one drawn is taken.
    """

    low: Tensor
    high: Tensor

    def __init__(self, config: Mapping[str, Any], contract: Contract) -> None:
        super().__init__()
        config = resolve_config(config)
        names = config["observation"]
        if names is None:
            names = _readable(contract, config["encoder"]["name"])
        estimator = _estimator(config["estimator"])
        own = contract.select(names)
        self.contract = own if estimator is None else contract.select([*names, *estimator.contract.observation])
        self.config = config
        self.obs_horizon = observed_steps(config)
        self.action_horizon = int(config["action_horizon"])
        self.action_offset = int(config["action_offset"])
        self.prefix_probability = float(config["prefix"]["probability"])
        self.prefix_max_length = int(config["prefix"]["max_length"]) if self.prefix_probability > 0 else 0
        _check_sizes(self, own)

        augmentation = _augmentation(config["augmentation"])
        self.encoder = Encoder(
            own, _backbones(config, own), augmentation, config["normalizer"]["rotation"], int(config["obs_horizon"]),
            estimator, config["frames"],
        )  # fmt: skip
        self.action_normalizer = Normalizer(contract.action_dim)
        shapes = Shapes(
            self.action_horizon, contract.action_dim, self.encoder.horizon,
            self.encoder.features + PROCESSES[config["process"]["name"]].context_features(config["process"]),
            self.action_offset, prefix=self.prefix_probability > 0,
        )  # fmt: skip
        self.denoiser: Denoiser = construct("denoiser", config["denoiser"], DENOISERS, shapes)
        self.process: Process = construct("process", config["process"], PROCESSES, shapes)
        corrects = config["residual"]
        self.residual = None if corrects is None else Policy(corrects["policy"], residual_contract(own))
        chooses = config["steering"]
        self.steering = None if chooses is None else Steering(
            replace(shapes, context_dim=self.encoder.features), **chooses
        )  # fmt: skip
        edits = config["edit"]
        self.edit = None if edits is None else Edit(replace(shapes, context_dim=self.encoder.features), **edits)
        low, high = contract.action_bounds
        self.register_buffer("low", torch.from_numpy(low), persistent=False)
        self.register_buffer("high", torch.from_numpy(high), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the parameters lie; inputs are moved there."""
        return self.action_normalizer.center.device

    @property
    def execute(self) -> int | None:
        """Actions executed of each chunk unless it is said otherwise; None: half of H."""
        execute: int | None = self.config["execute"]
        return execute

    @property
    def correction(self) -> Correction | None:
        """What the residual adds to each action, under its present parameters, for who executes chunks."""
        if self.residual is None:
            return None
        normalizer, action = self.residual.encoder.normalizer, self.action_normalizer
        states = normalizer.center.numel() - self.contract.action_dim
        layers = [layer for layer in self.residual.denoiser.modules() if isinstance(layer, nn.Linear)]
        unbounded = torch.full_like(self.low, torch.inf)
        low, high = (self.low, self.high) if self.config["clip_actions"] else (-unbounded, unbounded)
        parts = {
            "center": normalizer.center[:states], "spread": normalizer.spread[:states], "action_center": action.center,
            "action_spread": action.spread, "low": low, "high": high,
        }  # fmt: skip
        return Correction.from_dict({
            "names": self.residual.encoder.states[:-1], "scale": self.config["residual"]["scale"],
            **{name: value.cpu().numpy() for name, value in parts.items()},
            "weights": [layer.weight.detach().T.cpu().numpy() for layer in layers],
            "biases": [layer.bias.detach().cpu().numpy() for layer in layers],
        })  # fmt: skip

    def encode(self, observation: Mapping[str, Any], generator: torch.Generator | None = None) -> Tensor:
        """Context [B, To, C] of observations in raw units.

        Args:
            observation: {name: [B, To, *shape]}, exactly the features of `contract`; tensors or NumPy arrays.
            generator: of the image augmentation, which is active in training mode only.
        """
        context: Tensor = self.encoder(self._observed(observation), generator)
        return context

    @torch.no_grad()
    def sample(
        self,
        context: Tensor,
        n: int = 1,
        noise: Tensor | None = None,
        prefix: Prefix | None = None,
        generator: torch.Generator | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Tensor:
        """Chunks [B, n, H, A] float32 in raw units.

        Args:
            context: from `encode`; n chunks share one encoding.
            noise: [B, n, H, A] standard normal, of an edited policy [B, n · N, H, A]; when None it is drawn from the
                generator, or the steering chooses it, the same for all n unless it draws, too.
            prefix: actions already decided, the same for all n. Committed ones are kept exactly. A policy trained with
                a prefix sees them while it denoises. Beyond them the chunk is held near the actions by their weights.
            steps: denoising steps; the process's own number when None.
            guidance: largest weight of guided inpainting, which pulls the prefix's error back through the network,
                whether or not it was trained with a prefix (5 in Black et al. 2025); see `Inpainting`.

        Raises:
            PolicyError: something has the wrong shape, the policy was not trained with so long a prefix, or there is
                guidance where nothing can be guided.
        """
        batch = len(context)
        drawn = n if self.edit is None else n * self.edit.candidates
        shape = (batch, drawn, self.action_horizon, self.contract.action_dim)
        each = context if drawn == 1 else context.repeat_interleave(drawn, dim=0)
        begin = self._begin(each, noise, shape, generator)
        held = None if prefix is None else self._inpainting(prefix, batch, drawn, guidance)
        x = self.process.sample(self.denoiser, each, begin, steps or self.process.steps, held, generator)
        if self.edit is not None:
            free = torch.ones_like(x[..., :1]) if held is None else 1 - held.weight
            parts = (part.unflatten(0, (batch * n, self.edit.candidates)) for part in (x, free))
            x = self.edit(context if n == 1 else context.repeat_interleave(n, dim=0), *parts)
        chunk: Tensor = self.decode(x).unflatten(0, (batch, n))
        if prefix is None or held is None:
            return chunk
        actions = torch.as_tensor(prefix.actions, dtype=torch.float32, device=self.device).unsqueeze(1)
        return torch.where(held.committed.unflatten(0, (batch, drawn))[:, :n], actions, chunk)

    @torch.no_grad()
    def chain(
        self,
        context: Tensor,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        steps: int | None = None,
    ) -> Chain:
        """Sample one chunk per context with Gaussian transitions, keeping the states and their log-density.

        Args:
            noise: [B, H, A], the first draw. The transitions draw from the generator.

        Raises:
            PolicyError: the policy is steered or edited.
        """
        for key, kind in (("steering", "a steered"), ("edit", "an edited")):
            if self.config[key] is not None:
                raise PolicyError(f"{key}: {kind} policy has no chain; take the policy that it was made for")
        shape = (len(context), self.action_horizon, self.contract.action_dim)
        noise = draw.normal(shape, self.device, generator) if noise is None else self._given("noise", noise, shape)
        return self.process.chain(self.denoiser, context, noise, steps or self.process.steps, generator)

    def log_density(self, chain: Chain, context: Tensor) -> Tensor:
        """[B, K + 1, H, A]: the chain's `log_density` under the current parameters, with gradients."""
        return self.process.log_density(self.denoiser, chain.states, context)

    def log_prob(self, chain: Chain, context: Tensor) -> Tensor:
        """[B, K + 1]: the chain's `log_prob` under the current parameters, with gradients (a sum over the chunk)."""
        return self.log_density(chain, context).sum(dim=(-2, -1))

    def decode(self, x: Tensor) -> Tensor:
        """Normalised actions [..., A], such as a chain's last state, to raw units, clipped to the contract's bounds."""
        actions = self.action_normalizer.unnormalize(x)
        return actions.clamp(self.low, self.high) if self.config["clip_actions"] else actions

    def loss(
        self, batch: Mapping[str, Any], weights: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mean over the batch of weight × loss of a chunk; padded and known actions have no part in it.

        Args:
            batch: as from `EpisodeStore.windows`: `observation`, `action` [B, H, A], optionally `action_valid` [B, H]
                and `weight` [B].
            weights: [B], multiplied with the batch's own.
            generator: of augmentation, prefix, noise and time. (Dropout draws from torch's global generator.)
        """
        context = self.encode(batch["observation"], generator)
        shape = (len(context), self.action_horizon, self.contract.action_dim)
        actions = self._given("action", batch["action"], shape)
        valid = torch.ones(shape[:2], dtype=torch.bool, device=self.device)
        if "action_valid" in batch:
            valid = torch.as_tensor(batch["action_valid"], device=self.device)
            actions = _repeat_last_valid(actions, valid)
        known = self._random_prefix(len(context), generator)
        element = self.process.loss(self.denoiser, self.action_normalizer.normalize(actions), context, known, generator)
        counted = valid if known is None else valid & (known == 0)
        chunk = torch.where(counted.unsqueeze(-1), element, 0.0).mean(dim=(1, 2))
        for given in (batch.get("weight"), weights):
            if given is not None:
                chunk = chunk * torch.as_tensor(given, dtype=chunk.dtype, device=self.device)
        return chunk.mean()

    def forward(
        self, batch: Mapping[str, Any], weights: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """`loss`, so that wrappers which hook into `forward` (DistributedDataParallel) work."""
        return self.loss(batch, weights, generator)

    def compile_networks(self, **options: Any) -> None:
        """`torch.compile` the encoder's backbones and the denoiser in place; the parameters keep their names."""
        for module in (*self.encoder.backbones.values(), self.denoiser):
            module.compile(**options)

    def _observed(self, observation: Mapping[str, Any]) -> dict[str, Tensor]:
        tensors = {name: torch.as_tensor(value) for name, value in observation.items()}
        check_observation(self.contract, self.obs_horizon, tensors)
        return {name: self._moved(tensor) for name, tensor in tensors.items()}

    def _begin(
        self, context: Tensor, noise: Tensor | None, shape: tuple[int, ...], generator: torch.Generator | None
    ) -> Tensor:
        """What denoising begins with, [B · n, H, A], in contexts [B · n, To, C]."""
        if noise is not None:
            return self._given("noise", noise, shape).flatten(0, 1)
        if self.steering is not None and not self.steering.draws:
            chosen: Tensor = self.steering(context)
            return chosen
        drawn = draw.normal(shape, self.device, generator).flatten(0, 1)
        return drawn if self.steering is None else self.steering(context, drawn)

    def _given(self, name: str, value: Any, shape: tuple[int, ...]) -> Tensor:
        tensor = torch.as_tensor(value)
        if tuple(tensor.shape) != shape:
            raise PolicyError(f"{name}: expected shape {list(shape)}, got {list(tensor.shape)}")
        return self._moved(tensor).float()

    def _moved(self, tensor: Tensor) -> Tensor:
        # A copy from a GPU to the CPU that does not block may be read before it has arrived.
        return tensor.to(self.device, non_blocking=self.device.type == "cuda")

    def _inpainting(self, prefix: Prefix, batch: int, n: int, guidance: float | None) -> Inpainting:
        length = torch.as_tensor(prefix.length)
        shape = (batch, self.action_horizon, self.contract.action_dim)
        actions = self._given("prefix.actions", prefix.actions, shape)
        weights = self._given("prefix.weights", prefix.weights, shape[:2])
        if tuple(length.shape) != shape[:1]:
            raise PolicyError(f"prefix.length: expected shape {[batch]}, got {list(length.shape)}")
        clean = self.prefix_max_length > 0 and guidance is None
        if clean:
            check_prefix_length(int(length.max()), self.prefix_max_length)
        if guidance is not None and not guidance > 0:
            raise PolicyError(f"guidance: expected a positive number, got {guidance}")
        committed = torch.arange(self.action_horizon, device=self.device) < length.to(self.device)[:, None]
        weight = torch.where(committed, 1.0, weights)
        # Beyond the prefix the caller may leave anything, also values that are not finite.
        target = torch.where(weight.unsqueeze(-1) > 0, self.action_normalizer.normalize(actions), 0.0)
        parts = (target, weight.unsqueeze(-1), committed.unsqueeze(-1))
        target, weight, committed = (part.repeat_interleave(n, dim=0) for part in parts)
        return Inpainting(target, weight, committed, clean, guidance)

    def _random_prefix(self, batch: int, generator: torch.Generator | None) -> Tensor | None:
        """[B, H], 1 for the steps of a known prefix: real-time chunking that needs no gradient at run time."""
        if self.prefix_probability == 0:
            return None
        length = 1 + draw.integers(self.prefix_max_length, (batch,), self.device, generator)
        used = draw.uniform((batch,), self.device, generator) < self.prefix_probability
        steps = torch.arange(self.action_horizon, device=self.device)
        return (steps < (length * used)[:, None]).float()


def build_policy(
    config: Mapping[str, Any], contract: Contract, statistics: Mapping[str, Any], estimator: Policy | None = None
) -> Policy:
    """A new policy with random parameters (from torch's global generator) and a fitted normaliser.

    Args:
        config: see the module; plain mappings, also Hydra's.
        contract: of the data; the policy keeps the observations that it uses.
        statistics: by feature name and `action`, as from `EpisodeStore.statistics`.
        estimator: whose estimate is observed too; a copy of it becomes a part of the policy, frozen.

    Raises:
        PolicyError: naming the configuration key, feature or statistics that does not fit.
        ContractError: the estimator was trained on other features, at another rate, or for another controller.
    """
    if estimator is not None:
        satisfies(replace(estimator.contract, action=contract.action), contract)
        config = {**config, "estimator": Estimator(estimator).describe()}
    policy = Policy(config, contract)
    if estimator is not None:
        assert policy.encoder.estimator is not None
        policy.encoder.estimator.policy.load_state_dict(estimator.state_dict())
    modes = {key: policy.config["normalizer"][key] for key in ("observation", "action")}
    fit_normalizers(
        policy.contract, policy.encoder.states, statistics, policy.encoder.normalizer, policy.action_normalizer, modes
    )
    return policy


def resolve_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The complete configuration: every key with its default, as plain JSON types."""
    resolved = complete("policy", plain(config), DEFAULTS)
    for section, kinds in (("process", PROCESSES), ("denoiser", DENOISERS), ("encoder", ENCODERS)):
        resolved[section] = plain(resolve(section, resolved[section], kinds))
    for section in ("normalizer", "augmentation", "prefix"):
        resolved[section] = complete(section, resolved[section], DEFAULTS[section])
    if resolved["steering"] is not None:
        resolved["steering"] = complete("steering", resolved["steering"], options(Steering))
    if resolved["edit"] is not None:
        resolved["edit"] = complete("edit", resolved["edit"], options(Edit))
    return resolved


def _readable(contract: Contract, encoder: str) -> list[str]:
    kinds = ("state",) if encoder == "low_dim" else ("state", "image", "depth")
    return [
        name for name, feature in contract.observation.items() if feature.role == "policy" and feature.kind in kinds
    ]


def _check_sizes(policy: Policy, contract: Contract) -> None:
    """Raise `PolicyError` for what does not fit. The contract is of what the policy itself observes, no estimator."""
    config = policy.config
    encoder = config["encoder"]["name"]
    problems = []
    if config["edit"] is not None and config["steering"] is not None:
        problems.append("edit: expected none, chunks from a chosen noise are all the same")
    if not contract.observation:
        problems.append("observation: expected at least one feature, or null for all of them")
    if int(config["obs_horizon"]) < 1 or policy.action_horizon < 1:
        problems.append("obs_horizon and action_horizon: expected at least 1")
    if config["frames"] is not None and not 1 <= config["frames"] <= int(config["obs_horizon"]):
        problems.append(f"frames: expected 1 to {config['obs_horizon']}, the obs_horizon; got {config['frames']}")
    usable = policy.action_horizon + policy.action_offset
    if not -policy.action_horizon < policy.action_offset <= 0:
        problems.append(
            f"action_offset: expected {1 - policy.action_horizon} to 0, so that actions are left from the last "
            f"observation on; got {policy.action_offset}"
        )
    elif policy.execute is not None and not 1 <= policy.execute <= usable:
        problems.append(f"execute: expected 1 to {usable}, the actions of a chunk; got {policy.execute}")
    if text := [name for name, feature in contract.observation.items() if feature.kind == "text"]:
        problems.append(f"observation: no encoder reads the text features {text}")
    if contract.cameras and encoder == "low_dim":
        problems.append(f"encoder: low_dim cannot read {list(contract.cameras)}; choose cnn, grid_cnn or resnet18")
    if not contract.cameras and encoder != "low_dim":
        problems.append(f"encoder: {encoder} reads cameras and the observation has none; choose low_dim")
    crop, shift = config["augmentation"]["crop"], config["augmentation"]["shift"]
    for name, feature in contract.cameras.items():
        if shift >= min(feature.shape[:2]):
            problems.append(
                f"augmentation.shift: {shift} is not less than the sides of {name!r}, {list(feature.shape[:2])}"
            )
        if crop is not None and crop > min(feature.shape[:2]):
            problems.append(f"augmentation.crop: {crop} is larger than {name!r}, {list(feature.shape[:2])}")
    if config["process"].get("clip_sample") and config["normalizer"]["action"] == "mean_std":
        problems.append(
            "process.clip_sample: clips to [-1, 1], where normalizer.action=mean_std puts only a part of the actions; "
            "choose min_max, or clip_sample: false"
        )
    if not 0 <= policy.prefix_probability <= 1:
        problems.append(f"prefix.probability: expected 0 to 1, got {policy.prefix_probability}")
    if policy.prefix_probability > 0 and not 0 < policy.prefix_max_length < policy.action_horizon:
        problems.append(f"prefix.max_length: expected 1 to {policy.action_horizon - 1}, got {policy.prefix_max_length}")
    if problems:
        raise PolicyError(
            "\n".join(["the policy's configuration does not fit:", *(f"  - {line}" for line in problems)])
        )


def _augmentation(config: Mapping[str, Any]) -> Augmentation:
    augmentation: Augmentation = construct(
        "augmentation", {"name": "augmentation", **config}, {"augmentation": Augmentation}
    )
    return augmentation


def _estimator(described: Mapping[str, Any] | None) -> Estimator | None:
    if described is None:
        return None
    return Estimator(Policy(described["config"], Contract.from_dict(described["contract"])))


def _backbones(config: Mapping[str, Any], contract: Contract) -> dict[str, nn.Module]:
    if config["encoder"]["name"] == "low_dim":
        return {}
    return {
        name: construct("encoder", config["encoder"], ENCODERS, feature.shape[2])
        for name, feature in contract.cameras.items()
    }


def _repeat_last_valid(actions: Tensor, valid: Tensor) -> Tensor:
    """[B, H, A] with each padded action replaced by the nearest valid one before (else after): it cannot matter."""
    steps = torch.arange(actions.shape[1], device=actions.device)
    index = torch.where(valid, steps, -1).cummax(dim=1).values
    first = valid.float().argmax(dim=1, keepdim=True)
    index = torch.where(index < 0, first, index)
    return actions.gather(1, index.unsqueeze(-1).expand_as(actions))
