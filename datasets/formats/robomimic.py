"""robomimic's HDF5 (0.3 to 0.5): `data/demo_i` with actions, states, rewards, dones, obs and next_obs; `mask/<name>`.

robomimic keeps T observations and T next observations. The store's T + 1 rows are the observations and the last of
`next_obs`; without `next_obs` the last observation stands twice, and the journal says so (`final_row`).

What robomimic has no place for is written beside it, where its reader does not look: the contract and the facts as
attributes, stamps and proposed actions in a group `robot_rl` of each demonstration. Read back, the store is the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.datasets.contract import Contract, Feature
from robot_rl.datasets.errors import StoreError
from robot_rl.datasets.formats.optional import h5py
from robot_rl.datasets.formats.trajectory import (
    BadEpisode,
    Imported,
    Progress,
    Trajectory,
    import_trajectories,
    trajectories,
)
from robot_rl.datasets.layout import RESERVED
from robot_rl.datasets.store import Episode, EpisodeStore

ROBOSUITE = 1
"""robomimic's number for the kind of simulator (`EnvType.ROBOSUITE_TYPE`)."""


def read(
    path: str | Path, output: str | Path, *, mask: str | None = None, rate_hz: float = 20.0, encoding: Any = "png",
    skip_bad: bool = False, progress: Progress | None = None,
) -> Imported:  # fmt: skip
    """Make a store of a robomimic data set.

    Args:
        encoding: of the frames; PNG keeps them exactly.
        mask: a filter of `mask/`; by default all demonstrations.
        rate_hz: of a data set that does not say (robomimic's are robosuite's 20 Hz unless `control_freq` is given).

    Raises:
        StoreError: the file is no data set of robomimic.
        ImportFailed: demonstrations are bad.
    """
    path = Path(path)
    with _open(path) as file:
        if "data" not in file:
            raise StoreError(f"{path} has no group `data`: it is not a data set of robomimic.")
        data = file["data"]
        names = _names(file, mask)
        env_args = json.loads(data.attrs.get("env_args", "{}"))
        ours = json.loads(data.attrs.get("robot_rl", "{}"))
        rate_hz = float(env_args.get("env_kwargs", {}).get("control_freq", rate_hz))
        contract = Contract.from_dict(ours["contract"]) if ours else _contract(data[names[0]], env_args, rate_hz)
        states = data[names[0]].get("robot_rl/states", data[names[0]].get("states"))
        provenance = {**ours.get("provenance", {}), "converted_from": {"format": "robomimic", "env_args": env_args}}
        masks = {name: {demo.decode() for demo in file[f"mask/{name}"][:]} for name in file.get("mask", ())}
        loaders: dict[str, Callable[[], Trajectory]] = {
            name: partial(_trajectory, data[name], name, contract, [mask for mask in masks if name in masks[mask]])
            for name in names
        }
        return import_trajectories(
            path, output, contract, loaders, provenance, encoding=encoding,
            streams=ours.get("streams", ()), sim_state_size=0 if states is None else int(states.shape[1]),
            skip_bad=skip_bad, progress=progress,
        )  # fmt: skip


def write(
    store: EpisodeStore, path: str | Path, *, env_args: Mapping[str, Any] | None = None,
    model_file: str | None = None, states: Callable[[np.ndarray], np.ndarray] | None = None,
    masks: Mapping[str, Any] | None = None, progress: Progress | None = None,
) -> None:  # fmt: skip
    """Write a store as a robomimic data set.

    Args:
        env_args: for robomimic's own evaluation; by default what the store was converted from, or the name of its task.
        model_file: MJCF of the scene, for robomimic's playback.
        states: makes robosuite's flat states (time, qpos, qvel) of the store's [T, S]; by default they are written as
            they are, which is right for what came from robomimic.
        masks: names of filters, and the episodes of each; `successful` and those that the fact `masks` of episodes
            names are written anyway.
    """
    path = Path(path)
    if path.exists():
        raise StoreError(f"{path} exists already. Choose another path.")
    beside = path.with_name(f".{path.name}.writing")
    try:
        with h5py().File(beside, "w") as file:
            data = file.create_group("data")
            data.attrs["total"] = store.num_steps
            data.attrs["env_args"] = json.dumps(_env_args(store) if env_args is None else dict(env_args))
            ours = {key: value for key, value in store.layout.to_dict().items() if key not in ("format", "version")}
            data.attrs["robot_rl"] = json.dumps(ours)
            for episode in trajectories(store, progress):
                demo = data.create_group(f"demo_{episode.index}")
                _write(demo, episode)
                if store.layout.sim_state_size:
                    recorded = episode.sim_state[:-1]
                    demo.create_dataset("states", data=recorded if states is None else states(recorded))
                if model_file is not None:
                    demo.attrs["model_file"] = model_file
            for name, episodes in {"successful": store.select(success=True), **_masks(store), **(masks or {})}.items():
                names = [f"demo_{int(number)}".encode() for number in episodes]
                file.create_dataset(f"mask/{name}", data=np.array(names, dtype="S"))
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)


def _open(path: Path) -> Any:
    if not path.is_file():
        raise StoreError(f"{path}: there is no such file.")
    try:
        return h5py().File(path, "r")
    except OSError as error:
        raise StoreError(f"{path} is not readable as HDF5: {error}") from error


def _names(file: Any, mask: str | None) -> list[str]:
    """Demonstrations in the order of their numbers."""
    names = [name for name in file["data"] if name.startswith("demo_")]
    if mask is not None:
        masks = list(file.get("mask", ()))
        if mask not in masks:
            raise StoreError(f"no mask {mask!r}; there are: {', '.join(masks) or 'none'}")
        wanted = {name.decode() for name in file[f"mask/{mask}"][:]}
        names = [name for name in names if name in wanted]
    if not names:
        raise StoreError(f"{file.filename} holds no demonstration" + (f" of mask {mask!r}" if mask else ""))
    return sorted(names, key=lambda name: int(name.removeprefix("demo_")))


def _contract(demo: Any, env_args: Mapping[str, Any], rate_hz: float) -> Contract:
    observation = {}
    for name, values in demo["obs"].items():
        shape, dtype = values.shape[1:], values.dtype
        if name in RESERVED:
            raise StoreError(f"obs/{name}: this name is taken by the episode store; rename the data set first")
        if dtype == np.uint8 and len(shape) == 3 and shape[2] == 3:
            observation[name] = Feature(name, shape, "uint8", kind="image")
        else:
            observation[name] = Feature(name, shape, "float32" if dtype.kind == "f" else dtype.name)
    size = demo["actions"].shape[1]
    action = {"action": Feature("action", (size,), kind="action", lower=(-1.0,) * size, upper=(1.0,) * size)}
    name = str(env_args.get("env_name") or "robomimic")
    controllers = env_args.get("env_kwargs", {}).get("controller_configs") or {}
    return Contract(name, rate_hz, observation, action, str(controllers.get("type", "")).lower())


def _trajectory(demo: Any, name: str, contract: Contract, masks: list[str]) -> Trajectory:
    try:
        action = np.asarray(demo["actions"], np.float32)
        steps, obs, next_obs = len(action), demo["obs"], demo.get("next_obs")
        if missing := sorted(set(contract.observation) - set(obs)):
            raise BadEpisode(f"obs lacks {', '.join(missing)}")
        columns = {key: _rows(obs[key], None if next_obs is None else next_obs.get(key), steps) for key in obs}
        ours = demo.get("robot_rl", {})
        facts = json.loads(demo.attrs.get("robot_rl", "{}"))
        done = bool(np.asarray(demo["dones"])[-1]) if "dones" in demo else False
        reward = np.asarray(demo["rewards"]) if "rewards" in demo else np.zeros(steps)
        if not facts:
            # Without rewards, what robomimic is trained on counts as demonstrated well.
            facts = {"source": "teleop", "success": "rewards" not in demo or bool(reward.max(initial=0) > 0)}
            facts |= {} if next_obs is not None else {"final_row": "repeated"}
            facts |= {"masks": masks} if masks else {}
        states = demo.get("states")
        known = ours["states"][:] if "states" in ours else None
        if states is not None and known is None:
            known = np.concatenate([states[:], states[-1:]])
        return Trajectory(
            name,
            {key: values() for key, values in columns.items() if not contract.observation[key].is_frame},
            action,
            frames={key: _frames(columns[key]) for key in contract.cameras},
            reward=reward,
            terminated=bool(demo.attrs.get("terminated", done)),
            truncated=bool(demo.attrs.get("truncated", False)),
            success=facts.pop("success", None),
            facts=facts,
            stamps={key: values[:] for key, values in ours.get("stamps", {}).items()},
            sim_state=known,
            policy_action=ours["policy_action"][:] if "policy_action" in ours else None,
            intervened=ours["intervened"][:] if "intervened" in ours else None,
        )
    except (KeyError, OSError, IndexError, ValueError) as error:
        raise BadEpisode(f"{type(error).__name__}: {error}") from error


def _rows(obs: Any, next_obs: Any, steps: int) -> Callable[[], np.ndarray]:
    if len(obs) != steps:
        raise BadEpisode(f"{obs.name} has {len(obs)} rows, there are {steps} actions")

    def rows() -> np.ndarray:
        final = obs[-1:] if next_obs is None else next_obs[-1:]
        return np.concatenate([obs[:], final])

    return rows


def _frames(rows: Callable[[], np.ndarray]) -> Iterator[np.ndarray]:
    yield from rows()


def _masks(store: EpisodeStore) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number in range(len(store)):
        for name in store.facts(number).get("masks", ()):
            found.setdefault(str(name), []).append(number)
    return found


def _env_args(store: EpisodeStore) -> dict[str, Any]:
    converted = store.provenance.get("converted_from", {})
    if converted.get("env_args"):
        return dict(converted["env_args"])
    environment = store.provenance.get("environment") or {}
    kwargs = {"control_freq": store.contract.rate_hz, "robot_rl": environment}
    return {"env_name": str(environment.get("task", store.contract.name)), "type": ROBOSUITE, "env_kwargs": kwargs}


def _write(demo: Any, episode: Episode) -> None:
    steps = episode.length
    demo.attrs["num_samples"] = steps
    demo.attrs["robot_rl"] = json.dumps(episode.facts)
    demo.attrs["terminated"], demo.attrs["truncated"] = bool(episode.terminated[-1]), bool(episode.truncated[-1])
    demo.create_dataset("actions", data=episode.action)
    demo.create_dataset("rewards", data=episode.reward)
    dones = np.zeros(steps, np.int64)
    dones[-1] = 1
    demo.create_dataset("dones", data=dones)
    for name in episode.observation:
        rows = episode.observation[name]
        demo.create_dataset(f"obs/{name}", data=rows[:-1])
        demo.create_dataset(f"next_obs/{name}", data=rows[1:])
    ours = demo.create_group("robot_rl")
    if episode.store.layout.sim_state_size:
        ours.create_dataset("states", data=episode.sim_state)
    ours.create_dataset("policy_action", data=episode.policy_action)
    ours.create_dataset("intervened", data=episode.intervened)
    for name, stamps in episode.timestamp.items():
        ours.create_dataset(f"stamps/{name}", data=stamps)
