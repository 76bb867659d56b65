"""Going home by FollowJointTrajectory over DDS: the controller and its action's server are another process.

Nothing here depends on how fast either process is: the watchdogs of this robot wait for minutes.
"""

import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("cyclonedds")

from robot_rl.hardware.nodes.supervisor_node import SupervisorBinding, SupervisorNode
from robot_rl.hardware.robot_file import FOLDER, RobotFile
from robot_rl.hardware.ros2 import actions, messages
from robot_rl.hardware.ros2.dds_graph import DdsGraph
from robot_rl.hardware.safety import supervisor
from robot_rl.hardware.safety.supervisor_messages import TRIGGER

pytestmark = pytest.mark.slow

PATIENCE = 120.0
CONTROLLER = Path(__file__).with_name("arm_controller.py")


class Rig:
    """The Supervisor in this process, the controller in another one; what it says is in its log."""

    def __init__(self, graph, robot, process, log):
        self.node = SupervisorNode(robot, homing="action")
        SupervisorBinding(graph, self.node)
        self.robot, self._graph, self._process, self._log = robot, graph, process, log
        self.commands, self.beside_goal = [], []
        command = robot.commands["joint_position"]
        graph.subscribe(command.topic, command.type, self._take)
        self._clients = {name: graph.client(f"supervisor/{name}", TRIGGER) for name in ("home", "emergency_stop")}

    @property
    def words(self):
        return self._log.read_text().splitlines()

    @property
    def state(self):
        return self.node.supervisor.status.state

    def _take(self, received):
        (self.beside_goal if self.state == "homing" else self.commands).append(received.message)

    def until(self, condition):
        end = time.monotonic() + PATIENCE
        while not self._graph.spin(condition, timeout=0.1):
            assert self._process.poll() is None, f"the controller has ended: {self.words}"
            assert time.monotonic() < end, f"{self.node.supervisor.status}, the controller: {self.words}"

    def call(self, name):
        answers = []
        self._clients[name].call(messages.make(f"{TRIGGER}_Request"), answers.append, timeout=PATIENCE)
        self.until(lambda: answers)
        return answers[0]

    def go_home(self):
        """Ask until all have found each other, and the arm is seen."""
        self.until(lambda: self.call("home").success)


@pytest.fixture
def started(ros_domain, tmp_path, monkeypatch):
    """Start a rig whose controller ends its goals in one way."""
    monkeypatch.setattr(supervisor, "ROUTE_PATIENCE", PATIENCE)
    monkeypatch.setattr(actions, "ANSWER", PATIENCE)
    plain = yaml.safe_load((FOLDER / "panda.yaml").read_text())
    plain |= {"command_rate_hz": 500, "tick_rate_hz": 100, "homing_speed": 1.0}
    plain["watchdog"] = dict.fromkeys(("observation", "action", "lease"), PATIENCE) | {"following_error": 3.0}
    path, log = tmp_path / "robot.yaml", tmp_path / "controller.log"
    path.write_text(yaml.safe_dump(plain))

    @contextmanager
    def start(ending):
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, str(CONTROLLER), str(path), ending], stdout=output, stderr=output
            )
        try:
            with DdsGraph("supervisor") as graph:
                yield Rig(graph, RobotFile.load(str(path)), process, log)
        finally:
            process.kill()
            process.wait()

    return start


def test_the_controller_takes_the_arm_home(started):
    with started("succeeded") as rig:
        rig.go_home()
        rig.until(lambda: rig.state != "homing")
        assert (rig.state, rig.node.supervisor.status.reason) == ("ready", "home")
        assert not rig.beside_goal
        assert rig.words[:3] == ["ready", "accepted", "succeeded"]
        rig.until(lambda: "commanded" in rig.words and rig.commands)  # from now on the Supervisor holds it there
        np.testing.assert_allclose(rig.commands[-1].points[-1].positions, rig.robot.home, atol=1e-9)


def test_a_goal_that_the_controller_aborts_holds_the_arm(started):
    with started("aborted") as rig:
        rig.go_home()
        rig.until(lambda: rig.state != "homing")
        status = rig.node.supervisor.status
        assert (status.state, status.reason) == (
            "held", "way home by the controller: goal aborted, error -4: path tolerance"
        )  # fmt: skip
        rig.until(lambda: "commanded" in rig.words)


def test_an_emergency_stop_cancels_the_goal_of_the_controller(started):
    with started("never") as rig:
        rig.go_home()
        rig.until(lambda: "accepted" in rig.words and rig.node.supervisor.route.begun)
        assert rig.call("emergency_stop").success
        assert rig.state == "stopped"
        rig.until(lambda: {"canceled", "commanded"} <= set(rig.words))
        assert rig.state == "stopped"
