"""The verbs of `robot-rl data` that make stores of episodes of other stores: merge, split, delete, trim."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from robot_rl.datasets import Episode, EpisodeStore
    from robot_rl.datasets.edit import Part

IDLE = 0.02
"""Motion of no more than this share of an action's range in the recording counts as standing still."""


def add_verbs(verbs: Any) -> None:
    """Add them to the parser of `robot-rl data`."""
    merge = verbs.add_parser("merge", help="one new store of the episodes of several")
    merge.add_argument("stores", type=Path, nargs="+", metavar="store")
    merge.add_argument("--output", type=Path, required=True, metavar="new store")
    merge.set_defaults(run=_merge)

    split = verbs.add_parser("split", help="two new stores: some episodes, and the others")
    split.add_argument("store", type=Path)
    split.add_argument("--outputs", type=Path, nargs=2, required=True, metavar=("first", "second"))
    chosen = split.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--episodes", help="of the first store, for example 0,3,7-9")
    chosen.add_argument(
        "--share", type=float, help="of all recordings with their copies, drawn at random for the first store"
    )
    split.add_argument("--seed", type=int, default=0, help="of the draw")
    split.set_defaults(run=_split)

    delete = verbs.add_parser("delete", help="take episodes out of a store, which is kept beside as it was")
    delete.add_argument("store", type=Path)
    delete.add_argument("--episodes", required=True, help="for example 0,3,7-9")
    delete.set_defaults(run=_delete)

    trim = verbs.add_parser("trim", help="cut episodes at their ends; the store is kept beside as it was")
    trim.add_argument("store", type=Path)
    trim.add_argument("--episodes", default="all", help="for example 0,3,7-9; default: all")
    trim.add_argument("--start", type=float, default=0.0, help="seconds to cut off at the beginning")
    trim.add_argument("--end", type=float, default=0.0, help="seconds to cut off at the end")
    trim.add_argument("--idle", action="store_true", help="cut off where the actions stand still at either end")
    trim.add_argument("--margin", type=float, default=0.2, help="seconds to keep of that; default: 0.2")
    trim.set_defaults(run=_trim)

    resample = verbs.add_parser("resample", help="a new store at another rate, image size or encoding")
    resample.add_argument("store", type=Path)
    resample.add_argument("--output", type=Path, required=True, metavar="new store")
    resample.add_argument("--rate", type=float, help="rows per second")
    resample.add_argument("--size", type=int, nargs=2, metavar=("height", "width"), help="of the pictures")
    resample.add_argument(
        "--crop", type=int, nargs=4, metavar=("top", "left", "height", "width"), help="to keep of the pictures, before"
    )
    resample.add_argument("--cameras", nargs="+", help="that size and crop apply to; default: all")
    resample.add_argument("--encoding", help="of the frames: jpeg, png, lz4 or raw; default: as before")
    resample.set_defaults(run=_resample)


def numbers(text: str, count: int) -> list[int]:
    """Read `0,3,7-9` or `all`; a number that does not exist is an error before anything is touched."""
    if text == "all":
        return list(range(count))
    chosen: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            found = range(int(first), int(last if dash else first) + 1)
        except ValueError:
            found = range(0)
        if not found:
            raise ValueError(f"--episodes {text}: expected numbers such as 0,3,7-9")
        if not 0 <= found[0] <= found[-1] < count:
            raise ValueError(f"--episodes {text}: {part} is not among the {count} episodes, numbered from 0")
        chosen += found
    return chosen


def moving(episode: Episode, margin: float) -> slice:
    """The steps of an episode without those at its ends where the actions stand still.

    Args:
        margin: seconds to keep of standing still.
    """
    action = episode.action
    spread = np.ptp(action, axis=0)
    changes = np.abs(np.diff(action, axis=0)) > IDLE * np.where(spread > 0, spread, np.inf)
    steps = np.flatnonzero(changes.any(axis=1))
    if not len(steps):
        return slice(0, episode.length)
    kept = round(margin * episode.store.contract.rate_hz)
    return slice(max(int(steps[0]) - kept, 0), min(int(steps[-1]) + 2 + kept, episode.length))


def _merge(options: argparse.Namespace) -> int:
    from robot_rl.datasets import EpisodeStore, edit

    parts = [part for path in options.stores for part in edit.whole(EpisodeStore.open(path))]
    _assemble(options.output, parts)
    return 0


def _split(options: argparse.Namespace) -> int:
    from robot_rl.datasets import EpisodeStore, edit

    store = EpisodeStore.open(options.store)
    if options.share is not None:
        _, found = store.split(options.share, options.seed, range(len(store)))
        first = found.tolist()
    else:
        first = numbers(options.episodes, len(store))
    second = sorted({*range(len(store))} - {*first})
    if not (first and second):
        raise ValueError(f"a split leaves episodes on both sides; this one has {len(first)} and {len(second)}")
    if (taken := [path for path in options.outputs if path.exists()]) or options.outputs[0] == options.outputs[1]:
        raise ValueError(f"{(taken or options.outputs)[0]} exists already or is named twice; choose other paths")
    for output, chosen in zip(options.outputs, (first, second), strict=True):
        _assemble(output, edit.whole(store, chosen))
    return 0


def _delete(options: argparse.Namespace) -> int:
    from robot_rl.datasets import EpisodeStore, edit

    store = EpisodeStore.open(options.store)
    gone = {*numbers(options.episodes, len(store))}
    _replace(store, edit.whole(store, (number for number in range(len(store)) if number not in gone)))
    return 0


def _trim(options: argparse.Namespace) -> int:
    from robot_rl.datasets import EpisodeStore
    from robot_rl.datasets.edit import Part

    if not all(0 <= seconds < np.inf for seconds in (options.start, options.end, options.margin)):
        raise ValueError("--start, --end and --margin: expected seconds of at least 0")
    if not (options.start or options.end or options.idle):
        raise ValueError("nothing to cut: give --start or --end in seconds, or --idle")
    store = EpisodeStore.open(options.store)
    chosen = {*numbers(options.episodes, len(store))}
    rate = store.contract.rate_hz
    parts, cut = [], 0
    for number, episode in enumerate(store):
        steps = slice(0, episode.length)
        if number in chosen:
            steps = moving(episode, options.margin) if options.idle else steps
            start = max(steps.start, round(options.start * rate))
            steps = slice(start, min(steps.stop, episode.length - round(options.end * rate)))
            if steps.stop - steps.start < 1:
                raise ValueError(f"episode {number} has {episode.length / rate:.2f} s: nothing would be left of it")
        cut += episode.length - (steps.stop - steps.start)
        parts.append(Part(store, number, steps.start, steps.stop))
    if not cut:
        print(f"{store.path}: nothing stands still at the ends of these episodes; left as it is")
        return 0
    _replace(store, parts)
    print(f"{cut} of {store.num_steps} steps were cut off")
    return 0


def _resample(options: argparse.Namespace) -> int:
    from robot_rl.datasets import EpisodeStore
    from robot_rl.datasets.resample import View, resample

    store = EpisodeStore.open(options.store)
    view = View(options.crop and tuple(options.crop), options.size and tuple(options.size))
    views = dict.fromkeys(options.cameras or store.contract.cameras, view) if view != View() else {}
    if not (views or options.rate or options.encoding):
        raise ValueError("nothing to change: give --rate, --size, --crop or --encoding")
    with progress_bar("resampling", len(store)) as progress:
        made = resample(store, options.output, options.rate, views, options.encoding, progress)
    print(f"{options.output}: {len(made)} episodes, {made.num_steps} steps at {made.contract.rate_hz:g} Hz")
    before, after = (each.provenance.get("environment") or {} for each in (store, made))
    if gone := sorted({*(before.get("cameras") or ())} - {*(after.get("cameras") or ())}):
        print(f"{', '.join(gone)}: no simulated camera shows such a picture, so a policy that sees it can be evaluated")
        print("on recorded data alone. To be simulated, keep all rows and the middle columns, and do not squeeze.")
    return 0


def _assemble(output: Path, parts: Sequence[Part]) -> None:
    from robot_rl.datasets import edit

    with progress_bar("writing", len(parts)) as progress:
        made = edit.assemble(output, parts, progress)
    shared = any(file.stat().st_nlink > 1 for file in (output / "frames").glob("*/bytes/c.*"))
    print(
        f"{output}: {len(made)} episodes, {made.num_steps} steps"
        + ("; frames are shared with where they came from" if shared else "")
    )


def _replace(store: EpisodeStore, parts: Sequence[Part]) -> None:
    from robot_rl.datasets import edit

    with progress_bar("writing", len(parts)) as progress:
        before = edit.replace(store.path, parts, progress)
    print(f"{store.path}: {len(parts)} of {len(store)} episodes. As it was, it is kept as {before}; delete that")
    print("when you are sure, which also frees the frames that nothing refers to any more.")


@contextmanager
def progress_bar(doing: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar over episodes that ends without a trace; to be called with how many are done, and of how many."""
    from tqdm import tqdm

    with tqdm(desc=doing, total=total, unit="episode", leave=False, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
