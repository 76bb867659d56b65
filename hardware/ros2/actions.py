"""Actions as ROS 2 builds them: a client of three hidden services. One code for both adapters.

Source: design.ros2.org, "Actions": `<name>/_action/send_goal`, `…/get_result` and `…/cancel_goal`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Client, Graph

ENDINGS = {4: "succeeded", 5: "canceled", 6: "aborted"}
"""Final values of action_msgs/msg/GoalStatus."""

ANSWER = 5.0
"""How long a server may take to accept or reject a goal [wall s]."""


class ServiceActionClient:
    """See `graph.ActionClient`."""

    def __init__(self, graph: Graph, name: str, action_type: str) -> None:
        self._type = action_type
        self._send: Client = graph.client(f"{name}/_action/send_goal", f"{action_type}_SendGoal")
        self._result: Client = graph.client(f"{name}/_action/get_result", f"{action_type}_GetResult")
        self._cancel: Client = graph.client(f"{name}/_action/cancel_goal", "action_msgs/srv/CancelGoal")
        self._goal: bytes | None = None
        self._cancelled = False

    @property
    def ready(self) -> bool:
        return self._send.ready and self._result.ready

    def send(
        self,
        goal: Any,
        done: Callable[[str, Any | None], None],
        timeout: float = 30.0,
        accepted: Callable[[], None] = lambda: None,
    ) -> None:
        identity = uuid.uuid4().bytes
        self._goal, self._cancelled = identity, False

        def finish(ending: str, result: Any | None) -> None:
            if ending == "timeout":
                self._end(identity)
            if self._goal == identity:
                self._goal = None
                done(ending, result)

        def answered(response: Any | None) -> None:
            if response is None:
                finish("timeout", None)
            elif not response.accepted:
                finish("rejected", None)
            else:
                if self._goal == identity:
                    if self._cancelled:  # the server may have heard that before it knew the goal
                        self._end(identity)
                    accepted()
                request = messages.make(f"{self._type}_GetResult_Request", goal_id=_uuid(identity))
                self._result.call(request, ended, timeout)

        def ended(response: Any | None) -> None:
            if response is None:
                finish("timeout", None)
            else:
                finish(ENDINGS.get(response.status, "aborted"), response.result)

        request = messages.make(f"{self._type}_SendGoal_Request", goal_id=_uuid(identity), goal=goal)
        self._send.call(request, answered, min(timeout, ANSWER))

    def cancel(self) -> None:
        """Ask for the end of the last goal; its `done` still says how it ended."""
        if self._goal is not None:
            self._cancelled = True
            self._end(self._goal)

    def _end(self, identity: bytes) -> None:
        info = messages.make("action_msgs/msg/GoalInfo", goal_id=_uuid(identity))
        self._cancel.call(messages.make("action_msgs/srv/CancelGoal_Request", goal_info=info), lambda response: None)


def _uuid(data: bytes) -> Any:
    return messages.make("unique_identifier_msgs/msg/UUID", uuid=data)
