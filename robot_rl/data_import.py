"""`robot-rl data import`: ROS 2 recordings become episodes, see `robot_rl.hardware.recording.bag_import`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from robot_rl.data_edit import progress_bar

OPTIONS = {
    "robot": "name of a robot, or path of its file; default: as noted in the bag",
    "output": "the store; made where there is none, else added to",
    "contract": "of a policy's run or checkpoint, a store or a file; default: as noted in the bag, else the robot's",
    "namespace": "of the nodes and topics in a bag of another recorder",
    "encoding": "of pictures in a new store: jpeg, png, lz4 or raw",
    "skip_bad": "true leaves damaged episodes out; by default nothing is imported when there are some",
}


def add_import_verb(verbs: Any) -> None:
    """Add `import` to the parser of `robot-rl data`."""
    lines = [f"  {key:10} {text}" for key, text in OPTIONS.items()]
    parser = verbs.add_parser(
        "import", help="episodes from a rosbag2 folder, .mcap or .db3: robot=panda output=data/lift.zarr",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["keys:", *lines, "  any other  a fact of every episode: task=lift source=teleop"]),
    )  # fmt: skip
    parser.add_argument("bag", type=Path)
    parser.add_argument("settings", nargs="+", metavar="key=value")
    parser.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> int:
    from robot_rl.hardware.recording.bag import Bag
    from robot_rl.hardware.recording.black_box import BlackBoxError, recover
    from robot_rl.hardware.recording.store_import import is_of_store
    from robot_rl.hardware.recording.whole_import import import_whole, noted_robot

    settings = dict(_pair(item) for item in options.settings)
    known = {key: settings.pop(key) for key in OPTIONS if key in settings}
    if "output" not in known:
        raise ValueError("output= is missing: give the store, for example output=data/lift.zarr")
    bag, output = Bag(options.bag), str(known["output"])
    if is_of_store(bag):
        raise ValueError(
            f"{options.bag} was made of a store: `robot-rl data convert {options.bag} {output}` restores it"
        )
    if bag.facts:
        try:
            if recover(options.bag):
                print(f"{options.bag} was not closed by its recorder: recovered")
        except BlackBoxError as error:
            print(f"{error}; importing what is there")
    with progress_bar("reading", 0) as progress:
        done = import_whole(
            options.bag, noted_robot(bag, known.get("robot"), known.get("contract")), output,
            str(known.get("namespace", "")), settings, str(known.get("encoding", "jpeg")),
            known.get("skip_bad") is True, progress,
        )  # fmt: skip
    for episode in done:
        if episode.index is None:
            print(f"episode {episode.number}: not stored: {episode.problem}")
        else:
            success = episode.facts.get("success")
            verdict = {True: "success", False: "failure"}.get(success, "no verdict")  # type: ignore[arg-type]
            print(f"episode {episode.number}: number {episode.index} of the store, {episode.steps} steps, {verdict}")
    print(f"{output}: {sum(episode.index is not None for episode in done)} episodes imported")
    return 0


def _pair(item: str) -> tuple[str, Any]:
    key, equals, value = item.partition("=")
    if not (key and equals):
        raise ValueError(f"{item}: expected key=value, for example robot=panda")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
