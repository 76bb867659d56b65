"""What the Supervisor costs: processor time of one action with workspace box and self-collision, and of one tick.

    python tests/benchmarks/supervisor.py [--actions 600]

A Panda, in robosuite's model, follows waves of all its joints at 20 Hz (up to 0.6 rad/s) and is ticked at 100 Hz. With
and without the checks take turns. The last line is JSON. Bar: an action with all checks at most 0.3 ms (median).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

import numpy as np
from machine import machine

from robot_rl.datasets import Contract
from robot_rl.hardware.safety.motion_check import Check, SelfCollision, WorkspaceBox
from robot_rl.hardware.safety.proposal import Proposal
from robot_rl.hardware.safety.supervisor import Supervisor
from robot_rl.hardware.safety.supervisor_state import Observation, State
from robot_rl.sim.arm_model import load_arm_model
from robot_rl.sim.kinematics import Kinematics
from robot_rl.sim.servo import Gripper, JointLimits, Servo

PERIOD, PERIODS, TICKS = 0.002, 5, 5
TURNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=600, help="of both, in every one of five turns")
    options = parser.parse_args()
    scene = load_arm_model("lift", "panda", 20)
    model, arm = scene.model, scene.arms[0]
    names = [model.joint(joint).name for joint in arm.joints]
    base, site = model.body(arm.base).name, model.site(arm.site).name
    limits = JointLimits.from_mapping(arm.limits)
    kinematics = Kinematics(model, names, site, base, arm.home, limits.lower, limits.upper)
    checks = [WorkspaceBox(kinematics, [-0.8] * 3, [0.9] * 3), SelfCollision(model, names, base, arm.home)]
    with_checks, without = _Rig(limits, arm.home, checks), _Rig(limits, arm.home, ())
    for _ in range(TURNS):
        with_checks.run(options.actions)
        without.run(options.actions)
    ticks = np.reshape(with_checks.ticks, (-1, TICKS)).sum(1)
    result = {
        "action_ms": _percentiles(with_checks.actions),
        "action_without_checks_ms": _percentiles(without.actions),
        "tick_ms": _percentiles(with_checks.ticks),
        "control_period_ms": _percentiles(np.add(with_checks.actions, ticks)),
    }
    for name, values in result.items():
        print(f"{name:26} median {values['median']:.3f}, mean {values['mean']:.3f}, 99 % {values['p99']:.3f}")
    about = machine("mujoco", "ruckig", "numba", "numpy")
    print(json.dumps({"benchmark": "supervisor", "result": result, "machine": about}))


class _Rig:
    """A Supervisor whose arm is where it was commanded; the times of its calls [s]."""

    def __init__(self, limits: JointLimits, home: np.ndarray, checks: Sequence[Check]) -> None:
        contract = Contract.from_dict({
            "name": "panda", "rate_hz": 20, "observation": {"joint_position": {"shape": [7]}},
            "action": {"joint_position": {"shape": [7]}, "gripper_opening": {"shape": [1]}},
        })  # fmt: skip
        servo, gripper = Servo(limits, PERIOD), Gripper(0.08, 0.2, PERIOD)
        self.supervisor = Supervisor(contract, servo, home, gripper, checks, periods=PERIODS)
        self.home, self.measured, self.now, self.sequence = home, home, 0.0, 0
        self.actions: list[float] = []
        self.ticks: list[float] = []
        self._tick()
        self.supervisor.home(self.now)
        while self.supervisor.status.state is State.HOMING:
            self._tick()
        self.lease = self.supervisor.acquire("benchmark", "script", self.now)

    def run(self, actions: int) -> None:
        for _ in range(actions):
            self.sequence += 1
            wave = self.home + 0.3 * np.sin(0.1 * self.sequence + np.arange(7)) * min(1.0, self.sequence / 50)
            proposal = Proposal(self.lease.id, self.sequence, self.now, np.append(wave, 0.02))
            begin = time.process_time()
            rejected = self.supervisor.propose(proposal, self.now)
            self.supervisor.heartbeat(self.lease.id, self.now)
            self.actions.append(time.process_time() - begin)
            assert rejected is None, rejected
            self.ticks += [self._tick() for _ in range(TICKS)]

    def _tick(self) -> float:
        self.now += PERIOD * PERIODS
        begin = time.process_time()
        command, _ = self.supervisor.tick(self.now, Observation(self.now, self.measured, 0.04))
        took = time.process_time() - begin
        if command is not None:
            self.measured = command.position[-1]
        return took


def _percentiles(seconds: Sequence[float] | np.ndarray) -> dict[str, float]:
    values = 1e3 * np.asarray(seconds)
    return {"median": float(np.median(values)), "mean": float(values.mean()), "p99": float(np.quantile(values, 0.99))}


if __name__ == "__main__":
    main()
