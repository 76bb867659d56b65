"""A point on a line, many at once: a task whose best policy is known."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from robot_rl.datasets import Contract, Feature
from robot_rl.datasets.statistics import merge, summarise
from robot_rl.policies import Policy, build_policy

HORIZON, EDGE = 12, 4.0
CONTRACT = Contract(
    "line", 10.0, {"place": Feature("place", (1,), unit="m")}, {"push": Feature("push", (1,), kind="action", unit="m")}
)


class Line:
    """x' = x + a, reward -(x² + a²). Terminated beyond 4 m, truncated after 12 steps; success within 0.1 m.

    The start is drawn from the seed. `log` keeps every action that was executed.
    """

    def __init__(self, num_envs: int, horizon: int = HORIZON) -> None:
        self.num_envs, self.contract, self.horizon = num_envs, CONTRACT, horizon
        self.x, self.steps = np.zeros(num_envs), np.zeros(num_envs, np.int64)
        self.seeds = np.zeros(num_envs, np.int64)
        self.queue: Iterator[int] = iter(())
        self.log: list[np.ndarray] = []

    def reset(self, *, seed: int | Iterable[int] | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        assert seed is not None
        self.queue = itertools.count(seed) if isinstance(seed, int) else iter(list(seed))
        for env in range(self.num_envs):
            self._begin(env)
        return self.observe(), {"seed": self.seeds.copy()}

    def step(self, actions: np.ndarray) -> tuple[dict[str, np.ndarray], Any, Any, Any, dict[str, Any]]:
        self.log.append(actions.copy())
        action = actions[:, 0].astype(float)
        reward = -(self.x**2 + action**2)
        self.x += action
        self.steps += 1
        terminated, truncated = np.abs(self.x) > EDGE, self.steps >= self.horizon
        info: dict[str, Any] = {"success": np.abs(self.x) < 0.1}
        for name in ("final_obs", "reset_info"):
            info[name] = np.full(self.num_envs, None, object)
        last = self.observe()
        for env in np.flatnonzero(terminated | truncated):
            info["final_obs"][env] = {"place": last["place"][env]}
            self._begin(env)
            info["reset_info"][env] = {"seed": int(self.seeds[env])}
        return self.observe(), reward, terminated, truncated, info

    def get_states(self) -> np.ndarray:
        return np.stack([self.x, self.steps], axis=1)

    def set_states(self, states: np.ndarray, indices: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        rows = np.arange(self.num_envs) if indices is None else np.asarray(indices)
        self.x[rows], self.steps[rows] = states[:, 0], states[:, 1].astype(np.int64)
        return self.observe()

    def observe(self) -> dict[str, np.ndarray]:
        return {"place": self.x[:, None].astype(np.float32)}

    def _begin(self, env: int) -> None:
        self.seeds[env] = next(self.queue)
        self.x[env] = np.random.default_rng(self.seeds[env]).uniform(-2, 2)
        self.steps[env] = 0


def line_policy(process: dict[str, Any], horizon: int = 1, obs_horizon: int = 1, clone: float | None = None) -> Policy:
    """A small policy of the line, in evaluation mode; the same weights each time.

    Args:
        clone: trained to imitate noisy actions -clone · x; None: random weights.
    """
    torch.manual_seed(0)
    config = {
        "obs_horizon": obs_horizon, "action_horizon": horizon, "process": process,
        "denoiser": {"name": "mlp", "width": 32, "depth": 1, "time_features": 16},
    }  # fmt: skip
    rows = np.linspace(-2, 2, 50)[:, None]
    statistics = {
        "place": merge({name: value[None] for name, value in summarise(rows).items()}),
        "action": merge({name: value[None] for name, value in summarise(rows / 2).items()}),
    }
    policy = build_policy(config, CONTRACT, statistics).eval()
    if clone is None:
        return policy
    optimizer, generator = torch.optim.AdamW(policy.parameters(), lr=3e-3), torch.Generator().manual_seed(0)
    for _ in range(300):
        place = 4 * torch.rand(128, obs_horizon, 1, generator=generator) - 2
        noise = 0.15 * torch.randn(128, horizon, 1, generator=generator)
        batch = {"observation": {"place": place}, "action": noise - clone * place[:, -1:]}
        optimizer.zero_grad()
        policy.loss(batch, generator=generator).backward()
        optimizer.step()
    return policy
