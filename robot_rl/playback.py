"""Recorded episodes in simulation again: their actions executed anew (`replay`), or their states shown (`render`).

Replayed, an episode starts from its first recorded state, and how far it strays from the others is measured: not at all
in the scene it was recorded in, where the same actions lead through the same states; in a scene randomised anew, replay
shows whether they still succeed. Rendered, nothing moves by itself: each recorded state is set in turn and seen by the
environment's cameras, and all else stays as it was recorded.

Flights and lean tasks are begun from the seed of their episode, too, which decides what no state holds: the course,
what is drawn, the noise of sensors. So their pictures are made of the scene as it was recorded alone.

A session of teleoperation on the twin holds no states. It is replayed from the scene of its seed and where the arm was
first observed, measured against what was observed, and the episodes that are made of it hold states, for `render`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.attempt import Attempt
from robot_rl.datasets import ContractError, Episode, EpisodeStore, satisfies
from robot_rl.datasets.origin import origin
from robot_rl.sim.spec import family_of, load

PLAYBACKS = ("replay", "render")

FOLLOWED = 1e-6
"""An episode follows its recording when no joint or object is further from it than this, in m, rad and quaternions."""
SEEN = ("light", "colour", "geom_colour", "texture", "camera_pose", "field_of_view")
"""Entries of a randomisation that change pictures alone; the others belong to the motion, which is not made anew."""
BEGUN = ("task", "source", "seed", "success", "randomization")
"""Facts of a recorded episode that are told anew of the one made of it."""


class PlaybackError(ValueError):
    """Recorded episodes cannot be played back as asked; the message says why."""


def recorded_environment(store: EpisodeStore) -> dict[str, Any]:
    """What is known of the environment that a store was recorded in: all, the task alone, or nothing."""
    spec = store.provenance.get("environment")
    if isinstance(spec, Mapping):
        return dict(spec)
    tasks = {store.facts(index).get("task") for index in store.select().tolist()} - {"", None}
    return {"task": tasks.pop()} if len(tasks) == 1 else {}


def check(store: EpisodeStore, spec: Mapping[str, Any], how: str) -> None:
    """Refuse a store that cannot be played back in an environment.

    Raises:
        PlaybackError: it lacks episodes or what they begin with, or comes from another task, robot or controller.
    """
    there, family = recorded_environment(store), family_of(spec)
    if family == "gym":
        raise PlaybackError(f"{store.path} holds episodes of {spec['task']}; Gymnasium's tasks cannot be played back")
    if not len(chosen := store.select().tolist()):
        raise PlaybackError(f"{store.path} holds no episodes")
    known = [key for key in ("task", "robot", "controller", "rate_hz") if key in there]
    if different := [key for key in known if there[key] != spec[key]]:
        lines = ", ".join(f"{key} {there[key]}, not {spec[key]}" for key in different)
        raise PlaybackError(f"{store.path} was recorded with {lines}; leave these keys as they were recorded")
    if family != "arm" and how == "render" and spec["randomization"] != there.get("randomization"):
        raise PlaybackError(
            f"{store.path}: pictures of {spec['task']} are of the scene as it was recorded; leave randomization out"
        )
    unknown = [index for index in chosen if not isinstance(store.facts(index).get("seed"), int)]
    if store.layout.sim_state_size:
        if family != "arm" and unknown:
            raise PlaybackError(f"{store.path} lacks the seed of episodes {', '.join(map(str, unknown))}")
        return
    if family != "arm":
        raise PlaybackError(f"{store.path} lacks states of the simulator; record it with sim_state=true")
    if how == "render":
        raise PlaybackError(
            f"{store.path} lacks states of the simulator; source=replay makes episodes of it that hold them"
        )
    if "joint_position" not in store.contract.observation:
        raise PlaybackError(f"{store.path} lacks states of the simulator and joint_position, from which to begin")
    if unknown:
        raise PlaybackError(
            f"{store.path} lacks states of the simulator and, of episodes {', '.join(map(str, unknown))}, a seed, "
            "from which to begin"
        )


def seen(spec: Mapping[str, Any]) -> dict[str, Any]:
    """An environment of an arm whose randomisation is that of the pictures alone; others as they are."""
    if spec["randomization"] is None or family_of(spec) != "arm":
        return dict(spec)
    variation = load("randomization", spec["randomization"])
    return {**spec, "randomization": {key: value for key, value in variation.items() if key in ("name", *SEEN)}}


def player(env: Any, path: str | Path, how: str, redraw: bool) -> Callable[[int], Attempt]:
    """Makes an episode again for a seed, which counts the episodes of the store through, over and over.

    Args:
        env: of the task, robot and controller of the recording; other cameras and another randomisation are welcome.
        how: `replay` or `render`.
        redraw: whether the randomisation is drawn from the seed, instead of taken from the recording.

    Raises:
        PlaybackError: the environment does not take the recorded actions.
    """
    store = EpisodeStore.open(path)
    try:
        satisfies(dataclasses.replace(store.contract, observation={}), env.contract)
    except ContractError as error:
        raise PlaybackError(f"{store.path}: {error}") from error
    chosen = store.select().tolist()
    make = {"replay": replay, "render": render}[how]
    return lambda seed: make(env, store[chosen[seed % len(chosen)]], seed, redraw)


def replay(env: Any, episode: Episode, seed: int, redraw: bool) -> Attempt:
    """Execute the actions of an episode from its beginning, until the task is done or they are over.

    Facts: `deviation`, how far it strayed; `followed`, if that is nothing or, without states, the outcome is the same.
    """
    recorded = episode.sim_state
    if recorded.shape[1]:
        record = _reset(env, episode, seed, redraw)
        env.set_scene(recorded[0])
    else:
        _, info = env.reset(seed=episode.facts["seed"])
        record = info.get("randomization") or {}
        env.set_joints(episode.observation["joint_position"][0])
    observations, states, ends = [env.observe()], [env.get_state()], []
    positions = [] if recorded.shape[1] else [_positions(env)]
    for action in episode.action:
        observation, reward, terminated, truncated, info = env.step(action)
        observations.append(observation)
        states.append(env.get_state())
        positions += [] if recorded.shape[1] else [_positions(env)]
        ends.append((reward, terminated, truncated, info["success"]))
        if terminated or truncated:
            break
    steps = len(ends)
    rewards, terminations, truncations, successes = (np.asarray(column) for column in zip(*ends, strict=True))
    truncations[-1] |= not terminations[-1]
    success = bool(successes.any())
    if recorded.shape[1]:
        deviation = _apart([env.positions(row) for row in states], [env.positions(row) for row in recorded])
        followed = deviation <= FOLLOWED
    else:
        there = {name: episode.observation[name] for name in positions[0] if name in episode.observation}
        deviation = max(_apart([row[name] for row in positions], _located(name, there[name])) for name in there)
        followed = success == bool(episode.success)
    return Attempt(
        seed=seed,
        success=success,
        observations={name: np.stack([row[name] for row in observations]) for name in observations[0]},
        actions=episode.action[:steps],
        intended=episode.policy_action[:steps],
        intervened=episode.intervened[:steps],
        rewards=rewards.astype(np.float32),
        terminated=terminations,
        truncated=truncations,
        states=np.stack(states),
        source=str(episode.facts.get("source", "")),
        facts=_facts(episode, "replay", record) | {"deviation": deviation, "followed": followed},
        diverged=info.get("diverged", False),
    )


def render(env: Any, episode: Episode, seed: int, redraw: bool) -> Attempt:
    """Show the states of an episode to the cameras of an environment. What was observed beside pictures stays."""
    record = _reset(env, episode, seed, redraw)
    kept = {name: episode.observation[name] for name in _kept(env, episode)}
    made: dict[str, list[np.ndarray]] = {name: [] for name in env.contract.observation if name not in kept}
    states = []
    for state in episode.sim_state:
        env.set_scene(state)
        now = env.observe()
        for name, rows in made.items():
            rows.append(now[name])
        states.append(env.get_state())
    return Attempt(
        seed=seed,
        success=bool(episode.success),
        observations=kept | {name: np.stack(rows) for name, rows in made.items()},
        actions=episode.action,
        intended=episode.policy_action,
        intervened=episode.intervened,
        rewards=episode.reward,
        terminated=episode.terminated,
        truncated=episode.truncated,
        states=np.stack(states),
        source=str(episode.facts.get("source", "")),
        facts=_facts(episode, "render", record),
    )


def _reset(env: Any, episode: Episode, seed: int, redraw: bool) -> Mapping[str, Any]:
    """Begin an episode with the randomisation of a recorded one, or a new one. Returns what it drew."""
    options: dict[str, Any] = {}
    if family_of(env.specification) != "arm":
        options = {} if redraw else {"randomization": episode.facts.get("randomization")}
        seed = seed if redraw else episode.facts["seed"]
    elif env.specification["randomization"] is not None and not redraw:
        recorded = episode.facts.get("randomization")
        if recorded is None:
            raise PlaybackError(
                f"episode {episode.index} of {episode.store.path} does not tell what its randomisation drew"
            )
        wanted = load("randomization", env.specification["randomization"])
        options = {"randomization": {key: value for key, value in recorded.items() if key in wanted}}
    _, info = env.reset(seed=seed, options=options)
    drawn: Mapping[str, Any] = info.get("randomization") or {}
    return drawn


def _positions(env: Any) -> dict[str, np.ndarray]:
    """Of the joints [rad] and the objects [m], by the features that tell them."""
    objects = {f"{name}_pose": pose[:3] for name, pose in env.object_poses().items()}
    return {"joint_position": env.state()["joint_position"], **objects}


def _located(name: str, values: np.ndarray) -> np.ndarray:
    return values if name == "joint_position" else values[:, :3]


def _apart(ones: Sequence[np.ndarray], others: Sequence[np.ndarray] | np.ndarray) -> float:
    """Largest difference of any number, in the rows that both have."""
    return float(max(np.abs(one - other).max() for one, other in zip(ones, others, strict=False)))


def _kept(env: Any, episode: Episode) -> list[str]:
    there = episode.store.contract.observation
    return [name for name, feature in env.contract.observation.items() if name in there and not feature.is_frame]


def _facts(episode: Episode, how: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """What was said of the recorded episode, and where this one comes from."""
    told = {key: value for key, value in episode.facts.items() if key not in BEGUN}
    made = {"played": how, "source_episode": episode.index, "origin": origin(episode.store, episode.index)}
    return {**told, **made, **({"randomization": record} if record else {})}
