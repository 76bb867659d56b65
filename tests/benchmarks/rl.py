"""The methods of `robot-rl finetune` against their bars, one resumable row at a time, and how fast the core is.

    python tests/benchmarks/rl.py --rows reinflow dppo --seeds 0 1 2
    python tests/benchmarks/rl.py --speed --peer peer/bin/python

A row records demonstrations of the noisy expert, clones them, fine-tunes the clone and compares both on the same seeds;
everything lies below `--cache`, and the same command goes on from there. A row of reinflow takes three minutes of one
core a seed, one of dppo longer. `--noise` decides how good the expert is, and with it the clone, whose success is
printed. `reinflow_hopper` makes a medium policy of its own first, and is judged by returns. Where a bar compares two
rows (`reinflow` with `dppo`, `hil` and `expo` with `rlpd`, `ppo_alone` with the clone of `resip`), both have to be in
the cache; the comparison is None until they are.

`--speed` trains PPO on Hopper-v5 in 16 environments, rollouts of 128 steps, 10 epochs of minibatches of 64, on one
thread, in turns with stable-baselines3 of the same sizes (two layers of 64 units, also in the critic); and SAC,
250 control steps a round with an update of 256 transitions each (two layers of 256 units, two critics). `sac_bf16` is
the same with `training.precision=bf16` beside a stable-baselines3 that computes in float32:

    python -m venv peer && peer/bin/pip install stable-baselines3==2.9.0 "gymnasium[mujoco]"

The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from machine import machine

from robot_rl.metric_log import read_metrics, read_results

SCRIPT = Path(__file__).absolute()
PEERS = SCRIPT.parent / "peers"


@dataclass(frozen=True)
class Row:
    """A method: preset and updates of the clone, keys of `finetune`, least success, and least gain over the clone.

    Without a clone it begins with a new policy, and with states of the demonstrations. Noise and number of the
    demonstrations are those of the command line unless they are given here.
    """

    clone: str | None
    updates: int
    tune: tuple[str, ...]
    bar: float
    gain: float | None = None
    task: str = "peg"
    noise: float | None = None
    demonstrations: int | None = None


CLONE = ("policy.obs_horizon=1", "policy.action_horizon=4", "threads=1")
ROWS = {
    "reinflow": Row("flow_mlp", 1000, ("algorithm=reinflow", "training.steps=200000"), 0.90),
    "reinflow_1": Row("flow_mlp", 1000, ("algorithm=reinflow", "algorithm.steps=1", "training.steps=200000"), 0.85),
    "dppo": Row("diffusion_mlp", 2000, ("algorithm=dppo", "training.steps=300000"), 0.90),
    "resip": Row("flow_mlp", 1000, ("algorithm=resip", "algorithm.steps=4", "training.steps=500000"), 0.90, 0.35),
    "dsrl": Row("flow_mlp", 1000, ("algorithm=dsrl", "algorithm.steps=4"), 0.0, 0.40),
    "demo_reset": Row(None, 0, ("algorithm=demo_reset", "training.steps=1000000"), 0.80),
    "ppo_alone": Row(None, 0, ("algorithm=demo_reset", "algorithm.share=0", "training.steps=500000"), 0.0, 0.10),
    "lift": Row(
        "flow_mlp", 400, ("algorithm=resip", "algorithm.steps=4", "training.steps=100000"), 0.0, 0.20, "lift", 0.6, 40
    ),
}
"""`ppo_alone` is PPO from nothing, in as many steps as `resip`, beside whose clone its bar is the most success."""
FROZEN = ("resip", "dsrl")
"""Rows that must leave every tensor of the clone as it is."""
ZOO = (
    "algorithm.std=0.135", "network.denoiser.width=256", "network.denoiser.activation=relu", "training.num_envs=16",
    "training.rollout_steps=32", "training.minibatch=64", "training.epochs=20", "training.discount=0.98",
    "training.gae_decay=0.92", "training.learning_rate=2.0633e-5", "training.critic_learning_rate=2.0633e-5",
    "training.final_learning_rate=1.0", "training.clip=0.1", "training.entropy=0.0004", "training.gradient_clip=0.8",
    "training.save_every=100", "training.evaluate_every=100", "training.evaluate_episodes=10",
)  # fmt: skip
"""PPO on HalfCheetah as RL Baselines3 Zoo tuned it (hyperparams/ppo.yml, HalfCheetah-v3), but with our first weights,
and the 512 steps of a rollout from 16 environments instead of one.
"""
NEW: dict[str, tuple[str, str, int, float, tuple[str, ...]]] = {
    "hopper": ("ppo", "gym/Hopper-v5", 300_000, 2500.0, ()),
    "halfcheetah": ("ppo", "gym/HalfCheetah-v5", 1_000_000, 2000.0, ()),
    "halfcheetah_zoo": ("ppo", "gym/HalfCheetah-v5", 1_000_000, 2000.0, ZOO),
    "sac": ("sac", "gym/Hopper-v5", 300_000, 2500.0, ()),
}
"""Rows without a base: algorithm, task, steps, the least return, and what differs from the preset."""
DEMONSTRATED = {"rlpd": (20, 0.5, 0.95), "rlpd_alone": (20, 0.0, 0.20), "hil": (20, 0.5, 0.95)}
"""Rows of RLPD on the peg: demonstrations, their share of each batch, and the least success (alone: the most)."""
FASTER = {"hil": (0.95, 0.6), "expo": (0.90, 0.7)}
"""Rows that need fewer steps than `rlpd`: the success at which they are counted, and the most of them, as a share."""

HOPPER_MEDIUM = ("algorithm=ppo", "training.steps=150000")
HOPPER_CLONE = ("policy=flow_mlp", "policy.denoiser.width=128", "policy.denoiser.depth=2", "training.steps=2000")
HOPPER_TUNE = (
    "algorithm=reinflow", "algorithm.std_min=0.1", "algorithm.std_max=0.24", "training.steps=500000",
    "training.num_envs=16", "training.rollout_steps=256", "training.minibatch=256", "training.epochs=10",
    "training.evaluate_every=20",
)  # fmt: skip
"""The row of ReinFlow on Hopper: what differs from the presets. Deviations are the paper's for locomotion."""

EXPO = {"expo": (), "expo_no_edit": ("algorithm.bound=0",), "expo_sarsa": ("algorithm.backup=sarsa",)}
"""Rows of EXPO on the peg, from 50 demonstrations and a clone of them: what differs from its preset."""
EXPO_CLONE = (
    "policy=shortcut_mlp", "policy.denoiser.width=128", "policy.denoiser.depth=2",
    "policy.normalizer.observation=mean_std", "training.steps=4000",
)  # fmt: skip


SPEED = {
    "ppo": ("ppo", ["training.critic_width=64"]),
    "sac": ("sac", []),
    "sac_bf16": ("sac", ["training.precision=bf16"]),
}
"""What `--speed` measures: algorithm, and what differs from its preset."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", nargs="*", choices=[*ROWS, *DEMONSTRATED, *EXPO, *NEW, "reinflow_hopper", "apart"], default=[]
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--noise", type=float, default=0.34, help="of the expert")
    parser.add_argument("--demonstrations", type=int, default=100)
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks/rl"))
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--peer", type=Path, help="Python of an environment with stable-baselines3")
    parser.add_argument("--rounds", type=int, default=15, help="of --speed, an iteration of each side a round")
    parser.add_argument("--measure", choices=list(SPEED), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        serve(options.measure)
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    results: dict[str, Any] = {"machine": machine("torch", "mujoco", "gymnasium")}
    for name in options.rows:
        for seed in options.seeds:
            kinds: dict[Any, Any] = {demonstrated: DEMONSTRATED, expo: EXPO, new: NEW}
            kinds |= {hopper: ("reinflow_hopper",), apart: ("apart",)}
            measure = next((kind for kind, rows in kinds.items() if name in rows), row)
            found = measure(name, seed, options)
            results[f"{name} {seed}"] = found
            print(f"{name} {seed}: {found}", flush=True)
    if options.speed:
        results["speed"] = {name: speed(name, options.peer, options.rounds) for name in SPEED}
    print(json.dumps(results))


def command(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "robot_rl.cli", *arguments], check=True, stdout=sys.stderr)


def outcome(run: Path) -> dict[str, Any]:
    """What `finetune` measured at its end."""
    found = json.loads((run / "evaluation" / "results.json").read_text())
    training, clone = read_results(run)["training"], found.get("comparison")
    compared = {"base": clone["success_rate"], "p": clone["p_value"]} if clone else {}
    return {
        "success": found["success_rate"], "interval": found["success_interval"], **compared,
        "steps": training["steps"], "best": training["best"], "seconds": training["seconds"],
    }  # fmt: skip


def seconds_of(run: Path, other: Path) -> float | None:
    """Seconds of a training as a share of those of another one; None: one of them is not in the cache."""
    made = [read_results(each).get("training") for each in (run, other)]
    return made[0]["seconds"] / made[1]["seconds"] if all(made) else None


def steps_to(run: Path, success: float) -> float | None:
    """Control steps after which an evaluation of a training first found that success; None: none did."""
    rows = read_metrics(run / "metrics.csv")
    return next((each["step"] for each in rows if each.get("success_rate", 0.0) >= success), None)


def faster(name: str, run: Path, rlpd: Path) -> dict[str, Any]:
    """Steps to the same success, as a share of those of `rlpd` of the same seed."""
    success, bar = FASTER[name]
    own, theirs = steps_to(run, success), steps_to(rlpd, success)
    return {
        f"steps_to_{success:g}": own, "of_rlpd": theirs, "step_ratio": own / theirs if own and theirs else None,
        "step_ratio_bar": bar,
    }  # fmt: skip


def interventions(run: Path) -> dict[str, Any]:
    """Share of the control steps in which somebody took over, in the first and the last tenth of a training."""
    rates = [each["intervention_rate"] for each in read_metrics(run / "metrics.csv") if "intervention_rate" in each]
    tenth = max(1, len(rates) // 10)
    first, last = (statistics.mean(part) for part in (rates[:tenth], rates[-tenth:]))
    ratio = last / first if first else None
    return {"interventions": [first, last], "intervention_ratio": ratio, "intervention_bar": 0.2}


def hashes(base: Path, run: Path) -> list[str]:
    """SHA-256 of the tensors of the policy that a training began with, before and after it."""
    from safetensors.numpy import load_file

    from robot_rl.policies.checkpoint import MODEL, checkpoint_folder

    before, after = (load_file(checkpoint_folder(folder) / MODEL) for folder in (base, run))
    names = sorted(before)
    return [
        sha256(b"".join(name.encode() + tensors[name].tobytes() for name in names)).hexdigest()
        for tensors in (before, after)
    ]


def row(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Record, clone and fine-tune; what `finetune` measured at its end, and the bar beside the clone."""
    made = ROWS[name]
    noise = options.noise if made.noise is None else made.noise
    episodes = made.demonstrations or options.demonstrations
    cache = options.cache / f"noise{noise:g}_{episodes}"
    store = cache / f"{made.task}_{seed}.zarr"
    if not store.with_suffix(".done").exists():
        command(
            "collect", f"task={made.task}", f"noise={noise}", f"episodes={episodes}", f"output={store}",
            f"first_seed={1000 * seed}",
        )  # fmt: skip
        store.with_suffix(".done").touch()
    begin = [f"algorithm.demonstrations={store}"]
    if made.clone is not None:
        base = cache / f"{made.clone}_{seed}"
        command(
            "train", f"dataset={store}", f"policy={made.clone}", f"training.steps={made.updates}", *CLONE,
            f"seed={seed}", f"output={base}",
        )  # fmt: skip
        begin = [f"policy={base}", "training.execute=4"]
    run = cache / f"{name}_{seed}"
    command("finetune", f"task={made.task}", *begin, *made.tune, f"seed={seed}", f"output={run}")
    found = outcome(run)
    if name == "ppo_alone":
        resip = cache / f"resip_{seed}"
        found["base"] = outcome(resip)["base"] if (resip / "evaluation" / "results.json").exists() else None
    found["bar"] = made.bar
    if made.gain is not None:
        found["bar"] = None if found["base"] is None else max(made.bar, found["base"] + made.gain)
    if name in FROZEN:
        found["hashes"] = hashes(base, run)
    if name.startswith("reinflow"):
        errors = (each.get("first_ratio_error", 0.0) for each in read_metrics(run / "metrics.csv"))
        found |= {"first_ratio_error": max(errors), "first_ratio_bar": 1e-5}
    if name in ("reinflow", "dppo"):
        found["seconds_of_dppo"] = seconds_of(cache / f"reinflow_{seed}", cache / f"dppo_{seed}")
        found["seconds_bar"] = 0.5
    return found


def demonstrated(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """RLPD of a new policy, with demonstrations or, for comparison, without."""
    number, share, bar = DEMONSTRATED[name]
    cache = options.cache / f"noise{options.noise:g}_{number}_successes"
    store = cache / f"peg_{seed}.zarr"
    command(
        "collect", "task=peg", f"noise={options.noise}", f"episodes={number}", "until_success=true",
        f"first_seed={1000 * seed}", f"output={store}",
    )  # fmt: skip
    begin = [f"dataset={store}"] if share else ["training.demonstration_share=0"]
    run = cache / f"{name}_{seed}"
    command("finetune", "task=peg", f"algorithm={name.removesuffix('_alone')}", *begin, f"seed={seed}", f"output={run}")
    found = {**outcome(run), "bar": bar}
    return {**found, **faster(name, run, cache / f"rlpd_{seed}"), **interventions(run)} if name == "hil" else found


def expo(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """EXPO over a clone of 50 successes, which stay half of each batch."""
    cache = options.cache / f"noise{options.noise:g}_50_successes"
    store, base, run = cache / f"peg_{seed}.zarr", cache / f"shortcut_mlp_{seed}", cache / f"{name}_{seed}"
    command(
        "collect", "task=peg", f"noise={options.noise}", "episodes=50", "until_success=true",
        f"first_seed={1000 * seed}", f"output={store}",
    )  # fmt: skip
    command("train", f"dataset={store}", *EXPO_CLONE, *CLONE, f"seed={seed}", f"output={base}")
    command(
        "finetune", "task=peg", "algorithm=expo", *EXPO[name], f"policy={base}", f"dataset={store}", f"seed={seed}",
        f"output={run}",
    )  # fmt: skip
    if name != "expo":  # an ablation, which has to be worse
        whole = cache / f"expo_{seed}"
        made = (whole / "evaluation" / "results.json").exists()
        return {**outcome(run), "below": outcome(whole)["success"] if made else None}
    rlpd = options.cache / f"noise{options.noise:g}_{DEMONSTRATED['rlpd'][0]}_successes" / f"rlpd_{seed}"
    return {**outcome(run), "bar": 0.95, **faster(name, run, rlpd)}


def new(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """PPO or SAC from nothing; the mean return of the best checkpoint on the seeds of an evaluation."""
    algorithm, task, steps, bar, changes = NEW[name]
    run = options.cache / f"{name}_{seed}"
    command(
        "finetune", f"algorithm={algorithm}", f"task={task}", f"training.steps={steps}", *changes, f"seed={seed}",
        f"output={run}",
    )  # fmt: skip
    found = json.loads((run / "evaluation" / "results.json").read_text())
    training = json.loads((run / "metrics.json").read_text())["training"]
    return {
        "return": found["mean_return"], "interval": found["return_interval"], "bar": bar,
        "episodes": found["episodes"], "steps": training["steps"], "seconds": training["seconds"],
    }  # fmt: skip


def hopper(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """ReinFlow of a clone of every episode of a medium policy; returns, and their ratio."""
    medium, store, base, run = (
        options.cache / each
        for each in (f"hopper_medium_{seed}", f"hopper_medium_{seed}.zarr", f"hopper_clone_{seed}", f"{name}_{seed}")
    )
    task, same = "task=gym/Hopper-v5", (f"seed={seed}", "processes=0")
    command("finetune", task, *HOPPER_MEDIUM, *same, f"output={medium}")
    command(
        "collect", task, "source=policy", f"policy={medium}", "episodes=200", f"first_seed={1000 * seed}",
        f"output={store}",
    )  # fmt: skip
    command(
        "train", f"dataset={store}", "include_failures=true", *HOPPER_CLONE, *CLONE, f"seed={seed}", f"output={base}"
    )
    command("finetune", task, f"policy={base}", "training.execute=4", *HOPPER_TUNE, *same, f"output={run}")
    found = json.loads((run / "evaluation" / "results.json").read_text())
    training = json.loads((run / "metrics.json").read_text())["training"]
    clone = found["comparison"]
    return {
        "return": found["mean_return"], "interval": found["return_interval"], "base": clone["mean_return"],
        "base_interval": clone["return_interval"], "ratio": found["mean_return"] / clone["mean_return"], "bar": 1.5,
        "p": clone["p_value"], "steps": training["steps"], "best": training["best"], "seconds": training["seconds"],
    }  # fmt: skip


def apart(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds to the same return in a slow environment: eight actors against acting and learning in turns."""
    found: dict[str, Any] = {}
    for way in ("sync", "apart"):
        folder = options.cache / f"{name}_{seed}_{way}"
        kept = folder / "result.json"
        if not kept.exists():
            line = [sys.executable, str(SCRIPT.parent / "apart.py"), way, str(folder), "--seed", str(seed)]
            said = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout
            kept.write_text(said.splitlines()[-1])
        found[way] = json.loads(kept.read_text())
    return {**found, "ratio": found["apart"]["seconds"] / found["sync"]["seconds"], "bar": 0.25}


def speed(name: str, peer: Path | None, rounds: int) -> dict[str, Any]:
    """Control steps and updates per second of whole iterations, the median over turns taken one after the other."""
    commands = {"robot_rl": [sys.executable, str(SCRIPT), "--measure", name]}
    if peer is None:
        print("stable-baselines3 was not measured: --peer names the Python of an environment that holds it, see --help")
    else:
        commands["stable-baselines3"] = [str(peer.absolute()), str(PEERS / f"sb3_{SPEED[name][0]}.py")]
    started = {
        side: subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for side, line in commands.items()
    }
    turns: dict[str, list[dict[str, float]]] = {side: [] for side in started}
    for _ in range(rounds):
        for side, process in started.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            turns[side].append(json.loads(process.stdout.readline()))
    for process in started.values():
        process.communicate()
    figures = {
        side: {unit: statistics.median(t[unit] for t in rows) for unit in rows[0]} for side, rows in turns.items()
    }
    for side, row_ in figures.items():
        print(name, side, ", ".join(f"{unit} {value:.0f}" for unit, value in row_.items()))
    if peer is not None:
        pairs = list(zip(turns["robot_rl"], turns["stable-baselines3"], strict=True))
        figures["ratio"] = {unit: statistics.median(a[unit] / b[unit] for a, b in pairs) for unit in pairs[0][0]}
    return figures


def serve(name: str) -> None:
    """One iteration for each line of the standard input; prints what it made in a second, of clock and of CPU."""
    import torch
    from omegaconf import OmegaConf

    from robot_rl import sim
    from robot_rl.cli import compose
    from robot_rl.rl.learner import Learner
    from robot_rl.rl.methods import build_method, build_off_policy, fresh_policy
    from robot_rl.rl.off_policy import OffPolicySettings
    from robot_rl.rl.off_policy_learner import STORE, OffPolicyLearner
    from robot_rl.rl.on_policy import Settings

    torch.set_num_threads(1)
    torch.manual_seed(0)
    algorithm, changes = SPEED[name]
    composed = compose("finetune", [f"algorithm={algorithm}", "task=gym/Hopper-v5", *changes])
    plain: Any = OmegaConf.to_container(composed, resolve=True)
    kind = OffPolicySettings if algorithm == "sac" else Settings
    settings: Any = kind.read(plain["training"])
    environments: Any = sim.make_vector("gym/Hopper-v5", settings.num_envs, 0)
    policy, options = fresh_policy(plain["network"], environments.contract), plain["algorithm"]
    with ExitStack() as stack:
        if algorithm == "sac":
            folder = Path(stack.enter_context(TemporaryDirectory()))
            method = build_off_policy(algorithm, options, policy, 1)
            learner: Any = stack.enter_context(
                OffPolicyLearner(method, environments, settings, folder / STORE, seed=0, new=True)
            )
            while learner.updates == 0:
                learner.iterate()
        else:
            built = build_method(algorithm, options, policy)
            learner = Learner(built, environments, settings, seed=0, scale_observations=True)
            learner.iterate()
        for _ in sys.stdin:
            began, busy, before = time.perf_counter(), time.process_time(), learner.steps
            updates = learner.iterate()["updates"]
            elapsed, busy = time.perf_counter() - began, time.process_time() - busy
            steps = learner.steps - before
            made = {"steps_per_second": steps / elapsed, "updates_per_second": updates / elapsed}
            print(json.dumps({**made, "steps_per_cpu_second": steps / busy}), flush=True)


if __name__ == "__main__":
    main()
