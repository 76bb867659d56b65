"""`robot-rl data convert`: LeRobot, robomimic, diffusion_policy and rosbag2, to and from episode stores."""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_rl.data_edit import progress_bar

if TYPE_CHECKING:
    from robot_rl.datasets import EpisodeStore

FORMATS = ("lerobot", "robomimic", "diffusion_policy", "rosbag2")


def add_verb(verbs: Any) -> None:
    """Add `convert` to the parser of `robot-rl data`."""
    convert = verbs.add_parser(
        "convert",
        help="to and from LeRobot v3, robomimic HDF5, diffusion_policy Zarr and rosbag2",
        description="Make an episode store of a foreign data set, or with --to a foreign data set of an episode store.",
    )
    convert.add_argument("source", type=Path, help="the format of a foreign data set is recognised")
    convert.add_argument("output", type=Path, help="must not exist; appears when it is complete")
    convert.add_argument("--to", choices=FORMATS, help="of an episode store")
    reading = convert.add_argument_group("from other formats")
    reading.add_argument("--skip-bad", action="store_true", help="leave damaged episodes out instead of giving up")
    reading.add_argument("--encoding", help="of the frames: jpeg, png, lz4 or raw; default: jpeg of video, else png")
    reading.add_argument("--rate", type=float, help="rows per second, where the data set does not say")
    reading.add_argument("--mask", help="of robomimic: only the demonstrations of this filter")
    writing = convert.add_argument_group("to other formats")
    writing.add_argument("--pictures", action="store_true", help="to LeRobot: embed exact PNG pictures, no video")
    writing.add_argument("--codec", default="libsvtav1", help="to LeRobot: libsvtav1 (default) or libx264")
    bags = convert.add_argument_group("rosbag2, both ways")
    bags.add_argument("--robot", help="name or path of its file; from a bag: only where the bag does not say")
    bags.add_argument("--storage", default="mcap", choices=("mcap", "sqlite3"), help="to rosbag2; default: mcap")
    convert.set_defaults(run=_convert)


def recognise(path: Path) -> str:
    """The format of a data set.

    Raises:
        ValueError: it is none that is known.
    """
    if (path / "meta" / "info.json").is_file():
        return "lerobot"
    if (path / "zarr.json").is_file():
        attributes = json.loads((path / "zarr.json").read_bytes()).get("attributes", {})
        return "store" if attributes.get("format") == "robot_rl.episodes" else "diffusion_policy"
    if path.is_dir() and any((path / name).exists() for name in (".zgroup", "data/.zgroup", "meta/.zgroup")):
        return "diffusion_policy"
    if path.is_file() and path.suffix in (".hdf5", ".h5"):
        return "robomimic"
    if path.is_file() and path.suffix == ".zip":
        return "diffusion_policy"
    if path.suffix in (".mcap", ".db3") or (path.is_dir() and _is_bag(path)):
        return "rosbag2"
    found = "there is nothing" if not path.exists() else "it is none of them"
    raise ValueError(
        f"{path}: expected an episode store, a LeRobot data set (meta/info.json), robomimic's .hdf5, "
        f"diffusion_policy's Zarr or a rosbag2 recording; {found}"
    )


def _is_bag(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in ("*.mcap", "*.db3", "*.mcap.zstd", "*.db3.zstd"))


def _convert(options: argparse.Namespace) -> int:
    kind = recognise(options.source)
    if (kind == "store") != (options.to is not None):
        advice = "say by --to which format to write" if kind == "store" else f"--to is for stores; this is {kind}"
        raise ValueError(f"{options.source}: {advice}")
    return _write(options) if kind == "store" else _read(options, kind)


def _read(options: argparse.Namespace, kind: str) -> int:
    from robot_rl.datasets.formats import diffusion_policy, lerobot, robomimic
    from robot_rl.hardware.recording import whole_import

    rate = {} if options.rate is None else {"rate_hz": options.rate}
    common: dict[str, Any] = {"skip_bad": options.skip_bad}
    common |= {"encoding": options.encoding} if options.encoding else {}
    with progress_bar(f"reading {kind}", 0) as progress:
        if kind == "lerobot":
            made = lerobot.read(options.source, options.output, progress=progress, **common)
        elif kind == "robomimic":
            made = robomimic.read(
                options.source, options.output, mask=options.mask, progress=progress, **common, **rate
            )
        elif kind == "rosbag2":
            made = whole_import.convert_bag(
                options.source, options.output, robot=options.robot, progress=progress, **common
            )
        else:
            made = diffusion_policy.read(options.source, options.output, progress=progress, **common, **rate)
    for name, reason in made.bad:
        print(f"left out {name}: {reason}")
    print(f"{options.output}: {len(made.store)} episodes, {made.store.num_steps} steps, from {kind}")
    return 0


def _write(options: argparse.Namespace) -> int:
    from robot_rl.datasets import EpisodeStore
    from robot_rl.datasets.formats import diffusion_policy, lerobot, robomimic

    store = EpisodeStore.open(options.source)
    with progress_bar(f"writing {options.to}", len(store)) as progress:
        if options.to == "lerobot":
            lerobot.write(store, options.output, video=not options.pictures, codec=options.codec, progress=progress)
        elif options.to == "robomimic":
            robomimic.write(store, options.output, progress=progress, **_robosuite(store))
        elif options.to == "rosbag2":
            _export_bag(store, options, progress)
        else:
            diffusion_policy.write(store, options.output, progress=progress)
    print(f"{options.output}: {len(store)} episodes, {store.num_steps} steps, for {options.to}")
    return 0


def _export_bag(store: EpisodeStore, options: argparse.Namespace, progress: Any) -> None:
    from robot_rl.hardware.recording.bag_export import export_bag

    if options.robot is None:
        raise ValueError("--robot is missing: give the name of a robot or the path of its file, which names the topics")
    export_bag(store, options.robot, options.output, options.storage, progress)


def _robosuite(store: EpisodeStore) -> dict[str, Any]:
    """What robomimic's own evaluation and playback need of a store recorded in `robot_rl.sim`."""
    spec = store.provenance.get("environment")
    if not spec or "converted_from" in store.provenance:
        return {}
    from robot_rl.datasets.formats.robomimic import ROBOSUITE
    from robot_rl.sim.arm import ArmEnv
    from robot_rl.sim.spec import family_of, load

    if family_of(spec) != "arm":
        return {}
    env = ArmEnv({**spec, "cameras": {}, "observation": None, "rate_hz": None})  # whatever the rate, one model
    task, robot = load("task", spec["task"]), load("robot", spec["robot"])
    flat = 1 + env.model.nq + env.model.nv

    def states(rows: np.ndarray) -> np.ndarray:
        # The environment's own step count comes first, then MuJoCo's time, qpos and qvel.
        return rows[:, 1 : 1 + flat]

    kwargs: dict[str, Any] = {
        "robots": [robot["model"]] * task["robots"], "control_freq": spec["rate_hz"], "has_renderer": False,
        "ignore_done": True, "use_object_obs": True, **task.get("arguments", {}),
    }  # fmt: skip
    found: dict[str, Any] = {
        "env_args": {
            "env_name": task["environment"],
            "env_version": version("robosuite"),
            "type": ROBOSUITE,
            "env_kwargs": kwargs,
        },
        "model_file": env.arm_model.environment.sim.model.get_xml(),
    }
    env.close()
    return {**found, "states": states} if store.layout.sim_state_size else found
