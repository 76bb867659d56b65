"""A page that shows what a store holds: a clip of every episode, its facts, its signals over time."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robot_rl import plots
from robot_rl.datasets import Episode, EpisodeStore
from robot_rl.report import Html, inline_plot, inline_video, tag, write_page
from robot_rl.video import write_video

HEIGHT = 192
"""Of the pictures in a clip [pixel]."""


def write_contact_sheet(
    store: EpisodeStore,
    path: str | Path,
    episodes: Sequence[int],
    cameras: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the page.

    Args:
        episodes: to show, in this order.
        cameras: side by side in the clips; by default all that see colours.
        progress: called with the number of episodes done, and of all.

    Raises:
        KeyError: a camera does not exist.
    """
    shown = [name for name, f in store.contract.cameras.items() if f.kind == "image"] if cameras is None else cameras
    if unknown := sorted(set(shown) - set(store.contract.cameras)):
        raise KeyError(f"no camera {', '.join(unknown)}; there are: {', '.join(store.contract.cameras) or 'none'}")
    cards = []
    with tempfile.TemporaryDirectory() as folder:
        for done, number in enumerate(episodes):
            cards.append(_card(store[number], shown, Path(folder)))
            if progress is not None:
                progress(done + 1, len(episodes))
    succeeded = len(store.select(success=True))
    seconds = store.num_steps / store.contract.rate_hz
    facts = (
        f"{len(store)} episodes, {succeeded} successful, {seconds / 60:.1f} minutes at {store.contract.rate_hz:g} Hz"
    )
    part = "" if len(cards) == len(store) else f"; {len(cards)} of them are shown"
    header = tag("header", tag("h1", store.path.name), tag("p", facts + part, class_="soft"))
    grid = tag("div", *(card for card in cards), class_="videos")
    contract = tag(
        "section",
        tag("details", tag("summary", "Contract"), tag("pre", json.dumps(store.contract.to_dict(), indent=2))),
        tag("details", tag("summary", "Provenance"), tag("pre", json.dumps(store.provenance, indent=2))),
    )
    return write_page(Path(path), store.path.name, [header, tag("section", tag("h2", "Episodes"), grid), contract])


def _card(episode: Episode, cameras: Sequence[str], folder: Path) -> Html:
    rate, facts = episode.store.contract.rate_hz, episode.facts
    clip = None
    if cameras:
        clip = inline_video(write_video(folder / "clip.mp4", _side_by_side(episode, cameras), rate))
    words = {True: ("success", "good"), False: ("failure", "bad"), None: ("unknown", "soft")}
    word, style = words[episode.success]
    told = [str(facts[key]) for key in ("text", "task", "source", "operator") if facts.get(key)]
    told += [f"seed {facts['seed']}"] if facts.get("seed") is not None else []
    told += [f"damaged: {facts['damaged']}"] if facts.get("damaged") else []
    share = float(episode.intervened.mean())
    told += [f"{share:.0%} by a person"] if share else []
    caption = tag(
        "figcaption", tag("b", f"{episode.index} "), tag("b", word, class_=style), f", {episode.length / rate:.1f} s",
        tag("div", " · ".join(dict.fromkeys(told))),
    )  # fmt: skip
    signals = plots.recorded(folder / f"episode_{episode.index}.svg", dict(_signals(episode)), rate)
    more = tag(
        "details", tag("summary", "signals and facts"), tag("div", inline_plot(signals), class_="plot"),
        tag("pre", json.dumps(facts, indent=2)),
    )  # fmt: skip
    return tag("figure", clip, caption, more)


def _signals(episode: Episode) -> Iterator[tuple[str, np.ndarray]]:
    for name in episode.store.layout.lowdim:
        feature = episode.store.contract.observation[name]
        if feature.kind != "text":
            unit = f" [{feature.unit}]" if feature.unit else ""
            yield f"{name}{unit}", episode.observation[name]
    for name, values in episode.store.contract.split_action(episode.action).items():
        yield f"action {name}", values


def _side_by_side(episode: Episode, cameras: Sequence[str]) -> Iterator[np.ndarray]:
    columns: list[Any] = [episode.observation[name] for name in cameras]
    for pictures in zip(*columns, strict=True):
        yield np.concatenate([_scaled(picture) for picture in pictures], axis=1)


def _scaled(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    size = (max(1, math.ceil(width * HEIGHT / height)), HEIGHT)
    way = cv2.INTER_AREA if height > HEIGHT else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(picture, size, interpolation=way))
