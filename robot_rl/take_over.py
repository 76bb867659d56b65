"""Who takes over in a training with `algorithm=hil`: the expert of the task, or a person with a device.

The person sees the first environment on the cockpit's page, which this process serves, and moves it with the device;
with `device=web` on the page itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_rl.hardware.teleop.device import Device, DeviceError
from robot_rl.policies.configuration import complete
from robot_rl.rl.environments import Environments
from robot_rl.rl.hil import PERSONS, SCRIPTED
from robot_rl.rl.intervention import Intervener, UnderWay
from robot_rl.rl.on_policy import FinetuneError
from robot_rl.rl.person import Person
from robot_rl.rl.success_detector import DetectedSuccess

if TYPE_CHECKING:
    from robot_rl.hardware.cockpit.pilot import Pilot
    from robot_rl.hardware.cockpit.server import CockpitServer, View
    from robot_rl.sim.lean.world import LeanWorld

SETTINGS: dict[str, dict[str, Any]] = {
    "keyboard": {"keyboard.speed": 0.6, "keyboard.tap": 0.12, "keyboard.repeat": 0.7, "keyboard.gap": 0.15},
    "gamepad": {"gamepad.mapping": "gamepad", "gamepad.path": ""},
    "spacemouse": {"spacemouse.buttons": ["takeover", "release"]},
    "web": {"web.host": "127.0.0.1", "web.port": 8765, "web.token": "", "web.certificates": None},
}
"""Of `algorithm.settings`, by device, with their defaults, under the names that `robot-rl teleop` gives them."""

ABSENT = 1.0
"""Without a word of any page, until a person at the page counts as gone [s]."""


def wants_person(name: str, algorithm: Mapping[str, Any]) -> bool:
    """Whether a person takes over, and not the expert."""
    return name == "hil" and algorithm.get("device", SCRIPTED) != SCRIPTED


def check(algorithm: Mapping[str, Any], success: str, actors: bool) -> None:
    """Raises `FinetuneError` where a person cannot take over in such a training."""
    device = algorithm["device"]
    if device not in PERSONS:
        raise FinetuneError(f"algorithm.device: expected one of {', '.join((SCRIPTED, *PERSONS))}, got {device!r}")
    _settings(algorithm)
    if actors:
        raise FinetuneError(f"algorithm.device={device}: a person acts in the process that learns; leave actors out")
    if device == "keyboard" and success == "key":
        raise FinetuneError(
            "algorithm.device=keyboard: success=key reads the same keys; move with another device, or web"
        )


@contextmanager
def taking_over(
    algorithm: Mapping[str, Any], environments: Environments, say: Callable[[str], None] = print
) -> Iterator[Intervener]:
    """The person, with the device open and the page served.

    Args:
        algorithm: the section of the configuration, after `check`.
        say: shows a line while the training runs.

    Raises:
        FinetuneError: nobody could see these environments.
        MappingError: the device cannot give their actions.
        DeviceError: it is missing, or may not be used.
    """
    from robot_rl.hardware.teleop.delta_mapping import DeltaMapping

    world, contract = _world(environments), environments.contract
    mapping = DeltaMapping(contract)
    with ExitStack() as stack:
        device, show = _open(stack, algorithm, world, contract.rate_hz)
        numbers = {key: algorithm[key] for key in ("speed", "handback") if key in algorithm}
        yield Person(device, mapping, contract.rate_hz, **numbers, show=show, say=say)


def _settings(algorithm: Mapping[str, Any]) -> dict[str, Any]:
    """Of the device, without its name before each."""
    name, given = algorithm["device"], algorithm.get("settings") or {}
    whole = complete(f"algorithm.settings ({name})", given, SETTINGS[name])
    return {key.removeprefix(f"{name}."): value for key, value in whole.items()}


def _open(
    stack: ExitStack, algorithm: Mapping[str, Any], world: LeanWorld, rate_hz: float
) -> tuple[Device, Callable[[bool, UnderWay], None]]:
    """The device, open, and what shows the first environment to the person."""
    name, settings = algorithm["device"], _settings(algorithm)
    try:
        from robot_rl.hardware.cockpit.device import WebDevice
        from robot_rl.hardware.cockpit.pilot import Pilot
        from robot_rl.hardware.cockpit.world_view import WorldView
    except ImportError as error:
        if name == "web":
            raise DeviceError(f'device web: {error}; pip install "robot_rl[web]"') from None
        print(f'The training shows no picture: {error}; pip install "robot_rl[web]"')
        return stack.enter_context(_device(name, settings)), lambda acts, episode: None
    view, pilot = WorldView(world.task["name"], world.physics.model, rate_hz), Pilot(lambda: None)
    page = settings if name == "web" else _settings({"device": "web", "settings": {"web.port": 0}})
    shown: Device = WebDevice(pilot, _server(view, pilot, page), _line, ABSENT)

    def show(acts: bool, episode: UnderWay) -> None:
        steps = len(episode.intervened)
        view.show(world.physics.show(0), name if acts else "policy", acts, steps, episode.success)

    if name == "web":
        return stack.enter_context(shown), show
    device = stack.enter_context(_device(name, settings))
    stack.enter_context(shown)  # where it is seen; what is pressed there moves nothing
    return device, show


def _device(name: str, settings: Mapping[str, Any]) -> Device:
    if name == "keyboard":
        from robot_rl.hardware.teleop.keyboard import Keyboard

        print("w/s forward/back  a/d left/right  q/e up/down  j/l turn  CAPITALS slow  b give back")
        return Keyboard(**settings)
    if name == "gamepad":
        from robot_rl.hardware.teleop.control_map import ControlMap
        from robot_rl.hardware.teleop.gamepad import Gamepad

        return Gamepad(ControlMap.load(settings["mapping"]), settings["path"])
    from robot_rl.hardware.teleop.spacemouse import SpaceMouse

    return SpaceMouse(settings["buttons"])


def _server(view: View, pilot: Pilot, settings: Mapping[str, Any]) -> CockpitServer:
    from robot_rl.hardware.cockpit.access import AccessError
    from robot_rl.hardware.cockpit.server import CockpitServer

    folder = settings["certificates"]
    try:
        return CockpitServer(view, pilot, **{**settings, "certificates": Path(folder) if folder else None})
    except AccessError as error:
        raise DeviceError(str(error)) from None


def _line(text: str, *values: object) -> None:
    print(text % values)


def _world(environments: Environments) -> LeanWorld:
    """Whose first copy the person sees.

    Raises:
        FinetuneError: nobody can see it.
    """
    from robot_rl.sim.lean.world import LeanWorld

    inner = environments.environments if isinstance(environments, DetectedSuccess) else environments
    world = getattr(inner, "world", None)
    if not isinstance(world, LeanWorld):
        raise FinetuneError(
            f"algorithm.device: a person takes over in lean tasks (peg, drawer_open, drawer_close), not in "
            f"{environments.contract.name}; leave algorithm.device={SCRIPTED}, where the task has an expert"
        )
    return world
