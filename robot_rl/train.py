"""`robot-rl train`: a policy from recorded episodes, in a run folder that can be stopped, resumed and compared.

```
config.yaml         the composed configuration
metrics.csv         loss, held-out loss, learning rate, … over the steps; the same in tensorboard/
metrics.json        results, under `training`
checkpoints/last    the newest: the policy with averaged weights, and all that an exact resume needs
checkpoints/best    the policy with the lowest held-out loss (or the highest success: `training.best`)
```
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from robot_rl import run_folder
from robot_rl.atomic_folder import replace_folder
from robot_rl.datasets.contract import satisfies
from robot_rl.datasets.source import ACTIONS
from robot_rl.differences import differences
from robot_rl.interrupt import Interrupt
from robot_rl.metric_log import MetricLog, write_results
from robot_rl.observation_shift import reference
from robot_rl.policies import Policy, build_policy, load_policy, save_policy
from robot_rl.processes import Processes, idle_cores
from robot_rl.progress import progress
from robot_rl.provenance import provenance
from robot_rl.recordings import Recordings
from robot_rl.seed import FIRST_EVALUATION_SEED, LARGEST_SEED
from robot_rl.sweep import named_after
from robot_rl.training import Settings, Training, TrainingError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from robot_rl.datasets.windows import Windows

COLUMNS = ("loss", "held_out_loss", "success_rate", "learning_rate", "gradient_norm", "epoch", "windows_per_second")


def main(config: DictConfig) -> int:
    """Train, or go on with a stopped training. Returns the exit status."""
    from omegaconf import OmegaConf

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    plain.pop("hydra", None)
    settings = Settings.read(plain["training"])
    for key, least in (("seed", 0), ("threads", 1)):
        if plain[key] is not None and plain[key] < least:
            raise TrainingError(f"{key}={plain[key]}: expected at least {least}")
    if plain["seed"] is None or plain["seed"] > LARGEST_SEED:
        raise TrainingError(f"seed={plain['seed']}: expected at most {LARGEST_SEED}")
    if plain["labels"] not in ACTIONS and settings.evaluate_every:
        raise TrainingError(f"training.evaluate_every: an estimator of {plain['labels']} does not act; set it to 0")
    datasets = plain["dataset"] or []
    datasets = [str(path) for path in (datasets if isinstance(datasets, list) else [datasets])]
    recordings = Recordings(
        datasets,
        plain["dataset_weights"],
        plain["held_out"],
        plain["include_failures"],
        plain["seed"],
        plain["labels"],
        plain["intervention_weight"],
        plain["policy_weight"],
        plain["policy"]["observation"] if plain["policy"]["estimator"] is None else None,
    )
    called = f"{plain['name']}-{named_after(datasets)}-seed{plain['seed']}"
    folder = Path(plain["output"] or f"runs/train/{called}")
    processes = Processes.join(plain["device"])
    try:
        with run_folder.claimed(folder, processes.is_main):
            processes.wait()
            stage = run_folder.judge(folder, plain, recordings.describe(), plain["resume"], plain["overwrite"])
            processes.wait()
            if stage == "finished":
                if processes.is_main:
                    print(f"{folder} holds this training, finished. For another one choose output= or overwrite=true.")
                return 0
            run = _Run(folder, plain, settings, recordings, processes)
            if stage == "begin" and processes.is_main:
                run_folder.begin(folder, plain)
            processes.wait()
            return run.go(resume=stage == "resume")
    finally:
        processes.leave()


def _warm_start(policy: Policy, path: str) -> None:
    """Give a policy the weights and normalisers of a trained one; its estimator stays.

    Raises:
        CheckpointError, ContractError, TrainingError: there is none, or it is another policy, and in what.
    """
    begun = load_policy(path)
    satisfies(begun.contract, policy.contract)
    if different := differences(begun.config, policy.config):
        lines = "\n".join(f"  - {line}" for line in different)
        raise TrainingError(
            f"warm_start={path}: that policy differs from the one asked for (there against here):\n{lines}\n"
            "Ask for the same one, or train without warm_start."
        )
    own = {name: value for name, value in policy.state_dict().items() if name.startswith("encoder.estimator.")}
    policy.load_state_dict({**begun.state_dict(), **own})


class _Run:
    """One command's work in the run folder."""

    def __init__(
        self, folder: Path, plain: dict[str, Any], settings: Settings, recordings: Recordings, processes: Processes
    ) -> None:
        self.folder, self.plain, self.settings, self.processes = folder, plain, settings, processes
        self.recordings = recordings
        self.made_by = provenance()
        torch.manual_seed(plain["seed"])
        path = plain["policy"]["estimator"]
        policy = build_policy(
            {**plain["policy"], "estimator": None}, recordings.contract, recordings.statistics(),
            None if path is None else load_policy(path),
        ).to(processes.device)  # fmt: skip
        if plain["warm_start"] is not None:
            _warm_start(policy, plain["warm_start"])
        self.reference = reference([(part.store, part.training) for part in recordings.parts], policy.encoder.states)
        self.training = Training(policy, settings, processes, plain["seed"])
        self.windows: Windows = recordings.windows(
            policy, settings.batch_size, workers=settings.workers, shard=(processes.rank, processes.size),
            pin_memory=processes.device.type == "cuda",
        )  # fmt: skip
        self.results: dict[str, Any] = {"seconds": 0.0, "best": None, "held_out_loss": None}

    def go(self, resume: bool) -> int:
        """Train to the end or to an interrupt."""
        self.threads = self.plain["threads"] or idle_cores()
        if resume:
            self._load()
        # More threads than idle cores cost more than they give, and results are bit-equal only for the same number.
        torch.set_num_threads(self.threads)
        self._introduce(resume)
        with Interrupt() as interrupt:
            self._train(interrupt)
        finished = self.training.steps == self.settings.steps
        if self.processes.is_main:
            if finished:
                self._conclude()
            else:
                print(
                    f"Stopped after step {self.training.steps} of {self.settings.steps}; saved in "
                    f"{self.folder}/checkpoints/last. The same command goes on from there."
                )
        return 0 if finished else interrupt.exit_status

    def _train(self, interrupt: Interrupt) -> None:
        settings, training, main = self.settings, self.training, self.processes.is_main
        log = MetricLog(self.folder, COLUMNS, training.steps) if main else None
        batches = iter(self.windows)
        bar = progress(settings.steps, training.steps, "train", "step", shown=main)
        began, logged, stop = time.perf_counter(), (time.perf_counter(), training.steps), False
        try:
            while training.steps < settings.steps and not stop:
                training.step(next(batches))
                step = training.steps
                bar.update()
                at_end = step == settings.steps
                row: dict[str, float] = {}
                if step % settings.log_every == 0 or at_end:
                    row, logged = self._measure(logged), (time.perf_counter(), step)
                    bar.set_postfix(loss=f"{row['loss']:.4g}", refresh=False)
                if step % settings.held_out_every == 0 or at_end:
                    row |= self._hold_out()
                if settings.evaluate_every and (step % settings.evaluate_every == 0 or at_end):
                    row |= self._simulate()
                if row and log is not None:
                    log.add(step, row)
                if "held_out_loss" in row or "success_rate" in row:
                    self._keep_best(row)
                # Processes agree on stopping now and then only: asking costs a message.
                if self.processes.size == 1 or step % settings.log_every == 0:
                    stop = self.processes.any(interrupt.requested is not None)
                if step % settings.save_every == 0 or at_end or stop:
                    now = time.perf_counter()
                    self.results["seconds"], began = self.results["seconds"] + now - began, now
                    self._save_last()
        finally:
            bar.close()
            batches.close()  # type: ignore[attr-defined]
            if log is not None:
                log.close()

    def _measure(self, since: tuple[float, int]) -> dict[str, float]:
        loss, norm = self.training.take_means()
        began, step = since
        windows = (self.training.steps - step) * self.settings.batch_size
        return {
            "loss": loss,
            "gradient_norm": norm,
            "learning_rate": self.training.learning_rate,
            "epoch": self.windows.position / self.windows.num_windows,
            "windows_per_second": windows / (time.perf_counter() - began),
        }

    def _hold_out(self) -> dict[str, float]:
        """On the main process the held-out loss, if any episode is held out; the others wait."""
        row: dict[str, float] = {}
        if self.processes.is_main and any(len(part.held_out) for part in self.recordings.parts):
            batches = self.recordings.held_out_batches(
                self.training.policy, self.settings.batch_size, self.settings.held_out_batches
            )
            row = {"held_out_loss": self.training.held_out_loss(batches)}
        self.processes.wait()
        return row

    def _simulate(self) -> dict[str, float]:
        """On the main process the success rate in simulation; the others wait."""
        row: dict[str, float] = {}
        if self.processes.is_main:
            from robot_rl.rollout import success_rate

            with self.training.averaged():
                row = {"success_rate": success_rate(self.training.policy, self.recordings.environment(), self.settings)}
        self.processes.wait()
        return row

    def _keep_best(self, row: Mapping[str, float]) -> None:
        """Replace `checkpoints/best` if this step is the best so far."""
        if not self.processes.is_main:
            return
        measure = self._best_by()
        best = self.results["best"]
        if "held_out_loss" in row:
            self.results["held_out_loss"] = row["held_out_loss"]
        if measure == "held_out_loss" and measure in row:
            better = math.isfinite(row[measure]) and (best is None or row[measure] < best[measure])
        else:
            # Of equally successful checkpoints the later one has seen more.
            better = measure in row and (best is None or row[measure] >= best[measure])
        if better:
            self.results["best"] = {"step": self.training.steps, **row}
            replace_folder(self.folder / "checkpoints" / "best", self._write_policy)

    def _save_last(self) -> None:
        state = {
            **self.training.state(), "windows": self.windows.state_dict(), "results": self.results,
            "recordings": self.recordings.describe(), "threads": self.threads,
        }  # fmt: skip
        if self.processes.is_main:

            def write(folder: Path) -> None:
                self._write_policy(folder)
                self.training.save(folder, state)

            replace_folder(self.folder / "checkpoints" / "last", write)
            if self._best_by() == "last":
                self.results["best"] = {"step": self.training.steps}
                replace_folder(self.folder / "checkpoints" / "best", self._write_policy)
        self.processes.wait()

    def _load(self) -> None:
        state = self.training.load(self.folder / "checkpoints" / "last")
        self.windows.load_state_dict(state["windows"])
        self.results = state["results"]
        self.threads = self.plain["threads"] or state["threads"]

    def _write_policy(self, folder: Path) -> None:
        policy, training = self.training.policy, self.training
        made_by = {
            **self.made_by,
            "preset": self.plain["name"],
            "training": {"step": training.steps, "averaged": training.average is not None, **self.plain["training"]},
            "seed": self.plain["seed"],
            "recordings": self.recordings.describe(),
            "episodes": self.recordings.origins,
            "environment": self.recordings.environment(),
        }
        with training.averaged():
            save_policy(policy, folder, made_by)
        if self.reference is not None:
            self.reference.write(folder)

    def _best_by(self) -> str:
        """The column that `checkpoints/best` is chosen by, or `last`."""
        if self.settings.best == "success":
            return "success_rate"
        held_out = any(len(part.held_out) for part in self.recordings.parts)
        return self.settings.best if held_out else "last"

    def _introduce(self, resume: bool) -> None:
        if not self.processes.is_main:
            return
        parts = self.recordings.parts
        training, held = (sum(len(getattr(part, name)) for part in parts) for name in ("training", "held_out"))
        size = sum(value.numel() for value in self.training.policy.parameters())
        where = f"{self.processes.device}, {self.threads} threads"
        if self.processes.size > 1:
            where += f" in each of {self.processes.size} processes"
        print(
            f"{self.folder}: {self.plain['name']}, {size / 1e6:.2f} M parameters, on {training} episodes "
            f"({self.windows.num_windows} windows), {held} held out; {self.settings.steps} steps of "
            f"{self.settings.batch_size} on {where}"
        )
        if damaged := sum(len(part.store) - len(part.store.select()) for part in parts):
            print(f"Warning: {damaged} episodes are marked as damaged and left out; `robot-rl data check` says why.")
        if known := self.recordings.evaluation_episodes():
            print(
                f"Warning: {known} of these episodes have evaluation seeds ({FIRST_EVALUATION_SEED} and above), whose "
                f"starts the policy will know: evaluate it from others, as with first_seed={2 * FIRST_EVALUATION_SEED}."
            )
        if resume:
            print(f"Going on after step {self.training.steps}.")

    def _conclude(self) -> None:
        from robot_rl.cli import override

        best, seconds = self.results["best"], self.results["seconds"]
        results = {
            "steps": self.training.steps,
            "seconds": round(seconds, 3),
            "held_out_loss": self.results["held_out_loss"],
            "best": best,
            "parameters": sum(value.numel() for value in self.training.policy.parameters()),
            "windows_per_second": self.training.steps * self.settings.batch_size / seconds,
        }
        write_results(self.folder, {"training": results})
        lines = [f"Trained {self.training.steps} steps in {seconds:.0f} s."]
        if best is not None:
            measured = [f", {name} {best[name]:.4g}" for name in ("held_out_loss", "success_rate") if name in best]
            lines.append(f"checkpoints/best is of step {best['step']}{''.join(measured)}.")
        policy = self.folder if best is not None else self.folder / "checkpoints" / "last"
        lines.append(f"Evaluate it: robot-rl evaluate {override('policy', str(policy))}")
        print("\n".join(lines))
