"""A simulated SO-101 in a process of its own: `so101_process.py FOLDER NAME CALIBRATION ANGLES`.

It prints its port. A line of angles [6] rad, as JSON, moves an arm without torque as a hand would; `ask` prints torque
and goals of the servos.
"""

import json
import runpy
import sys
from pathlib import Path

from robot_rl.hardware.feetech import registers
from robot_rl.hardware.feetech.calibration import load
from robot_rl.hardware.robot_file import RobotFile

simulated = runpy.run_path(str(Path(__file__).parents[1] / "hardware" / "feetech" / "simulator.py"))


def main(folder, name, calibration, angles):
    motors = RobotFile.load("so101").driver.motors
    joints = load(Path(calibration), motors)

    def encoders(pose):
        return [float(j.ticks(a, motors[n])) + j.homing_offset for (n, j), a in zip(joints.items(), pose, strict=True)]

    servos = [
        simulated["SimulatedServo"](
            joint.id,
            encoder,
            {
                registers.HOMING_OFFSET: joint.homing_offset,
                registers.MIN_POSITION: joint.range_min,
                registers.MAX_POSITION: joint.range_max,
            },
        )
        for joint, encoder in zip(joints.values(), encoders(json.loads(angles)), strict=True)
    ]
    with simulated["Simulator"](folder, servos, name) as simulator:
        print(simulator.port, flush=True)
        for line in sys.stdin:
            if line.strip() == "ask":
                found = {"torque": [s.torque for s in servos], "goals": [s.goals for s in servos]}
                print(json.dumps(found), flush=True)
                continue
            for servo, encoder in zip(servos, encoders(json.loads(line)), strict=True):
                servo.encoder = encoder


if __name__ == "__main__":
    main(*sys.argv[1:])
