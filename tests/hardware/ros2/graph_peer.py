"""A node in a process of its own for the tests: `python graph_peer.py ROLE [arguments of ROS 2]`."""

import sys
import time

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import open_graph
from robot_rl.hardware.ros2.qos import LATCHED, SENSOR, Qos

JOINTS, IMAGE = "sensor_msgs/msg/JointState", "sensor_msgs/msg/Image"


def talker(graph):
    """Counts on three topics of unlike quality, at 50 Hz."""
    writers = {
        "reliable": graph.publisher("reliable", JOINTS),
        "best_effort": graph.publisher("best_effort", JOINTS, SENSOR),
        "deep": graph.publisher("deep", JOINTS, Qos(durability="transient_local", depth=100)),
    }
    graph.publisher("latched", JOINTS, LATCHED).publish(messages.make(JOINTS, position=[42.0]))
    count = iter(range(10**9))

    def tick():
        number = float(next(count))
        for name, writer in writers.items():
            if name != "deep" or number < 20:
                writer.publish(messages.make(JOINTS, position=[number]))

    graph.timer(0.02, tick)


def echo(graph):
    pong = graph.publisher("pong", JOINTS)
    graph.subscribe("ping", JOINTS, lambda received: pong.publish(received.message))


def camera(graph):
    """Two streams of 640×480×3 at 30 Hz, stamped and numbered."""
    writers = [graph.publisher(f"camera{index}", IMAGE) for index in range(2)]
    image = messages.make(IMAGE, height=480, width=640, encoding="rgb8", step=1920, data=bytes(640 * 480 * 3))
    count = iter(range(10**9))

    def tick():
        if all(writer.matched for writer in writers):
            image.header.frame_id = str(next(count))
            for writer in writers:
                image.header.stamp = messages.stamp(time.time())
                writer.publish(image)

    graph.timer(1 / 30, tick)


def server(graph):
    gain = graph.parameter("gain", 1.0, "what the answer says")

    def answer(request):
        return messages.make("std_srvs/srv/SetBool_Response", success=request.data, message=f"{gain.value:g}")

    graph.service("answer", "std_srvs/srv/SetBool", answer)


if __name__ == "__main__":
    with open_graph("peer", sys.argv[2:]) as node:
        {"talker": talker, "echo": echo, "camera": camera, "server": server}[sys.argv[1]](node)
        print("ready", flush=True)
        node.spin()
        node.log.info("stopped")
    print("closed", flush=True)
