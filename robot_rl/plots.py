"""The plots of a run, as SVG files whose ink a report can turn to the colour of its page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_rl.intervals import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from robot_rl.offline import Trace

INK = "#4a4d52"
"""Colour of text and axes, and of nothing else: a report replaces it."""
COLOURS = ("#3b82f6", "#f0883e", "#2da44e", "#a371f7", "#d94f70")

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#8b949e",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def success_over_time(path: Path, runs: Mapping[str, Sequence[int | None]], horizon: int, rate_hz: float) -> Path:
    """Share of episodes that have succeeded by each control step, with Wilson 95 % bands.

    Args:
        runs: by label, for each episode the step [1 … horizon] of its success, or None.
        horizon: steps after which an episode is cut off.
    """
    with _figure(path, 6.4, 3.0) as figure:
        axes = figure.add_subplot()
        time = np.arange(horizon + 1) / rate_hz
        for colour, (label, steps) in zip(COLOURS, runs.items(), strict=False):
            done = np.array([sum(s is not None and s <= t for s in steps) for t in range(horizon + 1)])
            low, high = np.array([wilson(int(k), len(steps)) for k in done]).T
            axes.fill_between(time, 100 * low, 100 * high, step="post", color=colour, alpha=0.18, linewidth=0)
            axes.step(time, 100 * done / len(steps), where="post", color=colour, label=label)
        axes.set(xlabel="time since the start of the episode [s]", ylabel="successful episodes [%]", ylim=(0, 101))
        axes.set_xlim(0, horizon / rate_hz)
        if len(runs) > 1:
            axes.legend(loc="lower right")
    return path


def training_curves(path: Path, rows: Sequence[Mapping[str, float]]) -> Path | None:
    """Losses, and success where it was measured, over the steps of `metrics.csv`; None when there are none."""
    curves = [("loss", "training"), ("held_out_loss", "held out")]
    measured = {name: _column(rows, name) for name in ("loss", "held_out_loss", "success_rate")}
    if not len(measured["loss"][0]):
        return None
    panels = 2 if len(measured["success_rate"][0]) else 1
    with _figure(path, 6.4, 3.0 if panels == 1 else 4.6) as figure:
        axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
        for colour, (name, label) in zip(COLOURS, curves, strict=False):
            steps, values = measured[name]
            if not len(steps):
                continue
            if name == "loss" and len(steps) > 20:
                axes[0].plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
                values = _smooth(values)
            axes[0].plot(steps, values, color=colour, label=label, marker="" if len(steps) > 30 else ".")
        axes[0].set(ylabel="loss", yscale="log" if min(measured["loss"][1]) > 0 else "linear")
        axes[0].legend()
        if panels == 2:
            steps, values = measured["success_rate"]
            axes[1].plot(steps, 100 * values, color=COLOURS[2], marker=".")
            axes[1].set(ylabel="success [%]", ylim=(0, 101))
        axes[-1].set(xlabel="training step")
    return path


def finetuning_curves(path: Path, rows: Sequence[Mapping[str, float]]) -> Path | None:
    """Success and return over the control steps of a fine-tuning, with and without exploration; None without rows.

    Success has no panel where none was logged, because the task knows none.
    """
    panels = [
        ("success [%]", "success_rate", "train_success_rate", 100.0), ("return", "mean_return", "train_return", 1.0),
    ]  # fmt: skip
    if not len(_column(rows, "mean_return")[0]):
        return None
    if not any(len(_column(rows, name)[0]) for name in panels[0][1:3]):
        panels = panels[1:]
    with _figure(path, 6.4, 4.6 if len(panels) == 2 else 3.0) as figure:
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for panel, (label, name, exploring, factor) in zip(axes, panels, strict=True):
            steps, values = _column(rows, exploring)
            panel.plot(steps, factor * values, color=COLOURS[0], alpha=0.25, linewidth=0.8)
            if len(steps):
                panel.plot(steps, factor * _smooth(values), color=COLOURS[0], label="exploring")
            steps, values = _column(rows, name)
            panel.plot(steps, factor * values, color=COLOURS[2], marker=".", label="evaluated")
            panel.set(ylabel=label)
        if len(panels) == 2:
            axes[0].set_ylim(0, 101)
        axes[0].legend(loc="lower right")
        axes[-1].set(xlabel="control steps")
    return path


def learning_curves(path: Path, panels: Mapping[str, Mapping[str, Sequence[Sequence[Mapping[str, float]]]]]) -> Path:
    """Evaluated success, or where a task knows none the return, over the control steps of several fine-tunings.

    Pale: what the episodes of the training made, with exploration.

    Args:
        panels: by title, then by label the rows of each training of that kind, which share a colour.
    """
    with _figure(path, 6.4, 2.6 * len(panels)) as figure:
        axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for panel, (title, kinds) in zip(axes, panels.items(), strict=True):
            known = any("success_rate" in row for trainings in kinds.values() for rows in trainings for row in rows)
            column, factor, label = ("success_rate", 100, "success [%]") if known else ("mean_return", 1, "mean return")
            tried = "train_success_rate" if known else "train_return"
            for colour, (kind, trainings) in zip(COLOURS, kinds.items(), strict=False):
                for number, rows in enumerate(trainings):
                    steps, values = _column(rows, column)
                    name = kind if number == 0 else None
                    panel.plot(steps, factor * values, color=colour, marker=".", markersize=4, label=name)
                    steps, values = _column(rows, tried)
                    panel.plot(steps, factor * values, color=colour, linewidth=0.7, alpha=0.4)
            panel.set(title=title, ylabel=label, xlabel="control steps", ylim=(0, 101 if known else None))
            panel.legend(loc="lower right")
    return path


def error_by_step(path: Path, policy: Sequence[float], hold: Sequence[float], rate_hz: float) -> Path:
    """Action error over the steps of a chunk, in deviations of the recorded actions."""
    with _figure(path, 6.4, 2.8) as figure:
        axes = figure.add_subplot()
        time = np.arange(len(policy)) / rate_hz
        axes.plot(time, hold, color=COLOURS[1], marker=".", label="repeat the last action")
        axes.plot(time, policy, color=COLOURS[0], marker=".", label="policy")
        axes.set(xlabel="time after the last observation [s]", ylabel="mean absolute error\n[deviations]")
        axes.set_ylim(bottom=0)
        axes.legend()
    return path


def predicted_and_recorded(
    path: Path, trace: Trace, names: Sequence[str], units: Sequence[str], rate_hz: float
) -> Path:
    """Recorded actions of an episode, and the chunks predicted along it, one panel for each action element."""
    columns = 2
    lines = math.ceil(len(names) / columns)
    with _figure(path, 7.6, 0.5 + 1.35 * lines) as figure:
        panels = figure.subplots(lines, columns, sharex=True, squeeze=False)
        time = np.arange(len(trace.recorded)) / rate_hz
        for element, axes in enumerate(panels.flat):
            if element >= len(names):
                axes.set_visible(False)
                continue
            for number, (step, chunk) in enumerate(zip(trace.steps, trace.chunks, strict=True)):
                length = min(len(chunk), len(time) - step)
                axes.plot(
                    time[step : step + length], chunk[:length, element], color=COLOURS[0], linewidth=1.1, alpha=0.85,
                    label="predicted chunks" if number == 0 else None,
                )  # fmt: skip
                axes.plot(time[step], chunk[0, element], color=COLOURS[0], marker="o", markersize=2.2)
            axes.plot(time, trace.recorded[:, element], color=COLOURS[1], linewidth=1.3, label="recorded")
            axes.set_title(_plain(f"{names[element]} [{units[element]}]" if units[element] else names[element]))
            _at_least(axes, 1e-3)
        for axes in panels[-1]:
            axes.set_xlabel("time [s]")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
    return path


def recorded(path: Path, columns: Mapping[str, np.ndarray], rate_hz: float) -> Path:
    """Signals of an episode over time, one panel for each.

    Args:
        columns: title of the panel and values [T, n].
    """
    lines = math.ceil(len(columns) / 2)
    with _figure(path, 7.6, 0.4 + 1.25 * lines) as figure:
        panels = figure.subplots(lines, 2, sharex=True, squeeze=False)
        for axes, (title, values) in zip(panels.flat, columns.items(), strict=False):
            rows = np.asarray(values, float).reshape(len(values), -1)
            for element, column in enumerate(rows.T):
                axes.plot(np.arange(len(rows)) / rate_hz, column, color=COLOURS[element % len(COLOURS)], linewidth=1.0)
            axes.set_title(_plain(title))
            _at_least(axes, 1e-3)
        for axes in panels.flat[len(columns) :]:
            axes.set_visible(False)
        for axes in panels[-1]:
            axes.set_xlabel("time [s]")
    return path


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure without global state, saved as SVG on leaving."""
    import matplotlib
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    # The salt keeps the ids of one plot apart from those of another in the same page.
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": path.stem}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, format="svg", metadata={"Date": None})


def _column(rows: Sequence[Mapping[str, float]], name: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(row["step"], row[name]) for row in rows if name in row and math.isfinite(row[name])]
    steps, values = zip(*pairs, strict=True) if pairs else ((), ())
    return np.asarray(steps), np.asarray(values)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a window of a fortieth of the curve, shorter at its ends."""
    half = max(1, len(values) // 80)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))


def _at_least(axes: Axes, span: float) -> None:
    """Widen the y axis, so that a constant does not show its rounding."""
    low, high = axes.get_ylim()
    if high - low < span:
        middle = (low + high) / 2
        axes.set_ylim(middle - span / 2, middle + span / 2)


def _plain(text: str) -> str:
    """Not to be read as a formula."""
    return text.replace("$", r"\$")
