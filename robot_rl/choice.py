"""By what a fine-tuning chooses `checkpoints/best`: by whatever says success in it, as far as it can be asked.

| success from              | chosen by                                                                      |
|---------------------------|--------------------------------------------------------------------------------|
| the task                  | success, then return, of evaluations without exploration                       |
| nobody (a Gymnasium task) | return of evaluations                                                          |
| a classifier              | the success that it sees in evaluations, whose episodes go on like a training's |
| a person with a key       | the success of the last training episodes: nobody watches evaluations          |

As many training episodes count as an evaluation has. While there are fewer, few of them prove little: what is compared
is the lower end of Wilson's interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.intervals import wilson
from robot_rl.rollout import Outcome
from robot_rl.sim import knows_success
from robot_rl.success_source import SuccessSource


class Choice:
    """Ranks the policies of a training.

    Args:
        source: of success.
        spec: of the environment.
        episodes: of an evaluation.

    Attributes:
        by: what it goes by, in words.
    """

    def __init__(self, source: SuccessSource, spec: Mapping[str, Any], episodes: int) -> None:
        self._source, self._knows, self._episodes = source, knows_success(spec), episodes
        self._by_person = not source.is_task and source.classifier is None
        if source.classifier is not None:
            self.by = f"success as the classifier sees it in {episodes} evaluation episodes"
        elif self._by_person:
            self.by = f"success of the last {episodes} training episodes"
        else:
            self.by = f"{'success, then ' if self._knows else ''}return of {episodes} evaluation episodes"

    @property
    def looks(self) -> bool:
        """Whether it has to see the observations of evaluations."""
        return self._source.classifier is not None

    def evaluated(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """The specification of the environments to evaluate in."""
        return self._source.stepped(spec) if self.looks else dict(spec)

    def remember(self, recent: Sequence[bool], ended: Sequence[bool]) -> list[bool]:
        """The success of the training episodes that count from now on."""
        return [*recent, *ended][-self._episodes :] if self._by_person else []

    def judge(self, outcomes: Sequence[Outcome], recent: Sequence[bool]) -> tuple[dict[str, float], list[float]]:
        """What is worth logging of an evaluation, and the policy's rank: the greater the better, place by place."""
        row = {"mean_return": float(np.mean([outcome.total_reward for outcome in outcomes]))}
        if self._knows:
            row = {"success_rate": sum(outcome.success for outcome in outcomes) / len(outcomes), **row}
        if self._by_person:
            return row, [wilson(sum(recent), len(recent))[0] if recent else 0.0]
        if self._source.classifier is None:
            return row, list(row.values())
        persistence = int(self._source.plain["persistence"])
        seen = [
            lasted(self._source.classifier({name: value[1:] for name, value in (each.observations or {}).items()}),
                   persistence)
            for each in outcomes
        ]  # fmt: skip
        row["judged_success_rate"] = sum(seen) / len(seen)
        return row, [row["judged_success_rate"]]

    def replaces(self, best: Mapping[str, Any] | None, rank: Sequence[float]) -> bool:
        """Whether a policy is as good as the best one so far, or that one was chosen by something else.

        What is no number is worse than any.
        """
        if best is None or ("by" in best and best["by"] != self.by) or ("by" not in best and not self._source.is_task):
            return True
        before = best.get("rank", [best[name] for name in ("success_rate", "mean_return") if name in best])
        now, then = (np.nan_to_num(np.asarray(each, float), nan=-np.inf).tolist() for each in (rank, before))
        return bool(now >= then)


def lasted(shown: NDArray[np.bool_], persistence: int) -> bool:
    """Whether something is shown in so many steps in succession, of [T]."""
    if len(shown) < persistence:
        return False
    return int(np.convolve(shown.astype(np.int64), np.ones(persistence, np.int64), "valid").max()) == persistence
