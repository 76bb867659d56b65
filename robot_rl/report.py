"""`report.html`: one self-contained page about a run, made from what lies in its folder.

Everything is inside: style, plots as inline SVG that follow the light or dark colours of the page, videos as data. The
page has no script, and its content security policy forbids any; all text is escaped.
"""

from __future__ import annotations

import base64
import csv
import html
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import yaml

from robot_rl import plots
from robot_rl.metric_log import read_metrics, read_results


class Html(str):
    """Text that is markup already; all other text is escaped."""

    __slots__ = ()


def tag(name: str, *children: Any, **attributes: Any) -> Html:
    """An element. A trailing underscore of an attribute's name is dropped (`class_`); one that is True has no value."""
    pairs = (
        f" {key.rstrip('_')}" if value is True else f' {key.rstrip("_")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{''.join(pairs)}>{join(children)}</{name}>")


def join(parts: Iterable[Any]) -> Html:
    """Markup one after the other; None is nothing."""
    return Html(
        "".join(part if isinstance(part, Html) else html.escape(str(part)) for part in parts if part is not None)
    )


def write_report(folder: str | Path) -> Path:
    """Write `report.html` into a run folder and return its path."""
    folder = Path(folder)
    run = _Run(folder)
    sections = [
        _tiles(run), _deployment(run), _simulation(run), _videos(run), _offline(run), _shift(run), _training(run),
        _configuration(run), _provenance(run),
    ]  # fmt: skip
    heading = tag("header", tag("h1", run.title), tag("p", run.subtitle, class_="soft") if run.subtitle else None)
    footer = tag("footer", f"Written by robot_rl from the run folder {folder.resolve().name}.")
    return write_page(folder / "report.html", run.title, [heading, *sections, footer])


def write_page(path: Path, title: str, body: Iterable[Any]) -> Path:
    """Write one page with the report's style; it appears whole."""
    files = resources.files("robot_rl")
    page = Template(files.joinpath("report.html").read_text()).substitute(
        title=html.escape(title), style=files.joinpath("report.css").read_text(), body=join(body)
    )
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(page)
    beside.replace(path)
    return path


def inline_video(path: Path) -> Html:
    """A video as data."""
    data = base64.b64encode(path.read_bytes()).decode()
    return tag(
        "video", src=f"data:video/mp4;base64,{data}", controls=True, muted=True, loop=True, playsinline=True,
        preload="metadata",
    )  # fmt: skip


class _Run:
    """What a run folder holds; whatever is missing is empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics = read_results(folder)
        self.curves = read_metrics(folder / "metrics.csv")
        self.evaluation = _read_json(folder / "evaluation" / "results.json")
        self.offline = _read_json(folder / "offline" / "results.json")
        self.deployment = _read_json(folder / "deployment" / "results.json")
        checkpoint = folder / "checkpoints" / "best"
        self.policy = _read_json(checkpoint / "policy.json")
        self.trained = _read_json(checkpoint / "provenance.json")

    @property
    def title(self) -> str:
        environment = self._environment
        task = environment.get("task") or Path(self.offline.get("dataset", "")).stem
        made = self.evaluation or self.offline or self.deployment
        policy = self.trained.get("preset") or made.get("policy")
        return ": ".join(str(part) for part in (task, policy) if part) or self.folder.resolve().name

    @property
    def subtitle(self) -> str:
        environment = self._environment
        made = self.evaluation or self.offline or self.deployment or self.trained
        created = made.get("provenance", self.trained).get("created", "")
        robot = environment.get("robot")
        name = robot.get("name") if isinstance(robot, dict) else robot  # a vehicle of one's own
        parts = [name, environment.get("controller"), created[:10]]
        return " · ".join(str(part) for part in parts if part)

    @property
    def _environment(self) -> dict[str, Any]:
        found = (run.get("environment") for run in (self.evaluation, self.deployment, self.trained))
        return dict(next(filter(None, found), {}))


def _tiles(run: _Run) -> Html:
    tiles: list[tuple[str, str, str | None]] = []
    if run.evaluation and "success_rate" not in run.evaluation:
        tiles.append((
            "return in simulation", f"{run.evaluation['mean_return']:.4g}",
            f"{_around(run.evaluation['return_interval'])}{run.evaluation['episodes']} episodes",
        ))  # fmt: skip
    elif run.evaluation:
        low, high = run.evaluation["success_interval"]
        tiles.append((
            "success in simulation", _percent(run.evaluation["success_rate"]),
            f"95 % interval {_percent(low)} to {_percent(high)}, {run.evaluation['episodes']} episodes",
        ))  # fmt: skip
        median = run.evaluation.get("median_success_step")
        if median is not None:
            tiles.append(("median time to success", f"{median / run.evaluation['rate_hz']:.1f} s", f"{median:g} steps"))
    if run.deployment:
        low, high = run.deployment["success_interval"]
        tiles.append((
            "success deployed", _percent(run.deployment["success_rate"]),
            f"95 % interval {_percent(low)} to {_percent(high)}, {run.deployment['episodes']} episodes",
        ))  # fmt: skip
    if run.offline:
        policy, hold = run.offline["offline_action_error"], run.offline["hold_baseline_error"]
        tiles.append(("offline action error", f"{policy:.3f}", f"repeating the last action: {hold:.3f} [deviations]"))
    training = run.metrics.get("training") or {}
    if training.get("steps"):
        size = f"{training['parameters'] / 1e6:.2f} M parameters" if training.get("parameters") else None
        tiles.append(("training steps", f"{training['steps']:,}", size))
    stages = {"train": training["seconds"]} if training.get("seconds") else {}
    stages |= run.metrics.get("seconds") or {}
    total = stages.pop("total", sum(stages.values()))
    if stages:
        tiles.append((
            "time",
            _duration(total),
            ", ".join(f"{name} {_duration(each)}" for name, each in stages.items()),
        ))
    return tag("div", *(
        tag("div", tag("div", name, class_="name"), tag("div", value, class_="value"),
            tag("div", note or "", class_="note"), class_="tile")
        for name, value, note in tiles
    ), class_="tiles")  # fmt: skip


def _deployment(run: _Run) -> Html | None:
    results = run.deployment
    if not results:
        return None
    rows = _read_csv(run.folder / "deployment" / "episodes.csv")
    squares = [
        tag("span", title=f"seed {row['seed']}: {row['reason']}, {row['steps']} steps",
            class_=None if row["success"] == "1" else "failed")
        for row in rows
    ]  # fmt: skip
    clock = "simulated time" if results["clock"] == "simulated" else "the wall clock"
    times = [
        [name, *(f"{results[key][share]:.2f}" for share in ("median", "p99"))]
        for name, key in (
            ("control step late by", "jitter_ms"),
            ("newest observation to command", "latency_ms"),
            ("age of the oldest observation", "observation_age_ms"),
        )
        if results[key]["median"] is not None
    ]
    other = results.get("comparison")
    compared = other and tag(
        "p", f"In this process, on the same seeds: {_percent(other['success_rate'])} ({_interval(other)}). Only the "
        f"deployment succeeds in {other['only_first']} episodes, only the process in {other['only_second']} (exact "
        f"McNemar p = {other['p_value']:.3g}).",
    )  # fmt: skip
    where = f"{'the twin of ' * results['twin']}{results['robot']}"
    return _section(
        "Deployment",
        tag("p", f"{results['successes']} of {results['episodes']} episodes succeeded on {where} over ROS 2, "
            f"{_percent(results['success_rate'])} (95 % interval {_interval(results)}). The Supervisor limited "
            f"{results['limited_actions']} of {results['actions']} actions, and in {results['held_actions']} control "
            "steps the last action was held, for want of another."),
        tag("div", *squares, class_="episodes"),
        compared or None,
        tag("h3", f"Times by {clock}"),
        _table(["[ms]", "median", "99 % below"], times, (1, 2)),
    )  # fmt: skip


def _simulation(run: _Run) -> Html | None:
    results = run.evaluation
    if not results:
        return None
    rows = _read_csv(run.folder / "evaluation" / "episodes.csv")
    if "success_rate" not in results:
        return _section(
            "Simulation",
            tag("p", f"{results['episodes']} episodes, {_starts(results)}. This task knows no success; the mean of "
                f"their returns is {results['mean_return']:.4g}."),
            _compared_returns(results),
        )  # fmt: skip
    squares = [
        tag("span", title=f"seed {row['seed']}: {('failure', 'success')[success]}, {row['steps']} steps",
            class_=None if success else "failed")
        for row in rows
        for success in [row["success"] == "1"]
    ]  # fmt: skip
    return _section(
        "Simulation",
        tag("p", f"{results['successes']} of {results['episodes']} episodes succeeded, {_starts(results)}. Each mark "
            "is an episode, in that order: square for success, round for failure."),
        tag("div", *squares, class_="episodes"),
        tag("h3", "Success over time"),
        inline_plot(run.folder / "evaluation" / "success_over_time.svg"),
        _comparison(results),
    )  # fmt: skip


def _starts(results: Mapping[str, Any]) -> str:
    first, variation = results["first_seed"], results["environment"].get("randomization")
    name = variation.get("name", "of its own") if isinstance(variation, Mapping) else variation
    seeds = f"from the fixed evaluation seeds {first} to {first + results['episodes'] - 1}"
    return f"{seeds}, with randomization {name}" if name else seeds


def _compared_returns(results: Mapping[str, Any]) -> Html | None:
    other = results.get("comparison")
    if not other:
        return None
    test = (
        "" if other["p_value"] is None else f" Paired t-test: p = {other['p_value']:.3g}. {_verdict(other['p_value'])}"
    )
    return join([
        tag("h3", "Comparison on the same seeds"),
        _table(
            ["policy", "return", "95 % interval"],
            [
                [each["policy"], f"{each['mean_return']:.4g}", _bounds(each["return_interval"])]
                for each in (results, other)
            ],
            numbers=(1,),
        ),
        tag("p", f"The first returns {other['difference']:+.4g} against the second "
            f"(95 % interval {_bounds(other['difference_interval'])}).{test}"),
        _environment_differences(other),
    ])  # fmt: skip


def _comparison(results: Mapping[str, Any]) -> Html | None:
    other = results.get("comparison")
    if not other:
        return None
    p = other["p_value"]
    return join([
        tag("h3", "Comparison on the same seeds"),
        _table(
            ["policy", "success", "95 % interval", "succeeds where the other fails"],
            [
                [each["policy"], _percent(each["success_rate"]), _interval(each), n]
                for each, n in ((results, other["only_first"]), (other, other["only_second"]))
            ],
            numbers=(1, 3),
        ),
        tag("p", f"Exact McNemar test: p = {p:.3g}. {_verdict(p)}"),
        _environment_differences(other),
    ])  # fmt: skip


def _environment_differences(other: Mapping[str, Any]) -> Html | None:
    found = other.get("environment_differences")
    if not found:
        return None
    return tag("p", "Their environments differ, so this compares policies and environments: " + "; ".join(found) + ".")


def _verdict(p: float) -> str:
    return (
        "The difference is more than chance would bring in 19 of 20 cases."
        if p < 0.05
        else "A difference like this arises by chance alone more often than in 1 of 20 cases."
    )


def _videos(run: _Run) -> Html | None:
    figures = []
    for entry in run.evaluation.get("videos") or ():
        path = run.folder / "evaluation" / "videos" / entry["file"]
        if path.is_file():
            seconds = entry["steps"] / run.evaluation["rate_hz"]
            word = tag("b", "Success" if entry["success"] else "Failure", class_="good" if entry["success"] else "bad")
            if "success_rate" not in run.evaluation:
                word = tag("b", "Episode")
            figures.append(
                tag("figure", inline_video(path), tag("figcaption", word, f", seed {entry['seed']}, {seconds:.1f} s"))
            )
    return _section("Videos", tag("div", *figures, class_="videos")) if figures else None


def _offline(run: _Run) -> Html | None:
    results = run.offline
    if not results:
        return None
    highest = max(
        (max(e["policy_normalised"], e["hold_normalised"]) for e in results["elements"].values()), default=1.0
    )
    rows = [
        [name, _figures(e["policy"]), _figures(e["hold"]), e["unit"], _bar(e["policy_normalised"], highest),
         _bar(e["hold_normalised"], highest)]
        for name, e in results["elements"].items()
    ]  # fmt: skip
    figures = []
    for index in results.get("plotted") or ():
        if (drawn := inline_plot(run.folder / "offline" / f"episode_{index}.svg")) is not None:
            figures += [tag("h3", f"Predicted and recorded, episode {index}"), drawn]
    return _section(
        "Offline",
        tag("p", f"Predicted against recorded actions of {results['dataset']}: {results['described']}, "
            f"{results['windows']} windows. A deviation is the standard deviation of the recorded action; the baseline "
            "repeats the action executed last."),
        _table(["action", "error", "baseline", "unit", "error [deviations]", "baseline [deviations]"], rows, (1, 2)),
        tag("h3", "Error over the chunk"),
        inline_plot(run.folder / "offline" / "error_by_step.svg"),
        *figures,
    )  # fmt: skip


def _shift(run: _Run) -> Html | None:
    shift = run.offline.get("shift")
    if not shift:
        return None
    joint = shift["mahalanobis"]
    ordered = sorted(shift["elements"].items(), key=lambda item: -item[1]["ks"])
    rows = [
        [name, _bar(e["ks"], 1.0, "{:.2f}"), f"{e['mean_shift']:+.2f}", f"{e['spread_ratio']:.2f}"]
        for name, e in ordered
    ]
    beyond = joint["beyond_training"]
    return _section(
        "Observation shift",
        tag("p", f"{_percent(beyond)} of the observations lie beyond the Mahalanobis distance that 1 % of the training "
            f"observations exceed. Median distance {joint['median']:.2f}, in training {joint['training_median']:.2f}."),
        tag("details",
            tag("summary", f"All {len(rows)} elements, the most shifted first"),
            _table(["element", "Kolmogorov-Smirnov distance", "shift of the mean [deviations]",
                    "ratio of the deviations"], rows, (2, 3)),
            open=len(rows) <= 12),
    )  # fmt: skip


def _training(run: _Run) -> Html | None:
    if not run.curves:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        draw = plots.finetuning_curves if "mean_return" in run.curves[0] else plots.training_curves
        path = draw(Path(scratch) / "training_curves.svg", run.curves)
        curves = None if path is None else inline_plot(path)
    if curves is None:
        return None
    best = (run.metrics.get("training") or {}).get("best")
    words = None
    if best:
        known = [
            f"{key.replace('_', ' ')} {best[key]:.4g}"
            for key in ("held_out_loss", "judged_success_rate", "success_rate", "mean_return")
            if key in best
        ]
        by = f", chosen by {best['by']}" if "by" in best else ""
        words = tag("p", f"The best checkpoint is of step {best['step']}{by} ({', '.join(known)}).")
    return _section("Training", words, curves)


def _configuration(run: _Run) -> Html | None:
    places = (
        ("training", "config.yaml"),
        ("evaluation", "evaluation/config.yaml"),
        ("offline", "offline/config.yaml"),
        ("deployment", "deployment/config.yaml"),
    )
    found = [(name, run.folder / place) for name, place in places if (run.folder / place).is_file()]
    details = [
        tag("details", tag("summary", f"Configuration of the {name}"), tag("pre", path.read_text()))
        for name, path in found
    ]
    if run.policy:
        text = yaml.safe_dump(run.policy.get("config", {}), sort_keys=False)
        details.append(tag("details", tag("summary", "The policy, with all defaults"), tag("pre", text)))
    return _section("Configuration", *details) if details else None


def _provenance(run: _Run) -> Html | None:
    made = [
        ("training", run.trained),
        ("evaluation", run.evaluation.get("provenance")),
        ("offline", run.offline.get("provenance")),
        ("deployment", run.deployment.get("provenance")),
    ]
    details = []
    for name, values in made:
        if not values:
            continue
        rows = [
            [key, _versions(value) if key == "versions" else _short(value)]
            for key, value in values.items()
            if key in ("created", "command", "git_commit", "versions", "preset", "seed", "recordings", "environment")
        ]
        details += [tag("h3", name.capitalize()), _table(None, rows, long=(1,))]
    return _section("Provenance", *details) if details else None


def _section(title: str, *children: Any) -> Html:
    return tag("section", tag("h2", title), *children)


def inline_plot(path: Path) -> Html | None:
    """An SVG of `plots` as part of the page: scalable, with the page's own ink and font."""
    if not path.is_file():
        return None
    text = path.read_text()
    text = text[text.index("<svg") :].replace(plots.INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    # Groups are numbered alike in every plot; only the ids that are referred to are unique.
    text = re.sub(
        r' id="(?:figure|axes|patch|line2d|text|legend|matplotlib\.axis|xtick|ytick|FillBetweenPolyCollection)_\d+"',
        "",
        text,
    )
    return tag("div", Html(text), class_="plot")


def _table(
    header: Sequence[str] | None, rows: Sequence[Sequence[Any]], numbers: Sequence[int] = (), long: Sequence[int] = ()
) -> Html:
    def kind(column: int) -> str | None:
        return "number" if column in numbers else "long" if column in long else None

    head = tag("tr", *(tag("th", cell, class_=kind(i)) for i, cell in enumerate(header))) if header else None
    body = (tag("tr", *(tag("td", cell, class_=kind(i)) for i, cell in enumerate(row))) for row in rows)
    return tag("div", tag("table", tag("thead", head) if head else None, tag("tbody", *body)), class_="scroll")


def _bar(value: float, highest: float, pattern: str = "{:.3f}") -> Html:
    share = 100 * min(max(value / highest, 0.0), 1.0) if highest > 0 else 0.0
    return tag("div", tag("i", style=f"width:{share:.1f}%"), tag("b", pattern.format(value)), class_="bar")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %".replace(".0 %", " %")


def _interval(results: Mapping[str, Any]) -> str:
    return " to ".join(_percent(bound) for bound in results["success_interval"])


def _bounds(interval: Sequence[float] | None) -> str:
    return "unknown" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"


def _around(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"95 % interval {_bounds(interval)}, "


def _figures(value: float) -> str:
    """Three significant figures, without an exponent where it can be done."""
    return (
        f"{value:.3g}"
        if not value or abs(value) < 1e-4
        else f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _versions(values: Any) -> str:
    return (
        ", ".join(f"{name} {number}" for name, number in values.items() if number)
        if isinstance(values, Mapping)
        else str(values)
    )


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return " ".join(value)
    return json.dumps(value)


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _read_csv(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
