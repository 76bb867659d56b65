"""Episodes for the rerun viewer (extra `view`): pictures, signals and facts on the recorded time line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.datasets import Episode, EpisodeStore
from robot_rl.datasets.contract import element_names
from robot_rl.datasets.layout import CONTROL


class ViewError(RuntimeError):
    """The viewer is not installed; the message names the extra."""


def log_episodes(
    store: EpisodeStore,
    episodes: Sequence[int],
    save: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Show episodes, one recording each, in a viewer that is started for it.

    Args:
        save: write a file for `rerun <file>` instead of starting the viewer.

    Raises:
        ViewError: rerun is not installed.
    """
    try:
        import rerun
    except ImportError as error:
        raise ViewError("rerun is not installed: pip install 'robot_rl[view]', or leave --rerun away") from error
    rerun.init("robot_rl", spawn=save is None)
    if save is not None:
        rerun.save(str(save))
    for done, number in enumerate(episodes):
        _log(rerun, store[number])
        if progress is not None:
            progress(done + 1, len(episodes))
    rerun.disconnect()


def _log(rr: Any, episode: Episode) -> None:
    contract, root, stamps = episode.store.contract, f"episode_{episode.index}", episode.timestamp[CONTROL]

    def signal(path: str, names: Sequence[str], rows: np.ndarray) -> None:
        values = np.asarray(rows, float).reshape(len(rows), -1)
        times = [rr.TimeColumn("time", duration=stamps[: len(values)])]
        rr.log(f"{root}/{path}", rr.SeriesLines(names=list(names)), static=True)
        rr.send_columns(f"{root}/{path}", times, rr.Scalars.columns(scalars=values))

    facts = "\n".join(f"- {key}: {value}" for key, value in episode.facts.items())
    rr.log(f"{root}/facts", rr.TextDocument(facts, media_type="text/markdown"), static=True)
    for name in episode.store.layout.lowdim:
        signal(name, element_names(contract.observation[name]), episode.observation[name])
    signal("action", contract.action_names, episode.action)
    for name, feature in contract.cameras.items():
        kind = rr.Image if feature.kind == "image" else rr.DepthImage
        for stamp, picture in zip(stamps, episode.observation[name], strict=True):
            rr.set_time("time", duration=float(stamp))
            rr.log(f"{root}/{name}", kind(picture if feature.kind == "image" else picture[..., 0]))
