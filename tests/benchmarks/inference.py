"""How long a policy takes for one chunk, from raw observations to actions: eager torch against the exported runtime.

    python tests/benchmarks/inference.py [--policies flow_mlp transformer_7m flow_unet] [--rounds 300] [--runs RUN ...]

Both run on one thread, in turns of a few chunks, on the same noise; 10 flow steps, 2 observations, 16 actions, batch
1, random parameters; or what was trained, with `--runs`. The peer is eager torch in inference mode, the way policies
are usually deployed. On a busy machine look at the processor time. The last line is JSON. Bars: flow_mlp at most 1 ms
(median, onnxruntime); transformer_7m at least 2.5 times faster than eager torch; a drone's state policies at most 2 ms.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from machine import machine

import robot_rl
from robot_rl.datasets import Contract, Feature
from robot_rl.datasets.statistics import Statistics, merge, summarise
from robot_rl.policies import OnnxPolicy, Policy, build_policy, export_policy, load_policy

DENOISERS: dict[str, dict[str, Any]] = {
    "flow_mlp": {"name": "mlp"},
    "transformer_7m": {"name": "transformer", "width": 256, "layers": 6, "heads": 4},
    "flow_unet": {"name": "unet1d", "widths": [64, 128, 256], "time_features": 64},
}

DRONES = ("drone_mlp", "drone_flow")
"""Presets, on what `drone/gates` observes and commands."""

PRESETS = Path(robot_rl.__file__).parent / "configs" / "presets" / "policy"

TURN = 5
"""Chunks that one runtime takes before it is the other's turn, after one that is not counted."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="*", type=Path, default=[], help="run or checkpoint folders, instead")
    parser.add_argument("--policies", nargs="+", choices=[*DENOISERS, *DRONES], default=["flow_mlp", "transformer_7m"])
    parser.add_argument("--rounds", type=int, default=300, help="chunks of flow_mlp; larger networks take a tenth")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = {}
    for name in [str(run) for run in options.runs] or options.policies:
        rounds = options.rounds if name not in DENOISERS or name == "flow_mlp" else max(options.rounds // 10, 5)
        if name in DENOISERS:
            policy = untrained(DENOISERS[name])
        else:
            policy = drone(name) if name in DRONES else load_policy(name)
        result[name] = values = measure(policy, rounds)
        print(
            f"{name:15} {values['parameters'] / 1e6:5.2f} M parameters: onnxruntime {values['onnxruntime_ms']:.2f} ms "
            f"(9 of 10 within {values['onnxruntime_p90_ms']:.2f}; {values['onnxruntime_processor_ms']:.2f} ms of "
            f"processor time), eager torch {values['torch_ms']:.2f} ms ({values['torch_processor_ms']:.2f}), "
            f"{values['speedup']:.1f} times; they differ by {values['difference']:.0e}"
        )
    about = machine("torch", "onnxruntime", "numpy")
    print(json.dumps({"benchmark": "inference", "result": result, "machine": about}))


def untrained(denoiser: dict[str, Any]) -> Policy:
    """A flow policy of the demo's observations and actions."""
    torch.manual_seed(0)
    return build_policy({"denoiser": denoiser}, *lift()).eval()


def drone(preset: str) -> Policy:
    """A state policy of a drone by its preset."""
    from robot_rl import sim

    torch.manual_seed(0)
    contract = sim.make("drone/gates").contract
    contract = contract.select([name for name, each in contract.observation.items() if each.role == "policy"])
    config = yaml.safe_load((PRESETS / f"{preset}.yaml").read_text())["policy"]
    generator = np.random.default_rng(1)
    sizes = {name: int(np.prod(each.shape)) for name, each in contract.observation.items()}
    sizes["action"] = contract.action_dim
    return build_policy(config, contract, statistics(generator, sizes)).eval()


def statistics(generator: np.random.Generator, sizes: dict[str, int]) -> dict[str, Statistics]:
    rows = {name: summarise(generator.normal(0, 0.3, (100, size))) for name, size in sizes.items()}
    return {name: merge({key: value[None] for key, value in row.items()}) for name, row in rows.items()}


def measure(policy: Policy, rounds: int) -> dict[str, float]:
    """Milliseconds a chunk of both runtimes, taken in turns."""
    contract = policy.contract
    generator = np.random.default_rng(0)
    observation = {
        name: generator.normal(0, 0.3, (1, policy.obs_horizon, *feature.shape)).astype(np.float32)
        for name, feature in contract.observation.items()
    }
    noise = generator.standard_normal((1, 1, policy.action_horizon, contract.action_dim), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        runtime = OnnxPolicy(export_policy(policy, folder), threads=1)

    def eager() -> np.ndarray:
        with torch.inference_mode():
            return policy.sample(policy.encode(observation), noise=torch.from_numpy(noise)).numpy()

    def exported() -> np.ndarray:
        return runtime.sample(runtime.encode(observation), noise=noise)

    difference = float(np.abs(eager() - exported()).max())
    wall: dict[str, list[float]] = {"torch": [], "onnxruntime": []}
    busy: dict[str, list[float]] = {"torch": [], "onnxruntime": []}
    for _ in range(-(-rounds // TURN)):
        for name, act in (("torch", eager), ("onnxruntime", exported)):
            act()
            for _ in range(TURN):
                start, start_busy = time.perf_counter(), time.thread_time()
                act()
                wall[name].append(1e3 * (time.perf_counter() - start))
                busy[name].append(1e3 * (time.thread_time() - start_busy))
    median = {name: float(np.median(taken)) for name, taken in wall.items()}
    return {
        "parameters": sum(value.numel() for value in policy.parameters()),
        **{f"{name}_ms": taken for name, taken in median.items()},
        **{f"{name}_processor_ms": float(np.median(taken)) for name, taken in busy.items()},
        "onnxruntime_p90_ms": float(np.quantile(wall["onnxruntime"], 0.9)),
        "speedup": median["torch"] / median["onnxruntime"],
        "difference": difference,
        "rounds": rounds,
    }


def lift() -> tuple[Contract, dict[str, Statistics]]:
    """What the demo observes and commands: joints, gripper and the cube's pose; joint and gripper targets."""
    observation = [
        Feature("joint_position", (7,), unit="rad"),
        Feature("gripper_opening", (1,), unit="m"),
        Feature("cube_pose", (7,), frame="base", representation="position_quaternion"),
    ]
    action = [
        Feature("joint_position", (7,), kind="action", unit="rad"),
        Feature("gripper_opening", (1,), kind="action", unit="m", lower=(0.0,), upper=(0.08,)),
    ]
    contract = Contract("lift", 20.0, {item.name: item for item in observation}, {item.name: item for item in action})
    sizes = {"joint_position": 7, "gripper_opening": 1, "cube_pose": 7, "action": 8}
    return contract, statistics(np.random.default_rng(1), sizes)


if __name__ == "__main__":
    main()
