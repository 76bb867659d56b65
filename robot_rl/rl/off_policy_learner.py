"""Off-policy learning of a policy: steps and updates in turns, and all that a resume needs.

What was collected lies in an episode store, and the replay in memory is read from it. A checkpoint therefore holds no
transitions. A training that was stopped goes on exactly where it was; one that was killed begins new episodes, keeps
every episode that its store holds, and makes up for the updates that were lost.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robot_rl import checkpoint
from robot_rl.checkpoint import ResumeError
from robot_rl.datasets import Episode as StoredEpisode
from robot_rl.datasets import EpisodeStore, satisfies
from robot_rl.recordings import Recordings
from robot_rl.rl.collector import Episode
from robot_rl.rl.environments import Environments
from robot_rl.rl.explorer import Explorer
from robot_rl.rl.intervention import Intervener
from robot_rl.rl.off_policy import Critics, OffPolicySettings, Updater, arithmetic
from robot_rl.rl.off_policy_method import OffPolicyMethod
from robot_rl.rl.on_policy import FinetuneError
from robot_rl.rl.recorded_task import check_task
from robot_rl.rl.replay import Replay, symmetric
from robot_rl.rl.success_detector import rewarded
from robot_rl.seed import mixed

STORE = "replay.zarr"
"""In the run folder."""
ARRAYS = "off_policy.safetensors"


class OffPolicyLearner:
    """Trains the policy of a method in environments, within a `with` statement, which opens the store.

    Args:
        store: folder of the episode store that takes what is collected; made where it does not exist.
        seed: of all draws; the critics' first weights come from torch's global generator.
        first_seed: of the first training episode.
        demonstrations: recorded episodes for symmetric sampling.
        environment: resolved specification of what is stepped, kept in the store.
        new: whether the policy comes from nowhere, so that its normaliser may be fitted.
        intervener: who may take over; None: whom the method names.

    Raises:
        FinetuneError: demonstrations are missing or of another task, or nobody would learn from them.
        ContractError: the demonstrations are of another robot.
    """

    def __init__(
        self, method: OffPolicyMethod, environments: Environments, settings: OffPolicySettings, store: Path,
        seed: int, first_seed: int = 0, demonstrations: Recordings | None = None,
        environment: Mapping[str, Any] | None = None, new: bool = False, intervener: Intervener | None = None,
    ) -> None:  # fmt: skip
        self.method, self.settings, self.seed = method, settings, seed
        self.policy = method.policy
        self._spec = dict(environment or {})
        _check_demonstrations(method, settings, demonstrations, self._spec)
        self.iterations, self.steps, self.updates = 0, 0, 0
        self.critics = Critics(method, settings)
        self.updater = Updater(self.critics, settings)
        self._fit_normaliser = new and settings.scale_observations
        self._recorded = demonstrations
        self._own: Replay | None = None
        self._demonstrations: Replay | None = None
        self.episodes: list[Episode] = []
        satisfies(self.policy.contract, environments.contract)
        self._intervener = method.intervener(environments) if intervener is None else intervener
        self._environments, self._path, self._first_seed = environments, store, first_seed

    def __enter__(self) -> OffPolicyLearner:
        """Open the store for writing and begin the first episodes."""
        contract = self._environments.contract
        if not self._path.exists():
            EpisodeStore.create(self._path, contract, {"environment": self._spec, "run": secrets.token_hex(8)})
        self.writer = EpisodeStore.append(self._path, contract)
        try:
            self._open()
        except BaseException:
            self.writer.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    @property
    def execute(self) -> int:
        """Actions of each chunk that are executed."""
        return self.method.execute

    @property
    def finished(self) -> bool:
        """Whether the training has made its steps."""
        return self.steps >= self.settings.steps

    def iterate(self) -> dict[str, float]:
        """Some control steps and their updates; returns what is worth logging.

        `episodes` then holds those that ended in it.

        Raises:
            FinetuneError: a loss is not finite.
        """
        generator = self._generator()
        self.episodes, began = [], self.updates
        seen = self._collect(generator)
        self.iterations += 1
        row = self.updater.take_log() | {"updates": float(self.updates - began)} | seen
        row["replay_steps"] = float(self.writer.store.num_steps)
        if self.episodes:
            row["train_return"] = float(np.mean([each.total_reward for each in self.episodes]))
            row["train_success_rate"] = float(np.mean([each.success for each in self.episodes]))
        return {name: number for name, number in row.items() if math.isfinite(number)}

    def make_up(self) -> dict[str, float]:
        """Make the updates that a killed training still owed to all steps in the store; returns what is worth logging.

        Raises:
            FinetuneError: a loss is not finite.
        """
        began = self.updates
        self._update(self._generator())
        self.iterations += 1
        return self.updater.take_log() | {"updates": float(self.updates - began)}

    def save(self, folder: Path, plain: Mapping[str, Any]) -> None:
        """Write all that `load` needs, beside the store, into a checkpoint folder.

        Args:
            plain: further state, of plain JSON types.
        """
        from safetensors.numpy import save_file

        explorer, arrays = self._where()
        arrays |= {f"target/{name}": value.cpu().numpy() for name, value in self.critics.target.state_dict().items()}
        arrays |= {f"normalizer/{name}": value.cpu().numpy() for name, value in self._normalizer().items()}
        state = {
            **plain, "steps": self.steps, "iterations": self.iterations, "updates": self.updates, "explorer": explorer,
            "episodes": len(self.writer.store), "learning": self._own is not None,
        }  # fmt: skip
        checkpoint.save_training(folder, self.critics, None, self.updater.optimizer, state)
        save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, folder / ARRAYS)

    def load(self, folder: Path) -> dict[str, Any]:
        """Restore what `save` wrote, and all that the store holds; returns the plain state.

        Raises:
            ResumeError: a file is missing, belongs to another network, or episodes have gone from the store.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        state = checkpoint.load_training(folder, self.critics, None, self.updater.optimizer)
        try:
            arrays = load_file(folder / ARRAYS)
        except (OSError, SafetensorError) as error:
            raise ResumeError(f"{folder} cannot be resumed from: {error}. Start again with overwrite=true.") from error
        store, before = self.writer.store, int(state["episodes"])
        if len(store) < before:
            raise ResumeError(
                f"{store.path} holds {len(store)} episodes, {before} when the training was saved; put the missing "
                "ones back, or start again with overwrite=true."
            )
        self.iterations, self.updates = int(state["iterations"]), int(state["updates"])
        self.method.follow(self.critics.live)
        self.critics.target.load_state_dict({
            name: torch.from_numpy(value) for name, value in _below(arrays, "target/").items()
        })
        for name, value in _below(arrays, "normalizer/").items():
            self._normalizer()[name].copy_(torch.from_numpy(value))
        if state["learning"]:
            self._fit_normaliser = False
            self._read()
        self._go_on(state, arrays)
        return state

    def _open(self) -> None:
        """Begin to collect."""
        self.explorer = Explorer(
            self.policy, self._environments, self.execute, self._first_seed, self.writer,
            str(self._spec.get("task", "")), self._intervener,
        )  # fmt: skip

    def _collect(self, generator: torch.Generator) -> dict[str, float]:
        """The control steps of an iteration, each with its updates; returns what is worth logging of them."""
        taken, lost = self.explorer.interventions, self.explorer.diverged
        for _ in range(self.settings.rollout_steps):
            finished = self.explorer.step(self._act(generator))
            self.steps += self._environments.num_envs
            for number, episode in finished:
                self._finished(number, episode)
            self._update(generator)
        self.explorer.renew()
        row = {"diverged_episodes": float(self.explorer.diverged - lost)}
        if self._intervener is not None:
            made = self.settings.rollout_steps * self._environments.num_envs
            row["intervention_rate"] = (self.explorer.interventions - taken) / made
        return row

    def _where(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Where collecting stands, for `_go_on`."""
        plain, arrays = self.explorer.state()
        # Steps of episodes that will never be in the store: of simulations that diverged, and before an earlier kill.
        return {**plain, "lost": self.steps - self.writer.store.num_steps - self.explorer.steps}, arrays

    def _go_on(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Collect from where `state` was saved, or behind what the store holds."""
        store = self.writer.store
        if len(store) == int(state["episodes"]) and state["explorer"]:
            self.steps = int(state["steps"])
            left = max(0, self.settings.steps - self.steps) + self.settings.rollout_steps * self._environments.num_envs
            self.explorer.load(state["explorer"], arrays, left)
        else:
            # Killed after more episodes, or others collected: those under way are among them, or lost.
            self.steps = max(int(state["steps"]), store.num_steps + int(state["explorer"].get("lost", 0)))
            facts = [store.facts(number) for number in range(len(store))]
            used = [each.get("seed") for each in facts if "actor" not in each]  # actors have seeds of their own
            following = int(state["explorer"].get("next_seed", self._first_seed))
            self.explorer.begin(max([following, *(seed for seed in used if seed)]) + self._environments.num_envs)

    def _finished(self, number: int, episode: Episode) -> None:
        """An episode was committed to the store."""
        self.episodes.append(episode)
        if self._own is not None:
            self._add(self.writer.store[number])

    def _act(self, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        act = self.method.act if self.steps >= self.settings.start_steps else self.method.begin
        return lambda context: act(context, generator)

    def _update(self, generator: torch.Generator) -> None:
        """Make the updates that are due: `update_ratio` for each control step since the first `start_steps`."""
        settings = self.settings
        due = settings.update_ratio * (self.steps - settings.start_steps)
        if due <= self.updates or not len(self.writer.store):
            return
        if self._own is None:
            self._begin_learning()
        assert self._own is not None
        with arithmetic(settings.precision):
            while self.updates < due:
                batch = symmetric(
                    self._own, self._demonstrations, settings.demonstration_share, settings.batch, generator
                )  # fmt: skip
                self.updater.update_critics(batch, generator)
                self.updates += 1
                if self.updates % settings.update_ratio == 0:
                    self.updater.update_actor(batch, generator)

    def _begin_learning(self) -> None:
        if self._fit_normaliser:
            # To the demonstrations, or without any to the first steps; it then stays as it is.
            encoder, features = self.policy.encoder, self.policy.contract.observation
            known = self.writer.store.statistics(range(len(self.writer.store)))
            if self._recorded is not None:
                known = self._recorded.statistics()
            encoder.normalizer.fit(
                [features[name] for name in encoder.states], [known[name] for name in encoder.states],
                self.policy.config["normalizer"]["observation"],
            )  # fmt: skip
            self._fit_normaliser = False
        self._read()

    def _read(self) -> None:
        """The replays, from the stores."""
        settings = self.settings

        def replay() -> Replay:
            return Replay(self.policy, self.execute, settings.return_chunks * self.execute, settings.discount)

        self._own = replay()
        if self._recorded is not None:
            self._demonstrations = replay()
            for part in self._recorded.parts:
                for number in part.training:
                    self._demonstrations.add(rewarded(self._environments, part.store[int(number)]))
        for episode in self.writer.store:
            self._add(episode)

    def _add(self, episode: StoredEpisode) -> None:
        """An episode of the store to the replay, and what somebody did in it to the demonstrations as well."""
        assert self._own is not None
        self._own.add(episode)
        if self._demonstrations is not None and episode.intervened.any():
            self._demonstrations.add(episode, drawn=episode.intervened)

    def _normalizer(self) -> dict[str, Tensor]:
        normalizer = self.policy.encoder.normalizer
        return {"center": normalizer.center, "spread": normalizer.spread}

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(mixed(self.seed, self.iterations))


def _check_demonstrations(
    method: OffPolicyMethod, settings: OffPolicySettings, demonstrations: Recordings | None,
    environment: Mapping[str, Any],
) -> None:  # fmt: skip
    share = settings.demonstration_share
    if demonstrations is None:
        if share > 0:
            raise FinetuneError(
                f"dataset= is missing: training.demonstration_share={share:g} of each batch are demonstrations. Record "
                "some with `robot-rl collect`, or set it to 0."
            )
        return
    if share == 0:
        raise FinetuneError("dataset= is given, but training.demonstration_share=0 leaves nothing to learn from it")
    satisfies(method.policy.contract, demonstrations.contract)
    for part in demonstrations.parts:
        check_task(part.store, environment)


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
