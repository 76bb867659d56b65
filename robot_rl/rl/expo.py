"""`expo`: a policy that only imitates, small edits that climb, and the best of both at each choice (Dong et al. 2025).

The base policy learns by imitation alone, from demonstrations and from what was collected: no gradient of a critic goes
through its denoising. An edit policy is trained as in soft actor-critic, on Q(s, a + da) for chunks a of the base. What
acts is neither: of N chunks and their N edits the critics choose the best. The same choice makes the target of the
critics, which would otherwise learn what the base is worth and not what acts. Least of the critics in the target, mean
in the choice: an argmax seeks out what they overrate.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from robot_rl.policies import Policy, PolicyError, draw
from robot_rl.policies.critic_ensemble import CriticEnsemble, least_of
from robot_rl.policies.diffusion import Diffusion
from robot_rl.policies.edit import best
from robot_rl.policies.flow_matching import FlowMatching
from robot_rl.rl.extended import chooser, extended
from robot_rl.rl.off_policy_method import OffPolicyMethod, Values
from robot_rl.rl.temperature import log_temperature, soft_loss


class EXPO(OffPolicyMethod):
    """Args:
    policy: of kind flow_matching, shortcut, ddim or ddpm, whose whole chunks are executed.
    steps: denoising steps of it, in training and afterwards; null: as many as it makes.
    bound: beta, largest absolute value of an edit; 0: there are none.
    candidates: N.
    backup: `best` of the candidates in the target, or `sarsa`: the value of one chunk as the edit policy makes it.
    width, depth: of the edit policy's hidden layers.
    temperature: alpha to begin with.
    target_entropy: of a decision, per element of the edit in units of the bound [nat].
    critics, critic_width, critic_depth, layer_norm: of the core's critics, which are saved with the policy.
    """

    def __init__(
        self, policy: Policy, execute: int, *, steps: int | None = None, bound: float = 0.1, candidates: int = 4,
        backup: Literal["best", "sarsa"] = "best", width: int = 256, depth: int = 2, temperature: float = 0.01,
        target_entropy: float = -0.5, critics: int = 2, critic_width: int = 256, critic_depth: int = 2,
        layer_norm: bool = True,
    ) -> None:  # fmt: skip
        _check(policy, execute)
        if backup not in ("best", "sarsa"):
            raise PolicyError(f"algorithm.backup: expected backup best or sarsa, got {backup}")
        edit = {
            "bound": bound, "candidates": candidates, "width": width, "depth": depth, "critics": critics,
            "critic_width": critic_width, "critic_depth": critic_depth, "layer_norm": layer_norm,
        }  # fmt: skip
        process = {**policy.config["process"], **({} if steps is None else {"steps": steps})}
        made = extended(policy, process=process, edit=edit)
        super().__init__(made, execute)
        assert made.edit is not None
        self.edit, self.backup = made.edit, backup
        made.process.requires_grad_(False)  # of a chain's noise, which nothing here asks for
        self.edit.critics.requires_grad_(False)
        if bound > 0:
            last = [layer for layer in self.edit.mean.modules() if isinstance(layer, nn.Linear)][-1]
            with torch.no_grad():
                last.weight.mul_(0.01)
                last.bias.zero_()
            self.log_temperature = log_temperature(temperature, policy.device)
            self.target_entropy = target_entropy * execute * policy.contract.action_dim

    def begin(self, context: Tensor, generator: torch.Generator) -> Tensor:
        """What the base policy does of itself."""
        return self._base(context, 1, generator)[:, 0]

    def act(self, context: Tensor, generator: torch.Generator) -> Tensor:
        """argmax Q over base chunks and their edits."""
        candidates = self.candidates(context, generator)
        return best(self.edit.critics, context.flatten(1), candidates)[0]

    def value(self, following: Tensor, targets: Values, subset: int, generator: torch.Generator) -> Tensor:
        """min Q(s', a'), a' as what acts would choose by the target critics; without entropy, for sparse rewards."""
        context = self.history(following)
        if self.backup == "best":
            candidates = self.candidates(context, generator)
        else:
            base = self._base(context, 1, generator)
            candidates = base if self.edit.bound == 0 else self._edited(context, base, generator)[0]
        return least_of(best(targets, following, candidates)[1], subset, generator)

    def loss(self, context: Tensor, critics: Values, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """alpha log pi(da|s, a) - Q(s, a + da) of the edit policy alone, and the temperature's loss."""
        if self.edit.bound == 0:
            return context.new_zeros(()), {}
        seen = self.history(context)
        with torch.no_grad():
            base = self._base(seen, 1, generator)
        edited, density = self._edited(seen, base, generator)
        log_prob = density.sum(dim=(1, 2, 3))
        value = critics(context, edited.flatten(1)).mean(dim=0)
        return soft_loss(self.log_temperature, log_prob, value, self.target_entropy)

    def imitation(
        self, context: Tensor, chunk: Tensor, generator: torch.Generator, valid: Tensor | None = None
    ) -> Tensor:
        """The base policy's own loss on chunks of demonstrations and of what was collected, as far as these go."""
        policy = self.policy
        actions = chunk.view(len(chunk), policy.action_horizon, -1)
        element = policy.process.loss(policy.denoiser, actions, self.history(context), None, generator)
        return element.mean() if valid is None else torch.where(valid.unsqueeze(-1), element, 0.0).mean()

    def follow(self, critics: CriticEnsemble) -> None:
        self.edit.critics.load_state_dict(critics.state_dict())

    def candidates(self, context: Tensor, generator: torch.Generator) -> Tensor:
        """N base chunks and their edits, [B, 2N, H, A]; without edits [B, N, H, A]."""
        base = self._base(context, self.edit.candidates, generator)
        if self.edit.bound == 0:
            return base
        return torch.cat([base, self._edited(context, base, generator)[0]], dim=1)

    def _base(self, context: Tensor, number: int, generator: torch.Generator) -> Tensor:
        """Chunks [B, N, H, A] of contexts [B, To, C], bounded as the replay's actions are."""
        policy, each = self.policy, context.repeat_interleave(number, dim=0)
        noise = draw.normal(
            (len(each), policy.action_horizon, policy.contract.action_dim), policy.device, generator
        )  # fmt: skip
        chunks = policy.process.sample(policy.denoiser, each, noise, policy.process.steps, None, generator)
        bounded: Tensor = chunks.clamp(-1.0, 1.0).unflatten(0, (-1, number))
        return bounded

    def _edited(self, context: Tensor, base: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Base chunks with an edit drawn for each, [B, N, H, A], and the edits' log-densities by element."""
        edits, density = self.edit.draw(context, base, generator)
        return (base + edits).clamp(-1.0, 1.0), density


def _check(policy: Policy, execute: int) -> None:
    name, horizon = policy.config["process"]["name"], policy.action_horizon
    if kind := chooser(policy):
        raise PolicyError(f"expo: this policy has {kind} already; give the policy that it was made for")
    if not isinstance(policy.process, (FlowMatching, Diffusion)):
        raise PolicyError(
            f"expo edits policies that denoise, this one is {name}; give one of kind flow_matching, shortcut, ddim or "
            "ddpm"
        )
    if execute != horizon:
        raise PolicyError(
            f"expo imitates what it executes, whole chunks: expected training.execute={horizon}, got {execute}; or "
            f"clone with policy.action_horizon={execute}"
        )
