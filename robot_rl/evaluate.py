"""`robot-rl evaluate`: a policy in simulation, on fixed seeds, and on recorded data.

The run folder then holds:

```
metrics.json                 success_rate, success_interval, episodes, offline_action_error, hold_baseline_error,
                             and the seconds of each stage; mean_return, return_interval where a task knows no success
evaluation/episodes.csv      one row for each seed
evaluation/results.json      everything that was measured in simulation; the configuration in config.yaml
evaluation/*.svg, videos/    success over time; the first successes and failures
offline/results.json, *.svg  errors of predicted actions, shift of the observations
report.html                  all of it on one page
```

Evaluation seeds begin at 100 000 and recording stays below, so that no start was seen in training.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_rl.datasets import EpisodeStore
from robot_rl.differences import differences
from robot_rl.evaluation_summary import say_offline, say_simulated
from robot_rl.interrupt import held_interrupts
from robot_rl.intervals import mcnemar, paired_t, student, wilson
from robot_rl.metric_log import read_results, write_results
from robot_rl.observation_shift import ROWS, Reference, read_rows, shift
from robot_rl.policies import prediction
from robot_rl.provenance import provenance

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from robot_rl.policies.prediction import AnyPolicy
    from robot_rl.rollout import Outcome
    from robot_rl.unfinished import Unfinished


class EvaluateError(ValueError):
    """The evaluation cannot be made as asked; the message says what to do."""


@dataclass(frozen=True)
class Candidate:
    """A policy and where it came from.

    Attributes:
        path: as it was named.
        trained_on: sums up the observations of its training data, where it has any.
        checkpoint: the folder with its files alone, perhaps within `path`; None: it was read from none.
    """

    path: Path
    policy: AnyPolicy
    provenance: dict[str, Any]
    trained_on: Reference | None = None
    checkpoint: Path | None = None

    @staticmethod
    def load(path: str | Path, device: str = "cpu", threads: int = 1) -> Candidate:
        """Read a run folder, a checkpoint or an exported policy, see `robot_rl.policies.prediction.load`."""
        policy, folder, made_by = prediction.load(path, device, threads)
        return Candidate(Path(path), policy, made_by, Reference.read(folder), folder)

    @property
    def name(self) -> str:
        """For tables: the last parts of its path that say something."""
        parts = [part for part in self.path.parts if part not in ("checkpoints", "best", "last", "runs", "/", "..")]
        return "/".join(parts[-2:]) or str(self.path)

    def environment(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The environment of its training data, changed.

        Args:
            changes: keys of the specification; None leaves a key as it is.

        Raises:
            EvaluateError: no task is known, or it runs at another rate than the policy.
        """
        from robot_rl.sim.spec import family_of, fixed_rate

        known = dict(self.provenance.get("environment") or {})
        given = {key: value for key, value in changes.items() if value is not None}
        if not known and "task" not in given:
            raise EvaluateError(f"{self.path} does not say which environment its data came from; give task=")
        if given.get("task", known.get("task")) != known.get("task"):
            known.pop("horizon", None)  # it was the other task's
            if family_of(given) != family_of(known):
                known = {}
        spec = {**known, **given}
        own, rate = self.policy.contract.rate_hz, fixed_rate(spec)
        if rate not in (None, own):
            raise EvaluateError(
                f"{self.path} acts at {own:g} Hz, as its training data, but {spec['task']} runs at {rate:g} Hz and no "
                f"other. Train on data of that rate, which `robot-rl data resample --rate {rate:g}` makes, or choose "
                f"a task that runs at {own:g} Hz."
            )
        return spec


def main(config: DictConfig) -> int:
    """Evaluate as configured. Returns the exit status."""
    from omegaconf import OmegaConf

    with held_interrupts():
        import torch

        from robot_rl.processes import find_device
        from robot_rl.report import write_report

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    plain.pop("hydra", None)
    if plain["policy"] is None:
        raise EvaluateError("policy= is missing: give a run folder of `robot-rl train`, or a checkpoint folder")
    if (plain["threads"] or 0) < 1:
        raise EvaluateError(f"threads={plain['threads']}: expected at least 1")
    torch.set_num_threads(plain["threads"])
    device, threads = str(find_device(plain["device"])), plain["threads"]
    candidate = Candidate.load(str(plain["policy"]), device, threads)
    other = Candidate.load(str(plain["compare"]), device, threads) if plain["compare"] else None
    simulated = plain["dataset"] is None or plain["task"] is not None
    changes = {key: plain[key] for key in ("task", "robot", "controller", "randomization")}
    changes |= plain["environment"] or {}
    subject = candidate.environment(changes)["task"] if simulated else Path(str(plain["dataset"])).stem
    folder = Path(plain["output"] or f"runs/evaluate/{candidate.name.replace('/', '-')}-{subject}")
    if simulated:
        seeds = range(plain["first_seed"], plain["first_seed"] + plain["episodes"])
        options = {key: plain[key] for key in ("execute", "mode", "delay", "guidance", "num_envs", "processes")}
        results = simulate(
            folder, candidate, changes, seeds, other, videos=plain["videos"], camera=plain["video_camera"],
            size=plain["video_size"], record=plain["record"], **options,
        )  # fmt: skip
        _write_config(folder / "evaluation", plain)
        print(say_simulated(results))
    if plain["dataset"] is not None:
        execute = plain["execute"] or candidate.policy.execute or max(1, candidate.policy.action_horizon // 2)
        results = offline(folder, candidate, str(plain["dataset"]), plain["dataset_episodes"], execute, plain["seed"])
        _write_config(folder / "offline", plain)
        print(say_offline(results))
    print(f"Report: {write_report(folder)}")
    return 0


def simulate(
    folder: Path, candidate: Candidate, changes: Mapping[str, Any], seeds: Sequence[int],
    other: Candidate | None = None, *,
    execute: int | None = None, mode: Any = "receding_horizon", delay: float = 0.0, guidance: float | None = None,
    num_envs: int = 16, processes: int | None = None,
    videos: int = 3, camera: str = "agentview", size: Sequence[int] = (240, 320), record: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run a policy, and perhaps another one, once from each seed; fill `evaluation/` and `metrics.json`.

    Args:
        folder: the run folder.
        changes: to the environment of the policy's training data, see `Candidate.environment`.
        other: to compare with, in the environment of its own training data with the same changes. That has to be of the
            same task; what else differs is said in the results.
        execute, mode, delay, guidance: how chunks are executed, see `robot_rl.rollout.rollout`.
        record: path of a new store for the episodes of the first policy.

    Returns:
        What stands in `evaluation/results.json`.

    Raises:
        ContractError: an environment does not offer what a policy needs.
    """
    with held_interrupts():
        from robot_rl import sim
        from robot_rl.atomic_folder import replace_folder
        from robot_rl.plots import success_over_time
        from robot_rl.replay import film, look_through
        from robot_rl.rollout import run_episodes, without_unseen_cameras
        from robot_rl.sim import knows_success
        from robot_rl.unfinished import Unfinished, unfinished_folder

    if not seeds or min(seeds) < 0:
        raise EvaluateError(
            f"expected at least 1 of episodes= and first_seed= of at least 0, got {len(seeds)} of them and "
            f"{min(seeds, default='no seed')}"
        )
    if videos < 0:
        raise EvaluateError(f"videos={videos}: expected how many of each kind to film, 0 for none")
    if len(size) != 2 or not all(isinstance(length, int) and length > 0 for length in size):
        raise EvaluateError(f"video_size={list(size)}: expected [height, width] in pixels")
    if record is not None and Path(record).exists():
        raise EvaluateError(f"record={record}: exists already; choose another path")
    _try_to_write(folder)
    _check_own(folder / "evaluation")
    execution = {"execute": execute, "mode": mode, "delay": delay, "guidance": guidance}
    options = {**execution, "num_envs": num_envs, "processes": processes}
    spec = _resolved(candidate.environment(changes))
    other_spec = spec if other is None else _resolved(other.environment(changes))
    if other is not None and other_spec["task"] != spec["task"]:
        raise EvaluateError(
            f"expected two policies of the same task, got {candidate.name} of {spec['task']} and {other.name} of "
            f"{other_spec['task']}; give task= for both"
        )
    if videos:
        look_through(spec, camera, size)
    if record is not None:
        sim.make(spec).close()  # what cannot be rendered here is said now
    unfinished: list[Unfinished] = []

    def run(each: Candidate, spec: dict[str, Any], doing: str) -> tuple[list[Outcome], float]:
        settings = {**execution, "environment": spec, "path": str(each.path)}
        state = Unfinished(unfinished_folder(folder, doing), settings, each.checkpoint)
        unfinished.append(state)
        if state.outcomes:
            print(f"Going on after {len(state.outcomes)} episodes of an evaluation that was stopped.")
        try:
            outcomes = run_episodes(
                each.policy, spec, seeds, description=f"{doing} {spec['task']}", finished=state.outcomes,
                keep=state.keep, **options,
            )  # fmt: skip
        except KeyboardInterrupt:
            print("\nStopped; finished episodes are kept, and the same command goes on from there.", file=sys.stderr)
            raise
        return outcomes, state.seconds

    outcomes, seconds = run(candidate, spec, "evaluate")
    by_success = knows_success(spec)
    judge = _rates if by_success else _returns
    compared, others = None, None
    if other is not None:
        others, _ = run(other, other_spec, "compare")
        compared = {
            **judge(others), "policy": other.name, "path": str(other.path), "environment": other_spec,
            "environment_differences": differences(spec, other_spec, ("observation", "cameras")),
            **_paired(outcomes, others, by_success),
        }  # fmt: skip

    place = _fresh(folder / "evaluation")
    results: dict[str, Any] = {
        "policy": candidate.name,
        "path": str(candidate.path),
        "environment": spec,
        **execution,
        "first_seed": int(seeds[0]),
        **judge(outcomes),
        "metrics": _measured(outcomes),
        "rate_hz": candidate.policy.contract.rate_hz,
        "seconds": round(seconds, 2),
        "steps_per_second": round(sum(outcome.steps for outcome in outcomes) / seconds, 1),
        "comparison": compared,
        "provenance": provenance(("robot_rl", "torch", "numpy", "mujoco", "robosuite")),
    }
    _write_episodes(place / "episodes.csv", outcomes, others)
    if by_success:
        runs = {candidate.name: [outcome.success_step for outcome in outcomes]}
        if other is not None and others is not None:
            name = other.name if other.name != candidate.name else f"{other.name} (compared)"
            runs[name] = [outcome.success_step for outcome in others]
        horizon = max(int(spec.get("horizon") or 0), *(outcome.steps for outcome in (*outcomes, *(others or ()))))
        success_over_time(place / "success_over_time.svg", runs, horizon, results["rate_hz"])
    kept = ("success_rate", "success_interval") if by_success else ("mean_return", "return_interval")
    _merge_metrics(folder, "evaluate", seconds, {key: results[key] for key in (*kept, "episodes")})
    # The results are safe by now: recording and filming is what a machine may be unable to do.
    _write_json(place / "results.json", {**results, "videos": []})
    if record is not None:
        replace_folder(Path(record), lambda path: _record(path, candidate, spec, outcomes, execute))
    seen = without_unseen_cameras(spec, candidate.policy)
    results["videos"] = film(place / "videos", seen, outcomes, videos, camera, size)
    _write_json(place / "results.json", results)
    for state in unfinished:
        state.finish()
    return results


def offline(
    folder: Path,
    candidate: Candidate,
    dataset: str | Path,
    episodes: Sequence[int] | str | None,
    execute: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare predicted with recorded actions, and the observations with those of the training; fill `offline/`.

    Args:
        folder: the run folder.
        episodes: numbers, or `all`; by default see `robot_rl.offline.unseen_episodes`.
        execute: steps between the chunks in the plots.

    Returns:
        What stands in `offline/results.json`.
    """
    from robot_rl.offline import action_errors, trace, unseen_episodes
    from robot_rl.plots import error_by_step, predicted_and_recorded

    _check_own(folder / "offline")
    began = time.perf_counter()
    store, policy = EpisodeStore.open(dataset), candidate.policy
    if not len(store):
        raise EvaluateError(f"{dataset} holds no episode; record some with `robot-rl collect output={dataset}`")
    if episodes is None:
        chosen, described = unseen_episodes(store, candidate.provenance)
    else:
        if isinstance(episodes, str) and episodes != "all":
            raise EvaluateError(f"dataset_episodes={episodes}: expected numbers as in [0, 3], or all")
        chosen = np.arange(len(store)) if episodes == "all" else np.asarray(episodes, np.int64).reshape(-1)
        described = f"all {len(store)} episodes" if episodes == "all" else f"{len(chosen)} chosen episodes"
    if not len(chosen) or chosen.min() < 0 or chosen.max() >= len(store):
        raise EvaluateError(f"dataset_episodes={episodes}: expected numbers from 0 to {len(store) - 1}, or all")
    errors = action_errors(policy, store, chosen, seed=seed)
    place = _fresh(folder / "offline")
    plain = errors.to_dict(policy.contract)
    error_by_step(
        place / "error_by_step.svg", plain["by_step"]["policy"], plain["by_step"]["hold"], policy.contract.rate_hz
    )
    units = [element["unit"] for element in plain["elements"].values()]
    names = policy.contract.action_names
    for index in chosen[:2]:
        predicted = trace(policy, store, int(index), execute, seed)
        predicted_and_recorded(place / f"episode_{index}.svg", predicted, names, units, policy.contract.rate_hz)
    shifted = None
    if candidate.trained_on is not None:
        stride = -(-int((store.lengths[chosen] + 1).sum()) // ROWS)
        rows = read_rows(store, chosen, candidate.trained_on.features, stride)
        shifted = shift(candidate.trained_on, rows)
    seconds = time.perf_counter() - began
    results = {
        "policy": candidate.name,
        "path": str(candidate.path),
        "dataset": str(dataset),
        "episodes": chosen.tolist(),
        "described": described,
        **plain,
        "shift": shifted,
        "plotted": chosen[:2].tolist(),
        "seconds": round(seconds, 2),
        "provenance": provenance(),
    }
    _write_json(place / "results.json", results)
    _merge_metrics(
        folder, "offline", seconds, {key: plain[key] for key in ("offline_action_error", "hold_baseline_error")}
    )
    return results


def _rates(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    successes = sum(outcome.success for outcome in outcomes)
    steps = [outcome.success_step for outcome in outcomes if outcome.success_step is not None]
    return {
        "episodes": len(outcomes),
        "successes": successes,
        "success_rate": successes / len(outcomes),
        "success_interval": list(wilson(successes, len(outcomes))),
        "median_success_step": float(np.median(steps)) if steps else None,
    }


def _returns(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What stands for the rates where a task knows no success."""
    returns = [outcome.total_reward for outcome in outcomes]
    return {"episodes": len(returns), "mean_return": float(np.mean(returns)), "return_interval": student(returns)}


def _paired(outcomes: Sequence[Outcome], others: Sequence[Outcome], by_success: bool) -> dict[str, Any]:
    if by_success:
        return mcnemar([o.success for o in outcomes], [o.success for o in others]).__dict__
    return paired_t([o.total_reward for o in outcomes], [o.total_reward for o in others]).__dict__


def _measured(outcomes: Sequence[Outcome]) -> dict[str, float | dict[str, int]]:
    """Of each metric of the task the mean over the episodes that have it as a finite number; of names their counts."""
    found: dict[str, float | dict[str, int]] = {}
    for name in dict.fromkeys(name for outcome in outcomes for name in outcome.metrics):
        values = [outcome.metrics.get(name) for outcome in outcomes]
        if named := [value for value in values if isinstance(value, str)]:
            found[name] = dict(Counter(named).most_common())
            continue
        known = np.array(values, float)
        if len(known := known[np.isfinite(known)]):
            found[name] = float(known.mean())
    return found


def _resolved(spec: Mapping[str, Any]) -> dict[str, Any]:
    from robot_rl.sim.spec import resolve

    return resolve(spec)


def _record(
    path: Path, candidate: Candidate, spec: dict[str, Any], outcomes: Sequence[Outcome], execute: int | None
) -> None:
    from robot_rl import sim
    from robot_rl.attempt import Actor, write
    from robot_rl.replay import attempts

    actor = Actor("policy", policy=str(candidate.path), execute=execute)
    env: Any = sim.make(spec)
    env.reset(seed=0)
    made_by = {"environment": dict(env.specification), "actor": {"source": actor.source, **actor.describe()}}
    EpisodeStore.create(path, env.contract, made_by, sim_state_size=len(env.get_state()))
    with EpisodeStore.append(path) as writer:
        for attempt in attempts(env, outcomes):
            write(writer, attempt, spec["task"], actor)
    env.close()


def _write_episodes(path: Path, outcomes: Sequence[Outcome], others: Sequence[Outcome] | None) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = ("success", "steps", "success_step", "return")
        metrics = dict.fromkeys(name for outcome in outcomes for name in outcome.metrics if name not in columns)
        writer.writerow(["seed", *columns, *(f"other_{name}" for name in columns if others is not None), *metrics])
        for index, outcome in enumerate(outcomes):
            both = [outcome] if others is None else [outcome, others[index]]
            cells = [(int(o.success), o.steps, o.success_step or "", f"{o.total_reward:g}") for o in both]
            measured = [_cell(outcome.metrics.get(name)) for name in metrics]
            writer.writerow([outcome.seed, *(cell for group in cells for cell in group), *measured])


def _cell(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:g}"


def _merge_metrics(folder: Path, stage: str, seconds: float, values: Mapping[str, Any]) -> None:
    known = read_results(folder).get("seconds")
    stages = dict(known) if isinstance(known, Mapping) else {}
    write_results(folder, {**values, "seconds": {**stages, stage: round(seconds, 2)}})


def _try_to_write(folder: Path) -> None:
    """A folder that cannot be written is an error now, not when there are results to lose."""
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise EvaluateError(f"{folder} cannot be written ({error.strerror}); choose another output=") from error


def _check_own(place: Path) -> None:
    """What is made anew has to be an earlier evaluation."""
    made = ("config.yaml", "results.json", "episodes.csv", "*.svg", "videos")
    found = sorted(place.iterdir()) if place.is_dir() else [place] if place.exists() else []
    if foreign := [path.name for path in found if not any(path.match(each) for each in made)]:
        raise EvaluateError(
            f"{place} is no earlier evaluation, which this one would replace: it holds {', '.join(foreign[:5])}; "
            "choose another output="
        )


def _fresh(place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")


def _write_config(place: Path, plain: Mapping[str, Any]) -> None:
    import yaml

    (place / "config.yaml").write_text(yaml.safe_dump(dict(plain), sort_keys=False))
