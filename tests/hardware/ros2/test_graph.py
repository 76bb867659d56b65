"""What every adapter does: one set of scenarios over DDS on loopback, and over a stand-in for rclpy."""

import logging
import os
import signal
import threading
import time

import pytest

from . import fake_rclpy

pytest.importorskip("cyclonedds")

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import GraphError, adapter, open_graph
from robot_rl.hardware.ros2.qos import LATCHED, SENSOR, Qos

JOINTS, TRIGGER = "sensor_msgs/msg/JointState", "std_srvs/srv/Trigger"


@pytest.fixture(params=["dds", "rclpy"])
def opened(request, monkeypatch, domain):
    """`open_graph` of one adapter; everything that it opens is closed."""
    if request.param == "rclpy":
        fake_rclpy.install(monkeypatch)
    monkeypatch.setenv("ROBOT_RL_ROS", request.param)
    graphs = []

    def opener(*args, **kwargs):
        graphs.append(open_graph(*args, **kwargs))
        return graphs[-1]

    yield opener
    for graph in graphs:
        graph.close()


def spin_both(first, second, until, timeout=10.0):
    end = time.monotonic() + timeout
    while not until():
        assert time.monotonic() < end, "nothing came"
        first.spin(timeout=0.01)
        second.spin(timeout=0.01)


def joints(*positions):
    return messages.make(JOINTS, name=[f"j{i}" for i in range(len(positions))], position=positions)


def test_a_message_arrives_as_it_was_sent(opened):
    talker, listener = opened("talker"), opened("listener")
    came = []
    subscription = listener.subscribe("state", JOINTS, came.append)
    publisher = talker.publisher("/state", JOINTS)
    spin_both(talker, listener, lambda: publisher.matched and subscription.matched)
    publisher.publish(joints(1.0, 2.0))
    spin_both(talker, listener, lambda: came)
    assert came[0].message.position.tolist() == [1.0, 2.0]
    assert came[0].message.name == ["j0", "j1"]
    assert (came[0].topic, came[0].message_type) == ("/state", JOINTS)
    assert came[0].cdr.startswith(messages.encode(joints(1.0, 2.0)))
    assert abs(came[0].received - time.time()) < 10
    subscription.close()
    publisher.publish_cdr(came[0].cdr)
    talker.spin(timeout=0.05)
    listener.spin(timeout=0.05)
    assert len(came) == 1


def test_names_namespaces_and_remappings(opened):
    argv = ["--ros-args", "-r", "__node:=arm", "-r", "__ns:=/left", "-r", "/left/state:=/right/state"]
    graph = opened("robot", argv)
    assert graph.name == "/left/arm"
    assert graph.publisher("state", JOINTS).topic == "/right/state"
    assert graph.publisher("~/state", JOINTS).topic == "/left/arm/state"
    assert graph.publisher("/state", JOINTS).topic == "/state"
    with pytest.raises(GraphError, match="unknown ROS argument '--bad'"):
        opened("robot", ["--ros-args", "--bad"])
    with pytest.raises(GraphError, match="-p name:=value"):
        opened("robot", ["gain=2"])


def test_parameters_are_declared_once_and_typed(opened, tmp_path):
    file = tmp_path / "parameters.yaml"
    file.write_text("/**:\n  ros__parameters:\n    rate: 5\n    names: [a, b]\n    unused: 1\n")
    argv = ["--ros-args", "--params-file", str(file), "-p", "gain:=2", "-p", "label:='7'"]
    graph = opened("robot", argv, parameters={"rate": 100.0, "limit": 3})
    assert graph.parameter("gain", 1.5, "a float").value == 2.0
    assert graph.parameter("rate", 20.0, "from the file").value == 5.0
    assert graph.parameter("limit", 1, "from the program").value == 3
    assert graph.parameter("label", "x", "stays text").value == "7"
    assert graph.parameter("names", [""], "a list").value == ["a", "b"]
    assert graph.parameter("empty", [], "an empty list").value == []
    seed = graph.parameter("seed", 4, "counted up by the node")
    seed.value += 1
    assert seed.value == 5
    with pytest.raises(GraphError, match="declared twice"):
        graph.parameter("gain", 1.0, "again")
    with pytest.raises(GraphError, match=r"label is a float like 1\.0, not a str like '7'"):
        opened("other", argv).parameter("label", 1.0, "of another type")


def test_a_parameter_that_nobody_declares_is_named(opened):
    graph = opened("robot", ["--ros-args", "-p", "gian:=2.0", "-p", "gain:=1.0", "-p", "use_sim_time:=false"])
    graph.parameter("gain", 1.5, "a float")
    with pytest.raises(GraphError, match="no parameter gian; there are gain"):
        graph.refuse_undeclared()
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    graph.log.addHandler(handler)
    graph.spin(timeout=0.0)
    graph.spin(timeout=0.0)
    assert lines == ["-p gives what this node does not declare: gian"]


def test_services_answer_late_and_early_calls(opened):
    server, client_graph = opened("server", namespace="/arm"), opened("client")
    answers = []
    client = client_graph.client("/arm/server/home", TRIGGER)
    client.call(messages.make("std_srvs/srv/Trigger_Request"), answers.append, timeout=10.0)  # before it is there
    served = []

    def home(request):
        served.append(request)
        return messages.make("std_srvs/srv/Trigger_Response", success=True, message="at home")

    server.service("~/home", TRIGGER, home)
    spin_both(server, client_graph, lambda: answers)
    assert (answers[0].success, answers[0].message) == (True, "at home")
    assert client.ready
    client_graph.client("/nobody", TRIGGER).call(
        messages.make("std_srvs/srv/Trigger_Request"), answers.append, timeout=0.05
    )
    assert client_graph.spin(lambda: len(answers) == 2, 5.0)
    assert answers[1] is None
    assert len(served) == 1


def test_an_action_is_sent_and_its_result_comes(opened):
    robot, commander = opened("robot"), opened("commander")
    kind = "control_msgs/action/GripperCommand"
    goals = []

    def accept(request):
        goals.append(request.goal.command.position)
        return messages.make(f"{kind}_SendGoal_Response", accepted=request.goal.command.position < 1)

    def result(request):
        done = messages.make(f"{kind}_Result", position=goals[-1], reached_goal=True)
        return messages.make(f"{kind}_GetResult_Response", status=4, result=done)

    robot.service("gripper/_action/send_goal", f"{kind}_SendGoal", accept)
    robot.service("gripper/_action/get_result", f"{kind}_GetResult", result)
    endings = []
    client = commander.action_client("gripper", kind)
    for position in (0.04, 2.0):
        command = messages.make("control_msgs/msg/GripperCommand", position=position)
        client.send(messages.make(f"{kind}_Goal", command=command), lambda *ending: endings.append(ending))
        count = len(endings)
        spin_both(robot, commander, lambda count=count: len(endings) > count)
    assert [ending for ending, _ in endings] == ["succeeded", "rejected"]
    assert endings[0][1].reached_goal


def test_a_goal_that_is_cancelled_before_it_is_accepted_is_cancelled_again(opened):
    robot, commander = opened("robot"), opened("commander")
    kind = "control_msgs/action/FollowJointTrajectory"
    heard, endings = [], []

    def answer(word, response):
        def handler(_):
            heard.append(word)
            return response

        return handler

    for word, service, response in (
        ("goal", f"{kind}_SendGoal", messages.make(f"{kind}_SendGoal_Response", accepted=True)),
        ("result", f"{kind}_GetResult", messages.make(f"{kind}_GetResult_Response", status=5)),
        ("cancel", "action_msgs/srv/CancelGoal", messages.make("action_msgs/srv/CancelGoal_Response")),
    ):
        name = {"goal": "send_goal", "result": "get_result", "cancel": "cancel_goal"}[word]
        robot.service(f"follow/_action/{name}", service, answer(word, response))
    client = commander.action_client("follow", kind)
    goal = messages.make(f"{kind}_Goal")
    client.send(goal, lambda ending, _: endings.append(ending), accepted=lambda: heard.append("accepted"))
    client.cancel()
    spin_both(robot, commander, lambda: bool(endings) and heard.count("cancel") == 2)
    assert endings == ["canceled"]
    assert heard.count("goal") == heard.count("accepted") == 1


def test_timers_fire_on_the_multiples_of_the_clock(opened):
    sim, node = opened("sim"), opened("node", ["--ros-args", "-p", "use_sim_time:=true"])
    fired, order = [], []
    timer = node.timer(0.05, lambda: (fired.append((timer.time, node.now())), order.append("timer")))
    node.subscribe("state", JOINTS, lambda received: order.append("state"))
    clock, state = sim.publisher("/clock", "rosgraph_msgs/msg/Clock", LATCHED), sim.publisher("state", JOINTS)
    spin_both(sim, node, lambda: clock.matched and state.matched)
    assert node.now() == 0.0
    for now in (0.05, 0.06, 0.16, 0.04):  # on time, between, late, and set back
        state.publish(joints(now))
        clock.publish(messages.make("rosgraph_msgs/msg/Clock", clock=messages.stamp(now)))
        spin_both(sim, node, lambda now=now: node.now() == now)
    assert fired == [(pytest.approx(0.05), 0.05), (pytest.approx(0.15), 0.16)]
    assert order == ["state", "timer", "state", "state", "timer", "state"]
    clock.publish(messages.make("rosgraph_msgs/msg/Clock", clock=messages.stamp(0.05)))
    spin_both(sim, node, lambda: len(fired) == 3)
    timer.cancel()
    wall = []
    node.timer(0.01, lambda: wall.append(1), clock="wall")
    assert node.spin(lambda: len(wall) > 2, 5.0)


def test_calls_and_stops_from_other_threads(opened):
    graph = opened("node")
    called = []
    threading.Timer(0.05, lambda: graph.call_soon(lambda: called.append(threading.current_thread()))).start()
    assert graph.spin(lambda: called, 5.0)
    assert called == [threading.main_thread()]
    threading.Timer(0.05, graph.stop).start()
    assert not graph.spin(timeout=5.0)
    assert graph.stopped
    assert graph.spin(lambda: True, 1.0), "winding down must be possible"


def test_signals_end_the_spin_and_are_given_back(opened):
    before = signal.getsignal(signal.SIGTERM)
    graph = opened("node")
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    begin = time.monotonic()
    assert not graph.spin(timeout=20.0)
    assert graph.stopped
    assert time.monotonic() - begin < 10.0
    graph.close()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_message_that_does_not_fit_is_dropped_and_the_node_goes_on(opened):
    talker, listener = opened("talker"), opened("listener")
    came = []

    def on_joints(received):
        if not len(received.message.position):
            messages.decode(received.cdr, "sensor_msgs/msg/Image")
        came.append(received.message)

    listener.subscribe("state", JOINTS, on_joints)
    publisher = talker.publisher("state", JOINTS)
    spin_both(talker, listener, lambda: publisher.matched)
    publisher.publish(joints())
    publisher.publish(joints(1.0))
    spin_both(talker, listener, lambda: came)
    assert len(came) == 1
    with pytest.raises(messages.MessageError, match="/state carries"):
        publisher.publish(messages.make("std_msgs/msg/Bool"))


def test_endpoints_tell_nodes_types_and_quality(opened):
    talker, listener = opened("talker"), opened("listener", namespace="/ns")
    publisher = talker.publisher("/state", JOINTS, Qos(depth=3, deadline=0.5))
    listener.subscribe("/state", JOINTS, lambda received: None, SENSOR)
    spin_both(talker, listener, lambda: publisher.matched)
    writer, reader = [endpoint for endpoint in listener.endpoints() if endpoint.topic == "/state"]
    assert (writer.node, writer.is_publisher, writer.message_type) == ("/talker", True, JOINTS)
    assert writer.qos.deadline == pytest.approx(0.5)
    assert writer.type_hash.startswith("RIHS01_")
    assert (reader.node, reader.is_publisher, reader.qos.reliability) == ("/ns/listener", False, "best_effort")


def test_logs_go_to_the_adapter(opened):
    graph = opened("node")
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(graph.log, level)("a line of %s", level)


def test_the_adapter_is_chosen_by_a_variable(monkeypatch):
    assert adapter({}) == "dds"  # rclpy is no part of the test environment
    assert adapter({"ROBOT_RL_ROS": "dds"}) == "dds"
    with pytest.raises(GraphError, match="source ROS 2"):
        adapter({"ROBOT_RL_ROS": "rclpy"})
    with pytest.raises(GraphError, match="'rclpy' or 'dds'"):
        adapter({"ROBOT_RL_ROS": "zenoh"})
    fake_rclpy.install(monkeypatch)
    assert adapter({}) == "rclpy"


def test_an_rclpy_of_another_python_gives_way_to_dds(monkeypatch, tmp_path, domain, capsys):
    """ROS 2 is sourced, but its C extension is for the system's Python and not for that of the environment."""
    package = tmp_path / "rclpy"
    package.mkdir()
    (package / "__init__.py").write_text("from rclpy import _rclpy_pybind11\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("ROBOT_RL_ROS")
    assert adapter({}) == "dds"
    with pytest.raises(GraphError, match=r"_rclpy_pybind11.*this is Python 3"):
        adapter({"ROBOT_RL_ROS": "rclpy"})
    with open_graph("node") as graph:
        assert graph.name == "/node"
    assert "DDS instead of rclpy" in capsys.readouterr().err
