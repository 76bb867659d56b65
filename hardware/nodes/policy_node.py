"""The `policy` node: runs a policy on a robot, through the Supervisor.

Services `policy/start` and `policy/stop` (std_srvs/srv/Trigger) begin and end acting. Started, it acquires the lease,
observes at every multiple of the control period, and proposes actions until it is stopped, loses the lease or its
inference fails; then it releases the lease and says why on `policy/status`. A lease that is not granted soon is asked
for no longer, so that nothing moves when a stop is cleared or a lost cable is back. With `shadow`, a person who takes
over does not stop it: it goes on deciding, which is recorded but not followed, and acts again when the person gives the
robot back. On a vehicle it also follows the `task`, and stops when that is over.

Published:

- `policy/status` (diagnostic_msgs/msg/DiagnosticStatus, latched): `stopped`, `starting`, `running` or `watching` under
  the key `state`, the reason as message; of a task that is over also `success` and the simulator's metrics;
- `policy/observation` (see `observed_row`): exactly what the policy observed, for each control step;
- `policy/step` (std_msgs/msg/Float64MultiArray): for each action, the numbers named in `STEP` as `layout.dim` labels;
- `/diagnostics`: jitter of the loop, age of observations, time of inference, seams of chunks.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from robot_rl.datasets import ContractError
from robot_rl.hardware.alignment import Alignment, StaleError
from robot_rl.hardware.inference import Inference, InferenceError
from robot_rl.hardware.nodes.command_line import node_main
from robot_rl.hardware.nodes.distribution import Distribution
from robot_rl.hardware.nodes.garbage import startup_spared
from robot_rl.hardware.observed_row import TOPIC, TYPE, encode_row
from robot_rl.hardware.policy_loop import InferenceFailed, PolicyLoop, Step
from robot_rl.hardware.px4.flight_task import FlightTask
from robot_rl.hardware.px4.vehicle_file import VehicleFile, load_robot
from robot_rl.hardware.robot_file import RobotFile, RobotFileError
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Graph, Received, open_graph
from robot_rl.hardware.ros2.qos import LATCHED, Qos
from robot_rl.hardware.safety.source import GRANT, Source

STEP = ("tick", "began", "newest_stamp", "oldest_stamp", "proposed", "held", "seam")
"""What `policy/step` holds: times on the node's clock [s]; whether the action repeats the last one; see `Step.seam`."""

PATIENCE = 0.005
"""How long a sample is awaited that should come, in real time [s]."""

LOCKSTEP_PATIENCE = 0.4
"""The same in lockstep, below what the Supervisor waits for the action [wall s]."""

_DECIDING = ("running", "watching")
_POLL = 0.005
_KEEP_ALL = Qos(depth=100)


class PolicyNode:
    """Binds a `PolicyLoop` to a graph.

    Args:
        graph: declares the parameters `seed`, `mode`, `execute`, `inference_delay` and `lockstep`.
        inference: computes the policy.
        robot: restricted to what the policy needs.
        flight: the task, on a vehicle.
    """

    def __init__(
        self, graph: Graph, inference: Inference, robot: RobotFile | VehicleFile, flight: FlightTask | None = None
    ) -> None:
        self._graph, self._contract = graph, robot.contract
        self._seed = graph.parameter("seed", 0, "of the policy's draws in the next run; raised by one with each run")
        lockstep = _setting(graph, "lockstep", False, "simulated time waits for every action (with a twin that does)")
        self._flight, alignment = flight, flight or Alignment(robot)
        self._loop = PolicyLoop(
            inference,
            alignment,
            execute=_setting(graph, "execute", 0, "actions of a chunk before the next is requested; 0: half") or None,
            mode=_setting(graph, "mode", "receding_horizon", "how chunks are executed, see the chunk runner"),
            delay=_setting(graph, "inference_delay", 0.0, "added to each inference, as of a slower computer [s]"),
            lockstep=lockstep,
        )
        self._shadow = _setting(graph, "shadow", False, "go on deciding while a person acts, and act again afterwards")
        self._patience = LOCKSTEP_PATIENCE if lockstep else PATIENCE
        self._source = Source(graph, "policy", "policy", robot.contract)
        self._observed = graph.publisher(TOPIC, TYPE, _KEEP_ALL)
        self._stepped = graph.publisher("policy/step", "std_msgs/msg/Float64MultiArray", _KEEP_ALL)
        self._status = graph.publisher("policy/status", "diagnostic_msgs/msg/DiagnosticStatus", LATCHED)
        self._diagnostics = graph.publisher("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")
        for topic, stream in alignment.topics.items():
            graph.subscribe(topic, stream.type, partial(self._take, topic), stream.qos)
        graph.service("policy/start", "std_srvs/srv/Trigger", lambda _: _answer(*self.start()))
        graph.service("policy/stop", "std_srvs/srv/Trigger", lambda _: _answer(*self.stop("asked to stop")))
        self._timer = graph.timer(1.0 / self._contract.rate_hz, self.tick)
        graph.timer(_POLL, self._poll, clock="wall")
        graph.timer(1.0, self.report, clock="wall")
        self._state, self._reason = "", ""
        self._row: Any = None
        self._began, self._began_wall, self._asked = 0.0, 0.0, 0.0
        self._stale: str | None = None
        self._jitter, self._age = Distribution("ms"), Distribution("ms")
        self._seams, self._inference = Distribution("1/s"), Distribution("ms")
        self._held = 0
        self._enter("stopped", "not started yet")

    def start(self) -> tuple[bool, str]:
        """Ask for the lease and act as soon as it is granted; whether that can be, and the message for people."""
        if self._state != "stopped":
            return True, f"is {self._state}"
        if self._loop.failure is not None:
            return False, f"no inference: {self._loop.failure}"
        self._source.acquire()
        self._asked = time.monotonic()
        self._enter("starting", "asked for the lease")
        return True, "asked for the lease"

    def stop(self, reason: str) -> tuple[bool, str]:
        """Act no longer and give the lease back."""
        if self._state != "stopped":
            self._loop.end()
            self._source.release(reason)
            self._enter("stopped", reason)
        return True, self._reason

    def tick(self) -> None:
        """A control step begins."""
        leased = self._source.lease is not None
        taken_over = self._source.state in ("ready", "intervening")
        if self._state == "running" and not leased and self._shadow and taken_over:
            self._enter("watching", f"a person acts: {self._source.reason}")
        elif self._state in ("running", "watching") and not (leased or (self._state == "watching" and taken_over)):
            self.stop(f"lost the lease: the Supervisor is {self._source.state} ({self._source.reason})")
        elif self._state in ("starting", "watching") and leased:
            self._begin()
        elif self._state == "starting" and (self._source.state == "stopped" or time.monotonic() - self._asked > GRANT):
            self.stop(f"no lease: the Supervisor is {self._source.state or 'not heard'} ({self._source.reason})")
        elif self._state == "starting" or (self._state == "watching" and self._source.state == "ready"):
            self._source.acquire()  # again, where it was granted and lost between two ticks
        elif self._state == "watching":
            self._source.release()  # so that it is not granted after a fault
        if self._state not in _DECIDING:
            return
        self._began, self._began_wall = self._graph.now(), time.monotonic()
        self._jitter.add(1e3 * (self._began - self._timer.time))
        self._run(lambda: self._loop.tick(self._timer.time))

    def advance(self) -> None:
        """Something has come; perhaps the control step can go on."""
        if self._state in _DECIDING:
            self._run(self._loop.advance)
        else:
            failed = self._loop.failure
            with suppress(InferenceFailed):
                self._loop.advance()
            if self._loop.failure != failed:
                self._say_inference()

    def report(self) -> None:
        """Publish the diagnostics of the last second."""
        for seconds in self._loop.inference_times:
            self._inference.add(1e3 * seconds)
        self._loop.inference_times.clear()
        error = self._loop.failure is not None
        level = 2 if error else 1 if self._stale else 0
        message = f"no inference: {self._loop.failure}" if error else self._stale or f"{self._state}: {self._reason}"
        values = {
            "state": self._state,
            **self._jitter.take("loop jitter"),
            **self._age.take("observation age"),
            **self._inference.take("inference time"),
            **self._seams.take("chunk seam"),
            "held": str(self._held),
        }
        status = _diagnostic(f"{self._graph.name}: control loop", level, message, values)
        header = messages.make("std_msgs/msg/Header", stamp=messages.stamp(self._graph.now()))
        self._diagnostics.publish(messages.make("diagnostic_msgs/msg/DiagnosticArray", header=header, status=[status]))

    def _begin(self) -> None:
        seed = int(self._seed.value)
        try:
            self._loop.begin(seed)
        except InferenceFailed as error:
            self.stop(f"inference failed: {error}")
            return
        if self._flight is not None:
            self._flight.begin(seed)
        self._seed.value = seed + 1
        self._held, self._row = 0, None
        self._enter("running", f"acts with seed {seed}")

    def _take(self, topic: str, sample: Received) -> None:
        with suppress(messages.MessageError):  # the observation will be missing, and that is reported
            self._loop.take(topic, sample.message, sample.received)
            if self._loop.waiting:
                self.advance()

    def _poll(self) -> None:
        overdue = time.monotonic() - self._began_wall >= self._patience
        if self._state in _DECIDING and overdue and self._loop.awaited():
            self._run(lambda: self._loop.advance(patient=False))

    def _run(self, part: Callable[[], list[Step]]) -> None:
        try:
            steps = part()
        except StaleError as error:
            if self._stale is None:
                self._graph.log.warning("no observation: %s", error)
            self._stale = f"no observation: {error}"
        except InferenceFailed as error:
            self._say_inference()
            self.stop(f"inference failed: {error}")
        else:
            for step in steps:
                self._do(step)

    def _do(self, step: Step) -> None:
        if step.row is not None:
            self._stale = None
            self._row = step.row
            self._observed.publish(encode_row(self._contract, step.time, step.row.observation, step.row.stamps))
            if self._flight is not None and (result := self._flight.result) is not None:
                self.stop("the task is done" if result["success"] else "the task is over, without success")
        if step.action is None or self._state not in _DECIDING:
            return
        if self._flight is not None:
            self._flight.act(step.action, self._source.followed)
        now = self._graph.now()
        if self._state == "watching":
            self._source.wish(step.action, now)
            return
        self._source.propose(step.action, now)
        stamps = self._row.stamps.values()
        self._age.add(1e3 * (now - min(stamps)))
        self._held += step.held
        if step.seam is not None:
            self._seams.add(step.seam)
        numbers = (
            step.time, self._began, max(stamps), min(stamps), now, float(step.held),
            math.nan if step.seam is None else step.seam,
        )  # fmt: skip
        dimensions = [messages.make("std_msgs/msg/MultiArrayDimension", label=name, size=1, stride=1) for name in STEP]
        layout = messages.make("std_msgs/msg/MultiArrayLayout", dim=dimensions)
        self._stepped.publish(messages.make("std_msgs/msg/Float64MultiArray", layout=layout, data=numbers))

    def _enter(self, state: str, reason: str) -> None:
        self._state, self._reason = state, reason
        self._graph.log.info("%s: %s", state, reason)
        result = None if self._flight is None or state != "stopped" else self._flight.result
        values = {key: str(value) for key, value in (result or {}).items()}
        self._status.publish(_diagnostic(self._graph.name, 0, reason, {"state": state, **values}))

    def _say_inference(self) -> None:
        if self._loop.failure is None:
            self._graph.log.info("inference is ready again")
        else:
            self._graph.log.error("inference failed: %s", self._loop.failure)


@node_main
def main(argv: Sequence[str]) -> int:
    """Run the node until a signal ends it. Returns the exit status."""
    with open_graph("policy", argv) as graph:
        node: list[PolicyNode] = []
        path = _setting(graph, "policy", "", "run folder, checkpoint or exported policy")
        name = _setting(graph, "robot", "panda", "name of a robot, or path of its file")
        task = _setting(graph, "task", "", "of a vehicle: drone/figure8, ...")
        horizon = _setting(graph, "horizon", 0, "control steps after which the task is over; 0: its own")
        try:
            if not path:
                raise InferenceError("parameter policy is missing: give a run folder or a checkpoint folder")
            inference = Inference(
                path,
                device=_setting(graph, "device", "cpu", "of a policy in torch: cpu or cuda"),
                threads=_setting(graph, "threads", 1, "that compute the policy"),
                guidance=_setting(graph, "guidance", 0.0, "of real-time chunking by guided inpainting; 0: none")
                or None,
                timeout=_setting(graph, "inference_timeout", 2.0, "after which a computation is taken to hang [s]"),
                wake=lambda: graph.call_soon(lambda: node[0].advance() if node else None),
            )
            try:
                robot, contract = load_robot(name), inference.policy.contract
                flight = FlightTask(robot, contract, task, horizon) if isinstance(robot, VehicleFile) else None
                node.append(PolicyNode(graph, inference, robot.for_policy(contract), flight))
                with startup_spared():
                    graph.spin()
                node[0].stop("shut down")
            finally:
                inference.close()
        except (InferenceError, ContractError, RobotFileError, ValueError) as error:
            for line in str(error).splitlines():
                graph.log.error("%s", line)
            return 1
    return 0


def _setting(graph: Graph, name: str, default: Any, description: str) -> Any:
    return graph.parameter(name, default, description, read_only=True).value


def _answer(success: bool, message: str) -> Any:
    return messages.make("std_srvs/srv/Trigger_Response", success=success, message=message)


def _diagnostic(name: str, level: int, message: str, values: dict[str, str]) -> Any:
    pairs = [messages.make("diagnostic_msgs/msg/KeyValue", key=key, value=value) for key, value in values.items()]
    return messages.make("diagnostic_msgs/msg/DiagnosticStatus", name=name, level=level, message=message, values=pairs)


if __name__ == "__main__":
    sys.exit(main())
