"""Rehearsal: a Supervisor that nobody listens to moves once, before the one that a robot waits for.

numba compiles functions at their first call, which takes seconds where no earlier process has kept the machine code. In
a control loop that would be a stall that the watchdogs rightly take for a fault.
"""

from __future__ import annotations

import numpy as np

from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.safety.proposal import Proposal
from robot_rl.hardware.safety.supervisor_state import Observation, State
from robot_rl.sim.rotation import quaternion_to_6d

_STEP = 0.01  # rad or m


def rehearse(robot: RobotFile) -> None:
    """Go home and follow one action near there, by a Supervisor of the robot's own file."""
    supervisor, home, now = robot.make_supervisor(), np.array(robot.home), 0.0
    period = 1.0 / robot.tick_rate_hz

    def tick() -> State:
        return supervisor.tick(now, Observation(now, home, 0.0))[1].state

    tick()
    supervisor.home(now)
    while tick() is State.HOMING:
        now += period
    lease = supervisor.acquire("rehearsal", "script", now)
    supervisor.propose(Proposal(lease.id, 1, now, _action(robot, home)), now)
    for _ in range(3):
        now += period
        tick()
    supervisor.until_rest(period)


def _action(robot: RobotFile, home: np.ndarray) -> np.ndarray:
    parts = {"joint_position": home + _STEP, "gripper_opening": np.array([_STEP])}
    if "ee_pose" in robot.contract.action:
        pose = robot.kinematics().forward(home)
        parts["ee_pose"] = np.concatenate([pose[:3] + _STEP, quaternion_to_6d(pose[3:])])
    return np.concatenate([parts[name] for name in robot.contract.action])
