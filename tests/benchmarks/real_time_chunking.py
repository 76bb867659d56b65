"""Success and chunk seams under artificial delays of inference, on a task that moves: Lift from a belt.

    python tests/benchmarks/real_time_chunking.py [--episodes 100] [--output runs/benchmark_real_time_chunking]

Records demonstrations and trains one policy, where they are not there yet, then runs it on the same seeds with delays
of 0 to 200 ms (0 to 4 control steps) for each way to execute its chunks:

- synchronous: the robot holds until the next chunk has come, `mode=receding_horizon`;
- asynchronous: the old chunk goes on, then execution jumps to the new one, `mode=asynchronous`;
- trained: `mode=real_time`, the policy continues the committed actions as it was trained to;
- exported: the same in onnxruntime;
- guided: `mode=real_time guidance=5`, in torch.

A seam is the mean jump of the commanded joint velocity between chunks [rad/s] (`robot_rl.policies.chunk_seam`),
`within` is that at other steps. `lost` and `own` compare success and seams with the same execution without delay,
`plain` compares seams with synchronous execution without delay. Seams are compared over the seeds that succeed in both:
what a failing policy does is no measure of smoothness. Prints a table, and one line of JSON last.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine

from robot_rl.intervals import mcnemar, wilson
from robot_rl.policies import OnnxPolicy, export_policy, load_policy
from robot_rl.policies.chunk_seam import chunk_seams
from robot_rl.rollout import Outcome, run_episodes
from robot_rl.seed import FIRST_EVALUATION_SEED

DELAYS = (0, 50, 100, 200)
METHODS: dict[str, dict[str, Any]] = {
    "synchronous": {"mode": "receding_horizon"},
    "asynchronous": {"mode": "asynchronous"},
    "trained": {"mode": "real_time"},
    "exported": {"mode": "real_time"},
    "guided": {"mode": "real_time", "guidance": 5.0},
}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark_real_time_chunking"))
    parser.add_argument("--demonstrations", type=int, default=300)
    parser.add_argument("--steps", type=int, default=5000, help="of training")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--execute", type=int, default=8, help="actions between the starts of two inferences")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    policy = load_policy(_train(options.output, options.demonstrations, options.steps)).eval()
    exported = OnnxPolicy(export_policy(policy, options.output / "exported"))
    seeds = range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + options.episodes)

    def run(method: str, delay: int) -> list[Outcome]:
        return run_episodes(
            exported if method == "exported" else policy, {"task": "lift_belt"}, seeds, num_envs=25,
            execute=options.execute, delay=delay, progress=False, **METHODS[method],
        )  # fmt: skip

    rate_hz, rows = policy.contract.rate_hz, []
    plain = run("synchronous", 0)
    print(
        f"{'':14}{'delay':>6}{'success':>9}{'95 % interval':>18}{'lost':>7}"
        f"{'seam':>7}{'plain':>7}{'own':>7}{'within':>8}"
    )
    for method in options.methods:
        without = plain if method == "synchronous" else run(method, 0)
        for delay in DELAYS:
            began = time.perf_counter()
            outcomes = run(method, delay) if delay else without
            row = {"method": method, "delay_ms": delay, **_measure(outcomes, without, plain, rate_hz)}
            rows.append({**row, "seconds": round(time.perf_counter() - began, 1)})
            low, high = row["interval"]
            print(
                f"{method:14}{delay:6}{row['success']:9.1%}{low:9.1%} - {high:6.1%}{row['lost']:7.1%}{row['seam']:7.3f}"
                f"{row['seam_against_plain']:7.2f}{row['seam_against_own']:7.2f}{row['within']:8.3f}",
                flush=True,
            )
    print(json.dumps({"rows": rows, "execute": options.execute, "machine": machine("torch", "mujoco")}))


def _train(folder: Path, demonstrations: int, steps: int) -> Path:
    """The policy, after recording and training for it where that was not done yet."""
    store, run = folder / "demonstrations.zarr", folder / "policy"
    stages = [
        ["collect", f"output={store}", "task=lift_belt", f"episodes={demonstrations}", "noise=0.15"],
        ["train", f"output={run}", f"dataset={store}", "labels=intended", f"training.steps={steps}", "threads=1",
         "policy.action_horizon=24", "policy.prefix.probability=0.5", "policy.prefix.max_length=8"],
    ]  # fmt: skip
    for stage in stages:
        subprocess.run([sys.executable, "-m", "robot_rl.cli", *stage], check=True)
    return run


def _measure(outcomes: list[Outcome], without: list[Outcome], plain: list[Outcome], rate_hz: float) -> dict[str, Any]:
    """Success and seams, and how they compare with the same seeds without delay and with plain execution."""
    successes, before = ([outcome.success for outcome in runs] for runs in (outcomes, without))
    ratios = []
    for other in (without, plain):
        both = [pair for pair in zip(outcomes, other, strict=True) if pair[0].success and pair[1].success]
        ours, theirs = (_seams(runs, rate_hz) for runs in zip(*both, strict=True)) if both else ((np.nan,) * 2,) * 2
        ratios.append(ours[0] / theirs[0])
        if other is without:
            seam, within = ours
    return {
        "episodes": len(outcomes), "success": float(np.mean(successes)),
        "interval": wilson(sum(successes), len(successes)), "lost": float(np.mean(before) - np.mean(successes)),
        "p_value": mcnemar(before, successes).p_value, "seam": seam, "within": within,
        "seam_against_own": ratios[0], "seam_against_plain": ratios[1],
    }  # fmt: skip


def _seams(outcomes: Sequence[Outcome], rate_hz: float) -> tuple[float, float]:
    """Mean jump of the commanded joint velocity between and within chunks [rad/s]."""
    parts = [chunk_seams(outcome.actions[:, :-1], outcome.switched, outcome.held, rate_hz) for outcome in outcomes]
    return tuple(float(np.concatenate(values).mean()) for values in zip(*parts, strict=True))  # type: ignore[return-value]


if __name__ == "__main__":
    main()
