"""Whether demonstrations are of the task that is trained: those of another one end and are rewarded in other states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robot_rl.datasets import EpisodeStore
from robot_rl.rl.on_policy import FinetuneError


def check_task(store: EpisodeStore, environment: Mapping[str, Any]) -> None:
    """Compare the task that a store was recorded in with that of an environment's specification.

    A store that does not say, as one that was imported or recorded on a robot, may be of any task.

    Raises:
        FinetuneError: they differ.
    """
    task, recorded = environment.get("task"), recorded_tasks(store.provenance)
    if task is not None and recorded - {str(task)}:
        raise FinetuneError(
            f"{store.path} holds demonstrations of {', '.join(sorted(recorded))}, and what is trained is {task}: their "
            "rewards are not those of this task. Give demonstrations of it, or train on the task that they are of"
        )


def recorded_tasks(provenance: Mapping[str, Any]) -> set[str]:
    """The simulated tasks that a store says it was recorded in, also those of the stores that it was made of."""
    environment = provenance.get("environment")
    named = environment.get("task") if isinstance(environment, Mapping) else None
    found = set() if named is None else {str(named)}
    return found.union(*(recorded_tasks(part) for part in provenance.get("made_of", ())))
