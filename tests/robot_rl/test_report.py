"""The report as a page: whole without anything beside it, escaped, and playing its videos in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from robot_rl import plots
from robot_rl.offline import Trace
from robot_rl.report import join, tag, write_report
from robot_rl.video import write_video

EVIL = "<script>document.title='evil'</script>&\"'$x$"
CHROMIUM = shutil.which("chromium")


@pytest.fixture
def run(whole_run, tmp_path):
    return shutil.copytree(whole_run, tmp_path / "run")


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run folder with everything in it, and names that would break a page that does not escape them."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    for place in ("evaluation/videos", "offline", "checkpoints/best"):
        (folder / place).mkdir(parents=True)
    steps = [12, None, 15, 20]
    plots.success_over_time(folder / "evaluation" / "success_over_time.svg", {EVIL: steps, "b": steps}, 30, 10.0)
    picture = np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)
    for name in ("success_100000.mp4", "failure_100001.mp4"):
        write_video(folder / "evaluation" / "videos" / name, [np.roll(picture, k, axis=1) for k in range(12)], 10)
    provenance = {
        "created": "2026-11-23T10:00:00+00:00",
        "command": ["robot-rl", EVIL],
        "versions": {"torch": "2.13.0"},
    }
    write = lambda path, value: (folder / path).write_text(json.dumps(value))  # noqa: E731
    write("evaluation/results.json", {
        "policy": EVIL, "first_seed": 100000,
        "environment": {"task": "lift", "robot": "panda", "controller": EVIL, "randomization": "full"},
        "episodes": 4, "successes": 3, "success_rate": 0.75, "success_interval": [0.3006, 0.9544],
        "median_success_step": 15.0, "rate_hz": 10.0, "provenance": provenance,
        "videos": [
            {"file": "success_100000.mp4", "seed": 100000, "success": True, "steps": 12},
            {"file": "failure_100001.mp4", "seed": 100001, "success": False, "steps": 30},
        ],
        "comparison": {
            "policy": "b", "success_rate": 0.5, "success_interval": [0.15, 0.85], "only_first": 1, "only_second": 0,
            "p_value": 1.0,
        },
    })  # fmt: skip
    (folder / "evaluation" / "episodes.csv").write_text("seed,success,steps\n1,1,12\n2,0,30\n3,1,15\n4,1,20\n")
    (folder / "evaluation" / "config.yaml").write_text(f"policy: {EVIL}\n")
    trace = Trace(0, np.zeros((9, 2), np.float32), np.array([0, 4, 8]), np.ones((3, 4, 2), np.float32))
    plots.predicted_and_recorded(folder / "offline" / "episode_0.svg", trace, [EVIL, "grip"], ["rad", ""], 10.0)
    plots.error_by_step(folder / "offline" / "error_by_step.svg", [0.1, 0.2], [0.3, 0.5], 10.0)
    element = {"unit": "rad", "policy": 0.01234, "hold": 0.5, "policy_normalised": 0.1, "hold_normalised": 0.4}
    write("offline/results.json", {
        "dataset": EVIL, "described": "2 episodes held out", "windows": 16, "offline_action_error": 0.1,
        "hold_baseline_error": 0.4, "elements": {EVIL: element}, "plotted": [0], "provenance": provenance,
        "shift": {
            "mahalanobis": {"median": 1.0, "training_median": 0.9, "beyond_training": 0.025},
            "elements": {"joint": {"ks": 0.2, "mean_shift": -0.3, "spread_ratio": 1.1}},
        },
    })  # fmt: skip
    write("checkpoints/best/policy.json", {"config": {"process": {"name": EVIL}}})
    write("checkpoints/best/provenance.json", {"preset": "flow_mlp", "recordings": [{"path": EVIL}], **provenance})
    write("metrics.json", {
        "training": {"steps": 2000, "parameters": 640000, "best": {"step": 1750, "held_out_loss": 0.05}},
        "seconds": {"train": 61.0, "evaluate": 30.5},
    })  # fmt: skip
    losses = "\n".join(f"{step},{1 / step},{1.1 / step if step % 50 == 0 else ''}," for step in range(10, 400, 10))
    (folder / "metrics.csv").write_text(f"step,loss,held_out_loss,success_rate\n{losses}\n400,0.1,0.2,0.9\n")
    (folder / "config.yaml").write_text(f"dataset: {EVIL}\n")
    return folder


class Page(HTMLParser):
    """Checks that elements close in order, and collects what a page refers to."""

    VOID = ("meta", "link", "br", "path", "use", "rect", "image")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, name, attributes):
        self.seen.append(name)
        values = dict(attributes)
        self.references += [values[key] for key in ("src", "href", "xlink:href") if values.get(key)]
        self.ids += [values["id"]] if "id" in values else []
        if name not in self.VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.handle_starttag(name, attributes)
        if name not in self.VOID:
            self.open.pop()

    def handle_endtag(self, name):
        if name not in self.VOID:
            assert self.open.pop() == name

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_and_self_contained(run):
    text = write_report(run).read_text()
    page = Page(text)
    assert page.open == []
    assert not {"script", "iframe", "object"} & set(page.seen)
    assert all(reference.startswith(("data:", "#")) for reference in page.references)
    assert len(page.ids) == len(set(page.ids)), "plots must not share ids, or one shows the clip of another"
    assert {reference[1:] for reference in page.references if reference.startswith("#")} <= set(page.ids)
    assert page.seen.count("video") == 2
    assert page.seen.count("svg") == 4
    assert "default-src 'none'" in text
    for words in (
        "75 %", "30.1 % to 95.4 %", "3 of 4 episodes succeeded", "p = 1", "2 episodes held out", "0.0123", "2.5 %",
        "step 1750", "1 min 32 s", "0.64 M parameters",
    ):  # fmt: skip
        assert words in page.text
    assert "from the fixed evaluation seeds 100000 to 100003, with randomization full." in page.text


def test_plots_take_the_colour_of_the_page(run):
    text = write_report(run).read_text()
    assert plots.INK not in text
    assert "currentColor" in text


@pytest.mark.parametrize(
    "missing", ["evaluation", "offline", "checkpoints", "metrics.csv", "metrics.json", "config.yaml"]
)
def test_what_is_missing_is_left_out(run, missing):
    path = run / missing
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert Page(write_report(run).read_text()).open == []


def test_an_empty_folder_has_a_report(tmp_path):
    assert tmp_path.name in write_report(tmp_path).read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_markup_escapes_all_but_markup():
    assert tag("p", "<b>", tag("i", "&"), None, 3, class_='a"b', hidden=True, id=None) == (
        '<p class="a&quot;b" hidden>&lt;b&gt;<i>&amp;</i>3</p>'
    )
    assert join(["<", tag("br")]) == "&lt;<br></br>"


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_plays_the_videos_without_complaint(run, tmp_path):
    """A copy of the page with a probe in it: the durations are written to the title, which the printed page shows."""
    text = write_report(run).read_text()
    probe = """<script>addEventListener("load", () => {
      const videos = [...document.querySelectorAll("video")];
      const ready = (v) => new Promise((done) => v.readyState ? done() : v.addEventListener("loadedmetadata", done));
      Promise.all(videos.map(ready)).then(() => Promise.all(videos.map((v) => v.play()))).then(() =>
        document.body.setAttribute("data-found", JSON.stringify(videos.map((v) => [v.duration, v.videoWidth]))));
    });</script>"""
    policy = re.search(r"<meta http-equiv[^>]*>", text).group()
    copy = tmp_path / "copy.html"
    copy.write_text(text.replace(policy, "").replace("</body>", probe + "</body>"))
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--autoplay-policy=no-user-gesture-required",
        "--virtual-time-budget=10000", "--dump-dom",
    ]  # fmt: skip
    options = {"capture_output": True, "text": True, "timeout": 120, "check": True}
    with TemporaryDirectory() as left:  # where it leaves a socket, whose path must be short
        options["env"] = {**os.environ, "HOME": left, "TMPDIR": left}
        played = subprocess.run([*command, copy.as_uri()], **options)
        plain = subprocess.run([*command, (run / "report.html").as_uri()], **options)
    found = json.loads(re.search(r'data-found="([^"]*)"', played.stdout).group(1))
    assert found == [[pytest.approx(1.2, abs=0.01), 48]] * 2
    assert "CONSOLE" not in plain.stderr, "the page itself, under its content security policy"
    assert "<title>lift: flow_mlp</title>" in plain.stdout
