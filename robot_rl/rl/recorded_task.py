"""Whether demonstrations are of the task that is trained: those of another one end and are rewarded in other states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robot_rl.datasets import EpisodeStore
from robot_rl.rl.on_policy import FinetuneError


def check_task(store: EpisodeStore, environment: Mapping[str, Any]) -> None:
    """Compare the task that a store was recorded in with that of an environment's specification, and where they end.

    A store that does not say, as one that was imported or recorded on a robot, may be of any task.

    Raises:
        FinetuneError: they differ, or the demonstrations go on after a success that ends what is trained.
    """
    task, recorded = environment.get("task"), recorded_tasks(store.provenance)
    if task is not None and recorded - {str(task)}:
        raise FinetuneError(
            f"{store.path} holds demonstrations of {', '.join(sorted(recorded))}, and what is trained is {task}: their "
            "rewards are not those of this task. Give demonstrations of it, or train on the task that they are of"
        )
    endless = any(each.get("ends_at_success") is False for each in _environments(store.provenance))
    # Those that a detector or a person ended are rewarded in their last step alone.
    if endless and environment.get("ends_at_success") and any(episode.reward[:-1].any() for episode in store):
        raise FinetuneError(
            f"{store.path} holds demonstrations that go on after success (ends_at_success: false), where what is "
            "trained ends: their rewards add up to more. Give demonstrations that end, or train with "
            "environment={ends_at_success: false}"
        )


def recorded_tasks(provenance: Mapping[str, Any]) -> set[str]:
    """The simulated tasks that a store says it was recorded in, also those of the stores that it was made of."""
    return {str(each["task"]) for each in _environments(provenance) if each.get("task") is not None}


def _environments(provenance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    own = provenance.get("environment")
    parts = [each for part in provenance.get("made_of", ()) for each in _environments(part)]
    return [own, *parts] if isinstance(own, Mapping) else parts
