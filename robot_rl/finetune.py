"""`robot-rl finetune`: a policy made better by reinforcement learning in simulation, in an ordinary run folder.

```
config.yaml         the composed configuration
metrics.csv         success and return with and without exploration, losses, divergence, … over the control steps
metrics.json        results, under `training`, and those of the evaluation
checkpoints/last    the newest policy, and all that an exact resume needs
checkpoints/best    the policy that did best in the training, by what `robot_rl.choice` says
replay.zarr         with an off-policy algorithm: every training episode, as any other episode store
evaluation/         the best policy and the one it began with on the same seeds, as of `robot-rl evaluate compare=…`
```

Training episodes take seeds from 10 000 000 on, evaluations that choose a checkpoint those from 1 000 000 on, and the
evaluation at the end those from 100 000 on.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from robot_rl import run_folder
from robot_rl.atomic_folder import replace_folder
from robot_rl.choice import Choice
from robot_rl.evaluate import Candidate, EvaluateError, simulate
from robot_rl.evaluation_summary import say_simulated
from robot_rl.interrupt import Interrupt
from robot_rl.metric_log import MetricLog, write_results
from robot_rl.policies import Policy, save_policy
from robot_rl.policies.checkpoint import MODEL, checkpoint_folder
from robot_rl.processes import find_device
from robot_rl.progress import progress
from robot_rl.provenance import provenance
from robot_rl.recordings import Recordings
from robot_rl.rl.apart.learner import ApartLearner
from robot_rl.rl.apart.pool import Pool
from robot_rl.rl.apart.secret import FILE, VARIABLE, find, find_or_make
from robot_rl.rl.intervention import Intervener
from robot_rl.rl.learner import Learner
from robot_rl.rl.methods import OFF_POLICY, build_method, build_off_policy, fresh_policy
from robot_rl.rl.off_policy import OffPolicySettings
from robot_rl.rl.off_policy_learner import STORE, OffPolicyLearner
from robot_rl.rl.on_policy import FinetuneError, Settings
from robot_rl.rl.success_detector import DetectedSuccess
from robot_rl.rollout import run_episodes, without_unseen_cameras
from robot_rl.seed import FIRST_EVALUATION_SEED, FIRST_TRAINING_SEED, FIRST_VALIDATION_SEED, LARGEST_SEED
from robot_rl.sim import knows_success
from robot_rl.success_source import SuccessSource
from robot_rl.take_over import check, taking_over, wants_person

if TYPE_CHECKING:
    from omegaconf import DictConfig

COLUMNS = (
    "success_rate", "mean_return", "train_success_rate", "train_return", "actor_loss", "critic_loss", "entropy",
    "clipped", "kl", "first_ratio_error", "explained_variance", "reward_scale", "learning_rate", "epochs", "updates",
    "decisions", "mean_value", "temperature", "distillation_loss", "imitation_loss", "replay_steps",
    "intervention_rate", "task_success_rate", "false_success_rate", "missed_success_rate", "judged_success_rate",
    "evaluation_steps", "diverged_episodes",
    "steps_per_second", "actors", "staleness",
)  # fmt: skip


def main(config: DictConfig) -> int:
    """Fine-tune, or go on with a stopped fine-tuning. Returns the exit status."""
    from omegaconf import OmegaConf

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    plain.pop("hydra", None)
    given = plain["training"]
    settings: Settings | OffPolicySettings = (
        OffPolicySettings.read(given) if plain["name"] in OFF_POLICY else Settings.read(given)
    )
    for key, least in (("seed", 0), ("threads", 1), ("episodes", 1)):
        if plain[key] < least:
            raise FinetuneError(f"{key}={plain[key]}: expected at least {least}")
    if plain["seed"] > (most := LARGEST_SEED // FIRST_TRAINING_SEED - 2):  # its episodes have seeds from there on
        raise FinetuneError(f"seed={plain['seed']}: expected at most {most}")
    apart = _wants_actors(plain)
    torch.set_num_threads(plain["threads"])
    watched = 1 if apart else settings.num_envs  # by a person with a key; each actor has its own
    source = SuccessSource.load(plain["success"], watched, find_device(plain["device"]))
    if plain["name"] == "demo_reset" and not source.is_task:
        raise FinetuneError("demo_reset: episodes begin in states that know no detector; leave success=task")
    person = wants_person(plain["name"], plain["algorithm"])
    if person:
        check(plain["algorithm"], plain["success"]["name"], apart)
    base, demonstrations = _load_base(plain), _load_demonstrations(plain)
    changes = {key: plain[key] for key in ("task", "robot", "controller", "randomization")} | (
        plain["environment"] or {}
    )
    spec = _environment(base, changes)
    stepped = source.stepped(spec)
    began_with = "new" if base is None else base.name.replace("/", "-")
    task = str(spec["task"]).replace("/", "-")
    folder = Path(plain["output"] or f"runs/finetune/{plain['name']}-{began_with}-{task}-seed{plain['seed']}")
    began_with_data = _describe(base, demonstrations, source)
    with run_folder.claimed(folder):
        stage = run_folder.judge(folder, plain, began_with_data, plain["resume"], plain["overwrite"])
        if stage == "finished" and (folder / "evaluation" / "results.json").exists():
            print(f"{folder} holds this training, finished. For another one choose output= or overwrite=true.")
            return 0
        with (
            _environments(stepped, base, source, settings, plain["processes"]) as made,
            nullcontext(source.elsewhere(made)) if apart else source.surround(made, spec) as environments,
            taking_over(plain["algorithm"], environments, _say_above_bar) if person else nullcontext() as intervener,
        ):
            run = _Run(folder, plain, settings, base, demonstrations, spec, source, environments, intervener)
            if stage == "begin":
                run_folder.begin(folder, plain)
            opened: AbstractContextManager[Any] = nullcontext()
            if isinstance(run.learner, OffPolicyLearner):
                opened = run.learner
            with opened, run.actors() if apart else nullcontext():
                status = run.go(resume=stage != "begin")
        if status == 0:
            _compare(folder, base, changes, plain, run.learner.execute)
        return status


class _Run:
    """One command's work in the run folder."""

    def __init__(
        self, folder: Path, plain: dict[str, Any], settings: Settings | OffPolicySettings, base: Candidate | None,
        demonstrations: Recordings | None, spec: dict[str, Any], source: SuccessSource, environments: Any,
        intervener: Intervener | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.plain, self.settings, self.base = folder, plain, settings, base
        self.demonstrations, self.source, self.environments = demonstrations, source, environments
        self.spec: dict[str, Any] = spec
        self.made_by = provenance(("robot_rl", "torch", "numpy", "mujoco"))
        torch.manual_seed(plain["seed"])
        if base is None:
            device = find_device(plain["device"])
            policy = fresh_policy(plain["network"], environments.contract).to(device)
        else:
            assert isinstance(base.policy, Policy)
            policy = base.policy
        name, seed = plain["name"], FIRST_TRAINING_SEED * (1 + plain["seed"])
        self.learner: Learner | OffPolicyLearner
        if isinstance(settings, OffPolicySettings):
            execute = settings.execute or policy.execute or max(1, policy.action_horizon // 2)
            given = {"network": policy.config, "name": name, "algorithm": plain["algorithm"]}
            common = (environments, settings, folder / STORE, plain["seed"], seed, demonstrations)
            method = build_off_policy(name, plain["algorithm"], policy, execute)
            actors = plain["actors"]
            if _wants_actors(plain):
                self.learner = ApartLearner(
                    method, *common, _seen(source.stepped(spec), base, source), base is None, **given,
                    host=actors["host"], port=actors["listen"] or 0,
                    secret=lambda: find_or_make(actors["secret"], folder), say=_say_above_bar,
                    success=source.plain,
                )  # fmt: skip
            else:
                self.learner = OffPolicyLearner(method, *common, source.stepped(spec), base is None, intervener)
        else:
            on_policy = build_method(name, plain["algorithm"], policy)
            self.learner = Learner(
                on_policy, environments, settings, plain["seed"], seed, scale_observations=base is None
            )  # fmt: skip
            known = {} if base is None else base.provenance.get("rewards", {})
            if self._rewards() == {key: value for key, value in known.items() if key != "moments"}:
                self.learner.reward_scale.take_over(known["moments"])
        self.learner.policy.config = {**self.learner.policy.config, "execute": self.learner.execute}
        self.choice = Choice(source, spec, settings.evaluate_episodes)
        self.results: dict[str, Any] = {"seconds": 0.0, "best": None, "evaluation_steps": 0, "recent": []}

    @contextmanager
    def actors(self) -> Iterator[None]:
        """The actors of this machine, while the learner is open."""
        learner, actors = self.learner, self.plain["actors"]
        assert isinstance(learner, ApartLearner)
        secret = actors["secret"] or (self.folder / FILE if VARIABLE not in os.environ else None)
        near = "127.0.0.1" if actors["host"] == "0.0.0.0" else actors["host"]
        arguments = [f"learner={near}:{learner.server.port}", f"num_envs={self.settings.num_envs}"]
        if secret is not None:
            arguments.append(f"secret='{secret}'")
        if self.plain["processes"] is not None:
            arguments.append(f"processes={self.plain['processes']}")
        if actors["listen"] is not None:
            where = "HOST" if actors["host"] == "0.0.0.0" else actors["host"]
            print(f"Waiting for actors: robot-rl act learner={where}:{learner.server.port} secret={secret or '…'}")
        with Pool(actors["count"], self.folder / "actors", arguments) as pool:
            learner.watch = pool.check
            yield

    def go(self, resume: bool) -> int:
        """Train to the end or to an interrupt."""
        learner, behind = self.learner, False
        if resume:
            saved = learner.load(self.folder / "checkpoints" / "last")
            self.results |= saved["results"]
            behind = isinstance(learner, OffPolicyLearner) and learner.finished and saved["steps"] < learner.steps
        self._introduce(resume)
        with Interrupt("Stopping after this iteration; press Ctrl-C again to stop at once.") as interrupt:
            if isinstance(self.learner, ApartLearner):
                self.learner.stopping = lambda: interrupt.requested is not None
            self._train(interrupt, behind)
        if not self.learner.finished:
            print(
                f"Stopped after {self.learner.steps} of {self.settings.steps} steps; saved in "
                f"{self.folder}/checkpoints/last. The same command goes on from there."
            )
            return interrupt.exit_status
        self._conclude()
        return 0

    def _train(self, interrupt: Interrupt, behind: bool) -> None:
        """Args:
        behind: whether all steps are in the store, and not all updates in the checkpoint: it was killed in between.
        """
        learner, settings = self.learner, self.settings
        log = MetricLog(self.folder, COLUMNS, learner.steps)
        began, stop = time.perf_counter(), False
        bar = progress(settings.steps, learner.steps, "finetune", "step")
        try:
            evaluated: dict[str, float] = {}
            if self.results["best"] is None:
                self._save_last()  # what actors send meanwhile is gone on with, too
                evaluated = self._evaluate()
                log.add(0, evaluated)
                self._save_last()
            if behind:
                assert isinstance(learner, OffPolicyLearner)
                log.add(learner.steps, {**learner.make_up(), **self._evaluate()})
                self._save_last()
            while not learner.finished and not stop:
                started, before = time.perf_counter(), learner.steps
                row = learner.iterate()
                ended = [bool(episode.success) for episode in learner.episodes]
                self.results["recent"] = self.choice.remember(self.results["recent"], ended)
                if isinstance(self.environments, DetectedSuccess):
                    row |= self.environments.take_log()
                row["steps_per_second"] = (learner.steps - before) / (time.perf_counter() - started)
                if self.source.is_task and not knows_success(self.spec):
                    row.pop("train_success_rate", None)
                best = self.results["best"]
                if learner.iterations % settings.evaluate_every == 0 or learner.finished:
                    evaluated = self._evaluate()
                    row |= evaluated
                log.add(learner.steps, row)
                bar.update(min(learner.steps, settings.steps) - bar.n)
                bar.set_postfix(_shown(row, evaluated), refresh=False)
                stop = interrupt.requested is not None
                # What is said of `checkpoints/best` lies in `checkpoints/last`.
                replaced = self.results["best"] is not best
                if learner.iterations % settings.save_every == 0 or learner.finished or replaced or stop:
                    now = time.perf_counter()
                    self.results["seconds"], began = self.results["seconds"] + now - began, now
                    self._save_last()
        finally:
            bar.close()
            log.close()

    def _evaluate(self) -> dict[str, float]:
        """Without exploration; replaces `checkpoints/best` if there was none better, see `Choice`."""
        policy = self.learner.policy
        seeds = range(FIRST_VALIDATION_SEED, FIRST_VALIDATION_SEED + self.settings.evaluate_episodes)
        outcomes = run_episodes(
            policy, self.choice.evaluated(self.spec), seeds, num_envs=max(self.settings.num_envs, min(10, len(seeds))),
            processes=self.plain["processes"], execute=self.learner.execute, progress=False,
            keep_observations=self.choice.looks,
        )  # fmt: skip
        row, rank = self.choice.judge(outcomes, self.results["recent"])
        self.results["evaluation_steps"] += sum(outcome.steps for outcome in outcomes)
        if self.choice.replaces(self.results["best"], rank):
            self.results["best"] = {"step": self.learner.steps, **row, "by": self.choice.by, "rank": rank}
            replace_folder(self.folder / "checkpoints" / "best", self._write_policy)
        return {**row, "evaluation_steps": self.results["evaluation_steps"]}

    def _save_last(self) -> None:
        state = {"results": self.results, "recordings": _describe(self.base, self.demonstrations, self.source)}

        def write(folder: Path) -> None:
            self._write_policy(folder)
            self.learner.save(folder, state)

        replace_folder(self.folder / "checkpoints" / "last", write)

    def _write_policy(self, folder: Path) -> None:
        made_by = {
            **self.made_by,
            "preset": self.plain["name"],
            "training": {
                **self.plain["training"], "step": self.learner.steps, "execute": self.learner.execute,
                "algorithm": self.plain["algorithm"],
            },
            "seed": self.plain["seed"],
            "base": None if self.base is None else {"path": str(self.base.path), **self.base.provenance},
            "environment": self.spec,
        }  # fmt: skip
        if isinstance(self.learner, Learner):
            made_by["rewards"] = {**self._rewards(), "moments": self.learner.reward_scale.moments}
        if self.demonstrations is not None:
            made_by |= {"recordings": self.demonstrations.describe(), "episodes": self.demonstrations.origins}
        save_policy(self.learner.policy, folder, made_by)
        if self.base is not None and self.base.trained_on is not None:
            self.base.trained_on.write(folder)

    def _rewards(self) -> dict[str, Any]:
        """What decides how large the discounted returns of a task are."""
        return {
            "task": self.spec["task"], "success": self.plain["success"]["name"], "discount": self.settings.discount,
        }  # fmt: skip

    def _introduce(self, resume: bool) -> None:
        size = sum(value.numel() for value in self.learner.policy.parameters())
        origin = "a new policy" if self.base is None else str(self.base.path)
        print(
            f"{self.folder}: {self.plain['name']} of {origin}, {size / 1e6:.2f} M parameters, on {self.spec['task']} "
            f"in {self.settings.num_envs} environments, {self.learner.execute} actions of each chunk"
        )
        if self.base is None and self.plain["name"] in OFF_POLICY and self.learner.policy.contract.cameras:
            print(
                f"Warning: {self.plain['name']} does not train encoders, so that a new policy's sees pictures through "
                "random filters; clone one by `robot-rl train` and give it as policy="
            )
        if isinstance(self.settings, OffPolicySettings) and self.settings.start_steps >= self.settings.steps:
            print(
                f"Warning: training.start_steps={self.settings.start_steps} are of random actions, and "
                f"training.steps={self.settings.steps} end before them: nothing is learnt"
            )
        if resume:
            print(f"Going on after step {self.learner.steps}.")

    def _conclude(self) -> None:
        seconds, best = self.results["seconds"], self.results["best"]
        results = {
            "steps": self.learner.steps,
            "evaluation_steps": self.results["evaluation_steps"],
            "seconds": round(seconds, 3),
            "best": best,
            "parameters": sum(value.numel() for value in self.learner.policy.parameters()),
            "steps_per_second": self.learner.steps / seconds,
        }
        write_results(self.folder, {"training": results})
        success = f"success {best['success_rate']:.1%}, " if "success_rate" in best else ""
        print(
            f"Trained {self.learner.steps} steps in {seconds:.0f} s. checkpoints/best is of step {best['step']}, "
            f"chosen by {best.get('by', 'evaluations')}; in evaluation {success}return {best['mean_return']:.4g}."
        )


def _shown(row: Mapping[str, float], evaluated: Mapping[str, float]) -> dict[str, str]:
    """What stands behind the progress bar: success where there is one, and returns."""
    shown = {
        "success": (row.get("train_success_rate"), ".0%"), "evaluated": (evaluated.get("success_rate"), ".0%"),
        "reward": (row.get("train_return"), ".4g"), "evaluated_reward": (evaluated.get("mean_return"), ".4g"),
    }  # fmt: skip
    return {name: format(value, pattern) for name, (value, pattern) in shown.items() if value is not None}


def _compare(
    folder: Path, base: Candidate | None, changes: Mapping[str, Any], plain: Mapping[str, Any], execute: int
) -> None:
    """The best policy, and the one it began with, on the seeds of an evaluation; then the report."""
    from robot_rl.report import write_report

    tuned = Candidate.load(folder / "checkpoints" / "best", str(find_device(plain["device"])), plain["threads"])
    seeds = range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + plain["episodes"])
    results = simulate(
        folder, tuned, changes, seeds, base, execute=execute, processes=plain["processes"], videos=0
    )  # fmt: skip
    print(say_simulated(results))
    print(f"Report: {write_report(folder)}")


def _load_base(plain: Mapping[str, Any]) -> Candidate | None:
    """The policy to begin with.

    Raises:
        FinetuneError: there has to be one, or it cannot be trained.
    """
    if plain["policy"] is None:
        if plain["network"] is None:
            raise FinetuneError(
                f"policy= is missing: {plain['name']} improves a trained policy, give a run folder of `robot-rl train`"
            )
        return None
    base = Candidate.load(str(plain["policy"]), str(find_device(plain["device"])), plain["threads"])
    if not isinstance(base.policy, Policy):
        raise FinetuneError(f"{base.path} is an exported policy, which cannot be trained; give the run it came from")
    return base


def _load_demonstrations(plain: Mapping[str, Any]) -> Recordings | None:
    """The successful episodes of `dataset=`, or all; of `demo_reset` those in whose states it begins.

    Raises:
        FinetuneError: the algorithm would not look at them.
    """
    paths = plain["dataset"]
    if paths is None:
        states = plain["algorithm"].get("demonstrations")
        return None if states is None else Recordings([states], held_out=0.0)
    if plain["name"] not in OFF_POLICY:
        instead = "; give the states to begin in as algorithm.demonstrations=" if plain["name"] == "demo_reset" else ""
        raise FinetuneError(
            f"dataset= is of no use to {plain['name']}, which learns from its own experience alone{instead}"
        )
    return Recordings(
        [paths] if isinstance(paths, str) else paths, held_out=0.0, include_failures=plain["include_failures"]
    )


def _wants_actors(plain: Mapping[str, Any]) -> bool:
    """Whether others act.

    Raises:
        FinetuneError: they cannot, or the numbers make no sense.
    """
    actors = plain["actors"]
    port = 0 if actors["listen"] is None else actors["listen"]
    if actors["count"] < 0 or not (isinstance(port, int) and 0 <= port < 2**16):
        raise FinetuneError(f"actors: expected count of at least 0 and listen a port, got {actors['count']} and {port}")
    wanted = actors["count"] > 0 or actors["listen"] is not None
    if wanted and plain["name"] not in OFF_POLICY:
        raise FinetuneError(
            f"actors: {plain['name']} learns from what it does itself; {', '.join(OFF_POLICY)} can do so"
        )
    if wanted and actors["count"] and plain["success"]["name"] == "key":
        raise FinetuneError(
            "success=key: the actors that actors.count starts have no terminal. Leave actors.count=0, set "
            "actors.listen, and start each actor in a terminal of its own: robot-rl act …"
        )
    if wanted:
        find(actors["secret"])
    return wanted


def _say_above_bar(text: str) -> None:
    from tqdm import tqdm

    tqdm.write(text)


def _environment(base: Candidate | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    from robot_rl.sim.spec import resolve

    if base is not None:
        return resolve(base.environment(changes))
    if changes["task"] is None:
        raise EvaluateError("task= is missing: a new policy does not say where it is to be trained")
    return resolve({key: value for key, value in changes.items() if value is not None})


def _environments(
    spec: Mapping[str, Any], base: Candidate | None, source: SuccessSource, settings: Settings | OffPolicySettings,
    processes: int | None,
) -> Any:  # fmt: skip
    from robot_rl import sim

    return sim.make_vector(_seen(spec, base, source), settings.num_envs, processes)


def _seen(spec: Mapping[str, Any], base: Candidate | None, source: SuccessSource) -> dict[str, Any]:
    """Without the cameras at which nobody looks."""
    watched = source.classifier is not None and source.classifier.policy.contract.cameras
    return dict(spec) if base is None or watched else without_unseen_cameras(spec, base.policy)


def _describe(base: Candidate | None, demonstrations: Recordings | None, source: SuccessSource) -> list[dict[str, Any]]:
    """What a resumed run has to begin with again."""
    recorded = [*([] if demonstrations is None else demonstrations.describe()), *source.describe()]
    if base is None:
        return recorded
    content = (checkpoint_folder(base.path) / MODEL).read_bytes()
    return [{"path": str(base.path), "sha256": hashlib.sha256(content).hexdigest()}, *recorded]
