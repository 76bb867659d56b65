"""A graph has one Supervisor: each looks for another one before it begins.

All of them have the same name, so that what is asked of one might move the robot of the other.
"""

from __future__ import annotations

import secrets

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Graph
from robot_rl.hardware.ros2.qos import LATCHED
from robot_rl.hardware.safety.supervisor_messages import DIAGNOSTICS, STATUS

CLAIM = "supervisor/claim"
"""Where those that are about to begin say so, each by a random number; of two the higher one begins."""

ALONE = 1.0
"""How long others are listened for [wall s]."""

_STRING = "std_msgs/msg/String"
_BEGUN = "g"  # above all hexadecimal numbers


def is_alone(graph: Graph) -> bool:
    """Whether no Supervisor speaks here, nor begins at the same time with more right; says so where one does.

    One that was killed is not heard any longer, though its endpoints may stay for a while.
    """
    own, heard = secrets.token_hex(8), [""]
    listening = [
        graph.subscribe(STATUS, DIAGNOSTICS, lambda _: heard.append(_BEGUN), LATCHED),
        graph.subscribe(CLAIM, _STRING, lambda received: heard.append(received.message.data), LATCHED),
    ]
    claim = graph.publisher(CLAIM, _STRING, LATCHED)
    claim.publish(messages.make(_STRING, data=own))
    graph.spin(until=lambda: max(heard) > own, timeout=ALONE)
    for endpoint in (*listening, claim):
        endpoint.close()
    if max(heard) <= own:
        return True
    graph.log.error("another Supervisor publishes %s: a graph has one. End that first, or use another graph", STATUS)
    return False
