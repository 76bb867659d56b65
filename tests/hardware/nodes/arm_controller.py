"""An arm with its joint_trajectory_controller, as a process of its own on the graph: for tests of the way home.

    python arm_controller.py ROBOT_FILE ENDING

It serves FollowJointTrajectory by the three services of an action, and answers for the result when a goal has ended:
`succeeded` at the last point, `aborted` half-way; with `never` it accepts goals and does not move. What it does is
printed, a word a line.
"""

import sys

import numpy as np

from robot_rl.hardware import bindings
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.dds_graph import DdsGraph
from robot_rl.hardware.ros2.dds_services import PATIENCE, DdsService, frame, unframe

FOLLOW = "control_msgs/action/FollowJointTrajectory"
AWAY = np.array([0.3, -0.2, 0.1, 0.2, 0.1, -0.2, 0.3])
SUCCEEDED, CANCELED, ABORTED = 4, 5, 6


class LateService(DdsService):
    """A service whose requests are answered when there is something to say, as that of an action's result."""

    def __init__(self, graph, name, service_type):
        super().__init__(graph.participant, graph._loop, name, service_type, lambda request: None)
        self.waiting = []

    def _on_request(self, cdr, info):
        client, sequence, body = unframe(cdr)
        self.waiting.append((client, sequence, info.publication_handle, messages.decode(body, self._request_type)))

    def answer(self, identity, response):
        """Every request for the goal of this identity."""
        for client, sequence, writer, request in self.waiting:
            if bytes(request.goal_id.uuid) == identity:
                self._respond(frame(messages.encode(response), client, sequence), writer, PATIENCE)
        self.waiting = [entry for entry in self.waiting if bytes(entry[3].goal_id.uuid) != identity]


class Controller:
    def __init__(self, graph, robot, ending):
        self.graph, self.robot, self.ending = graph, robot, ending
        self.measured, self.goal, self.ended, self.seen = np.array(robot.home) + AWAY, None, None, set()
        self.observed = [
            (topic, graph.publisher(topic, message.__msgtype__)) for topic, message in self.observations().items()
        ]
        name = robot.commands["joint_position"].home_action
        graph.service(f"{name}/_action/send_goal", f"{FOLLOW}_SendGoal", self.accept)
        graph.service(f"{name}/_action/cancel_goal", "action_msgs/srv/CancelGoal", self.cancel)
        self.results = LateService(graph, f"{name}/_action/get_result", f"{FOLLOW}_GetResult")
        command = robot.commands["joint_position"]
        graph.subscribe(command.topic, command.type, self.command)
        graph.timer(0.01, self.step)

    def say(self, word):
        if word not in self.seen:
            self.seen.add(word)
            print(word, flush=True)

    def observations(self):
        values = {"joint_position": self.measured, "gripper_opening": np.array([0.04])}
        return bindings.encode_observations(self.robot, values, self.graph.now())

    def accept(self, request):
        self.say("accepted")
        points = request.goal.trajectory.points
        times = np.array([messages.seconds(point.time_from_start) for point in points])
        self.goal = (bytes(request.goal_id.uuid), times, np.array([point.positions for point in points]))
        self.begin = self.graph.now()
        return messages.make(f"{FOLLOW}_SendGoal_Response", accepted=True, stamp=messages.stamp(self.begin))

    def cancel(self, request):
        if self.goal is not None and bytes(request.goal_info.goal_id.uuid) == self.goal[0]:
            self.end(CANCELED)
            return messages.make("action_msgs/srv/CancelGoal_Response", goals_canceling=[request.goal_info])
        return messages.make("action_msgs/srv/CancelGoal_Response", return_code=2)

    def end(self, status, **result):
        identity, self.goal = self.goal[0], None
        self.ended = (identity, messages.make(
            f"{FOLLOW}_GetResult_Response", status=status, result=messages.make(f"{FOLLOW}_Result", **result)
        ))  # fmt: skip
        self.say({SUCCEEDED: "succeeded", CANCELED: "canceled", ABORTED: "aborted"}[status])

    def command(self, received):
        if self.goal is None:
            self.say("commanded")
            command = bindings.decode_command(self.robot, received.topic, received.message)
            self.measured = command.position[self.robot.periods - 1]

    def step(self):
        if self.goal is not None and self.ending != "never":
            _, times, rows = self.goal
            when = self.graph.now() - self.begin
            self.measured = np.array([np.interp(when, times, row) for row in rows.T])
            if self.ending == "aborted" and when > 0.5 * times[-1]:
                self.end(ABORTED, error_code=-4, error_string="path tolerance")
            elif when > times[-1]:
                self.end(SUCCEEDED)
        if self.ended is not None:
            self.results.answer(*self.ended)
        for (_, publisher), message in zip(self.observed, self.observations().values(), strict=True):
            publisher.publish(message)


if __name__ == "__main__":
    with DdsGraph("controller") as node:
        Controller(node, RobotFile.load(sys.argv[1]), sys.argv[2])
        print("ready", flush=True)
        node.spin()
