"""The rehearsal compiles what the Supervisor calls, and is one that moves."""

import subprocess
import sys

import pytest

from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.safety import rehearsal
from robot_rl.hardware.safety.supervisor import Supervisor


@pytest.mark.parametrize("controller", ["servo_joint_position", "servo_ee_pose"])
@pytest.mark.parametrize("name", ["panda", "so101"])
def test_an_action_is_followed(name, controller, monkeypatch):
    robot = RobotFile.load(name)
    if controller not in robot.controllers:
        pytest.skip(f"{name} has no {controller}")
    contract = robot.contract.to_dict() | {"controller": controller}
    if controller == "servo_ee_pose":
        pose = {"shape": [9], "representation": "position_rotation_6d", "frame": "base"}
        contract["action"] = {"ee_pose": pose, "gripper_opening": contract["action"]["gripper_opening"]}
    robot = robot.for_policy(type(robot.contract).from_dict(contract))
    seen, propose = [], Supervisor.propose

    def spy(self, proposal, now):
        seen.append(propose(self, proposal, now))
        return seen[-1]

    monkeypatch.setattr(Supervisor, "propose", spy)
    rehearsal.rehearse(robot)
    assert seen == [None]


@pytest.mark.slow
def test_nothing_is_left_to_compile(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    code = """
from robot_rl.hardware.nodes.supervisor_node import SupervisorNode
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.safety.rehearsal import rehearse
from robot_rl.hardware.safety.proposal import Proposal
from robot_rl.hardware.safety.supervisor_state import Observation
from numba.core import event
import numpy as np

class Compiled(event.Listener):
    count = 0
    def on_start(self, started):
        self.count += 1
        print(started.data["dispatcher"], started.data["args"])
    def on_end(self, ended): pass

robot = RobotFile.load("panda")
rehearse(robot)
listener = Compiled()
event.register("numba:compile", listener)
core, home, now = robot.make_supervisor(), np.array(robot.home), 0.0
measured = home + 0.2
core.tick(now, Observation(now, measured, 0.0))
core.home(now)
while core.status.state != "ready":
    now += 1 / robot.tick_rate_hz
    measured = core.tick(now, Observation(now, measured, 0.0))[0].position[-1]
    core.until_rest(0.01)
lease = core.acquire("x", "policy", now)
generator = np.random.default_rng(0)
for k in range(60):
    core.heartbeat(lease.id, now)
    target = home + 0.05 * np.sin(0.3 * k) if k < 20 else home + generator.normal(0.0, 0.3, len(home))
    action = np.append(target, 0.0)
    action.flags.writeable = False
    core.propose(Proposal(lease.id, k + 1, now, action), now)
    for _ in range(round(robot.tick_rate_hz / robot.contract.rate_hz)):
        now += 1 / robot.tick_rate_hz
        measured = core.tick(now, Observation(now, measured, 0.0))[0].position[-1]
assert core.status.state == "running", core.status
assert core.status.accepted == 60, core.status
core.emergency_stop("test")
core.tick(now + 0.005, Observation(now + 0.005, home, 0.0))
print("compiled", listener.count)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert "compiled 0" in done.stdout, done.stdout + done.stderr
