"""A learned judge of success: a classifier of single observations, the score from which on it believes, and its errors.

The classifier is a policy whose one "action" is the probability of success (process `bernoulli`), so that encoders,
augmentation and checkpoints are those of any policy. The threshold and what was measured lie beside it, in
`success.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robot_rl.datasets import Contract, Feature, satisfies
from robot_rl.intervals import wilson
from robot_rl.policies import Policy, load_policy
from robot_rl.policies.checkpoint import checkpoint_folder

FILE = "success.json"
SUCCESS = Feature("success", (1,), kind="action", lower=(0.0,), upper=(1.0,))
LEAST = 0.5
"""No score below it counts, however rarely it errs: false positives that are allowed are not wanted."""

Scores = NDArray[np.float64]


class ClassifierError(ValueError):
    """A classifier of success cannot be made or used as asked; the message says what to do."""


@dataclass(frozen=True)
class Rate:
    """A share of n single observations.

    Attributes:
        low, high: Wilson's 95 % interval. Steps of one episode are alike, which it does not know.
    """

    count: int
    n: int
    low: float
    high: float

    @staticmethod
    def of(hits: NDArray[np.bool_]) -> Rate:
        """Of at least one observation."""
        count = int(hits.sum())
        return Rate(count, len(hits), *wilson(count, len(hits)))

    @property
    def value(self) -> float:
        """The share itself."""
        return self.count / self.n

    def __str__(self) -> str:
        return f"{self.value:.2%} ({self.low:.2%} to {self.high:.2%}; {self.count} of {self.n})"


@dataclass(frozen=True)
class Judgement:
    """What `success.json` holds.

    Attributes:
        threshold: scores from here on are success.
        wanted: rate of false positives per step that it was chosen for.
        false_positives: on observations without success that had no part in learning and choosing.
        recall: share of held-out observations with success that are recognised.
    """

    threshold: float
    wanted: float
    false_positives: Rate
    recall: Rate

    def write(self, folder: Path) -> None:
        """Write `success.json` into a checkpoint folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def read(folder: Path) -> Judgement:
        """Read it again.

        Raises:
            ClassifierError: there is none, or it cannot be read.
        """
        try:
            plain = json.loads((folder / FILE).read_text())
            rates = {name: Rate(**plain[name]) for name in ("false_positives", "recall")}
            return Judgement(**{**plain, **rates})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ClassifierError(
                f"{folder / FILE} cannot be read ({error}): this is no classifier of success; make one with "
                "`robot-rl classifier`"
            ) from error


def choose_threshold(negatives: Scores, wanted: float) -> float:
    """The least score that observations without success reach at most at the wanted rate, as far as these can tell.

    Of these scores so few lie at or above it that the upper end of Wilson's 95 % interval is at most `wanted`. Where
    even none would be too many to be sure, it lies above them all. It is at least `LEAST`.

    Raises:
        ClassifierError: the rate is impossible, or there are no scores.
    """
    if not 0 < wanted < 1:
        raise ClassifierError(f"false_positive_rate={wanted}: expected a number between 0 and 1")
    if not len(negatives):
        raise ClassifierError("no observation without success is left to choose the threshold by; record failures too")
    ordered, n = np.sort(np.asarray(negatives, np.float64))[::-1], len(negatives)
    # The bound rises with the number of false positives.
    allowed = next((count for count in range(n) if wilson(count, n)[1] > wanted), n) - 1
    reached = ordered[min(max(allowed, 0), n - 1)]
    return max(LEAST, float(np.nextafter(reached, np.inf)))


class SuccessClassifier:
    """A classifier in evaluation mode, with its threshold.

    Args:
        policy: with process `bernoulli`, which observes one step.
    """

    def __init__(self, policy: Policy, judgement: Judgement) -> None:
        self.policy, self.judgement = policy, judgement

    @staticmethod
    def load(path: str | Path, device: str | torch.device = "cpu") -> SuccessClassifier:
        """Read what `robot-rl classifier` wrote.

        Raises:
            ClassifierError: something else is there.
            CheckpointError: it cannot be read.
        """
        policy = load_policy(path, device)
        if (name := policy.config["process"]["name"]) != "bernoulli":
            raise ClassifierError(
                f"{path} is a policy (process {name}), no classifier of success; make one with `robot-rl classifier`"
            )
        return SuccessClassifier(policy, Judgement.read(checkpoint_folder(path)))

    def check(self, contract: Contract) -> None:
        """Whether this judges what is observed under a contract.

        Raises:
            ContractError: it needs other features or another rate; all differences.
        """
        satisfies(replace(self.policy.contract, action=contract.action, controller=contract.controller), contract)

    def __call__(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Whether each of N observations {name: [N, *shape]} shows success, [N]."""
        return scores(self.policy, {name: value[:, None] for name, value in self._seen(observation).items()}) >= (
            self.judgement.threshold
        )

    def _seen(self, observation: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {name: observation[name] for name in self.policy.contract.observation}


@torch.no_grad()
def scores(policy: Policy, observation: Mapping[str, NDArray[Any]]) -> Scores:
    """Probability of success [B] of observations {name: [B, 1, *shape]}, by a policy in evaluation mode."""
    chunk = policy.sample(policy.encode(observation), noise=torch.zeros(len(next(iter(observation.values()))), 1, 1, 1))
    return chunk.flatten().double().cpu().numpy()
