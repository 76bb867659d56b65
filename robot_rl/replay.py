"""Episodes simulated again from their seed and actions, to be filmed or recorded: an evaluation keeps nothing more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from robot_rl.attempt import Attempt, attempt
from robot_rl.rollout import with_cameras

if TYPE_CHECKING:
    from robot_rl.rollout import Outcome

REST = 10
"""Times that the last picture of a video is repeated."""


class ReplayError(RuntimeError):
    """An episode did not end as it had; the environment is not reproducible."""


def replay(spec: Mapping[str, Any], outcome: Outcome, camera: str, size: Sequence[int]) -> Iterator[np.ndarray]:
    """The pictures of an episode, uint8 [height, width, 3] RGB: one before each action and one at the end.

    Args:
        spec: of the environment that the episode ran in.
        size: height and width in pixels.

    Raises:
        ReplayError: the success is not what it was.
        RenderError: nothing can be rendered here.
    """
    from robot_rl import sim

    quality = {"render_quality": "fast"} if "render_quality" in spec else {}
    env: Any = sim.make({**with_cameras(spec, ()), "observation": None, **quality})
    try:
        env.reset(seed=outcome.seed)
        yield _smooth_image(env, camera, size)
        success = False
        for action in outcome.actions:
            *_, info = env.step(action)
            success |= bool(info["success"])
            yield _smooth_image(env, camera, size)
    finally:
        env.close()
    if success != outcome.success:
        raise ReplayError(_differs(outcome))


def _differs(outcome: Outcome) -> str:
    return (
        f"the episode of seed {outcome.seed} was a {'success' if outcome.success else 'failure'} of {outcome.steps} "
        "steps, and is none when simulated again: the environment is not reproducible"
    )


def attempts(env: Any, outcomes: Sequence[Outcome]) -> Iterator[Attempt]:
    """The episodes with all that is recorded of one; what diverges, or does not end as it had, is said and left out.

    Args:
        env: as the one that they ran in.
    """
    from tqdm import tqdm

    for outcome in tqdm(outcomes, desc="record", unit="episode", disable=None):
        made = attempt(env, _Again(outcome.actions).begin, outcome.seed)
        if made.diverged:
            print(f"Not recorded: the simulation of seed {outcome.seed} diverges")
        elif made.success == outcome.success and len(made.actions) == outcome.steps:
            yield made
        else:
            print(f"Not recorded: {_differs(outcome)}")


class _Again:
    """Acts as in an episode that was; when its actions are over, so is the attempt."""

    facts: ClassVar[dict[str, Any]] = {}

    def __init__(self, actions: np.ndarray) -> None:
        self._left = list(actions[::-1])

    def begin(self, seed: int) -> _Again:
        return self

    def __call__(self, observation: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        action = self._left.pop()
        return action, action

    @property
    def failed(self) -> bool:
        return not self._left


def look_through(spec: Mapping[str, Any], camera: str, size: Sequence[int]) -> None:
    """Make sure that the environment has this camera, before there are episodes to film.

    Raises:
        SpecError: it has none of that name.
    """
    from robot_rl import sim
    from robot_rl.sim.gl_context import RenderError

    try:
        sim.make({**spec, "cameras": {camera: list(size)}, "observation": None}).close()
    except RenderError:
        return  # there will be no videos, and `film` says why


def film(
    folder: Path, spec: Mapping[str, Any], outcomes: Sequence[Outcome], number: int, camera: str, size: Sequence[int]
) -> list[dict[str, Any]]:
    """Videos of the first successes and of the first failures, `number` of each; what cannot be filmed is said.

    Returns:
        For each `file` (its name), `seed`, `success` and `steps`.
    """
    from tqdm import tqdm

    from robot_rl.sim.gl_context import RenderError
    from robot_rl.video import write_video

    chosen = [outcome for outcome in outcomes if outcome.success][:number]
    chosen += [outcome for outcome in outcomes if not outcome.success][:number]
    made = []
    for outcome in tqdm(chosen, desc="videos", unit="video", disable=None):
        name = f"{'success' if outcome.success else 'failure'}_{outcome.seed}.mp4"
        try:
            write_video(folder / name, _resting(replay(spec, outcome, camera, size)), float(spec["rate_hz"]))
        except RenderError as error:
            print(f"No videos: {error}")
            break
        except ReplayError as error:
            print(f"No video of this one: {error}")
            continue
        made.append({"file": name, "seed": outcome.seed, "success": outcome.success, "steps": outcome.steps})
    return made


def _smooth_image(env: Any, camera: str, size: Sequence[int]) -> np.ndarray:
    """Twice the size, averaged: edges as smooth as by multisampling, in half the time without a GPU."""
    height, width = size
    large = env.image(camera, 2 * height, 2 * width)
    return np.asarray(large.reshape(height, 2, width, 2, 3).mean(axis=(1, 3), dtype=np.float32) + 0.5, np.uint8)


def _resting(pictures: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The last picture stays for a while."""
    for picture in pictures:
        yield picture
    for _ in range(REST):
        yield picture
