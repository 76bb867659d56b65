"""One way of learning in a slow environment: `sync`, acting and learning in turns, or `apart`, with eight actors.

    python tests/benchmarks/apart.py sync runs/benchmarks/rl/apart_0 --seed 0

The task is Gymnasium's Reacher (dense reward, 50 control steps), each step of which takes 50 ± 50 ms more: a uniform
draw from 0 to 100 ms. SAC learns it, small and the same both ways: an update for each control step, after 200 random
ones. The clock runs from the first step until the mean return of the last ten episodes that were learned from reaches
the target; processes have been started before. `rl.py --rows apart` runs both ways, one after the other.

The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

ACTORS, TARGET, LAST, LIMIT = 8, -15.0, 10, 900.0
"""Actors, return to be reached as the mean of so many episodes, and seconds after which to give up."""
TASK = "gym/Reacher-v5"
KEYS = (
    "algorithm=sac", f"task={TASK}", "training.start_steps=200", "training.rollout_steps=50", "training.batch=64",
    "training.discount=0.95", "training.critic_width=64", "network.denoiser.width=64", "algorithm.temperature=0.1",
)  # fmt: skip
SECRET = b"of this benchmark alone"


class Slow:
    """Environments whose steps take 0 to 100 ms more; the first waits for a file that gives the start."""

    def __init__(self, seed: int, go: Path) -> None:
        from robot_rl import sim

        self._made, self.num_envs, self._go = sim.make_vector(TASK, 1), 1, go
        self._draw, self._waits = np.random.default_rng(seed), True

    @property
    def contract(self) -> Any:
        return self._made.contract

    def reset(self, *, seed: int | Iterable[int] | None = None) -> Any:
        return self._made.reset(seed=seed)

    def step(self, actions: Any) -> Any:
        while self._waits and not self._go.exists():
            time.sleep(0.01)
        self._waits = False
        time.sleep(self._draw.uniform(0.0, 0.1))
        return self._made.step(actions)

    def get_states(self) -> Any:
        return self._made.get_states()

    def set_states(self, states: Any, indices: Sequence[int] | None = None) -> Any:
        return self._made.set_states(states, indices)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=["sync", "apart", "act"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, help="of the learner, for act")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.way == "act":
        act(options.folder, options.seed, options.port)
    else:
        print(json.dumps(learn(options.way, options.folder, options.seed)))


def learn(way: str, folder: Path, seed: int) -> dict[str, float]:
    """Seconds, control steps and updates until the target is reached."""
    from omegaconf import OmegaConf

    from robot_rl.cli import compose
    from robot_rl.rl.apart.learner import ApartLearner
    from robot_rl.rl.methods import build_off_policy, fresh_policy
    from robot_rl.rl.off_policy import OffPolicySettings
    from robot_rl.rl.off_policy_learner import OffPolicyLearner

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    plain: Any = OmegaConf.to_container(compose("finetune", list(KEYS)), resolve=True)
    torch.manual_seed(seed)
    go = folder / "go"
    environments = Slow(seed, go)
    policy = fresh_policy(plain["network"], environments.contract)
    network, name, algorithm = policy.config, plain["name"], plain["algorithm"]
    method = build_off_policy(name, algorithm, policy, 1)
    common = (
        method, environments, OffPolicySettings.read(plain["training"]), folder / "replay.zarr", seed,
        10_000_000 * (1 + seed), None, {"task": TASK}, True,
    )  # fmt: skip
    with ExitStack() as stack:
        if way == "sync":
            learner = OffPolicyLearner(*common)
            stack.enter_context(learner)
        else:
            learner = ApartLearner(
                *common, name=name, algorithm=algorithm, network=network, secret=lambda: SECRET, say=quiet
            )
            stack.enter_context(learner)
            for number in range(ACTORS):
                line = [sys.executable, str(Path(__file__).absolute()), "act", str(folder / f"actor{number}")]
                line += ["--seed", str(100 * seed + number), "--port", str(learner.server.port)]
                stack.callback(end, subprocess.Popen(line, env={**os.environ, "OMP_NUM_THREADS": "1"}))
            until = time.monotonic() + LIMIT
            while sum((folder / f"actor{number}").exists() for number in range(ACTORS)) < ACTORS:
                if time.monotonic() > until:
                    raise TimeoutError("the actors do not come")
                time.sleep(0.1)
        go.touch()
        began, cpu, returns, staleness, row = time.monotonic(), time.process_time(), [], [], {}
        while len(returns) < LAST or np.mean(returns[-LAST:]) < TARGET:
            if time.monotonic() - began > LIMIT:
                raise TimeoutError(f"the return after {LIMIT:g} s is {np.mean(returns[-LAST:]):.1f}")
            row = learner.iterate()
            returns += [episode.total_reward for episode in learner.episodes]
            staleness += [row["staleness"]] if "staleness" in row else []
        seconds = time.monotonic() - began
        return {
            "seconds": seconds, "cpu_seconds": time.process_time() - cpu, "steps": learner.steps,
            "updates": learner.updates, "return": float(np.mean(returns[-LAST:])),
        } | ({"staleness": float(np.mean(staleness))} if staleness else {})  # fmt: skip


def act(folder: Path, seed: int, port: int) -> None:
    """One actor, until it is ended."""
    from robot_rl.rl.apart.actor import Actor, build
    from robot_rl.rl.apart.link import Link
    from robot_rl.rl.apart.outbox import Outbox, open_store

    link = Link("127.0.0.1", port, SECRET, quiet)
    welcome = link.meet()
    assert welcome is not None
    method, environments = build(welcome), Slow(seed, folder.parent / "go")
    store = open_store(folder, welcome.run, environments.contract, welcome.environment)
    with Actor(welcome, method, environments, store, link) as actor:
        link.join(Outbox(store), environments.contract)
        actor.act()


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def quiet(text: str) -> None:
    """Nobody listens."""


if __name__ == "__main__":
    main()
