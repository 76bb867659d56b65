"""The `teleop` node: a person moves the robot with a device, through the Supervisor, and records episodes.

Every control period the device's reading becomes an action under the robot's contract, proposed under a lease of kind
`device`; where a motion begins or ends, or the lease is granted, at once. The lease is asked for when the person moves
the device or holds `takeover`, also while a policy acts, which then loses it; the motion begins where the arm is. With
`handback` the lease is given back so long after the last motion, and the policy goes on; without, by the word
`release`. When the device is lost, its lease ends and the arm holds, also where a policy waits for it; after any loss
the device has to come to rest before it may move the robot again.

A vehicle is flown by velocity: it takes off and flies to its home place by the word `home`, hovers while the device is
at rest, holds its position while it is lost, and lands by `land`. A device at rest takes the vehicle, too, once it is
at home, and when it comes back in time: the Supervisor lands a vehicle that nobody flies. It never takes off by itself:
the way to the start, before and after an episode, is flown only by a vehicle that flies.

Words come from the device and on `teleop/command` (std_msgs/msg/String); see `teleop.device` and `teleop.session`.
Published:

- `teleop/status` (diagnostic_msgs/msg/DiagnosticArray, latched, 10 Hz): `phase` and `cue` of the session with
  `cue_number` rising, `counted` and `episodes`, `seconds` of this one, statistics; `device`, `age`, `moved`, `leased`;
  `state` and `reason` of the Supervisor; the message says what is wrong;
- `recorder/command`: marks of episodes, see the recorder.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from robot_rl.datasets import ContractError
from robot_rl.hardware import bindings
from robot_rl.hardware.nodes.command_line import node_main
from robot_rl.hardware.nodes.garbage import startup_spared
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.recording.bag_import import robot_for
from robot_rl.hardware.robot_file import RobotFile, RobotFileError
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Client, Graph, Received, open_graph
from robot_rl.hardware.ros2.parameters import to_message
from robot_rl.hardware.ros2.qos import LATCHED
from robot_rl.hardware.safety.source import Source
from robot_rl.hardware.safety.supervisor_messages import (
    BOOL,
    DIAGNOSTIC,
    DIAGNOSTICS,
    JOINT_STATE,
    PROPOSAL,
    STOP_REQUEST,
    TRIGGER,
    diagnostic,
    diagnostics,
    pairs,
)
from robot_rl.hardware.teleop.device import WORDS, Device, DeviceError, Reading
from robot_rl.hardware.teleop.devices import DEVICES, make_device
from robot_rl.hardware.teleop.flight_mapping import CONTROLLER, FlightMapping
from robot_rl.hardware.teleop.mapping import Mapping, MappingError, Settings
from robot_rl.hardware.teleop.session import Order, RecordingSession

STATUS, COMMAND = "teleop/status", "teleop/command"

RESET_PATIENCE = 30.0
"""After which a reset that does not succeed is given up [wall s]."""

FLIGHT_PATIENCE = 600.0
"""The same for the way home of a vehicle and for landing, whose own limits of time are the Supervisor's [wall s]."""

ASKED = 3.0
"""For how long a person who asks an arm to go home is taken to mean it, while it cannot [wall s]."""

_LOOK = 0.01
"""Between two looks at the device for motions that begin or end [s]: the next control period may be far."""

_POLL = 0.02
_LASTS = 2.0  # s; what forbids a take-off for less long no pilot needs to hear
_FLIES = ("ready", "running", "intervening")
_STRING = "std_msgs/msg/String"
_SETTLED = 0.2  # s; after a reset every stream has sent something anew, after a request the status has come


class TeleopNode:
    """Binds a device, its mapping and a recording session to a graph.

    Args:
        graph: of this process.
        robot: restricted to what is recorded.
        device: opened by the caller.
        mapping: for this robot.
        session: of recording.
        timeout: age at which a reading is too old, and the device lost [s].
        handback: time without motion after which the lease is given back [s]; 0: never.
        twin: whether the scene is reset by `twin/reset`.
        acts: whether a policy acts while an episode is recorded, until the person takes over.
        cue: told what the person should hear and see.

    Attributes:
        listens: whether words other than `stop` count; not before all nodes that the session needs are there.
    """

    def __init__(
        self, graph: Graph, robot: RobotFile | VehicleFile, device: Device, mapping: Mapping | FlightMapping,
        session: RecordingSession,
        timeout: float = 0.3, handback: float = 0.0, twin: bool = False, acts: bool = False,
        cue: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self.session, self.device = session, device
        self._graph, self._robot, self._mapping = graph, robot, mapping
        self._timeout, self._handback, self._twin, self._say = timeout, handback, twin, cue or (lambda _: None)
        self._acts, self._flies = acts, isinstance(robot, VehicleFile)
        self.period = 1.0 / robot.contract.rate_hz
        self.listens = True
        self._source = Source(graph, device.name, "device", robot.contract)
        self._where: np.ndarray | None = None
        self._opening: float | None = None
        self._gripper_target: float | None = None
        self._newest_lease = 0
        self._reading: Reading | None = None
        self._moved, self._last_moved, self._leased = False, -np.inf, False
        self._awaits_rest, self._toggles = False, 0
        self._keeps = False  # a vehicle is the person's also while the device is at rest
        self._stepped, self._deflected = -np.inf, False
        self._cues, self._problem = 0, ""
        self._bag, self._unrecorded = "", ""
        self._told, self._allowed = "", graph.now()
        self._chore: Iterator[Callable[[], bool]] | None = None
        self._condition: Callable[[], bool] = lambda: True
        self._give_up = 0.0
        self._clients: dict[str, Client] = {}
        self._status = graph.publisher(STATUS, DIAGNOSTICS, LATCHED)
        self._recorder = graph.publisher("recorder/command", _STRING)
        self._stop = graph.publisher(STOP_REQUEST, BOOL)
        for feature in (mapping.feature, "gripper_opening"):
            if feature in robot.streams:
                stream = robot.streams[feature]
                graph.subscribe(stream.topic, stream.type, partial(self._observe, feature), stream.qos)
        graph.subscribe(PROPOSAL, JOINT_STATE, self._on_proposal)
        graph.subscribe("recorder/status", DIAGNOSTIC, self._on_recorder, LATCHED)
        graph.subscribe(COMMAND, _STRING, lambda sample: self.hear(sample.message.data.strip()))
        graph.timer(self.period, self.tick)
        graph.timer(_LOOK, self.look)
        graph.timer(_POLL, self.poll, "wall")
        graph.timer(0.1, self.report, "wall")

    @property
    def state(self) -> str:
        """Of the Supervisor; empty while it is not heard."""
        return self._source.state

    @property
    def flying(self) -> bool:
        """Whether the robot is a vehicle that has not landed yet."""
        return self._flies and self.state not in ("idle", "stopped")

    def tick(self) -> None:
        """A control period begins."""
        self._act(self._graph.now(), self.device.read(self._graph.now()))

    def look(self) -> None:
        """Act before the next control period where a motion begins or ends, or the lease is granted."""
        now, granted = self._graph.now(), self._source.lease is not None and not self._leased
        reading = self.device.read(now)
        if granted or (reading is not None and self._mapping.is_deflected(reading) != self._deflected):
            self._act(now, reading)

    def _act(self, now: float, reading: Reading | None) -> None:
        self._reading = reading
        if reading is None or not now - reading.stamp <= self._timeout:
            self._moved = self._deflected = False
            self._lose("the device is lost")
            return
        self._deflected = self._mapping.is_deflected(reading)
        try:
            self._moved = self._mapping.is_moved(reading) or self._toggles > 0
            self._watch_lease(now)
            if self._moved:
                self._last_moved = now
                self._ask()
            if self._source.lease is not None and self._where is not None:
                self._move(reading, now)
            elif not self._moved:
                self._awaits_rest = False
                if self._keeps and self.state == "ready" and self._source.free:
                    self._ask()
                else:
                    self._source.release()  # asked for, but not granted before the person let go
        except MappingError as error:
            self._lose(str(error))

    def poll(self) -> None:
        """Words of the device, time of the session, and what is under way."""
        for word in self.device.events():
            self.hear(word)
        self._tell_preflight()
        ready = self._chore is None and not self._unrecorded and self.state in ("ready", "running", "intervening")
        self._obey(self.session.tick(self._graph.now(), ready))
        self._go_on()

    def hear(self, word: str) -> None:
        """A word of the person."""
        if word not in WORDS:
            self._graph.log.warning("no word %r; there are %s", word, ", ".join(sorted(WORDS)))
        elif not self.listens and word != "stop":
            self._cue(f"{word}: not ready yet")
        elif word == "record" and self._unrecorded:
            self._cue(f"nothing is recorded: {self._unrecorded}")
        elif word == "land" and not self._flies:
            self._cue("land: only a vehicle lands")
        elif word == "gripper":
            self._toggles = 0 if self._flies else 1 - self._toggles
        elif word == "release":
            self._source.release("given back")
            self._leased = self._keeps = False
        else:
            self._obey(self.session.hear(word, self._graph.now()))

    def home(self) -> None:
        """Bring the robot to where a session begins, once its drivers are there."""
        self._to_start(Order("home"), RESET_PATIENCE)

    def report(self) -> None:
        """Publish the status."""
        now, session, reading = self._graph.now(), self.session, self._reading
        values: dict[str, Any] = {
            "phase": session.phase, "cue": session.cue, "cue_number": self._cues, "counted": session.counted,
            "episodes": session.episodes, "seconds": f"{session.seconds(now):.1f}",
            "seed": "" if session.seed is None else session.seed, **session.statistics.values,
            "device": self.device.name, "age": "" if reading is None else f"{now - reading.stamp:.3f}",
            "moved": self._moved, "leased": self._leased, "busy": self._chore is not None or not self.listens,
            "state": self.state, "reason": self._source.reason, "preflight": self._source.preflight,
        }  # fmt: skip
        message = self._problem
        if self._moved and not self._leased and not message:
            message = f"the robot does not follow: {self._why_not()}"
        status = diagnostic("teleop", 1 if message else 0, message, values, self._robot.name)
        self._status.publish(diagnostics(now, status))

    def close(self) -> None:
        """Give the robot back."""
        self._source.release("teleoperation has ended")

    def _watch_lease(self, now: float) -> None:
        leased = self._source.lease is not None
        if leased and not self._leased and self._where is not None:
            opening = self._opening or 0.0
            self._mapping.begin(self._where, opening if self._gripper_target is None else self._gripper_target)
            self._last_moved, self._stepped = now, now - self.period
            self._problem, self._keeps = "", self._flies
            self.session.disturbed()
        elif self._leased and not leased:
            self._awaits_rest = True
            self._cue(f"the robot was taken away: {self._source.reason}")
        self._leased = leased

    def _ask(self) -> None:
        if self.state not in ("ready", "running", "intervening", "held"):
            self._toggles = 0
        resting = self.session.phase in ("resetting", "countdown") or self._chore is not None
        if self._source.lease is None and not resting and not self._awaits_rest:
            self._source.acquire()

    def _move(self, reading: Reading, now: float) -> None:
        assert self._where is not None
        if self._toggles:
            self._mapping.toggle_gripper()
        self._toggles = 0
        passed, self._stepped = min(now - self._stepped, 2 * self.period), now
        action = self._mapping.step(reading, self._where, self._opening or 0.0, passed)
        self._source.propose(action, now)
        if self._handback and now - self._last_moved > self._handback:
            self._source.release("given back")
            self._leased = False

    def _lose(self, problem: str) -> None:
        if self._leased or self._source.lease is not None:
            # A lease that is free goes to the policy that waits; without actions the Supervisor holds the arm.
            if not self._acts or self._flies or self.state != "intervening":
                self._source.release(problem)
            self._cue(problem)
        self._leased, self._awaits_rest, self._problem = False, True, problem

    def _why_not(self) -> str:
        if self._awaits_rest:
            return "let go of the device first"
        if self.session.phase in ("resetting", "countdown") or self._chore is not None:
            return "wait until the robot is at the start"
        if self._where is None:
            return f"nothing came on {self._robot.streams[self._mapping.feature].topic} yet"
        return self._source.reason

    def _obey(self, orders: Sequence[Order]) -> None:
        for order in orders:
            match order.kind:
                case "record":
                    self._recorder.publish(messages.make(_STRING, data=order.text))
                    if self._acts:
                        self._tell_policy("start" if order.text.startswith("start") else "stop")
                case "stop":
                    if not self._flies:
                        self._chore = None  # nothing that was asked before undoes the stop
                    self._stop.publish(messages.make(BOOL, data=True))
                case "cue":
                    self._cue(order.text)
                case "clear":
                    self._begin(self._clear())
                case _:
                    self._to_start(order, ASKED)

    def _to_start(self, order: Order, patience: float) -> None:
        self._source.release(f"asked to {order.kind}")
        self._leased, self._awaits_rest, self._toggles = False, True, 0
        self._keeps = self._flies and order.kind != "land"
        if order.kind == "land":
            self._begin(self._land())
        elif self._flies:
            self._begin(self._fly_home(order.kind == "home"))
        else:
            self._begin(self._go_home(order.text if order.kind == "reset" and self._twin else None, patience))

    def _tell_policy(self, word: str) -> None:
        def answered(answer: Any) -> None:
            if answer is None or not answer.success:
                self._cue(f"the policy does not {word}: {'no answer' if answer is None else answer.message}")

        self._client(f"policy/{word}", TRIGGER).call(messages.make(f"{TRIGGER}_Request"), answered, 3.0)

    def _cue(self, text: str) -> None:
        self.session.cue, self._cues = text, self._cues + 1
        self._graph.log.info("%s", text)
        self._say(text)
        self.report()

    def _begin(self, chore: Iterator[Callable[[], bool]]) -> None:
        self._chore, self._condition, self._give_up = chore, lambda: True, time.monotonic() + RESET_PATIENCE

    def _go_on(self) -> None:
        if self._chore is None:
            return
        try:
            while self._condition():
                self._condition = next(self._chore)
        except StopIteration:
            self._chore, self._problem = None, ""
            return
        if time.monotonic() > self._give_up:
            self._chore = None
            self._obey(self.session.lost(self._graph.now(), f"it does not get to the start: {self._problem}"))

    def _clear(self) -> Iterator[Callable[[], bool]]:
        """Undo the emergency stop that there is; the next one stays."""
        if not (yield from self._request("supervisor/clear", lambda: self.state == "stopped")):
            self._cue(f"clear: it is {self.state or 'not heard'} ({self._source.reason})")

    def _go_home(self, seed: str | None, patience: float) -> Iterator[Callable[[], bool]]:
        """Scene and robot to the start, the same every time; yields what has to hold before it goes on.

        Args:
            patience: for how long an arm that cannot move yet is asked; of a twin as long as it takes [wall s].
        """
        if seed is not None:
            if self.state == "stopped":
                yield from self._request("supervisor/clear")
                yield lambda: self.state != "stopped"
            if self.state != "idle":
                yield from self._request("supervisor/disengage")
            yield from self._set_seed(int(seed or 0))
            yield from self._request("twin/reset")
            yield self._after(_SETTLED)
        # An arm that is stopped meanwhile does not move when that is cleared, nor when a lost cable is there again.
        until = np.inf if self._twin else time.monotonic() + patience
        may = lambda: self.state != "stopped" and time.monotonic() < until  # noqa: E731
        if not (yield from self._request("supervisor/home", may)):
            why = "" if self.state == "stopped" else f"; {self._problem}"
            self._give_way(f"it does not go home: it is {self.state} ({self._source.reason}){why}")
            return
        self._gripper_target = None
        yield self._after(_SETTLED)
        yield lambda: self.state == "ready"

    def _fly_home(self, takes_off: bool) -> Iterator[Callable[[], bool]]:
        """To the home place; from the ground only where that was asked for."""
        if not takes_off and self.state not in _FLIES:
            self._give_way(f"it is {self.state}: `home` takes off, and flies to the start")
            return
        stands = self.state == "idle"
        # From the ground it is asked once: what is refused now may be allowed when nobody looks any more. A vehicle
        # that lands meanwhile does not take off again.
        if not (yield from self._request("supervisor/home", lambda: (self.state == "idle") == stands, once=stands)):
            fails = "take off" if stands else "fly home"
            self._give_way(f"it does not {fails}: it is {self.state} ({self._source.reason}); ask again by `home`")
            return
        self._give_up = time.monotonic() + FLIGHT_PATIENCE
        yield self._after(_SETTLED)
        yield lambda: self.state not in ("", "homing")
        if self.state not in _FLIES:
            self._give_way(f"it did not get to the home place: it is {self.state} ({self._source.reason})")

    def _land(self) -> Iterator[Callable[[], bool]]:
        """Down, and released."""
        on_the_way = ("", "homing", "stopped", "idle")
        if not (yield from self._request("supervisor/disengage", lambda: self.state not in on_the_way)):
            self._cue(f"land: it is {self.state} ({self._source.reason})")
            return
        self._cue("landing")
        self._give_up = time.monotonic() + FLIGHT_PATIENCE
        yield self._after(_SETTLED)
        yield lambda: self.state in ("idle", "stopped")
        self._cue("landed" if self.state == "idle" else f"stopped: {self._source.reason}")

    def _tell_preflight(self) -> None:
        """Tell a pilot on the ground when the vehicle can take off, and what forbids it."""
        against, now = self._source.preflight, self._graph.now()
        waits = self._flies and self.listens and self._chore is None and self.state == "idle"
        if not waits or not against:
            self._allowed = now
        text = f"no take-off yet: {against}" if against else "h takes off, v lands"
        if waits and text != self._told and (not against or now - self._allowed > _LASTS):
            self._told = text
            self._cue(text)

    def _give_way(self, why: str) -> None:
        self._obey(self.session.lost(self._graph.now(), why))

    def _request(
        self, name: str, may: Callable[[], bool] = lambda: True, once: bool = False
    ) -> Generator[Callable[[], bool], None, bool]:
        """Call a Trigger service until it does what it is asked, or once; the arm may have to come to rest first.

        Returns whether it did: a call that no longer makes sense (`may`) is not made.
        """
        while may():
            answers: list[Any] = []
            self._client(name, TRIGGER).call(messages.make(f"{TRIGGER}_Request"), answers.append, 3.0)
            yield lambda answers=answers: bool(answers)  # type: ignore[misc]
            if answers[0] is not None and answers[0].success:
                return True
            problem = f"{name}: {answers[0].message if answers[0] is not None else 'no answer'}"
            if self._flies and problem != self._problem:
                self._cue(problem)  # what speaks against a take-off the pilot has to know at once
            self._problem = problem
            if once:
                return False
            yield self._after(0.1)
        return False

    def _set_seed(self, seed: int) -> Iterator[Callable[[], bool]]:
        service = "rcl_interfaces/srv/SetParameters"
        parameter = messages.make("rcl_interfaces/msg/Parameter", name="seed", value=to_message(seed))
        answers: list[Any] = []
        request = messages.make(f"{service}_Request", parameters=[parameter])
        self._client("twin/set_parameters", service).call(request, answers.append, 5.0)
        yield lambda: bool(answers)

    def _client(self, name: str, service_type: str) -> Client:
        if name not in self._clients:
            self._clients[name] = self._graph.client(name, service_type)
        return self._clients[name]

    def _after(self, seconds: float) -> Callable[[], bool]:
        until = self._graph.now() + seconds
        return lambda: self._graph.now() >= until

    def _observe(self, feature: str, received: Received) -> None:
        try:
            value = bindings.decode(self._robot.streams[feature], received.message)
        except bindings.BindingError:
            return
        if feature == self._mapping.feature:
            self._where = value
        else:
            self._opening = float(value[0])

    def _on_recorder(self, received: Received) -> None:
        """An episode that the recorder has lost does not count."""
        values = pairs(received.message)
        bag, self._bag = self._bag, values.get("bag", "")
        self._unrecorded = values.get("problem", "")
        if bag not in ("", self._bag):
            self.lost_recorder("the recorder has begun anew")
        elif self._unrecorded:
            self.lost_recorder(self._unrecorded)

    def lost_recorder(self, why: str) -> None:
        """Discard the episode that is recorded, if there is one: it is not whole."""
        if self.session.phase == "recording":
            self._obey(self.session.hear("discard", self._graph.now()))
            self._cue(f"the episode is lost: {why}")

    def _on_proposal(self, received: Received) -> None:
        """What the gripper was told last: what it holds must not fall when somebody else takes over."""
        message = received.message
        lease = message.header.frame_id.partition("/")[0]
        if not lease.isdecimal() or int(lease) < self._newest_lease:
            return  # a wish of a policy that has lost its lease
        self._newest_lease = int(lease)
        if "gripper_opening" in message.name and len(message.position) == len(message.name):
            self._gripper_target = float(message.position[message.name.index("gripper_opening")])


def make_node(graph: Graph, cue: Callable[[str], None] | None = None) -> TeleopNode:
    """The node with its device opened, as the graph's parameters say.

    Raises:
        DeviceError, MappingError, RobotFileError, ContractError: something does not fit or is missing.
    """
    name = _setting(graph, "robot", "panda", "name of a robot, or path of its file")
    contract = _setting(
        graph, "policy", "", "whose features are observed: a run, checkpoint, export, store or contract; empty: all"
    )
    robot = robot_for(name, contract or None)
    if isinstance(robot, VehicleFile) and not contract:
        robot = robot.with_controller(CONTROLLER)
    chosen = _setting(graph, "device", "keyboard", f"one of {', '.join(DEVICES)}")
    settings = Settings(
        frame=_setting(graph, "frame", "", "of the device's axes: base, tool or camera; of a vehicle heading or base")
        or ("heading" if isinstance(robot, VehicleFile) else "base"),
        yaw=_setting(graph, "yaw", 0.0, "with base: how the person is turned against the robot [rad]"),
        camera=tuple(_setting(graph, "camera", [1.0, 0.0, 0.0, 0.0], "with camera: its orientation, w x y z")),
        linear_gain=_setting(graph, "linear_gain", 1.0, "of motion"),
        angular_gain=_setting(graph, "angular_gain", 1.0, "of rotation"),
        linear_speed=_setting(graph, "linear_speed", 0.5, "the fastest that the target moves [m/s]"),
        angular_speed=_setting(graph, "angular_speed", 2.0, "the fastest that the target turns [rad/s]"),
        joint_speed=_setting(graph, "joint_speed", 0.8, "of catching up with a leader arm [rad/s]"),
        dead_band=_setting(graph, "dead_band", 0.05, "of each axis, as a part of full deflection"),
        smoothing=_setting(graph, "smoothing", 0.05, "time constant of the filter [s]"),
        slow=_setting(graph, "slow", 0.25, "factor of the button for slow motion"),
        lead=_setting(graph, "lead", 0.12, "of the target ahead of the arm [m]"),
        lead_angle=_setting(graph, "lead_angle", 0.6, "of the target ahead of the arm [rad]"),
        gripper=_setting(graph, "gripper", "toggle", "its button toggles, or closes while it is held (hold)"),
    )
    mapping: Mapping | FlightMapping
    if isinstance(robot, VehicleFile):
        mapping = FlightMapping(robot.contract, settings)
    else:
        kinematics = robot.kinematics() if robot.model else None
        opening = robot.gripper.opening if robot.gripper else 0.0
        mapping = Mapping(robot.contract, kinematics, settings, opening)
    twin = _setting(graph, "twin", False, "the robot is a twin, whose scene is reset")
    seed = _setting(graph, "seed", 0, "of the twin's first scene")
    session = RecordingSession(
        episodes=_setting(graph, "episodes", 0, "wanted; 0: any number"),
        recorded=_setting(graph, "recorded", 0, "that are there already"),
        until_success=_setting(graph, "until_success", True, "only successes count"),
        countdown=_setting(graph, "countdown", 3.0, "before each recording [s]"),
        auto=_setting(graph, "auto", False, "begin the next episode by itself"),
        facts={
            "task": _setting(graph, "task", "", "of the episodes"),
            "operator": _setting(graph, "operator", "", "who moves the device"),
            "text": _setting(graph, "text", "", "instruction for the task"),
        },
        seed=seed if twin else None,
        time_limit=_setting(graph, "time_limit", 0.0, "after which an episode has failed [s]; 0: none"),
    )
    timeout = _setting(graph, "timeout", 0.3, "age of a reading at which the device is lost [s]")
    handback = _setting(graph, "handback", 0.0, "without motion, until the lease is given back [s]; 0: never")
    acts = _setting(graph, "acts", False, "a policy acts while an episode is recorded, until the person takes over")
    device = make_device(chosen, graph, robot)
    device.open()
    return TeleopNode(graph, robot, device, mapping, session, timeout, handback, twin, acts, cue)


@node_main
def main(argv: Sequence[str]) -> int:
    """Run the node until a signal ends it. Returns the exit status."""
    with open_graph("teleop", argv) as graph:
        try:
            node = make_node(graph)
        except (DeviceError, MappingError, RobotFileError, ContractError, ValueError, OSError) as error:
            for line in str(error).splitlines():
                graph.log.error("%s", line)
            return 1
        try:
            with startup_spared():
                graph.spin()
        finally:
            node.close()
            node.device.close()
    return 0


def _setting(graph: Graph, name: str, default: Any, description: str) -> Any:
    return graph.parameter(name, default, description, read_only=True).value


if __name__ == "__main__":
    sys.exit(main())
