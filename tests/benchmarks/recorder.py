"""What recording costs: two cameras of 640×480×3 at 30 Hz and a robot's joint states at 100 Hz, over DDS.

    python tests/benchmarks/recorder.py [--seconds 10]

One process publishes, the `recorder` node records into a temporary folder, and what it left is counted. The processor
time is that of the recorder's process alone, between the first and the last message, as a share of one core.

The last line is JSON. Bars: nothing is lost, and at most 40 % of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from machine import machine

from robot_rl.hardware.recording.bag import Bag
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Graph, open_graph
from robot_rl.hardware.ros2.qos import Qos

JOINTS, IMAGE = "sensor_msgs/msg/JointState", "sensor_msgs/msg/Image"
RATES = {"/left/image_raw": 30.0, "/right/image_raw": 30.0, "/franka/joint_states": 100.0}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--folder", type=Path, help="where to record; default: a temporary folder")
    options = parser.parse_args()
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    os.environ["ROBOT_RL_ROS"] = "dds"
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = measure(Path(folder), options.seconds)
    print(f"sent {result['sent']}, recorded {result['recorded']}, {result['core_share']:.1%} of a core")
    print(json.dumps(result))


def measure(folder: Path, seconds: float) -> dict[str, Any]:
    """Record for some seconds; what was sent, what was recorded and what it cost."""
    contract = RobotFile.load("panda").contract.to_dict()
    for camera in ("left", "right"):
        contract["observation"][camera] = {"shape": [480, 640, 3], "dtype": "uint8", "kind": "image"}
    (folder / "contract.json").write_text(json.dumps(contract))
    parameters = {"output": folder / "bags", "policy": folder / "contract.json"}
    given = [item for key, value in parameters.items() for item in ("-p", f"{key}:={value}")]
    command = [sys.executable, "-m", "robot_rl.hardware.nodes.recorder_node", "--ros-args", *given]
    recorder = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with open_graph("benchmark") as graph:
            sent, used, took = publish(graph, psutil.Process(recorder.pid), seconds)
        recorder.send_signal(signal.SIGINT)
        recorder.wait(60)
    finally:
        recorder.kill()
        recorder.wait()
    (bag,) = (folder / "bags").iterdir()
    about = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    found = Counter(recorded.topic for recorded in Bag(bag).read())
    return {
        "seconds": round(took, 1),
        "sent": dict(sent),
        "recorded": {topic: found[topic] for topic in RATES},
        "lost": sum(sent[topic] - found[topic] for topic in RATES),
        "core_share": round(used / took, 3),
        "megabytes_per_second": round(sum(file.stat().st_size for file in bag.iterdir()) / 1e6 / took, 1),
        "messages": about["message_count"],
        "machine": machine("numpy", "imagecodecs", "cyclonedds"),
    }


def publish(graph: Graph, recorder: psutil.Process, seconds: float) -> tuple[Counter[str], float, float]:
    """Publish at the rates; how many of each, and the recorder's processor time and the time that passed [s]."""
    pixels = np.random.default_rng(0).integers(0, 256, 480 * 640 * 3, np.uint8)
    header = messages.make("std_msgs/msg/Header", stamp=messages.stamp(time.time()))
    image = messages.make(
        IMAGE, header=header, height=480, width=640, step=1920, encoding="rgb8", data=pixels
    )  # fmt: skip
    joints = messages.make(JOINTS, header=header, name=["panda_joint1"], position=[0.0])
    encoded = {topic: messages.encode(joints if "joint" in topic else image) for topic in RATES}
    publishers = {
        topic: graph.publisher(topic, JOINTS if "joint" in topic else IMAGE, Qos(depth=50)) for topic in RATES
    }
    if not graph.spin(until=lambda: all(each.matched for each in publishers.values()), timeout=60.0):
        raise SystemExit("the recorder did not subscribe within a minute")
    graph.spin(timeout=3.0)  # until it has followed the publishers' quality of service
    sent: Counter[str] = Counter()
    before, began = recorder.cpu_times(), time.perf_counter()
    while (now := time.perf_counter() - began) < seconds:
        due = [topic for topic, rate in RATES.items() if sent[topic] <= now * rate]
        for topic in due:
            publishers[topic].publish_cdr(encoded[topic])
            sent[topic] += 1
        graph.spin(timeout=0.0005 if due else 0.002)
    graph.spin(timeout=0.5)
    after, took = recorder.cpu_times(), time.perf_counter() - began
    return sent, after.user + after.system - before.user - before.system, took


if __name__ == "__main__":
    main()
