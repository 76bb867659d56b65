"""Asks the Supervisor of a running launch to bring the robot home, and waits until it is ready."""

import sys

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import open_graph
from robot_rl.hardware.ros2.qos import LATCHED
from robot_rl.hardware.safety.supervisor_messages import DIAGNOSTICS, STATUS, TRIGGER, pairs

with open_graph("go_home") as graph:
    heard: list[str] = []
    answers: list[bool] = []
    graph.subscribe(STATUS, DIAGNOSTICS, lambda sample: heard.append(pairs(sample.message.status[0])["state"]), LATCHED)
    client = graph.client("supervisor/home", TRIGGER)

    def ask() -> None:
        if heard and heard[-1] in ("idle", "held") and client.ready:
            client.call(messages.make(f"{TRIGGER}_Request"), lambda answer: answers.append(answer.success))

    graph.timer(0.5, ask, "wall")
    done = graph.spin(until=lambda: bool(heard) and heard[-1] == "ready", timeout=120.0)
    print(sorted(set(heard)), answers)
    sys.exit(0 if done else 1)
