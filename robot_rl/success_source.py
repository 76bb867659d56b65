"""Where the success of training episodes comes from: the task, a person with a key, or a learned classifier."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robot_rl.hardware.terminal import Terminal
from robot_rl.policies.checkpoint import MODEL, checkpoint_folder
from robot_rl.rl.environments import Environments, Observation
from robot_rl.rl.on_policy import FinetuneError
from robot_rl.rl.success_detector import DetectedSuccess, KeyPress, Restartable, goes_on
from robot_rl.sim import knows_success
from robot_rl.success_classifier import FILE, SuccessClassifier

KEYS = {"task": (), "key": ("key",), "classifier": ("path", "persistence")}
"""Of the section `success`, by its `name`."""


@dataclass(frozen=True)
class SuccessSource:
    """What `success=` asks for.

    Attributes:
        plain: the section of the configuration.
        classifier: with `success=classifier`.
    """

    plain: Mapping[str, Any]
    classifier: SuccessClassifier | None = None

    @staticmethod
    def load(plain: Mapping[str, Any], num_envs: int, device: torch.device) -> SuccessSource:
        """Check the section, and read the classifier.

        Raises:
            FinetuneError: it is not possible.
            ClassifierError, CheckpointError: there is no readable classifier.
        """
        name = plain["name"]
        given = {key for key, value in plain.items() if key != "name" and value is not None}
        if name not in KEYS or given != set(KEYS[name]):
            raise FinetuneError(
                f"success={name}: expected task; key with success.key; or classifier with success.path and "
                f"success.persistence; got {dict(plain)}"
            )
        if name == "key" and (num_envs != 1 or len(str(plain["key"])) != 1):
            raise FinetuneError(
                f"success=key: a person watches one environment and presses one key; got num_envs={num_envs}, "
                f"success.key={plain['key']!r}"
            )
        if name != "classifier":
            return SuccessSource(plain)
        if plain["persistence"] < 1:
            raise FinetuneError(f"success.persistence={plain['persistence']}: expected at least 1 control step")
        return SuccessSource(plain, SuccessClassifier.load(plain["path"], device))

    @property
    def is_task(self) -> bool:
        """Whether everything stays as the task says."""
        return bool(self.plain["name"] == "task")

    def stepped(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """The specification of the environments to train in.

        Raises:
            FinetuneError: nobody but the task can end its episodes.
        """
        try:
            return dict(spec) if self.is_task else goes_on(spec)
        except ValueError as error:
            raise FinetuneError(str(error)) from error

    @contextmanager
    def surround(
        self, environments: Restartable, spec: Mapping[str, Any], keys: Callable[[], str] | None = None,
        knows: bool = True,
    ) -> Iterator[Environments]:  # fmt: skip
        """Environments that take success from here.

        Args:
            spec: of them.
            keys: those pressed since the last call, where somebody else reads the terminal; then the environment has a
                pace of its own, as a robot has.
            knows: whether the task itself can know success; on a robot nobody computes it.

        Raises:
            ContractError: the classifier needs other observations.
            OSError: a key is waited for, and there is no terminal.
        """
        knows = knows and knows_success(spec)
        if self.is_task:
            yield environments
        elif self.classifier is not None:
            self.classifier.check(environments.contract)
            yield DetectedSuccess(environments, self.classifier, int(self.plain["persistence"]), knows)
        else:
            with ExitStack() as stack:
                sleep: Callable[[float], None] = _no_pace
                pressed = keys
                if pressed is None:
                    pressed, sleep = stack.enter_context(Terminal()).keys, time.sleep
                key = str(self.plain["key"])
                print(f"Press {key} when the task is achieved.")
                press = KeyPress(pressed, key, environments.contract.rate_hz, sleep=sleep)
                yield DetectedSuccess(environments, press, 1, knows)

    def elsewhere(self, environments: Restartable) -> Environments:
        """Environments of a learner whose actors take success from here; they are not stepped, and nobody is asked.

        Raises:
            ContractError: the classifier needs other observations.
        """
        if self.is_task:
            return environments
        if self.classifier is not None:
            self.classifier.check(environments.contract)
        return DetectedSuccess(environments, _nobody, 1, knows=False)

    def describe(self) -> list[dict[str, Any]]:
        """What a resumed run has to begin with again."""
        if self.classifier is None:
            return []
        folder, digest = checkpoint_folder(Path(self.plain["path"])), hashlib.sha256()
        for name in (MODEL, FILE):
            digest.update((folder / name).read_bytes())
        return [{"path": str(self.plain["path"]), "sha256": digest.hexdigest()}]


def _nobody(observation: Observation) -> NDArray[np.bool_]:
    raise AssertionError("the environments of a learner with actors are not stepped")


def _no_pace(seconds: float) -> None:
    """Control steps take their time by themselves."""
