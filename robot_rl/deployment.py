"""A running deployment, as a client on its graph: what the nodes say, and the cycle of one episode.

    idle -> (reset) -> home -> recording -> policy acts -> success or failure -> recording closed -> disengaged

Everything goes through topics and services, so that the nodes may as well be started by `ros2 launch` elsewhere.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from robot_rl.hardware.nodes.policy_node import STEP
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Client, Graph, Received
from robot_rl.hardware.ros2.parameters import to_message
from robot_rl.hardware.ros2.qos import LATCHED, Qos
from robot_rl.node_process import NodeProcess

LOCKSTEP_WAIT = 1.5
"""How long simulated time waits for an action; less than the twin waits for the Supervisor [wall s]."""

_GRACE = {"recorder": 60.0, "px4": 75.0}  # wall s until a node that is asked to end is killed; a vehicle lands first
_FRESH = 0.2  # s; the slowest stream of a robot has sent something
_MANY = Qos(depth=1000)
_STATUS = "diagnostic_msgs/msg/DiagnosticStatus"
_ARRAY = "diagnostic_msgs/msg/DiagnosticArray"
_TRIGGER = "std_srvs/srv/Trigger"


class DeployError(RuntimeError):
    """The deployment cannot go on; the message says what was waited for and what to do."""


class NodeDied(RuntimeError):  # noqa: N818
    """A node's process has ended; the message says how, and what it said last."""

    def __init__(self, process: NodeProcess) -> None:
        self.process = process
        super().__init__(process.ended)


class Stopped(Exception):  # noqa: N818
    """A person wants the program to end."""


@dataclass
class Attempt:
    """One episode on the robot.

    Attributes:
        seed: of the twin's scene and the policy's draws; on a robot, of the draws alone.
        success: as the twin or the person says.
        steps: control steps of the policy.
        reason: why it ended.
        limited: actions that the Supervisor could not follow in full.
        held: steps in which the policy had no action of its own.
        jitter: how late each control step began [s].
        latency: from the stamp of the newest observation to the command that follows the action [s].
        age: of the oldest observation when the action was proposed [s].
        kept: whether it counts: a person may discard it.
        metrics: what a vehicle's task measures besides.
    """

    seed: int
    success: bool = False
    steps: int = 0
    reason: str = ""
    limited: int = 0
    held: int = 0
    jitter: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    age: list[float] = field(default_factory=list)
    kept: bool = True
    metrics: Mapping[str, str] = field(default_factory=dict)

    @property
    def success_step(self) -> int | None:
        """The control step by which it succeeded, from 1."""
        return self.steps if self.success else None


class Deployment:
    """Speaks with the nodes of a deployment.

    Args:
        graph: of this program; spun by it alone.
        processes: of the nodes, in the order in which they are started.
        rate_hz: of the control steps.
        twin: whether the robot is simulated, by a twin that sets scenes and knows success.
        lockstep: whether its time is.
        records: whether there is a recorder.

    Attributes:
        begins: what the robot does when an episode is asked for, for people.
        stop_is_latched: says so, and how a person ends that.
    """

    begins = "the robot then moves home"
    stop_is_latched = "the emergency stop is latched; clear it with `ros2 service call /supervisor/clear …`"

    def __init__(
        self, graph: Graph, processes: Sequence[NodeProcess], rate_hz: float, twin: bool, lockstep: bool, records: bool
    ) -> None:
        self._graph, self._processes = graph, processes
        self._rate_hz, self._twin, self._lockstep, self._records = rate_hz, twin, lockstep, records
        self._clients: dict[str, Client] = {}
        self._supervisor: Received | None = None
        self._policy: tuple[str, str] = ("", "")
        self._task: dict[str, str] = {}
        self._twin_success = False
        self._attempt: Attempt | None = None
        self._first_tick: float | None = None
        self._proposed: dict[int, str] = {}
        self._sent: dict[str, float] = {}
        self._observed: dict[int, float] = {}
        self._command = graph.publisher("recorder/command", "std_msgs/msg/String")
        self._stop_request = graph.publisher("supervisor/emergency_stop_request", "std_msgs/msg/Bool")
        graph.subscribe("supervisor/status", _ARRAY, self._on_supervisor, LATCHED)
        graph.subscribe("supervisor/proposal", "sensor_msgs/msg/JointState", self._on_proposal, _MANY)
        graph.subscribe("policy/status", _STATUS, self._on_policy, LATCHED)
        graph.subscribe("policy/step", "std_msgs/msg/Float64MultiArray", self._on_step, _MANY)
        if twin:
            graph.subscribe("twin/success", "std_msgs/msg/Bool", self._on_success, LATCHED)

    @property
    def state(self) -> str:
        """Of the Supervisor; empty before it was heard."""
        return self._status().get("state", "")

    def start(self, timeout: float = 180.0) -> None:
        """Start all processes and wait until every node answers.

        Raises:
            NodeDied: a node has ended.
            DeployError: a node does not answer in time, or there is a second Supervisor, which might answer instead.
        """
        first = not any(process.starts for process in self._processes)
        for process in self._processes:
            if not process.running:
                process.start()
        self.wait(lambda: bool(self.state), timeout, "the Supervisor's status")
        acts = any(process.name == "policy" for process in self._processes)
        if acts:
            self.wait(lambda: bool(self._policy[0]), timeout, "the policy node")
        names = ["supervisor/home"] + ["policy/start"] * acts
        names += ["twin/reset"] * self._twin + ["recorder/stop"] * self._records
        for name in names:
            client = self._client(name)
            self.wait(functools.partial(getattr, client, "ready"), timeout, f"the service {name}")
        if first and self._supervisors() > 1:  # later a node that has died may still seem to be there
            raise DeployError(
                "this ROS 2 graph has a second Supervisor, perhaps of another robot: what is asked of one might move "
                "the other. End it, or choose another ROS_DOMAIN_ID"
            )

    def _supervisors(self) -> int:
        return sum(each.is_publisher and each.topic.endswith("/supervisor/status") for each in self._graph.endpoints())

    def restart(self, process: NodeProcess) -> None:
        """Start a process that has ended, and forget what its node said."""
        if process.name == "policy":
            self._policy = ("", "")
        elif process.name in ("supervisor", "px4"):
            self._supervisor = None
        self.start()

    def prepare(self, seed: int, home: bool = True) -> None:
        """Bring scene and robot to the start of an episode of the policy node."""
        self.call("policy/stop")
        self.bring(seed, home)
        self.set_parameter("policy", "seed", seed)

    def bring(self, seed: int, home: bool = True) -> None:
        """Bring scene and robot to the start of an episode.

        Raises:
            DeployError: the emergency stop is latched, or they do not get there.
        """
        self._check_stop()
        if self._twin or home or self.state == "held":
            self.wait(self._let_go, 15.0, "the Supervisor to let go of the robot")
        if self._twin:
            self.set_parameter("twin", "seed", seed)
            self.insist("twin/reset")
            # What was observed before is no longer so.
            reset = self._clock
            self.wait(lambda: self._clock > reset + _FRESH, 30.0, "observations after the reset")
        if self.state not in ("ready", "held"):
            # On a robot not for so long that it would move when a lost cable is plugged in.
            self.insist("supervisor/home", 15.0 if self._twin else 3.0)
        self.wait(lambda: self.state not in ("idle", "homing"), 60.0, "the robot to be home")
        if self.state != "ready":
            raise DeployError(f"the robot did not get home: {self.state} ({self._reason})")

    def run(self, seed: int, horizon: int, facts: Mapping[str, Any], verdict: Callable[[], str | None]) -> Attempt:
        """Let the policy act until it succeeds or fails.

        Args:
            horizon: control steps after which it has failed.
            facts: kept with the recording.
            verdict: of a person: `success`, `failure`, `discard` or None so far.
        """
        attempt = self._attempt = Attempt(seed)
        self._first_tick = None
        self._twin_success = False
        for known in (self._proposed, self._sent, self._observed):
            known.clear()
        limited = int(self._status().get("limited", 0))
        self.record("start", {**facts, "seed": seed})
        try:
            self._act(attempt, horizon, verdict)
        except (NodeDied, DeployError) as error:
            self._stop_policy()  # a person sets the scene next
            attempt.success, attempt.reason = False, str(error).splitlines()[0]
            self.record("failure")
            raise
        except Stopped:
            attempt.kept = False
            self.record("discard")
            raise
        finally:
            self._attempt = None
        tokens = {at: self._proposed.get(at, "") for at in self._observed}
        attempt.latency = [self._sent[t] - self._observed[at] for at, t in tokens.items() if t in self._sent]
        attempt.limited = int(self._status().get("limited", 0)) - limited
        self.record("discard" if not attempt.kept else "success" if attempt.success else "failure")
        return attempt

    def record(self, word: str, facts: Mapping[str, Any] | None = None) -> None:
        """Tell the recorder."""
        if self._records:
            text = " ".join([word, *(f"{key}={value}" for key, value in (facts or {}).items())])
            self._command.publish(messages.make("std_msgs/msg/String", data=text))

    def emergency_stop(self) -> None:
        """Stop the robot at once, until somebody clears it."""
        self._stop_request.publish(messages.make("std_msgs/msg/Bool", data=True))

    def wind_down(self) -> None:
        """Stop the policy, and all processes in an order that is safe. Never fails."""
        self._graph.spin(timeout=0.0)
        if self._stop_policy():
            self._graph.spin(until=lambda: self.state not in ("running", "intervening"), timeout=1.0)
        for name in ("policy", "replay", "supervisor", "px4", "feetech", "recorder", "camera", "twin", "px4_twin"):
            for process in self._processes:
                if process.name == name:
                    process.stop(_GRACE.get(name, 10.0))

    def call(self, name: str, timeout: float = 5.0) -> tuple[bool, str]:
        """Call a Trigger service: whether it did, and what it says."""
        return self._ask(name, _TRIGGER, messages.make(f"{_TRIGGER}_Request"), timeout, _triggered)

    def insist(self, name: str, timeout: float = 15.0) -> None:
        """Call a Trigger service until it does it; the arm may have to come to rest first.

        Raises:
            DeployError: it does not in time, or the robot is stopped meanwhile: what was asked before counts no more.
        """
        until = time.monotonic() + timeout
        while True:
            self._check_stop()
            done, message = self.call(name)
            if done:
                return
            if time.monotonic() > until:
                raise DeployError(f"{name}: {message}")
            self._pause()

    def set_parameter(self, node: str, name: str, value: Any) -> None:
        """Set a parameter of another node."""
        parameter = messages.make("rcl_interfaces/msg/Parameter", name=name, value=to_message(value))
        request = messages.make("rcl_interfaces/srv/SetParameters_Request", parameters=[parameter])
        service = f"{node}/set_parameters"
        success, reason = self._ask(service, "rcl_interfaces/srv/SetParameters", request, 5.0, _set)
        if not success:
            raise DeployError(f"parameter {name} of {node}: {reason}")

    def wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Spin until a condition holds.

        Raises:
            NodeDied, Stopped: meanwhile.
            DeployError: it does not within `timeout` wall seconds.
        """
        held = self._graph.spin(until=lambda: condition() or self._dead() is not None, timeout=timeout)
        if (dead := self._dead()) is not None:
            raise NodeDied(dead)
        if held:
            return
        if self._graph.stopped:
            raise Stopped
        raise DeployError(f"waited {timeout:g} s for {what}; the logs of the nodes say more")

    def _pause(self) -> None:
        """Let others speak before they are asked again. Raises NodeDied and Stopped."""
        with suppress(DeployError):
            self.wait(lambda: False, 0.05, "others")

    def _stop_policy(self) -> bool:
        """Have the policy act no longer, whatever else has failed; whether there is one."""
        client, done = self._client("policy/stop"), list[Any]()
        if client.ready:
            client.call(messages.make(f"{_TRIGGER}_Request"), done.append, 1.0)
            self._graph.spin(until=lambda: bool(done), timeout=1.0)
            return True
        return False

    def _check_stop(self) -> None:
        """No program undoes the stop of a robot. Raises DeployError."""
        if self.state == "stopped" and not self._twin:
            raise DeployError(self.stop_is_latched)

    def _let_go(self) -> bool:
        """Ask the Supervisor to stop commanding, which the arm has to be at rest for; whether it has."""
        self._check_stop()
        if self.state != "idle":
            self.call("supervisor/clear" if self.state == "stopped" else "supervisor/disengage")
            self._pause()
        return self.state == "idle"

    def _act(self, attempt: Attempt, horizon: int, verdict: Callable[[], str | None]) -> None:
        started, message = self.call("policy/start")
        if not started:
            attempt.reason = f"the policy does not start: {message}"
            return
        self.wait(lambda: self._policy[0] != "stopped" or bool(attempt.steps), 5.0, "the policy to start")
        said: list[str] = []

        def over() -> bool:
            word = verdict()
            if word is not None:
                said.append(word)
            return bool(said) or self._succeeded(attempt) or attempt.steps >= horizon or self._policy[0] == "stopped"

        self.wait(over, 60.0 + 4.0 * horizon / self._rate_hz, "the end of the episode")
        if said:
            attempt.success, attempt.kept, attempt.reason = (
                said[0] == "success",
                said[0] != "discard",
                "a person's word",
            )
        elif self._succeeded(attempt):
            attempt.success, attempt.reason = True, "success"
        elif attempt.steps >= horizon:
            attempt.reason = f"no success within {horizon} steps"
        else:
            attempt.reason = self._policy[1]
        attempt.metrics = dict(self._task)
        attempt.steps = int(self._task.get("steps", attempt.steps))  # a task does not count those of the hand-over
        self.call("policy/stop")

    def _succeeded(self, attempt: Attempt) -> bool:
        return attempt.steps > 0 and (self._twin_success or self._task.get("success") == "True")

    def _ask(
        self, name: str, service_type: str, request: Any, timeout: float, read: Callable[[Any], tuple[bool, str]]
    ) -> tuple[bool, str]:
        answers: list[Any] = []
        self._client(name, service_type).call(request, answers.append, timeout)
        self.wait(lambda: bool(answers), timeout + 1.0, f"an answer of {name}")
        return (False, "no answer") if answers[0] is None else read(answers[0])

    def _client(self, name: str, service_type: str = _TRIGGER) -> Client:
        if name not in self._clients:
            self._clients[name] = self._graph.client(name, service_type)
        return self._clients[name]

    def _dead(self) -> NodeProcess | None:
        return next((process for process in self._processes if process.starts and not process.running), None)

    @property
    def _clock(self) -> float:
        return 0.0 if self._supervisor is None else messages.seconds(self._supervisor.message.header.stamp)

    @property
    def _reason(self) -> str:
        return "" if self._supervisor is None else str(self._supervisor.message.status[0].message)

    def _status(self) -> dict[str, str]:
        if self._supervisor is None:
            return {}
        return {pair.key: pair.value for status in self._supervisor.message.status for pair in status.values}

    def _on_supervisor(self, received: Received) -> None:
        self._supervisor = received
        if len(self._proposed) > len(self._sent) and (followed := self._status().get("followed")):
            # In real time this ends when this process hears of it: a little too long, never too short.
            sent = messages.seconds(received.message.header.stamp) if self._lockstep else received.received
            self._sent.setdefault(followed, sent)

    def _on_proposal(self, received: Received) -> None:
        if self._attempt is not None:
            header = received.message.header
            self._proposed[_key(messages.seconds(header.stamp))] = header.frame_id

    def _on_policy(self, received: Received) -> None:
        values = {pair.key: pair.value for pair in received.message.values}
        self._policy = (values.pop("state", ""), received.message.message)
        self._task = values

    def _on_step(self, received: Received) -> None:
        step = dict(zip(STEP, received.message.data.tolist(), strict=True))
        attempt = self._attempt
        if attempt is None:
            return
        if self._first_tick is None:
            self._first_tick = step["tick"]
        attempt.steps = max(attempt.steps, 1 + round((step["tick"] - self._first_tick) * self._rate_hz))
        attempt.held += int(step["held"])
        attempt.jitter.append(step["began"] - step["tick"])
        attempt.age.append(step["proposed"] - step["oldest_stamp"])
        self._observed[_key(step["proposed"])] = step["newest_stamp"]

    def _on_success(self, received: Received) -> None:
        self._twin_success = bool(received.message.data)


def _key(time: float) -> int:
    """The same time, as it came through messages with floats and with nanoseconds."""
    return round(time * 1e5)


def _triggered(response: Any) -> tuple[bool, str]:
    return bool(response.success), str(response.message)


def _set(response: Any) -> tuple[bool, str]:
    result = response.results[0]
    return bool(result.successful), str(result.reason)


def quantiles(values: Sequence[float]) -> dict[str, float | None]:
    """`median` and `p99` in ms of times in s; None where there are none."""
    import numpy as np

    if not values:
        return {"median": None, "p99": None}
    return {key: round(1e3 * float(np.percentile(values, share)), 3) for key, share in (("median", 50), ("p99", 99))}
