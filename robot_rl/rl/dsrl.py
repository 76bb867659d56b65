"""`dsrl`: a frozen flow or diffusion policy steered by the noise that it begins with (DSRL, Wagenmaker et al. 2025).

To the actor the frozen policy is a part of the environment, and its action is the noise w of a chunk. Critics could
learn Q(s, w) directly; this is the paper's other variant, DSRL-NA. The core's critics learn the value of the executed
actions, from whatever made them: trying, or demonstrations, which have no noise. A second ensemble is distilled from
them, Q_W(s, w) = Q(s, pi(s, w)): many noises make the same actions, and it learns that without trying them. The actor
climbs Q_W, so that no gradient goes through the denoising.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

from robot_rl.policies import Policy, PolicyError, draw
from robot_rl.policies.critic_ensemble import CriticEnsemble, least_of
from robot_rl.policies.ddim import DDIM
from robot_rl.policies.flow_matching import FlowMatching
from robot_rl.rl.extended import chooser, extended
from robot_rl.rl.off_policy_method import OffPolicyMethod, Values
from robot_rl.rl.temperature import log_temperature, soft_loss


class DSRL(OffPolicyMethod):
    """Args:
    policy: of kind flow_matching, shortcut, or ddim without noise of its own. Nothing of it changes.
    steps: denoising steps of it, in training and afterwards; null: as many as it makes.
    bound: b_w, largest absolute value of a noise.
    width, depth: of the hidden layers of actor and distilled critics.
    critics: that are distilled; the actor climbs the least.
    temperature: alpha to begin with.
    target_entropy: of a decision, per element of the noise [nat]; alpha moves so that the actor keeps it.
    executed_temperature: factor on the actor's deviation where the result is evaluated or deployed; 0: its mean.
    """

    def __init__(
        self, policy: Policy, execute: int, *, steps: int | None = None, bound: float = 1.5, width: int = 256,
        depth: int = 2, critics: int = 2, temperature: float = 0.1, target_entropy: float = 0.0,
        executed_temperature: float = 1.0,
    ) -> None:  # fmt: skip
        name = policy.config["process"]["name"]
        if addition := chooser(policy):
            raise PolicyError(f"dsrl: this policy has {addition} already; give the policy that it was made for")
        if not isinstance(policy.process, (FlowMatching, DDIM)) or getattr(policy.process, "eta", 0.0) > 0:
            raise PolicyError(
                f"dsrl steers policies whose noise decides the chunk, this one is {name}; give one of kind "
                "flow_matching, shortcut, or ddim with eta 0"
            )
        if critics < 1:
            raise PolicyError(f"algorithm.critics: expected at least 1, got {critics}")
        steering = {"bound": bound, "width": width, "depth": depth, "temperature": executed_temperature}
        process = {**policy.config["process"], **({} if steps is None else {"steps": steps})}
        steered = extended(policy, process=process, steering=steering).requires_grad_(False)
        super().__init__(steered, execute)
        assert steered.steering is not None
        self.steering = steered.steering.requires_grad_(True)
        with torch.no_grad():
            last = [layer for layer in self.steering.mean.modules() if isinstance(layer, nn.Linear)][-1]
            last.weight.mul_(0.01)
            last.bias.zero_()
        seen, chosen = steered.encoder.horizon * steered.encoder.features, math.prod(self._chunk)
        self.noise_critics = CriticEnsemble(seen + chosen, critics, width, depth).to(policy.device)
        self.log_temperature = log_temperature(temperature, policy.device)
        self.target_entropy = target_entropy * chosen

    def begin(self, context: Tensor, generator: torch.Generator) -> Tensor:
        """What the frozen policy does of itself."""
        return self._denoise(context, self._normal(len(context), generator))

    def act(self, context: Tensor, generator: torch.Generator) -> Tensor:
        return self._denoise(context, self.steering.draw(context, generator)[0])

    def value(self, following: Tensor, targets: Values, subset: int, generator: torch.Generator) -> Tensor:
        """min Q(s', pi(s', w')), w' of the actor; without its entropy, as RLPD does it for sparse rewards."""
        noise, _ = self.steering.draw(self.history(following), generator)
        return least_of(targets(following, self._made(following, noise)), subset, generator)

    def loss(self, context: Tensor, critics: Values, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """(Q_W(s, w) - Q(s, pi(s, w)))² of the distilled critics, alpha log p(w|s) - min Q_W(s, w) of the actor."""
        noise, density = self.steering.draw(self.history(context), generator)
        distillation = self._distillation(context, noise.detach(), critics, generator)
        log_prob = density.sum(dim=(1, 2))
        fixed = {name: value.detach() for name, value in self.noise_critics.named_parameters()}
        values: Tensor = functional_call(self.noise_critics, fixed, (context, noise.flatten(1)))
        loss, logged = soft_loss(self.log_temperature, log_prob, values.amin(dim=0), self.target_entropy)
        return distillation + loss, {**logged, "distillation_loss": distillation.detach()}

    def _distillation(self, context: Tensor, chosen: Tensor, critics: Values, generator: torch.Generator) -> Tensor:
        """Of half the actor's noises and half those that the frozen policy would draw, within the bound."""
        with torch.no_grad():
            drawn = self._normal(len(context), generator).clamp(-self.steering.bound, self.steering.bound)
            half = draw.uniform((len(context), 1, 1), context.device, generator) < 0.5
            noise = torch.where(half, drawn, chosen)
            target = critics(context, self._made(context, noise)).amin(dim=0)
        loss: Tensor = (self.noise_critics(context, noise.flatten(1)) - target).square().mean(dim=1).sum()
        return loss

    def _denoise(self, context: Tensor, noise: Tensor) -> Tensor:
        """Chunks [B, H, A], normalised, of contexts [B, To, C]."""
        process = self.policy.process
        return process.sample(self.policy.denoiser, context, noise, process.steps, None, None)

    def _made(self, flat: Tensor, noise: Tensor) -> Tensor:
        """What the critics see of those chunks, [B, k · A], bounded as the replay's actions are."""
        return self.executed(self._denoise(self.history(flat), noise).clamp(-1.0, 1.0))

    def _normal(self, rows: int, generator: torch.Generator) -> Tensor:
        return draw.normal((rows, *self._chunk), self.policy.device, generator)

    @property
    def _chunk(self) -> tuple[int, int]:
        return self.policy.action_horizon, self.policy.contract.action_dim
