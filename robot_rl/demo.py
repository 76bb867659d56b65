"""`robot-rl demo`: demonstrations, training, evaluation in simulation and on held-out data, and one report.

The stages are the commands `collect`, `train` and `evaluate`, each with the keys that the demo gives it and prints. All
of it lies in one run folder, whose `metrics.json` ends up with the keys `success_rate`, `success_interval`, `episodes`,
`offline_action_error`, `hold_baseline_error` and `seconds` of each stage.
"""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_rl.metric_log import read_results, write_results

if TYPE_CHECKING:
    from omegaconf import DictConfig

OBSERVED = {"lift": ("joint_position", "gripper_opening", "cube_pose")}
"""By task, what a robot has to observe it by; of others everything is recorded."""


def main(config: DictConfig) -> int:
    """Run the stages that are not done yet. Returns the exit status of the first that fails or is stopped."""
    from omegaconf import OmegaConf

    from robot_rl import collect, evaluate, run_folder, train
    from robot_rl.cli import compose
    from robot_rl.training import Settings

    folder = Path(config.output)
    if config.demonstrations < 2 or config.episodes < 1:
        raise ValueError(
            "expected at least 2 demonstrations, one of which is held out, and at least 1 of episodes=; got "
            f"{config.demonstrations} and {config.episodes}"
        )
    plan = _overrides(config, folder)
    # All of them now: what is wrong shall be said before hours of work, and change nothing.
    configs = {name: compose(name, overrides) for name, overrides in plan.items()}
    Settings.read(OmegaConf.to_container(configs["train"].training, resolve=True))  # type: ignore[arg-type]
    if (looks := configs["train"].policy.encoder.name != "low_dim") != bool(config.cameras):
        raise ValueError(
            f"policy={config.policy} looks at pictures, and none are recorded: name cameras, for example "
            "'cameras={agentview: [84, 84], robot0_eye_in_hand: [84, 84]}'"
            if looks
            else f"policy={config.policy} looks at no pictures: leave out cameras=, or take policy=flow_image"
        )
    collect.check(OmegaConf.to_container(configs["collect"], resolve=True))  # type: ignore[arg-type]
    _keep_finished(folder)
    run_folder.refuse_others(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stages = {"collect": collect, "train": train, "evaluate": evaluate}
    for number, (name, overrides) in enumerate(plan.items(), 1):
        print(f"\n[{number}/{len(stages)}] robot-rl {name} {shlex.join(overrides)}", flush=True)
        began = time.perf_counter()
        try:
            status: int = stages[name].main(configs[name])
        finally:
            _add_seconds(folder, name, time.perf_counter() - began)
        if status:
            return status
    _conclude(folder)
    return 0


def _overrides(config: DictConfig, folder: Path) -> dict[str, list[str]]:
    from robot_rl.cli import quoted
    from robot_rl.unfinished import unfinished_folder

    output, store = quoted(str(folder)), quoted(str(folder / "demonstrations.zarr"))
    workers = "null" if config.workers is None else str(config.workers)
    collect = [
        f"output={store}", f"task={config.task}", f"robot={config.robot}", f"controller={config.controller}",
        f"episodes={config.demonstrations}", f"noise={config.noise}", f"first_seed={config.first_seed}",
        f"workers={workers}",
    ]  # fmt: skip
    if config.cameras:
        collect.append(f"cameras={{{','.join(f'{name}:{list(size)}' for name, size in config.cameras.items())}}}")
    observation = OBSERVED.get(config.task) if config.observation is None else config.observation
    if observation is not None:
        collect.append(f"observation=[{','.join(observation)}]")
    # The noise is executed, so that recordings show how to come back from it, and what was intended is imitated.
    train = [
        f"output={output}", f"dataset={store}", "labels=intended", f"policy={config.policy}", f"seed={config.seed}",
    ]  # fmt: skip
    if config.steps is not None:
        train.append(f"training.steps={config.steps}")
    evaluate = [
        f"output={output}", f"policy={output}", f"episodes={config.episodes}", f"dataset={store}",
        f"processes={workers}",
    ]  # fmt: skip
    # Of an evaluation that was stopped between its halves, simulation (with its videos) and recorded data, the first is
    # done.
    simulated = read_results(folder).get("episodes") == config.episodes and not unfinished_folder(folder).exists()
    if _finished(folder) or not simulated:
        evaluate.append(f"task={config.task}")
    return {"collect": collect, "train": train, "evaluate": evaluate}


def _keep_finished(folder: Path) -> None:
    """Move a finished demo aside, so that a new one begins and nothing is lost."""
    if not _finished(folder):
        return
    number = 1
    while (aside := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    folder.rename(aside)
    print(f"{folder} held a finished demo; it is now {aside}")


def _finished(folder: Path) -> bool:
    """Whether `_conclude` has been there, which alone writes a total."""
    return "total" in read_results(folder).get("seconds", {})


def _add_seconds(folder: Path, stage: str, seconds: float) -> None:
    """Keep the time of a stage over interruptions, until it goes into `metrics.json`."""
    path = folder / ".stages.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, stage: known.get(stage, 0.0) + seconds}))


def _conclude(folder: Path) -> None:
    from robot_rl.report import write_report

    metrics, stages = read_results(folder), json.loads((folder / ".stages.json").read_text())
    # `evaluate` has timed its two halves itself; what is left of it goes into videos, plots and the report.
    seconds: dict[str, Any] = {"collect": stages["collect"], "train": stages["train"]}
    seconds |= {name: metrics["seconds"][name] for name in ("evaluate", "offline")}
    seconds["report"] = max(0.0, stages["evaluate"] - seconds["evaluate"] - seconds["offline"])
    seconds["total"] = sum(stages.values())
    write_results(folder, {"seconds": {name: round(value, 1) for name, value in seconds.items()}})
    write_report(folder)  # again, with the seconds of all stages
    low, high = metrics["success_interval"]
    rate, episodes = metrics["success_rate"], metrics["episodes"]
    rows = {
        "success": f"{rate:.0%} of {episodes} episodes (95 % interval {low:.0%} to {high:.0%})",
        "offline error": f"{metrics['offline_action_error']:.3f}, repeating the last action "
        f"{metrics['hold_baseline_error']:.3f} (in standard deviations of the action)",
        "seconds": ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()),
        "demonstrations": f"{folder}/demonstrations.zarr",
        "policy": f"{folder}/checkpoints/best",
        "report": f"{folder}/report.html",
    }
    print("\n" + "\n".join(f"{name:15} {value}" for name, value in rows.items()))
