"""The folder of a training run: whether a command begins there, goes on there, or finds its work done."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml

from robot_rl.atomic_folder import recover
from robot_rl.checkpoint import ResumeError
from robot_rl.datasets import EpisodeStore
from robot_rl.differences import differences

Stage = Literal["begin", "resume", "finished"]

FREE = (
    "output", "resume", "overwrite", "device", "threads", "dataset", "include_failures", "episodes", "processes",
    "success.path", "actors", "algorithm.demonstrations", "algorithm.device", "algorithm.speed", "algorithm.handback",
    "algorithm.settings", "training.workers", "training.log_every", "training.save_every",
)  # fmt: skip
"""Configuration keys that may change on a resume: they say where and how a training runs, not what it computes, or its
recordings say it (which data there are, and which episodes of them)."""

_OURS = {
    "config.yaml", "metrics.json", "metrics.csv", "tensorboard", "checkpoints", "evaluation", "offline", "report.html",
    "plots", "videos", "onnx", "replay.zarr", "actors", "actors.secret",
}  # fmt: skip


@contextmanager
def claimed(folder: Path, main: bool = True) -> Iterator[None]:
    """Inside, no other run trains in this folder; what a kill left half done in its checkpoints is put right.

    The folder is gone again afterwards if it was made for this, and nothing was begun in it.

    Args:
        main: whether this is the main process of the run; the others leave it to that one.

    Raises:
        ResumeError: another one does already.
    """
    if not main:
        yield
        return
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise ResumeError(
                f"process {lock.read().strip()} is training in {folder}; choose another output="
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        for name in ("last", "best"):
            recover(folder / "checkpoints" / name)
        try:
            yield
        finally:
            if made and [path.name for path in folder.iterdir()] == [".lock"]:
                (folder / ".lock").unlink()
                folder.rmdir()


def judge(
    folder: Path, config: Mapping[str, Any], recordings: list[dict[str, Any]], resume: bool, overwrite: bool
) -> Stage:
    """What the command is to do with the folder. Changes nothing in it.

    Args:
        config: composed, plain types.
        recordings: `Recordings.describe()`.

    Raises:
        ResumeError: the folder holds something else, or a training of other settings or data: all differences.
    """
    entries = _entries(folder)
    if not entries or overwrite:
        refuse_others(folder)
    elif "config.yaml" not in entries:
        raise ResumeError(f"{folder} holds {', '.join(sorted(entries))}, no training run; choose another output=")
    state = None if overwrite else _state(folder)
    if state is None:
        _refuse_loss(folder, [config.get("warm_start"), *(part.get("path") for part in recordings)], overwrite)
        return "begin"
    there = yaml.safe_load((folder / "config.yaml").read_text())
    different = differences(there, json.loads(json.dumps(config)), FREE)
    paths = tuple(f"{number}.path" for number in range(len(recordings)))
    if data := differences(_numbered(state["recordings"]), _numbered(recordings), paths):
        stores = (", ".join(str(part.get("path")) for part in parts) for parts in (state["recordings"], recordings))
        different += [f"dataset: {' against '.join(stores)}", *data]
    if different:
        lines = "\n".join(f"  - {line}" for line in different)
        raise ResumeError(
            f"{folder} holds a training with other settings (there against asked):\n{lines}\n"
            "Choose another output=, or give the same settings to go on, or overwrite=true to begin anew."
        )
    finished = state["steps"] >= config["training"]["steps"]
    if not resume and not finished:
        raise ResumeError(
            f"{folder} holds a training stopped after {state['steps']} steps; resume=true goes on with it, "
            "overwrite=true begins anew."
        )
    return "finished" if finished else "resume"


def refuse_others(folder: Path) -> None:
    """Raise `ResumeError` if the folder holds anything that no training leaves."""
    if other := _entries(folder) - _OURS:
        raise ResumeError(f"{folder} holds {', '.join(sorted(other))}, no training run; choose another output=")


def _refuse_loss(folder: Path, inputs: Iterable[str | None], overwrite: bool) -> None:
    """Raise `ResumeError` where a beginning would remove what the command reads, or episodes without being told to."""
    root = folder.resolve()
    removed = {root / name for name in _OURS}
    for name in filter(None, inputs):
        path = Path(name).resolve()
        if path.exists() and (path == root or removed & {path, *path.parents}):
            raise ResumeError(f"{name} lies where a new training replaces what is in {folder}; choose another output=")
    replay = folder / "replay.zarr"
    if not overwrite and replay.exists() and (kept := len(EpisodeStore.open(replay))):
        raise ResumeError(
            f"{replay} holds {kept} episodes, and there are no checkpoints to go on with; choose another output=, or "
            "overwrite=true to remove them and begin anew."
        )


def begin(folder: Path, config: Mapping[str, Any]) -> None:
    """Clear what an earlier run left, and write `config.yaml`."""
    for name in _OURS:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=False))


def _entries(folder: Path) -> set[str]:
    """Names in the folder. Episode stores may lie beside a training; none but its own replay is ever touched."""
    present = folder.iterdir() if folder.exists() else ()
    return {path.name for path in present if not path.name.startswith(".") and path.suffix != ".zarr"}


def _state(folder: Path) -> dict[str, Any] | None:
    path = folder / "checkpoints" / "last" / "training.json"
    return dict(json.loads(path.read_text())) if path.exists() else None


def _numbered(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {str(number): item for number, item in enumerate(items)}
