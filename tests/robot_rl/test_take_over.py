"""A person's device in a training: what is refused, and that it is opened, shown and closed."""

import os
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from robot_rl import sim, take_over
from robot_rl.cli import compose
from robot_rl.datasets import EpisodeStore
from robot_rl.hardware.opened import Opened
from robot_rl.hardware.teleop.device import DeviceError, Reading
from robot_rl.hardware.teleop.mapping import MappingError
from robot_rl.policies import PolicyError
from robot_rl.rl.on_policy import FinetuneError
from robot_rl.take_over import SETTINGS, check, taking_over, wants_person
from tests.robot_rl.rl.line import Line


class Hand(Opened):
    """At rest for nine readings, then a push down; open or closed."""

    name = "hand"

    def __init__(self) -> None:
        self.reads, self.opened, self.closed = 0, 0, 0
        self.settings: dict[str, object] = {}

    def open(self) -> None:
        self.opened += 1

    def close(self) -> None:
        self.closed += 1

    def read(self, now: float) -> Reading:
        self.reads += 1
        return Reading(now, twist=np.array([0, 0, -0.25 * (self.reads % 20 > 9), 0, 0, 0]))

    def events(self) -> list[str]:
        return []


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    made = Hand()

    def make(name: str, settings: dict[str, object]) -> Hand:
        made.settings = settings
        return made

    monkeypatch.setattr(take_over, "_device", make)
    return made


def test_the_expert_stays_who_takes_over_unless_a_device_is_named() -> None:
    assert not wants_person("hil", {"patience": 3})
    assert not wants_person("hil", {"device": "scripted"})
    assert not wants_person("rlpd", {"device": "keyboard"})
    assert wants_person("hil", {"device": "keyboard"})


@pytest.mark.parametrize(
    ("algorithm", "success", "actors", "message"),
    [
        (
            {"device": "theremin"},
            "task",
            False,
            "expected one of scripted, keyboard, gamepad, spacemouse, web, got 'the",
        ),
        ({"device": "web"}, "task", True, "a person acts in the process that learns; leave actors out"),
        ({"device": "keyboard"}, "key", False, "success=key reads the same keys"),
        (
            {"device": "web", "settings": {"web.prot": 1}},
            "task",
            False,
            r"settings \(web\): no such key 'web.prot'; known are web.host",
        ),
    ],
)
def test_impossible_persons_are_refused(algorithm: dict[str, object], success: str, actors: bool, message: str) -> None:
    with pytest.raises((FinetuneError, PolicyError), match=message):
        check(algorithm, success, actors)


def test_tasks_that_nobody_can_move_or_see_are_refused(hand: Hand) -> None:
    with (
        sim.make_vector("push_t", 1) as plane,
        pytest.raises(MappingError, match=r"push_t: a device gives differences.*target \(absolute\)"),
        taking_over({"device": "keyboard"}, plane),
    ):
        pass
    with (
        pytest.raises(FinetuneError, match=r"a person takes over in lean tasks.*not in line; leave"),
        taking_over({"device": "keyboard"}, Line(1)),
    ):
        pass
    assert hand.opened == 0


def test_a_keyboard_needs_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        Path(os.devnull).open() as nothing,
        sim.make_vector("peg", 1) as environments,
        monkeypatch.context() as patched,
    ):
        patched.setattr("sys.stdin", nothing)
        person = taking_over({"device": "keyboard"}, environments)
        with pytest.raises(DeviceError, match="keyboard: the standard input is no terminal"):
            person.__enter__()


def test_the_device_is_open_within_and_the_page_shows_the_first_environment(
    hand: Hand, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("aiohttp")
    with sim.make_vector("peg", 2) as environments:
        environments.reset(seed=0)
        with taking_over(
            {"device": "gamepad", "speed": 1e6, "settings": {"gamepad.path": "there"}}, environments
        ) as person:
            assert (hand.opened, hand.closed) == (1, 0)
            assert hand.settings == {"mapping": "gamepad", "path": "there"}
            url = capsys.readouterr().out.split()[-1]
            assert b"Cockpit" in urllib.request.urlopen(url, timeout=60).read()
            done = [person(np.zeros((2, 4), np.float32), [_SoFar(), _SoFar()]) for _ in range(60)]
    assert not any(taken[1] for taken, _ in done)
    acted = [action for taken, action in done if taken[0] and action[0].any()]
    assert acted
    np.testing.assert_allclose(acted, [[[0, 0, -1, 0], [0, 0, 0, 0]]] * len(acted))
    assert hand.closed == 1
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=60)


class _SoFar:
    intervened: list[bool] = []  # noqa: RUF012
    success = False


def test_the_presets_settings_name_every_device() -> None:
    plain = compose("finetune", ["algorithm=hil", "task=peg"]).algorithm
    assert (plain.device, plain.speed, plain.handback, plain.settings) == ("scripted", 1.0, 0.5, None)
    assert all(key.startswith(f"{device}.") for device, given in SETTINGS.items() for key in given)
    assert set(SETTINGS) == {"keyboard", "gamepad", "spacemouse", "web"}


@pytest.mark.slow
def test_a_policy_is_trained_with_a_person(hand: Hand, tmp_path: Path) -> None:
    from robot_rl import collect, finetune

    demonstrations = tmp_path / "peg.zarr"
    collect.main(compose("collect", ["task=peg", "episodes=3", f"output={demonstrations}", "workers=1"]))
    options = [
        "algorithm=hil", "task=peg", f"dataset={demonstrations}", f"output={tmp_path / 'run'}", "training.steps=300",
        "training.num_envs=2", "training.rollout_steps=75", "training.batch=16", "training.critic_width=16",
        "network.denoiser.width=16", "training.update_ratio=1", "training.evaluate_episodes=2", "episodes=2",
        "training.evaluate_every=2", "algorithm.device=gamepad", "algorithm.speed=1e6", "algorithm.handback=0.0",
    ]  # fmt: skip
    assert finetune.main(compose("finetune", options)) == 0
    assert hand.closed == 1
    marked = 0
    for episode in EpisodeStore.open(tmp_path / "run" / "replay.zarr"):
        taken = episode.intervened
        marked += int(taken.sum())
        np.testing.assert_allclose(episode.action[taken], np.tile([0, 0, -1, 0], (taken.sum(), 1)))
        assert not (episode.policy_action[taken] == episode.action[taken]).all(axis=1).any()
    assert marked > 20
    # What device a person takes may change from one resume to the next.
    again = [*options[:-3], "algorithm.device=spacemouse", "algorithm.speed=1e6"]
    assert finetune.main(compose("finetune", again)) == 0
