"""Imports of bags that give a whole store, or none: nothing is stored before every message was read.

import_whole("bag", robot_for("panda", None), "lift.zarr")       # a new store, or more episodes for one
convert_bag("bag", "lift.zarr")                                  # a new store, also of a bag that was made of one
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robot_rl.datasets import Contract, EpisodeStore
from robot_rl.datasets.contract import equal
from robot_rl.datasets.disk import explain_write_errors
from robot_rl.datasets.errors import StoreError
from robot_rl.datasets.formats.trajectory import Imported as ImportedStore
from robot_rl.datasets.formats.trajectory import ImportFailed, Progress
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.recording.bag import Bag, BagError
from robot_rl.hardware.recording.bag_import import Imported, import_bag, robot_for
from robot_rl.hardware.recording.store_import import import_store_bag, is_of_store
from robot_rl.hardware.robot_file import RobotFile


def import_whole(
    path: str | Path, robot: RobotFile | VehicleFile, output: str | Path, namespace: str = "",
    facts: Mapping[str, Any] | None = None, encoding: str | Mapping[str, str] = "jpeg", skip_bad: bool = False,
    progress: Progress | None = None,
) -> list[Imported]:  # fmt: skip
    """Import a recording as `import_bag` does, but only when none of its episodes is bad.

    The episodes go into a store beside, which takes its place when it is complete. Where there is a store already, that
    one is dropped again and the import repeated into it.

    Args:
        skip_bad: import the others when some episodes are bad.
        progress: called with the number of episodes done, twice: how many there are is not known before.

    Raises:
        ImportFailed: episodes are bad, and are not to be skipped or are all that there is.
        BagError: the bag cannot be read.
        ContractError: the store has another contract.
    """
    path, output = Path(path), Path(output)
    if output.exists():
        equal(EpisodeStore(output).contract, robot.contract)
    beside = output.with_name(f".{output.name}.importing")
    with explain_write_errors(output, "writing the imported store"):
        shutil.rmtree(beside, ignore_errors=True)
        try:
            done = _import(path, robot, beside, namespace, facts, encoding, progress)
            bad = [(f"episode {episode.number}", episode.problem) for episode in done if episode.bad]
            if bad and (not skip_bad or len(bad) == len(done)):
                raise ImportFailed(path, bad, len(done))
            if not output.exists():
                beside.rename(output)
                return done
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return _import(path, robot, output, namespace, facts, encoding, progress)


def convert_bag(
    path: str | Path, output: str | Path, *, robot: str | None = None, encoding: str = "png", skip_bad: bool = False,
    progress: Progress | None = None,
) -> ImportedStore:  # fmt: skip
    """Make a new store of a bag.

    Args:
        output: must not exist; appears when it is complete.
        robot: name or path of its file; by default as noted in the bag.
        encoding: of the frames.
        skip_bad: import the others when some episodes are bad.

    Raises:
        StoreError: the output exists, or nothing says which robot it is.
        As `import_whole`.
    """
    if Path(output).exists():
        raise StoreError(f"{output} exists already. Choose another path.")
    bag = Bag(path)
    if is_of_store(bag):
        return import_store_bag(
            path, output, robot=robot or "", encoding=encoding, skip_bad=skip_bad, progress=progress
        )  # fmt: skip
    found = noted_robot(bag, robot)
    done = import_whole(path, found, output, encoding=encoding, skip_bad=skip_bad, progress=progress)
    left_out = [(f"episode {episode.number}", episode.problem) for episode in done if episode.index is None]
    return ImportedStore(EpisodeStore(output), tuple(left_out))


def noted_robot(bag: Bag, robot: str | None = None, contract: str | Path | None = None) -> RobotFile | VehicleFile:
    """The robot of a bag, restricted to a contract; what is not given is as this package noted it in the bag.

    Raises:
        BagError: nobody says which robot it is.
    """
    notes = bag.facts
    name = robot or notes.get("robot")
    if name is None:
        raise BagError(
            f"{bag.path} does not say which robot it is of: give the name of a robot or the path of its file"
        )
    noted = Contract.from_dict(json.loads(notes["contract"])) if "contract" in notes else None
    return robot_for(name, contract or noted)


def _import(
    path: Path, robot: RobotFile | VehicleFile, output: Path, namespace: str, facts: Mapping[str, Any] | None,
    encoding: str | Mapping[str, str], progress: Progress | None,
) -> list[Imported]:  # fmt: skip
    done = []
    for episode in import_bag(path, robot, output, namespace, facts, encoding):
        done.append(episode)
        if progress is not None:
            progress(len(done), len(done))
    return done
