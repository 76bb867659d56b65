"""The `px4_twin` node: a simulated vehicle with exactly the topics of PX4 behind its uXRCE-DDS agent.

It publishes and hears what PX4 of a `release` would under `/fmu/out` and `/fmu/in`, by the rules of `px4_twin`. With
`task` and `cameras` (`onboard:48x64`, height x width) it publishes where the vehicle's file says what the cameras on
board see: the task's scene of the parameter `seed`. Beside that, as only a simulation can, parameters that may be
changed at any time make faults: `faults` (separated by commas), `battery` (part that remains), `jump` (of the estimate,
northwards), `nav_state` (the pilot changes the mode); and `twin/status` (diagnostic_msgs/msg/DiagnosticArray, latched)
says where the vehicle really is.

With `real_time:=false` it publishes /clock, which is PX4's clock then, too, and goes in lockstep with the Supervisor
(see `twin.lockstep`); all others then run with `use_sim_time:=true`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from robot_rl.hardware.nodes.command_line import node_main
from robot_rl.hardware.nodes.garbage import startup_spared
from robot_rl.hardware.px4 import px4_messages
from robot_rl.hardware.px4.px4_twin import BOOT, RETURN, STEP, Px4Twin
from robot_rl.hardware.px4.twin_cameras import INFO, TwinCameras
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.robot_file import RobotFileError
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Graph, Parameter, Received, open_graph
from robot_rl.hardware.ros2.qos import LATCHED, RELIABLE, Qos
from robot_rl.hardware.safety.supervisor_messages import DIAGNOSTICS, STATUS, diagnostic, diagnostics, pairs
from robot_rl.hardware.twin.lockstep import Lockstep
from robot_rl.hardware.twin.topics import camera_sizes
from robot_rl.sim.drone.vehicle_model import load_vehicle
from robot_rl.sim.gl_context import RenderError
from robot_rl.sim.spec import SpecError

WRITES = Qos(reliability="best_effort", durability="transient_local", depth=5)
READS = Qos(reliability="best_effort", durability="volatile", depth=10)
"""As PX4 does."""

CLOCK_START = 1.0
"""Where simulated time begins [s]; zero would mean that there is no time yet."""

FALL_BEHIND = 0.25
"""How far the vehicle may lag behind the wall clock before that time is left out [s]."""

ALONE = 0.5
"""How long another vehicle is listened for, before the twin begins [wall s]."""

ANNOUNCE, _POLL, _REFRESH = 0.05, 0.005, 0.1  # wall s
TWIN_STATUS = "twin/status"


class Faults(NamedTuple):
    """Parameters that make faults."""

    faults: Parameter
    battery: Parameter
    jump: Parameter
    nav_state: Parameter

    @classmethod
    def declare(cls, graph: Graph) -> Faults:
        """Declare them."""
        return cls(
            graph.parameter("faults", "", f"separated by commas, of {', '.join(Px4Twin.FAULTS)}"),
            graph.parameter("battery", -1.0, "part that remains; below 0: what the flight leaves"),
            graph.parameter("jump", 0.0, "of the estimate, northwards [m]"),
            graph.parameter("nav_state", -1, "the pilot changes the mode to this; below 0: does not"),
        )


class Px4TwinNode:
    """Binds a twin to a graph.

    Args:
        versions: of the messages, by message.
        seed: of what the cameras see.
        faults: parameters, which may change.
    """

    def __init__(
        self, graph: Graph, twin: Px4Twin, robot: VehicleFile, real_time: bool, versions: Mapping[str, int],
        cameras: TwinCameras | None, seed: Parameter, faults: Faults,
    ) -> None:  # fmt: skip
        self._graph, self._twin, self._cameras, self._seed, self._faults = graph, twin, cameras, seed, faults
        self._pictures = {}
        for stream in cameras.streams.values() if cameras else ():
            self._pictures[stream.topic] = graph.publisher(stream.topic, stream.type, stream.qos)
            if stream.camera_info:
                self._pictures[stream.camera_info] = graph.publisher(stream.camera_info, INFO, RELIABLE)
        topics = px4_messages.table(versions, robot.namespace)
        self._outputs = {
            base: graph.publisher(topics[base].name, topics[base].type, WRITES) for base in px4_messages.OUTPUTS
        }
        self._status = graph.publisher(TWIN_STATUS, DIAGNOSTICS, LATCHED)
        self._told = ""
        self._piloted = -1
        for base in px4_messages.INPUTS:
            graph.subscribe(topics[base].name, topics[base].type, partial(self._receive, base), READS)
        graph.timer(_REFRESH, self._refresh, "wall")
        self._lockstep = None if real_time else Lockstep(STEP)
        self._rounds, self._announced = round(CLOCK_START / STEP), 0.0
        if self._lockstep is None:
            self._began = time.monotonic() - STEP
            graph.timer(STEP, self._keep_up, "wall")
        else:
            self._clock = graph.publisher("/clock", "rosgraph_msgs/msg/Clock")
            graph.subscribe(STATUS, DIAGNOSTICS, self._answered, LATCHED)
            graph.timer(_POLL, self._go_on, "wall")

    def _receive(self, base: str, received: Received) -> None:
        self._twin.receive(base, received.message)
        if self._lockstep is not None and base != "vehicle_visual_odometry":
            self._lockstep.command()
            self._go_on()

    def _publish(self) -> None:
        for base, message in self._twin.advance():
            self._outputs[base].publish(message)
        if self._cameras is not None:
            self._look(self._cameras)

    def _look(self, cameras: TwinCameras) -> None:
        cameras.set_scene(int(self._seed.value))
        now = self._graph.now() if self._lockstep is None else self._rounds * STEP
        for stream, picture, info in cameras.look(self._twin.true, now):
            self._pictures[stream.topic].publish(picture)
            if info is not None:
                self._pictures[stream.camera_info].publish(info)

    def _keep_up(self) -> None:
        due = time.monotonic() - self._began
        if due > FALL_BEHIND:
            self._twin.leave_out(due - STEP)
            self._began += due - STEP
            due = STEP
        for _ in range(int(due / STEP + 1e-6)):
            self._began += STEP
            self._publish()

    def _answered(self, received: Received) -> None:
        array, lockstep = received.message, self._lockstep
        assert lockstep is not None
        sent = int(next((pairs(status).get("commands", "0") for status in array.status), "0"))
        lockstep.status(messages.seconds(array.header.stamp), sent)
        self._go_on()

    def _go_on(self) -> None:
        wall, lockstep = time.monotonic(), self._lockstep
        assert lockstep is not None
        if lockstep.may_go_on(wall):
            self._rounds += 1
            self._publish()
            lockstep.begin(self._rounds * STEP, wall)
        elif wall - self._announced < ANNOUNCE:
            return
        self._announced = wall
        self._clock.publish(messages.make("rosgraph_msgs/msg/Clock", clock=messages.stamp(self._rounds * STEP)))

    def _refresh(self) -> None:
        """Take over what the parameters say, and tell how the vehicle is."""
        twin, given = self._twin, self._faults
        faults = {name.strip() for name in str(given.faults.value).split(",") if name.strip()}
        if unknown := sorted(faults - set(Px4Twin.FAULTS)):
            self._say_once(f"faults: no {', '.join(unknown)}; there are {', '.join(Px4Twin.FAULTS)}")
        if "failsafe" in faults - twin.faults:
            twin.switch(RETURN, failsafe=True)
        twin.faults = faults & set(Px4Twin.FAULTS)
        twin.battery = float(given.battery.value) if given.battery.value >= 0 else None
        twin.offset[1] = given.jump.value
        if self._piloted != (mode := int(given.nav_state.value)):
            self._piloted = mode
            if mode >= 0:
                twin.switch(mode)
        true = twin.true
        values: dict[str, Any] = {
            "armed": twin.armed, "nav_state": twin.nav_state, "failsafe": twin.failsafe, "landed": twin.landed,
            **{name: f"{number:.4f}" for name, number in zip("xyz", true.position, strict=True)},
            "speed": f"{sum(true.velocity**2) ** 0.5:.4f}", "tilt": f"{true.tilt:.4f}",
            "timeouts": 0 if self._lockstep is None else self._lockstep.timeouts,
        }  # fmt: skip
        self._status.publish(diagnostics(self._graph.now(), diagnostic("px4_twin", 0, "", values)))

    def _say_once(self, problem: str) -> None:
        if problem != self._told:
            self._told = problem
            self._graph.log.error("%s", problem)


@node_main
def main(argv: Sequence[str]) -> int:
    """Run the node until a signal ends it. Returns the exit status."""
    with open_graph("px4_twin", argv) as graph:
        name = _setting(graph, "robot", "px4", "name of a vehicle, or path of its file")
        seed = graph.parameter("seed", 0, "of the vehicle's noise, and of the scene that its cameras see")
        task = _setting(graph, "task", "", "whose scene the cameras see: drone/corridor, ...")
        cameras = _setting(graph, "cameras", "", "that see it, as onboard:48x64 (height x width); empty: none")
        release = _setting(graph, "release", "v1.17", f"of PX4: {', '.join(px4_messages.RELEASES)}")
        real_time = _setting(graph, "real_time", True, "else /clock is published, and time goes in lockstep")
        faults = Faults.declare(graph)
        graph.refuse_undeclared()
        try:
            robot = VehicleFile.load(name)
            twin = Px4Twin(load_vehicle(robot.vehicle), int(seed.value), boot=BOOT if real_time else CLOCK_START)
            versions = px4_messages.release(release)
            px4_messages.register(versions)
            eyes = TwinCameras(robot, task, camera_sizes(cameras), int(seed.value)) if cameras else None
        except (RobotFileError, SpecError, RenderError, px4_messages.Px4MessageError, messages.MessageError) as error:
            for line in str(error).splitlines():
                graph.log.error("%s", line)
            return 1
        twin.warm_up()
        if not _is_alone(graph, robot):
            return 1
        Px4TwinNode(graph, twin, robot, bool(real_time), versions, eyes, seed, faults)
        graph.log.info("simulates %s under PX4 %s", robot.vehicle, release)
        with startup_spared():
            graph.spin()
    return 0


def _is_alone(graph: Graph, robot: VehicleFile) -> bool:
    """Whether no vehicle speaks on the same topics, real or not; says so where one does: one order would fly both."""
    topic, heard = px4_messages.table(prefix=robot.namespace)["vehicle_odometry"], list[Received]()
    listening = graph.subscribe(topic.name, topic.type, heard.append, READS)
    graph.spin(until=lambda: bool(heard), timeout=ALONE)
    listening.close()
    if heard:
        graph.log.error("a vehicle publishes %s already: end it first, or use another ROS_DOMAIN_ID", topic.name)
    return not heard


def _setting(graph: Graph, name: str, default: Any, description: str) -> Any:
    return graph.parameter(name, default, description, read_only=True).value


if __name__ == "__main__":
    sys.exit(main())
